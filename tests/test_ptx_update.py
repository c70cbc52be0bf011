"""Every CUDA kernel of an optimizer step has the bits of the CPU, by interpreting its PTX."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam.kernels.array import DeviceArray
from numparam.kernels.fill import Key, Span
from numparam.kernels.machine.compile import CudaKernel
from numparam.kernels.update import RULES, Words, row_sums, update, update_moments, update_rows, update_rowwise
from numparam.kernels.update.cuda import make_stochastic, make_update

pytestmark = needs_compiler

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FORMS = [
    (np.dtype(np.float32), np.dtype(np.float32), "nearest"),
    (np.dtype(np.float64), np.dtype(np.float64), "nearest"),
    (BFLOAT16, BFLOAT16, "nearest"),
    (np.dtype(np.float16), np.dtype(np.float32), "nearest"),
    (BFLOAT16, np.dtype(np.float32), "stochastic"),
    (np.dtype(np.float16), np.dtype(np.float16), "stochastic"),
    (BFLOAT16, BFLOAT16, "master"),
]
SIZE = 331
KEY = Key(7, 2**63 + 5, 0)
NUMBERS = {
    "sgd": (0.5, 0.01, 0.1),
    "momentum": (0.5, 0.01, 0.1, 0.9, 1.0),
    "nesterov": (0.5, 0.01, 0.1, 0.9, 0.7),
    "adam": (0.5, 0.01, 0.1, 0.999, 0.1, 0.999, 0.001, 0.7, 1e-8),
    "amsgrad": (0.5, 0.01, 0.1, 1.0, 0.1, 0.999, 0.001, 0.7, 1e-8),
    "adagrad": (0.5, 0.01, 0.1, 1e-10),
    "ftrl": (0.5, 0.01, 0.1, 0.05, 0.02),
    "moments": (0.5, 0.1, 0.999, 0.001),
    "lamb": (1.0, 7.0, 7e-7, 0.01, 0.1),
}


@pytest.fixture
def driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver


def arrays_for(rule: str, value: Any, gradient: Any, mode: str) -> tuple[list[Any], Any]:
    """Return weights, gradients and states with every kind of number, and what the mode needs."""
    random = np.random.default_rng(5)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-40, 1e30, 6e-8, 65504.0, -3e-5], np.float32)

    def numbers() -> np.ndarray[Any, Any]:
        scaled = random.standard_normal(SIZE) * 10.0 ** random.integers(-6, 4, SIZE)
        scaled[random.integers(0, SIZE, 40)] = random.choice(special, 40)
        return scaled

    state = np.float64 if value == np.float64 else np.float32
    with np.errstate(all="ignore"):
        states = [numbers().astype(state) if rule in ("momentum", "nesterov") else abs(numbers()).astype(state)
                  for _ in range(RULES[rule].states)]  # fmt: skip
        arrays = [numbers().astype(value), numbers().astype(gradient), *states]
        masters = numbers().astype(np.float32)
    return arrays, {"master": masters, "stochastic": Words(KEY, None)}.get(mode)


def same(found: Any, expected: Any) -> None:
    """Compare bits; of NaN no more than that it is one."""
    found, expected = found.reshape(-1), expected.reshape(-1)
    is_nan = np.isnan(expected.astype(np.float64))
    np.testing.assert_array_equal(np.isnan(found.astype(np.float64)), is_nan)
    kind = f"u{expected.itemsize}"
    np.testing.assert_array_equal(found[~is_nan].view(kind), expected[~is_nan].view(kind))


def kernel_of(rule: str, value: Any, gradient: Any, mode: str) -> CudaKernel:
    stochastic = mode == "stochastic"
    return make_stochastic(rule, value, gradient) if stochastic else make_update(rule, value, gradient, mode)


CASES = [(rule, *FORMS[0]) for rule in RULES] + [("adam", *form) for form in FORMS[1:]]


def on_device(array: np.ndarray[Any, Any], offset: int) -> DeviceArray:
    """Return a device array that begins some items after a line."""
    return DeviceArray.from_host(np.concatenate([array[:offset], array]), 0)[offset:]


def check_update(rule: str, value: Any, gradient: Any, mode: str, offset: int = 0) -> None:
    """Compare an update on the device with the same one on the CPU."""
    (w, g, *states), extra = arrays_for(rule, value, gradient, mode)
    given = [w, g, *states, *([extra] if mode == "master" else [])]
    there = [on_device(array, offset) for array in given]
    update(rule, w, g, states, NUMBERS[rule], mode, extra)
    extra = there[-1] if mode == "master" else extra
    update(rule, there[0], there[1], there[2 : 2 + len(states)], NUMBERS[rule], mode, extra)
    for found, expected in zip(there, given, strict=True):
        same(found.to_host(), expected)


@pytest.mark.parametrize("rule, value, gradient, mode", CASES, ids=str)
def test_updates_have_the_bits_of_the_cpu(
    driver: InterpretedDriver, rule: str, value: Any, gradient: Any, mode: str
) -> None:
    check_update(rule, value, gradient, mode)
    assert driver.launches == [(f"update_{rule}_{value}_{gradient}_{mode}", 0)]


@pytest.mark.parametrize(
    "shape, span",
    [((3, 23), Span(2**34 - 50, (1000, 1))), ((7, 5), Span(3, (40, 2))), ((2, 3, 40), Span(8, (4000, 60, 1)))],
)
def test_random_words_of_a_region_are_those_of_the_cpu(
    driver: InterpretedDriver, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], span: Span
) -> None:
    random, words = np.random.default_rng(3), Words(KEY, span)
    w, g = random.standard_normal(shape).astype(BFLOAT16), random.standard_normal(shape).astype(BFLOAT16)
    for limit in (2**31, 20):
        monkeypatch.setattr("numparam.kernels.formula.axes.LAUNCH_LIMIT", limit)
        there = [DeviceArray.from_host(array, 0) for array in (w, g)]
        update("sgd", there[0], there[1], [], NUMBERS["sgd"], "stochastic", words)
        update("sgd", (expected := w.copy()), g, [], NUMBERS["sgd"], "stochastic", words)
        same(there[0].to_host(), expected)
    assert len(driver.launches) > 2


@pytest.mark.parametrize("rule, value, gradient, mode", [CASES[3], CASES[-1]], ids=str)
def test_updates_of_what_does_not_begin_with_a_line(
    driver: InterpretedDriver, rule: str, value: Any, gradient: Any, mode: str
) -> None:
    check_update(rule, value, gradient, mode, offset=1)
    assert driver.launches


@pytest.mark.parametrize("rule, value, gradient, mode", CASES, ids=str)
def test_updates_load_and_store_lines(rule: str, value: Any, gradient: Any, mode: str) -> None:
    """Each array is read and written in pieces of 16 bytes, a line of the shortest one at a time."""
    lines = re.findall(r"(ld|st)\.global\.v(2\.[fbu]64|4\.[fbu]32)", kernel_of(rule, value, gradient, mode).ptx)
    group = 16 // min(value.itemsize, gradient.itemsize)
    sizes = [np.dtype(value).itemsize, *[8 if value.itemsize == 8 else 4] * RULES[rule].states]
    moments = RULES[rule].writes_states
    loads = [*sizes, gradient.itemsize] if moments else sizes
    stores = sizes if moments else sizes[:1]
    if mode == "master":
        loads, stores = [4, *loads[1:]], [4, *stores]
    for access, of in (("ld", loads), ("st", stores)):
        found, expected = [name for name, _ in lines].count(access), sum(of) * group // 16
        assert found in (expected, 2 * expected), (access, found, expected)  # twice where the compiler unrolls a loop


@pytest.mark.parametrize("length", [15, 16])
@pytest.mark.parametrize("rule", ["adam", "adagrad", "sgd"])
def test_rows_have_the_bits_of_the_cpu(driver: InterpretedDriver, rule: str, length: int) -> None:
    (w, _, *states), _ = arrays_for(rule, np.float32, np.float32, "nearest")
    table = [array[: 20 * length].reshape(20, length) for array in (w, *states)]
    rows = np.array([3, 0, 19, 7], np.int64)
    g = np.random.default_rng(1).standard_normal((4, length)).astype(np.float32)
    there = [DeviceArray.from_host(array, 0) for array in (*table, g, rows)]
    before = table[0].copy()
    update_rows(rule, table[0], rows, g, table[1:], NUMBERS[rule])
    update_rows(rule, there[0], there[-1], there[-2], there[1:-2], NUMBERS[rule])
    for found, expected in zip(there, table, strict=False):
        same(found.to_host(), expected)
    assert driver.launches
    others = np.delete(np.arange(20), rows)
    same(table[0][others], before[others])


@pytest.mark.parametrize("value, gradient", [("f4", "f4"), ("f8", "f8"), (BFLOAT16, "f2")], ids=str)
@pytest.mark.parametrize("length", [15, 4])
def test_rowwise_adagrad_has_the_bits_of_the_cpu(
    driver: InterpretedDriver, value: Any, gradient: Any, length: int
) -> None:
    random, numbers = np.random.default_rng(3), (0.5, 0.01, 0.1, 1e-8)
    w, g = random.standard_normal((22, length)).astype(value), random.standard_normal((4, length)).astype(gradient)
    totals, rows = abs(random.standard_normal(22)).astype("f8" if w.itemsize == 8 else "f4"), np.array([3, 0, 21, 7])
    decayed = 0.5 * g.astype("f8") + 0.01 * w[rows].astype("f8")
    root = np.sqrt(totals[rows] + (decayed**2).mean(1))
    expected = w[rows].astype("f8") - 0.1 * decayed / (root[:, None] + 1e-8)
    there, untouched = [DeviceArray.from_host(array, 0) for array in (w, rows, g, totals)], w[4:7].copy()
    update_rowwise(w, rows, g, totals, numbers)
    update_rowwise(there[0], there[1], there[2], there[3], numbers)
    np.testing.assert_allclose(w[rows].astype("f8"), expected, rtol=1e-2 if w.itemsize == 2 else 1e-6, atol=1e-6)
    np.testing.assert_allclose(totals[rows], root**2, rtol=1e-6)
    same(w[4:7], untouched)
    all_rows = random.standard_normal((22, length)).astype(gradient)
    update_rowwise(w, None, all_rows, totals, numbers)
    update_rowwise(there[0], None, DeviceArray.from_host(all_rows, 0), there[3], numbers)
    same(there[0].to_host(), w)
    same(there[3].to_host(), totals)
    assert driver.launches


@pytest.mark.parametrize("dtype", ["f4", "f8", BFLOAT16], ids=str)
@pytest.mark.parametrize("shape", [(1, 3), (13, 25), (40, 8)])
def test_row_sums_have_the_bits_of_the_cpu(driver: InterpretedDriver, dtype: Any, shape: tuple[int, int]) -> None:
    array = np.random.default_rng(2).standard_normal(shape).astype(dtype)
    expected = row_sums(array, shape[0])
    same(row_sums(DeviceArray.from_host(array, 0), shape[0]), expected)
    np.testing.assert_allclose(expected, (array.astype(float) ** 2).sum(1), rtol=1e-14)
    assert driver.launches


@pytest.mark.parametrize("dtype", ["f4", BFLOAT16], ids=str)
@pytest.mark.parametrize("shape", [(1, 3), (13, 25), (40, 8)])
def test_moments_have_the_bits_of_the_cpu(driver: InterpretedDriver, dtype: Any, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(2)
    w, g = (random.standard_normal(shape).astype(dtype) for _ in range(2))
    m, v = (abs(random.standard_normal(shape)).astype("f4") for _ in range(2))
    (w_, g_, m_, v_), before = (DeviceArray.from_host(array, 0) for array in (w, g, m, v)), w.copy()
    numbers = NUMBERS["moments"], NUMBERS["lamb"][:-1]
    expected = update_moments(w, g, [m, v], shape[0], *numbers)
    found = update_moments(w_, g_, [m_, v_], shape[0], *numbers)
    for one, other in ((found, expected), (w_.to_host(), before), (w, before), (m_.to_host(), m), (v_.to_host(), v)):
        same(one, other)
    _, correction, eps, decay = numbers[1]
    direction = correction * m / (np.sqrt(v) + eps) + decay * w.astype("f4")
    np.testing.assert_allclose(expected[0], (w.astype(float) ** 2).sum(1), rtol=1e-14)
    np.testing.assert_allclose(expected[1], (direction.astype(float) ** 2).sum(1), rtol=1e-5)
    assert driver.launches
