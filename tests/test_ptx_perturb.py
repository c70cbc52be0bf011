"""Every CUDA kernel of perturbation has the bits of the CPU, by interpreting its PTX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam.kernels.array import DeviceArray
from numparam.kernels.fill import Key, Span
from numparam.kernels.perturb import Dense, LowRank, perturb, perturb_on_lattice
from numparam.kernels.perturb.cuda import make_gather, make_run

pytestmark = needs_compiler

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
KEYS = [Key(7, 2**63 + 5, 13), Key(2**64 - 1, 12, 14)]
COEFFICIENTS = [0.5, -0.25]
NORMAL, SIGNS = ("normal", (1.0, 0.0)), ("either", (np.uint32(2**31), 1.0, -1.0))
SPANS = [
    ((101,), None),
    ((5, 23), Span(2**34 - 50, (1000, 1))),
    ((2, 3, 9), Span(3, (400, 60, 3))),
]


@pytest.fixture
def driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver


def weights(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).standard_normal(shape).astype(dtype)


def bits(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.reshape(-1).view(np.uint8)


def there(array: np.ndarray[Any, Any], offset: int = 0) -> DeviceArray:
    """Return a device array `offset` items after a 256-byte address."""
    full = DeviceArray.empty((array.size + offset,), array.dtype, 0)
    part = full[offset:].reshape(array.shape)
    part.write(array)
    return part


@pytest.mark.parametrize("shape, span", SPANS, ids=str)
@pytest.mark.parametrize(
    "base, out, draw",
    [
        (np.float32, np.float32, NORMAL),
        (np.float32, BFLOAT16, NORMAL),
        (BFLOAT16, BFLOAT16, ("uniform", (2.0**-31, 0.0, -1.0, 1.0))),
        (np.float16, np.float16, SIGNS),
        (np.float64, np.float64, NORMAL),
    ],
    ids=str,
)
def test_perturbations_have_the_bits_of_the_cpu(
    driver: InterpretedDriver, shape: Any, span: Any, base: Any, out: Any, draw: Any
) -> None:
    values, noise = weights(shape, base), Dense(*draw, KEYS, span)
    expected, opposite = np.empty(shape, out), np.empty(shape, out)
    perturb(expected, values, noise, COEFFICIENTS, opposite)
    for offset in (0, 1):
        found, other = there(np.zeros(shape, out), offset), there(np.zeros(shape, out), offset)
        perturb(found, there(values, offset), noise, COEFFICIENTS, other)
        np.testing.assert_array_equal(bits(found.to_host()), bits(expected))
        np.testing.assert_array_equal(bits(other.to_host()), bits(opposite))
    form = "gather" if len(shape) == 3 else "run"
    # Both sides of a pair are written by one launch.
    assert driver.launches == [(f"perturb_{form}_{draw[0]}_{np.dtype(base)}_{np.dtype(out)}_pair", 0)] * 2
    perturb(found, there(values), noise, COEFFICIENTS)
    np.testing.assert_array_equal(bits(found.to_host()), bits(expected))
    assert driver.launches[2:] == [(f"perturb_{form}_{draw[0]}_{np.dtype(base)}_{np.dtype(out)}_plain", 0)]


@pytest.mark.parametrize("make", [make_run, make_gather])
def test_a_pair_draws_its_noise_once(make: Any) -> None:
    """As many products of Philox as for one side."""
    one, pair = (make("normal", np.dtype(np.float32), np.dtype(np.float32), mode).ptx for mode in ("plain", "pair"))
    assert one.count("mul.wide.u32") == pair.count("mul.wide.u32") >= 20
    assert one.count("sqrt.rn.f32") == pair.count("sqrt.rn.f32") >= 2
    assert pair.count("st.global") == 2 * one.count("st.global")


@pytest.mark.parametrize("base, out", [(np.float32, np.float32), (BFLOAT16, BFLOAT16), (np.float64, np.float64)])
def test_low_rank_noise_has_the_bits_of_the_cpu(driver: InterpretedDriver, base: Any, out: Any) -> None:
    wide = np.float64 if base == np.float64 else np.float32
    assert not driver.launches
    values, lefts, rights = weights((5, 37), base), weights((2, 5, 3), wide), weights((2, 3, 37), wide)
    (expected, opposite), noise = (np.empty((5, 37), out) for _ in range(2)), LowRank(lefts, rights)
    perturb(expected, values, noise, COEFFICIENTS, opposite)
    found, other, on_device = there(values), there(values), LowRank(there(lefts), there(rights))
    perturb(found, found, on_device, COEFFICIENTS, other)
    np.testing.assert_array_equal(bits(found.to_host()), bits(expected))
    np.testing.assert_array_equal(bits(other.to_host()), bits(opposite))
    perturb(found, there(values), on_device, COEFFICIENTS)
    np.testing.assert_array_equal(bits(found.to_host()), bits(expected))
    product = values.astype(np.float64)
    for left, right, coefficient in zip(lefts, rights, COEFFICIENTS, strict=True):
        product += coefficient * (left.astype(np.float64) @ right.astype(np.float64))
    np.testing.assert_allclose(expected.astype(np.float64), product, rtol=1e-2 if base == BFLOAT16 else 1e-5, atol=1e-2)


@pytest.mark.parametrize("shape, span", SPANS, ids=str)
@pytest.mark.parametrize("fault", [None, 0.3, 1e9, np.nan, -9.0])
def test_the_lattice_has_the_bits_of_the_cpu(
    driver: InterpretedDriver, shape: Any, span: Any, fault: float | None
) -> None:
    assert not driver.launches
    noise, quantum = Dense(*NORMAL, KEYS[:1], span), 8.0 / 2**24
    values = (np.round(weights(shape, np.float64) / quantum) * quantum).astype(np.float32)
    values.reshape(-1)[-3] = 0.5 if fault is None else fault
    before, found = values.copy(), there(values)
    good = perturb_on_lattice(values, noise, [0.01], 8.0)
    assert perturb_on_lattice(found, noise, [0.01], 8.0) == good == (fault is None)
    np.testing.assert_array_equal(bits(found.to_host()), bits(values))
    if good:
        assert not np.array_equal(values, before)
        assert perturb_on_lattice(values, noise, [-0.01], 8.0)
    np.testing.assert_array_equal(bits(values), bits(before))


def test_low_rank_noise_on_the_lattice_is_undone(driver: InterpretedDriver) -> None:
    assert not driver.launches
    noise = LowRank(weights((1, 4, 2), np.float32), weights((1, 2, 11), np.float32))
    values = np.zeros((4, 11), np.float32)
    found, on_device = there(values), LowRank(there(noise.lefts), there(noise.rights))
    assert perturb_on_lattice(values, noise, [0.1], 8.0)
    assert perturb_on_lattice(found, on_device, [0.1], 8.0)
    np.testing.assert_array_equal(bits(found.to_host()), bits(values))
    assert values.all()
    assert perturb_on_lattice(values, noise, [-0.1], 8.0)
    assert not values.any()


def test_what_is_too_long_for_a_launch_is_split(driver: InterpretedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numparam.kernels.formula.axes.LAUNCH_LIMIT", 50)
    for shape, span in [((333,), None), ((3, 120), Span(7, (1000, 1))), ((60, 7, 2), Span(1, (1000, 20, 3)))]:
        values, noise = weights(shape, np.float32), Dense(*NORMAL, KEYS, span)
        expected, found = np.empty(shape, np.float32), there(np.zeros(shape, np.float32))
        perturb(expected, values, noise, COEFFICIENTS)
        perturb(found, there(values), noise, COEFFICIENTS)
        np.testing.assert_array_equal(bits(found.to_host()), bits(expected))
    assert len(driver.launches) > 10
