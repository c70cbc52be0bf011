"""Every CUDA kernel that converts has the bits of the CPU, by interpreting its PTX, for all pairs of dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import permutations
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam import dtypes
from numparam.kernels import copy
from numparam.kernels.array import DeviceArray
from test_ptx_copy import same_view
from test_ptx_fill import FLOATS

pytestmark = [*needs_compiler, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

DTYPES = [dtypes.as_dtype(name) for name in dtypes.TABLE]
INTEGERS = [dtype for dtype in DTYPES if dtype.kind in "iu"]
PAIRS = list(permutations(DTYPES, 2))
TRANSPOSED = [
    tuple(map(np.dtype, pair))
    for pair in [
        (ml_dtypes.bfloat16, "f4"), ("f4", ml_dtypes.bfloat16), ("f8", "u1"), ("u1", "f8"), ("?", "c8"), ("f4", "i4")
    ]
]  # fmt: skip
"""Target and source of kernels that stand for all that exchange axes: every width of a tile, on entry and on leave."""


@pytest.fixture
def driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver


@cache
def values_of(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return every value of a short dtype, and many of a long one: those around what others can hold too."""
    if dtype.kind == "c":
        parts = values_of(np.dtype(f"f{dtype.itemsize // 2}"))[::7]
        numbers = np.empty(parts.size, dtype)
        numbers.real, numbers.imag = parts, np.roll(parts, 3)
        return numbers
    if dtype == np.bool_:
        return np.arange(100) % 3 == 0
    if dtype.itemsize <= 2:
        return np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    random = np.random.default_rng(7)
    if dtype in INTEGERS:
        near = (np.uint64(1) << np.arange(64, dtype=np.uint64)[:, None]) + np.arange(-3, 4).astype(np.uint64)
        any_bits = random.integers(0, 2**64, 2000, np.uint64) >> random.integers(0, 64, 2000).astype(np.uint64)
        numbers = np.concatenate([near.ravel(), any_bits])
        return np.concatenate([numbers, 0 - numbers]).astype(f"u{dtype.itemsize}").view(dtype)
    any_bits = random.integers(0, 2**32, 4096, np.uint32).view(np.float32)
    short = np.concatenate([values_of(kind).astype(np.float32) for kind in FLOATS if kind.itemsize == 1])
    near = np.concatenate([short, (short[:-1] + short[1:]) / 2, (2.0 ** np.arange(-3, 66)).astype(np.float32)])
    near = np.concatenate([near, -near, near + 0.5, 0.5 - near]).astype(dtype)
    up, down = np.nextafter(near, dtype.type(9)), np.nextafter(near, dtype.type(-9))
    return np.concatenate([any_bits.astype(dtype), near, up, down])


