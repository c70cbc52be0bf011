"""Rounding to short formats agrees with NumPy and ml_dtypes for every number and every tie."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import reference
from compiled import call
from numparam.kernels.formula import formats

FORMULAS = {
    "float16": formats.to_float16,
    "float16 by integers": formats.encoder(5, 10, has_infinity=True),
    "bfloat16": formats.to_bfloat16,
    "float8_e5m2": formats.to_float8_e5m2,
    "float8_e4m3fn": formats.to_float8_e4m3fn,
}


def dtype_of(name: str) -> np.dtype[Any]:
    name = name.split(maxsplit=1)[0]
    return np.dtype(getattr(ml_dtypes, name, name))


def convert(name: str, values: np.ndarray) -> np.ndarray:
    dtype = dtype_of(name)
    return call(FORMULAS[name], values, result=np.uint32).astype(f"u{dtype.itemsize}").view(dtype)


def assert_rounds_like_numpy(name: str, values: np.ndarray) -> None:
    dtype = dtype_of(name)
    found = convert(name, values)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(dtype)
    numbers = ~np.isnan(expected.astype(np.float32))
    assert np.array_equal(np.isnan(found.astype(np.float32)), ~numbers)
    bits = f"u{dtype.itemsize}"
    assert np.array_equal(found.view(bits)[numbers], expected.view(bits)[numbers])


def all_numbers(name: str) -> np.ndarray:
    """Return every number of a format in ascending order, as float64."""
    dtype = dtype_of(name)
    values = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    with np.errstate(invalid="ignore"):  # some NaN are signalling ones
        values = values.astype(np.float64)
    return np.unique(values[np.isfinite(values)])


@pytest.mark.parametrize("name", FORMULAS)
def test_numbers_of_the_format_stay(name: str) -> None:
    dtype = dtype_of(name)
    values = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    assert_rounds_like_numpy(name, values.astype(np.float32))


@pytest.mark.parametrize("name", FORMULAS)
def test_ties_and_their_neighbours(name: str) -> None:
    numbers = all_numbers(name)
    ties = ((numbers[:-1] + numbers[1:]) / 2).astype(np.float32)
    beyond = np.float32(numbers[-1] + (numbers[-1] - numbers[-2]) / 2)  # from here on numbers overflow
    ties = np.concatenate([ties, [beyond, -beyond]]).astype(np.float32)
    for values in (ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))):
        assert_rounds_like_numpy(name, values)


@pytest.mark.parametrize("name", FORMULAS)
def test_any_float32(name: str) -> None:
    patterns = np.random.default_rng(1).integers(0, 2**32, 1 << 20, np.uint32)
    small = patterns & np.uint32(0x80FFFFFF) | np.uint32(0x33000000)  # about 2**-25, where float16 ends
    assert_rounds_like_numpy(name, patterns.view(np.float32))
    assert_rounds_like_numpy(name, small.view(np.float32))


@pytest.mark.parametrize("name", FORMULAS)
def test_special_values(name: str) -> None:
    tiny, largest = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    values = np.array([0, tiny, 2.0**-127, 2.0**-126, 1, largest, np.inf, np.nan], np.float32)
    not_a_number = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFC00000], np.uint32).view(np.float32)
    assert_rounds_like_numpy(name, np.concatenate([values, -values, not_a_number]))


def test_finite_bfloat16_formula_differs_for_nan_only() -> None:
    patterns = np.random.default_rng(2).integers(0, 2**32, 1 << 18, np.uint32).view(np.float32)
    finite = patterns[~np.isnan(patterns)]
    assert np.array_equal(
        call(formats.finite_to_bfloat16, finite, result=np.uint32), call(formats.to_bfloat16, finite, result=np.uint32)
    )


@pytest.mark.parametrize("name", FORMULAS)
def test_reference_rounds_like_numpy(name: str) -> None:
    """The oracle of all fills is checked too."""
    name = name.split(maxsplit=1)[0]
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 100, 500), np.ldexp(rng.normal(size=1500), rng.integers(-45, 20, 1500))])
    values = np.concatenate([values.astype(np.float32), np.array([0, np.inf, 1e30], np.float32)])
    values = np.concatenate([values, -values])
    dtype = dtype_of(name)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(dtype).view(f"u{dtype.itemsize}")
    assert [reference.stored_bits(name, float(value)) for value in values] == expected.tolist()


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "divide", "sqrt"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reference_arithmetic_is_that_of_the_processor(operation: str, dtype: Any) -> None:
    rng = np.random.default_rng(4)
    f = reference.FLOAT32 if dtype is np.float32 else reference.FLOAT64
    limits = (-140, 120) if dtype is np.float32 else (-1060, 1000)
    a = np.ldexp(rng.normal(size=1000), rng.integers(*limits, 1000)).astype(dtype)
    b = np.ldexp(rng.normal(size=1000), rng.integers(*limits, 1000)).astype(dtype)
    a[:3], b[:3] = [0, -0.0, 1], [-0.0, -0.0, -1]
    b[b == 0] = -1 if operation == "divide" else 0
    operands = (np.abs(a),) if operation == "sqrt" else (a, b)
    with np.errstate(over="ignore", under="ignore"):
        expected = getattr(np, operation)(*operands)
    found = np.array([getattr(f, operation)(*map(float, values)) for values in zip(*operands, strict=True)], dtype)
    bits = f"u{found.itemsize}"
    assert np.array_equal(found.view(bits), expected.view(bits))


def test_reference_fma_rounds_once() -> None:
    """The product 1 - 2**-46 lies so close to 1 that rounding it first would lose the difference."""
    a, b = 1 + 2.0**-23, 1 - 2.0**-23
    assert reference.FLOAT32.fma(a, b, -1.0) == -(2.0**-46)
    assert reference.FLOAT32.add(reference.FLOAT32.multiply(a, b), -1.0) == 0
