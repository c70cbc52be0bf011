"""Gather and scatter of rows by CUDA threads: the twin of `rows`."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from numparam.kernels.array import DeviceArray
from numparam.kernels.copy import duplicate
from numparam.kernels.copy.cuda_rows import WORDS, group_of, row_mover
from numparam.kernels.launch import launch
from numparam.kernels.machine.compile import CudaKernel, formula
from numparam.kernels.machine.cuda import LAUNCH_LIMIT, holds, lane, load_item, thread, threads
from numparam.kernels.machine.lanes import widened

if TYPE_CHECKING:
    from numparam.kernels.copy.walk import Array


_WORD = WORDS[8]
_SIGNATURE = (*[types.uint64] * 2, *[types.uint32] * 2, *[types.uint64] * 2)


@formula
def _identity(at: Any, indices: Any) -> Any:  # noqa: ARG001
    return widened(at)


@formula
def _look_up(at: Any, indices: Any) -> Any:
    return load_item(lane(indices) + widened(at) * 8, _WORD)


def _make_kernel(name: str, item_bytes: int, to_row: Any, from_row: Any) -> CudaKernel:
    """Make a kernel that copies row ``from_row(at, indices)`` to row ``to_row(at, indices)``."""
    move_row, step = row_mover(item_bytes), np.uint64(item_bytes)

    def move(target: Any, source: Any, rows: Any, length: Any, row_bytes: Any, indices: Any) -> None:
        at = thread(1)
        while holds(at < rows):
            to = lane(target) + to_row(at, indices) * row_bytes
            origin = lane(source) + from_row(at, indices) * row_bytes
            move_row(to, origin, lane(length), lane(step), lane(step))
            at = at + threads(1)

    return CudaKernel(f"{name}_{item_bytes}", move, _SIGNATURE)


@cache
def make_gather(item_bytes: int) -> CudaKernel:
    """Make the kernel that reads rows of items of 1, 2, 4, 8 or 16 bytes at given indices."""
    return _make_kernel("gather", item_bytes, _identity, _look_up)


@cache
def make_scatter(item_bytes: int) -> CudaKernel:
    """Make the kernel that writes rows of items of 1, 2, 4, 8 or 16 bytes at given indices."""
    return _make_kernel("scatter", item_bytes, _look_up, _identity)


def gather(target: DeviceArray, source: DeviceArray, indices: Array) -> None:
    """Write ``source[indices]`` into `target`; see `rows.gather`."""
    _move(make_gather, target, source, indices)


def scatter(target: DeviceArray, indices: Array, source: DeviceArray) -> None:
    """Write `source` into ``target[indices]``; see `rows.scatter`."""
    if source.overlaps(target):
        source = duplicate(source)
    if not (indices[1:] > indices[:-1]).all():  # rising indices, such as a mask gives, are all different
        _, last = np.unique(indices[::-1], return_index=True)
        if last.size < indices.size:  # threads have no order
            kept = np.sort(indices.size - 1 - last)
            few = DeviceArray.empty((kept.size, *source.shape[1:]), source.dtype, source.device)
            gather(few, source, kept)
            indices, source = indices[kept], few
    _move(make_scatter, target, source, indices)


def _move(make: Any, target: DeviceArray, source: DeviceArray, indices: Array) -> None:
    if not (target.is_contiguous and source.is_contiguous):
        raise ValueError("rows are moved between row-major arrays only, found other strides; copy the array first")
    row_bytes = math.prod(target.shape[1:]) * target.itemsize
    if not (row_bytes and indices.size):
        return
    table = DeviceArray.from_host(indices, target.device)
    item = math.gcd(16, target.address, source.address, row_bytes)
    for first in range(0, indices.size, LAUNCH_LIMIT):
        count = min(indices.size - first, LAUNCH_LIMIT)
        to = target.address + (first * row_bytes if make is make_gather else 0)
        origin = source.address + (first * row_bytes if make is make_scatter else 0)
        for start in range(0, row_bytes, LAUNCH_LIMIT * item):
            length = min(row_bytes - start, LAUNCH_LIMIT * item) // item
            columns = min(length, -(-length // group_of(item, item)) + 1)
            words = to + start, origin + start, count, length, row_bytes, table.address + 8 * first
            launch(target.device, make(item), columns, count, words)