def wanted(values: np.ndarray[Any, Any], target: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return what the CPU makes of values; where C leaves it open, what x86-64 does one by one."""
    if values.dtype.kind == "c" and target.kind != "c" and target != np.bool_:
        values = values.real
    expected = np.empty(values.shape, target)
    copy.copy(expected, np.ascontiguousarray(values))
    if values.dtype in FLOATS and values.dtype.itemsize > 1 and target in INTEGERS:
        whole = np.trunc(values.astype(np.float64))
        limits = np.iinfo(target)
        open_ = ~((whole >= limits.min) & (whole < limits.max + 1.0))
        numbers = np.array([integer_of(number, target) for number in whole[open_].tolist()], object)
        expected[open_] = (numbers % 2 ** (8 * target.itemsize)).astype(f"u{target.itemsize}").view(target)
    return expected


def integer_of(number: float, target: np.dtype[Any]) -> int:
    """Return the integer, of which the target keeps the low bits, that x86-64 makes of a float that does not fit."""
    if target == np.uint64 and number >= 2**63:
        return integer_of(number - 2**63, np.dtype(np.int64)) ^ 2**63
    half = 2**63 if target.itemsize == 8 or target == np.uint32 else 2**31
    return int(number) if -half <= number < half else -half


def assert_same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Compare bits, but of NaN only that it is one."""
    assert found.dtype == expected.dtype
    if expected.dtype.kind == "c":
        part = f"f{expected.itemsize // 2}"
        found, expected = (np.ascontiguousarray(array).reshape(-1).view(part) for array in (found, expected))
    nan = np.isnan(expected) if expected.dtype in FLOATS else np.zeros(expected.shape, np.bool_)
    assert not nan.any() or np.isnan(found[nan]).all()
    words = f"u{expected.itemsize}"
    np.testing.assert_array_equal(found[~nan].view(words), expected[~nan].view(words))


@pytest.mark.parametrize("source, target", PAIRS, ids=str)
def test_conversions_have_the_bits_of_the_cpu(
    driver: InterpretedDriver,  # noqa: ARG001
    source: np.dtype[Any],
    target: np.dtype[Any],
) -> None:
    values = values_of(source)
    if source not in FLOATS or target not in FLOATS:
        values = values[:: 5 if values.size == 2**16 else 1]
    out = DeviceArray.empty(values.shape, target, 0)
    copy.copy(out, DeviceArray.from_host(values, 0))
    assert_same(out.to_host(), wanted(values, target))


@pytest.mark.parametrize(
    "source, target", [("f4", ml_dtypes.bfloat16), ("u1", "f8"), ("f8", "i1"), ("i2", "?"), ("c8", "f2"), ("f4", "c16")]
)
@pytest.mark.parametrize("start", [0, 3])
def test_any_layout(driver: InterpretedDriver, source: Any, target: Any, start: int) -> None:  # noqa: ARG001
    whole = (np.random.default_rng(2).random((5, 40, 17)) * 100).astype(source)
    flat = np.concatenate([np.zeros(start, source), whole.ravel()])
    there = DeviceArray.from_host(flat, 0)[start:]
    for view in (
        whole[:, 1:, :], whole[:, :, 5:], whole[::-2, ::3, ::-1], whole.transpose(2, 0, 1), whole[2:3, 4:5, 6:7],
        np.broadcast_to(whole[:, :1], whole.shape),
    ):  # fmt: skip
        out = DeviceArray.from_host(np.zeros(start + view.size, target), 0)
        copy.copy(out[start:].reshape(view.shape), same_view(there, whole, view))
        found = out.to_host()
        assert not found[:start].any()
        assert_same(found[start:], wanted(view, np.dtype(target)).ravel())


@pytest.mark.parametrize("target, source", TRANSPOSED, ids=str)
def test_transposed_conversions_have_the_bits_of_the_cpu(driver: InterpretedDriver, target: Any, source: Any) -> None:
    for shape, axes in [((70, 135), (1, 0)), ((64, 64), (1, 0)), ((3, 40, 9), (0, 2, 1)), ((8, 3, 33), (2, 1, 0))]:
        whole = np.resize(values_of(source), shape)
        view = whole.transpose(axes)
        out = DeviceArray.empty(view.shape, target, 0)
        copy.copy(out, DeviceArray.from_host(whole, 0).transpose(*axes))
        assert_same(out.to_host(), wanted(view, target))
    assert {name for name, _ in driver.launches} == {f"convert_transposed_{source}_to_{target}"}


def test_every_pair_has_its_kernel() -> None:
    """The pairs that share one are not linked twice, and no kernel is left out of the proof."""
    from numparam.kernels.copy import cuda_convert

    assert set(cuda_convert.DTYPES) == set(DTYPES)
    kernels = set(cuda_convert.pairs())
    complex_ = {dtype for dtype in DTYPES if dtype.kind == "c"}
    used = {cuda_convert.canonical(target, source) for source, target in PAIRS}
    assert kernels == {
        (target, source)
        for target, source in used
        if target != source and target not in complex_ and (source not in complex_ or target == np.bool_)
    }
