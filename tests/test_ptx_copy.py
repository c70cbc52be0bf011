"""Every CUDA kernel that copies does what NumPy does, by interpreting its PTX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam.kernels.array import DeviceArray
from numparam.kernels.copy import copy, cuda_rows, cuda_tiles, duplicate
from numparam.kernels.rows import cuda as rows_cuda
from numparam.kernels.rows import gather, scatter
from ptx_interpreter import Launch, Memory, Module, PtxError

pytestmark = needs_compiler


@pytest.fixture
def driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver


def same_view(there: DeviceArray, whole: np.ndarray[Any, Any], part: np.ndarray[Any, Any]) -> DeviceArray:
    """Return the part of a device array that `part` is of `whole`, which begins like it."""
    start = there.address + part.ctypes.data - whole.ctypes.data
    return DeviceArray(part.shape, part.dtype, there.device, start, there, part.strides)


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
        part = whole[index]
        there = DeviceArray.from_host(np.concatenate([np.zeros(offset, dtype), whole.ravel()]), 0)[offset:]
        seen = there.reshape(whole.shape)[index]
        np.testing.assert_array_equal(duplicate(seen).to_host(), part)
        copy(seen, DeviceArray.from_host(np.negative(part), 0))
        expected = whole.copy()
        expected[index] = np.negative(part)
        np.testing.assert_array_equal(there.to_host().reshape(whole.shape), expected)
    assert any(name == f"copy_{np.dtype(dtype).itemsize}" for name, _ in driver.launches)


def test_wide_rows_are_copied_in_lines(driver: InterpretedDriver) -> None:
    whole = np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)
    there = DeviceArray.from_host(whole, 0)
    np.testing.assert_array_equal(duplicate(there[:, 16:]).to_host(), whole[:, 16:])
    assert driver.launches == [("copy_16", 0)]


def test_axes_beyond_those_of_a_launch_are_split(driver: InterpretedDriver) -> None:
    whole = np.arange(4**8, dtype=np.uint16).reshape((4,) * 8)
    part = whole[::2, ::2, ::2, ::2, ::2, ::2, ::2, ::3]
    there = DeviceArray.from_host(whole.reshape(-1), 0)
    np.testing.assert_array_equal(duplicate(same_view(there, whole, part)).to_host(), part)
    assert driver.launches == [("copy_2", 0)] * 4


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
def test_rows_that_lie_alike_or_not_on_lines_of_16_bytes(driver: InterpretedDriver, dtype: str) -> None:
    whole = np.random.default_rng(7).integers(0, 255, (7, 131)).astype(dtype)
    for start, stop, offset in [(0, 131, 0), (1, 130, 1), (3, 66, 3), (5, 6, 2), (0, 17, 1), (9, 90, 4)]:
        part, out = whole[:, start:stop], DeviceArray.from_host(np.zeros(7 * 131 + offset, dtype), 0)
        target, there = out[offset : offset + part.size].reshape(part.shape), DeviceArray.from_host(whole, 0)
        copy(target, same_view(there, whole, part))
        expected = np.zeros(7 * 131 + offset, dtype)
        expected[offset : offset + part.size] = part.ravel()
        np.testing.assert_array_equal(out.to_host(), expected)
    assert all(name.startswith("copy_") for name, _ in driver.launches)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8", "c16"])
def test_transposes(driver: InterpretedDriver, dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    for shape, arrange in [
        ((70, 135), np.transpose), ((64, 64), np.transpose), ((8, 9), np.transpose), ((200, 8), np.transpose),
        ((3, 40, 35), lambda a: a.transpose(0, 2, 1)[1:, 2:, ::-1]), ((33, 5, 40), lambda a: a.transpose(2, 1, 0)),
        ((9, 2, 2, 2, 2, 2, 2, 2, 10), lambda a: a.T),
    ]:  # fmt: skip
        whole = np.random.default_rng(7).integers(0, 255, shape).astype(dtype)
        part = arrange(whole)
        there = DeviceArray.from_host(whole, 0)
        np.testing.assert_array_equal(duplicate(same_view(there, whole, part)).to_host(), part)
    assert {name for name, _ in driver.launches} == {f"transpose_{size}" if size <= 8 else "copy_16"}
    driver.launches.clear()
    whole = np.random.default_rng(7).integers(0, 255, (70, 7)).astype(dtype)  # too few columns for tiles
    np.testing.assert_array_equal(duplicate(DeviceArray.from_host(whole, 0).transpose()).to_host(), whole.T)
    assert driver.launches == [(f"copy_{size}", 0)]


def transpose_by(code: str, size: int) -> None:
    """Run a kernel on four tiles, which one block takes in turn, and compare with NumPy."""
    side = 2 * cuda_tiles.side_of(size)
    whole, out = np.arange(side * side).astype(f"u{size}").reshape(side, side), np.zeros((side, side), f"u{size}")
    axes = [1] * 5 + [0] * 5
    arguments = (out.ctypes.data, whole.ctypes.data, 4, side, side, *axes, side * size, *axes, side * size)
    Module(code).run(Launch((1, 1), (32, 8)), arguments, Memory(out, whole))
    np.testing.assert_array_equal(out, whole.T)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_transpose_without_its_barriers_or_padding_is_seen(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ptx = cuda_tiles.make_transpose(size).ptx
    transpose_by(ptx, size)
    first, second = (match.start() for match in re.finditer(r"bar\.sync", ptx))
    for at, message in ((first, "before it is written|without a barrier"), (second, "without a barrier")):
        with pytest.raises(PtxError, match=message):
            transpose_by(ptx[:at] + "//" + ptx[at:], size)
    monkeypatch.setattr(cuda_tiles, "padding_of", lambda size: 0)  # noqa: ARG005
    with pytest.raises(PtxError, match="words of one bank are met at once"):
        transpose_by(cuda_tiles.make_transpose.__wrapped__(size)._compile(), size)


@pytest.mark.parametrize("row", [1, 2, 3, 8, 12, 16, 40])
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_rows_are_gathered_and_scattered(driver: InterpretedDriver, dtype: str, row: int) -> None:
    whole = np.random.default_rng(7).integers(0, 255, (30, row)).astype(dtype)
    there = DeviceArray.from_host(whole, 0)
    rows = np.array([3, 29, 0, 3, 7, 29, 11])
    part = DeviceArray.empty((rows.size, row), whole.dtype, 0)
    gather(part, there, rows)
    np.testing.assert_array_equal(part.to_host(), whole[rows])
    values = np.negative(whole[: rows.size])
    scatter(there, rows, DeviceArray.from_host(values, 0))
    for at, value in zip(rows, values, strict=True):  # the last one stays
        whole[at] = value
    np.testing.assert_array_equal(there.to_host(), whole)
    item = math.gcd(16, row * whole.itemsize)
    assert {name for name, _ in driver.launches} == {f"gather_{item}", f"scatter_{item}"}


@pytest.mark.parametrize("limit", [32, 100])
def test_what_is_too_long_for_a_launch_is_split(
    driver: InterpretedDriver, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    for module in (cuda_rows, cuda_tiles, rows_cuda):
        monkeypatch.setattr(module, "LAUNCH_LIMIT", limit)
    whole = np.random.default_rng(7).integers(0, 255, (130, 150)).astype(np.uint16)
    there, rows = DeviceArray.from_host(whole, 0), np.random.default_rng(7).permutation(130)

    def read(part: np.ndarray[Any, Any], launches: int) -> None:
        driver.launches.clear()
        found = duplicate(same_view(there, whole, part)).to_host()
        np.testing.assert_array_equal(found, part)
        assert len(driver.launches) == launches

    pieces, column_pieces = -(-130 // limit), -(-149 // limit)
    read(whole[:, 1:], pieces * column_pieces)
    read(whole[::2, ::3], -(-65 // limit) * -(-50 // limit))
    read(whole.T, pieces * -(-150 // limit))
    driver.launches.clear()
    part = DeviceArray.empty(whole.shape, whole.dtype, 0)
    gather(part, there, rows)
    np.testing.assert_array_equal(part.to_host(), whole[rows])
    scatter(there, rows, DeviceArray.from_host(whole, 0))
    np.testing.assert_array_equal(there.to_host()[rows], whole)
    assert len(driver.launches) == 2 * pieces * -(-75 // limit)


def test_rows_beyond_32_bits() -> None:
    """The memory that is not touched takes none."""
    far = np.zeros(5 * 2**30, np.uint8)
    far[:40], far[-40:] = np.arange(40), np.arange(100, 140)
    out, step, axes = np.zeros((2, 40), np.uint8), far.size - 40, ([1] * 4 + [2], [0] * 4)
    arguments = (out.ctypes.data, far.ctypes.data, 2, 40, *axes[0], *axes[1], 40, 1, *axes[0], *axes[1], step, 1)
    Module(cuda_rows.make_copy(1).ptx).run(Launch((1, 1), (2, 2)), arguments, Memory(out, far))
    np.testing.assert_array_equal(out, [np.arange(40), np.arange(100, 140)])
    picked, rows = np.zeros((2, 10), np.uint32), np.array([step // 40, 0])
    arguments = (picked.ctypes.data, far.ctypes.data, 2, 10, 40, rows.ctypes.data)
    Module(rows_cuda.make_gather(4).ptx).run(Launch((1, 1), (2, 2)), arguments, Memory(picked, far, rows))
    assert picked.view(np.uint8)[1, :40].tolist() == list(range(40))
    np.testing.assert_array_equal(picked[0].view(np.uint8), far[step // 40 * 40 :][:40])


def test_what_is_copied_into_itself_is_read_first(driver: InterpretedDriver) -> None:  # noqa: ARG001
    values = np.arange(60, dtype=np.float32).reshape(5, 12)
    there = DeviceArray.from_host(values, 0)
    copy(there[::-1], there)
    np.testing.assert_array_equal(there.to_host(), values[::-1])
    scatter(there, np.array([1, 2, 3, 4, 0]), there)
    np.testing.assert_array_equal(there.to_host(), values[[0, 4, 3, 2, 1]])


def test_a_source_is_broadcast(driver: InterpretedDriver) -> None:  # noqa: ARG001
    for shape in [(), (1,), (7,), (3, 1), (1, 7), (3, 7)]:
        values = np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
        there = DeviceArray.from_host(np.zeros((3, 9), np.float64), 0)
        copy(there[:, 1:8], DeviceArray.from_host(values, 0))
        expected = np.zeros((3, 9))
        expected[:, 1:8] = values
        np.testing.assert_array_equal(there.to_host(), expected)
    for shape in [(2,), (2, 3, 7), (3, 2), (7, 3)]:
        with pytest.raises(ValueError, match="cannot be broadcast"):
            copy(there[:, 1:8], DeviceArray.empty(shape, np.dtype("f4"), 0))
