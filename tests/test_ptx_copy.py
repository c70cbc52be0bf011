"""Every CUDA kernel that copies or converts has the bits of NumPy or of the CPU, by interpreting its PTX."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam.kernels import conversion
from numparam.kernels.device_array import DeviceArray
from numparam.kernels.fill import Span
from test_ptx_fill import FLOATS

pytestmark = needs_compiler

PAIRS = list(permutations(FLOATS, 2))


@pytest.fixture
def driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver


def span_of(whole: np.ndarray[Any, Any], part: np.ndarray[Any, Any]) -> Span:
    size = whole.itemsize
    return Span((part.ctypes.data - whole.ctypes.data) // size, tuple(step // size for step in part.strides))


SLICES: list[Any] = [
    np.s_[:], np.s_[2:], np.s_[:, 5:], np.s_[:, 4:28], np.s_[:, 8:24], np.s_[::-1], np.s_[:, ::-2], np.s_[3:20:4, 1::3],
    np.s_[:, 7:8], np.s_[5:6, 3:4], np.s_[:, 0:0],
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8", "c16"])
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_slices_are_read_and_written_as_numpy_does(driver: InterpretedDriver, dtype: str, offset: int) -> None:
    random = np.random.default_rng(7)
    whole = random.integers(0, 255, (24, 32)).astype(dtype)
    for index in SLICES:
        part, span = whole[index], span_of(whole, whole[index])
        there = DeviceArray.from_host(np.concatenate([np.zeros(offset, dtype), whole.ravel()]), 0)[offset:]
        read = there.read_slice(part.shape, span)
        np.testing.assert_array_equal(read.to_host(), part)
        there.write_slice(DeviceArray.from_host(np.negative(part), 0), span)
        expected = whole.copy()
        expected[index] = np.negative(part)
        np.testing.assert_array_equal(there.to_host().reshape(whole.shape), expected)
    assert any(name == f"copy_{np.dtype(dtype).itemsize}" for name, _ in driver.launches)


def test_wide_rows_are_copied_in_lines(driver: InterpretedDriver) -> None:
    whole = np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)
    there = DeviceArray.from_host(whole, 0)
    np.testing.assert_array_equal(there.read_slice((24, 16), Span(16, (32, 1))).to_host(), whole[:, 16:])
    assert driver.launches == [("copy_16", 0)]


def test_axes_beyond_those_of_a_launch_are_split(driver: InterpretedDriver) -> None:
    whole = np.arange(4**8, dtype=np.uint16).reshape((4,) * 8)
    part = whole[::2, ::2, ::2, ::2, ::2, ::2, ::2, ::3]
    there = DeviceArray.from_host(whole.reshape(-1), 0)
    np.testing.assert_array_equal(there.read_slice(part.shape, span_of(whole, part)).to_host(), part)
    assert driver.launches == [("copy_2", 0)] * 4


def values_of(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return every value of a short dtype, and many of a long one: those around what a short one can hold too."""
    if dtype.itemsize < 4:
        return np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    random = np.random.default_rng(7)
    any_bits = random.integers(0, 2**32, 4096, np.uint32).view(np.float32)
    short = np.concatenate([values_of(kind).astype(np.float32) for kind in FLOATS if kind.itemsize == 1])
    middles = (short[:-1] + short[1:]) / 2
    near = np.concatenate([short, middles, np.nextafter(middles, np.float32(9)), np.nextafter(middles, np.float32(-9))])
    values = np.concatenate([any_bits, near])
    if dtype == np.float64:
        exact = values.astype(np.float64)
        return np.concatenate([exact, np.nextafter(exact, 9), np.nextafter(exact, -9)])
    return values


@pytest.mark.parametrize("source, target", PAIRS, ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_conversions_have_the_bits_of_the_cpu(
    driver: InterpretedDriver, source: np.dtype[Any], target: np.dtype[Any]
) -> None:
    values = values_of(source)
    expected = np.empty(values.size, target)
    conversion.convert(expected, values)
    found = DeviceArray.from_host(values, 0).astype(target).to_host()
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    words = f"u{target.itemsize}"
    np.testing.assert_array_equal(found[~nan].view(words), expected[~nan].view(words))
    assert driver.launches == [(f"convert_{source}_to_{target}", 0)]


def test_integers_are_not_converted(driver: InterpretedDriver) -> None:  # noqa: ARG001
    with pytest.raises(TypeError, match="found int32 and float32"):
        DeviceArray.from_host(np.arange(3, dtype=np.int32), 0).astype(np.dtype(np.float32))


def test_all_pairs_of_the_cpu_are_there() -> None:
    assert set(conversion._FORMATS) == set(FLOATS)
    assert ml_dtypes.bfloat16 in {dtype.type for dtype in FLOATS}
