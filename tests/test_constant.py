"""Constant fills write every element and nothing else, through the caches and past them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from numparam.kernels.fill import constant
from numparam.kernels.fill.constant import STREAM_FROM_BYTES

VALUES: dict[str, Any] = {
    "bool": True, "int8": -7, "uint8": 250, "int16": -12345, "uint16": 54321, "int32": -123456789,
    "uint32": 4123456789, "int64": -(2**62) - 1, "uint64": 2**64 - 3, "float16": -0.1, "float32": 0.1, "float64": 1 / 3,
    "bfloat16": 3.14, "float8_e4m3fn": -0.3, "float8_e5m2": 7.0, "complex64": 1.5 - 2j, "complex128": -0.1j,
}  # fmt: skip


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def assert_filled(out: np.ndarray, value: Any) -> None:
    expected = np.asarray(value).astype(out.dtype)
    assert np.array_equal(out.reshape(-1).view(np.uint8), np.tile(expected.reshape(1).view(np.uint8), out.size))


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("beyond", [-33, -1, 0, 1, 31, 32, 33, 1000])
def test_sizes_around_the_threshold(name: str, beyond: int) -> None:
    """At every alignment that NumPy may give: the first element is moved by one item at a time."""
    dtype = dtype_of(name)
    size = STREAM_FROM_BYTES // dtype.itemsize + beyond
    buffer = np.zeros(size + 40, dtype)
    for offset in (0, 1, 3, 32 // dtype.itemsize):
        buffer[...] = np.zeros((), dtype)
        constant.fill(buffer[offset : offset + size], VALUES[name])
        assert_filled(buffer[offset : offset + size], VALUES[name])
        assert not buffer[:offset].any()
        assert not buffer[offset + size :].any()


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (2, 3, 5)])
def test_small_shapes(name: str, shape: tuple[int, ...]) -> None:
    out = np.zeros(shape, dtype_of(name))
    constant.fill(out, VALUES[name])
    assert_filled(out, VALUES[name])


@pytest.mark.parametrize("name", ["float32", "float64", "int16", "uint64"])
@pytest.mark.parametrize("shift", [1, 2, 3, 5])
def test_items_that_straddle_their_alignment(name: str, shift: int) -> None:
    """A file mapped from an odd offset gives arrays whose items lie across every boundary."""
    dtype = dtype_of(name)
    count = STREAM_FROM_BYTES // dtype.itemsize + 100
    memory = np.zeros(count * dtype.itemsize + 16, np.uint8)
    out = memory[shift : shift + count * dtype.itemsize].view(dtype)
    constant.fill(out, VALUES[name])
    assert_filled(out, VALUES[name])
    assert not memory[:shift].any()
    assert not memory[shift + out.nbytes :].any()


@pytest.mark.parametrize("name, value", [("float32", -0.0), ("float64", np.nan), ("float16", np.inf)])
def test_special_values_keep_their_bits(name: str, value: float) -> None:
    out = np.ones(STREAM_FROM_BYTES // 2, dtype_of(name))
    constant.fill(out, value)
    assert_filled(out, value)


def test_large_array_of_many_axes() -> None:
    out = np.empty((7, 1 << 10, 1 << 9), np.float32)
    constant.fill(out, 2.5)
    assert np.all(out == 2.5)
