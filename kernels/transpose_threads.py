"""Copies by CUDA threads with two axes exchanged: consecutive along one in the source, along the other in the target.

A block reads a square tile along the source's lines into memory that its threads share, and writes it along the
target's. The lines of a tile are one bank of that memory apart more than their length, so that the threads of a warp
meet 32 different banks along both axes.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from numba import types

from numparam.kernels import _launch
from numparam.kernels._compile import CudaKernel, formula
from numparam.kernels._cuda import (
    block,
    blocks,
    holds,
    lane,
    load_item,
    load_shared,
    place,
    shared,
    store_item,
    store_shared,
    wait_for_block,
)
from numparam.kernels.copy_threads import OUTER, WORDS, padded
from numparam.kernels.fill_threads import MAX_OUTER_AXES, locate

if TYPE_CHECKING:
    from numparam.kernels.copy import Walk

ACROSS, DOWN = 32, 8
"""Threads of a block along the lines of a tile, and lines that they take at a time."""

_BANK = 4


def side_of(item_bytes: int) -> int:
    """Return how many lines and columns a tile has: short items take more, for lines of 64 bytes or more."""
    return 2 * ACROSS if item_bytes < 4 else ACROSS


def padding_of(item_bytes: int) -> int:
    """Return how many bytes of nothing follow a line: those of one bank, or of one item."""
    return max(item_bytes, _BANK)


def _walker(move: Any, side: int) -> Any:
    """Make the formula that calls ``move(tile, address, step, line, place)`` for this thread's share of a tile."""

    @formula
    def walk(tile: Any, address: Any, step: Any, lines: Any, length: Any) -> None:
        if holds((lines >= side) & (length >= side)):  # without conditions, so that all loads are on their way at once
            for down in range(0, side, DOWN):
                for across in range(0, side, ACROSS):
                    move(tile, address, step, place(1) + down, place(0) + across)
        else:
            for down in range(0, side, DOWN):
                for across in range(0, side, ACROSS):
                    line, at = place(1) + down, place(0) + across
                    if holds((line < lines) & (at < length)):
                        move(tile, address, step, line, at)

    return walk


@cache
def make_transpose(item_bytes: int) -> CudaKernel:
    """Make the kernel for items of 1, 2, 4 or 8 bytes."""
    side, item = side_of(item_bytes), WORDS[item_bytes]
    pitch = side * item_bytes + padding_of(item_bytes)
    reserve = shared(side * pitch)

    @formula
    def read(tile: Any, address: Any, step: Any, line: Any, at: Any) -> None:
        value = load_item(address + line * step + at * item_bytes, item)
        store_shared(tile + line * pitch + at * item_bytes, value, item)

    @formula
    def write(tile: Any, address: Any, step: Any, line: Any, at: Any) -> None:
        value = load_shared(tile + at * pitch + line * item_bytes, item)
        store_item(address + line * step + at * item_bytes, value, item)

    read_lines, write_lines = _walker(read, side), _walker(write, side)

    def transpose(
        target: Any, source: Any, tiles: Any, rows: Any, columns: Any,
        target_axes: Any, target_step: Any, source_axes: Any, source_step: Any,
    ) -> None:  # fmt: skip
        tile = reserve()
        down, across = (lane(rows) + (side - 1)) // side, (lane(columns) + (side - 1)) // side
        at = block(0)
        while holds(at < tiles):
            outer, row, column = at // across // down, at // across % down * side, at % across * side
            to, origin = locate(outer, target_axes, lane(target)), locate(outer, source_axes, lane(source))
            height, width = lane(rows) - row, lane(columns) - column
            read_lines(tile, origin + column * source_step + row * item_bytes, lane(source_step), width, height)
            wait_for_block()
            write_lines(tile, to + row * target_step + column * item_bytes, lane(target_step), height, width)
            wait_for_block()
            at = at + blocks(0)

    word = types.uint64
    return CudaKernel(f"transpose_{item_bytes}", transpose, (*[word] * 5, OUTER, word, OUTER, word))


def transpose(device: int, walk: Walk, row: int, item_bytes: int) -> None:
    """Copy where the target is consecutive along the last axis and the source along the axis `row`."""
    outer = [axis for at, axis in enumerate(walk.axes[:-1]) if at != row]
    if len(outer) > MAX_OUTER_AXES:  # seldom: one launch for each index of the first axis
        first = walk.axes.index(outer[0])
        for at in range(outer[0].length):
            part = walk._replace(
                axes=walk.axes[:first] + walk.axes[first + 1 :],
                target=walk.target + at * outer[0].target,
                source=walk.source + at * outer[0].source,
            )
            transpose(device, part, row - (first < row), item_bytes)
        return
    rows, columns, side = walk.axes[row], walk.axes[-1], side_of(item_bytes)
    lengths, targets, sources = padded(outer)
    tiles = -(-rows.length // side) * -(-columns.length // side) * math.prod(lengths)
    words = (
        walk.target, walk.source, tiles, rows.length, columns.length,
        *lengths, *targets, rows.target, *lengths, *sources, columns.source,
    )  # fmt: skip
    _launch.launch_blocks(device, make_transpose(item_bytes), tiles, (ACROSS, DOWN), (word % 2**64 for word in words))
