"""CUDA kernels that exchange two axes: items are consecutive along one in the source, along the other in the target.

A block reads a square tile along the source's lines into memory that its threads share, and writes it along the
target's. The lines of a tile are one bank of that memory apart more than their length, so that the threads of a warp
meet 32 different banks along both axes.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from numba import types

from numparam.kernels.copy.cuda_rows import WORDS, padded, parts
from numparam.kernels.formula.axes import MAX_OUTER_AXES, OUTER, locate
from numparam.kernels.formula.formats import unchanged
from numparam.kernels.launch import launch_blocks
from numparam.kernels.machine.compile import CudaKernel, formula
from numparam.kernels.machine.cuda import (
    LAUNCH_LIMIT,
    block,
    blocks,
    holds,
    lane,
    load_item,
    load_shared,
    place,
    several,
    shared,
    store_item,
    store_shared,
    wait_for_block,
)
from numparam.kernels.machine.lanes import widened

if TYPE_CHECKING:
    from numparam.kernels.copy.walk import Walk

ACROSS, DOWN = 32, 8
"""Threads of a block along the lines of a tile, and lines that they take at a time."""

_BANK = 4


def side_of(item_bytes: int) -> int:
    """Return how many lines and columns a tile has: short items take more, for lines of 64 bytes or more."""
    return 2 * ACROSS if item_bytes < 4 else ACROSS


def padding_of(item_bytes: int) -> int:
    """Return how many unused bytes follow a line: one bank, or one item."""
    return max(item_bytes, _BANK)


def _walker(load: Any, store: Any, side: int, from_bytes: int, to_bytes: int) -> Any:
    """Make the formula for this thread's share of a tile: it calls ``store(target, load(source))`` on addresses.

    The arguments are the addresses and the steps from line to line of both sides, and how many lines and columns there
    are from here on; from column to column it is `from_bytes` and `to_bytes`.
    """
    load_line, store_line = several(load, store, side // ACROSS)
    load_across = formula(lambda origin: load_line(origin, ACROSS * from_bytes))
    store_across = formula(lambda to, things: store_line(to, ACROSS * to_bytes, things))
    load_all, store_all = several(load_across, store_across, side // DOWN)

    @formula
    def walk(to: Any, to_step: Any, origin: Any, origin_step: Any, lines: Any, columns: Any) -> None:
        line, column = place(1), place(0)
        to = to + widened(line) * to_step + widened(column) * to_bytes
        origin = origin + widened(line) * origin_step + widened(column) * from_bytes
        to_step, origin_step = to_step * DOWN, origin_step * DOWN
        if holds((lines >= side) & (columns >= side)):
            store_all(to, to_step, load_all(origin, origin_step))
        else:
            for _ in range(0, side, DOWN):
                for across in range(0, side, ACROSS):
                    if holds((line < lines) & (column + across < columns)):
                        store(to + across * to_bytes, load(origin + across * from_bytes))
                to, origin, line = to + to_step, origin + origin_step, line + DOWN

    return walk


def make_tiles(name: str, to_item: Any, from_item: Any, convert: Any) -> CudaKernel:
    """Make the kernel for items of 1, 2, 4 or 8 bytes that become others; a tile holds the shorter ones."""
    to_size, from_size = to_item.itemsize, from_item.itemsize
    widens = from_size < to_size
    item = from_item if widens else to_item
    size, side = item.itemsize, side_of(item.itemsize)
    pitch = side * size + padding_of(size)
    reserve = shared(side * pitch)
    on_entry, on_leave = (unchanged, convert) if widens else (convert, unchanged)
    read = _walker(
        formula(lambda origin: load_item(origin, from_item)),
        formula(lambda to, thing: store_shared(to, on_entry(thing), item)),
        side, from_size, size,
    )  # fmt: skip
    write = _walker(
        formula(lambda origin: load_shared(origin, item)),
        formula(lambda to, thing: store_item(to, on_leave(thing), to_item)),
        side, pitch, to_size,
    )  # fmt: skip

    def move(
        target: Any, source: Any, tiles: Any, rows: Any, columns: Any,
        target_axes: Any, target_step: Any, source_axes: Any, source_step: Any,
    ) -> None:  # fmt: skip
        tile = reserve()
        down, across = (lane(rows) + (side - 1)) // side, (lane(columns) + (side - 1)) // side
        at = block(0)
        while holds(at < tiles):
            band = at // across
            outer = band // down
            row, column = (band - outer * down) * side, (at - band * across) * side
            to = locate(outer, target_axes, lane(target)) + widened(row) * target_step
            origin = locate(outer, source_axes, lane(source)) + widened(column) * source_step
            height, width = lane(rows) - row, lane(columns) - column
            read(tile, pitch, origin + widened(row) * from_size, lane(source_step), width, height)
            wait_for_block()
            write(to + widened(column) * to_size, lane(target_step), tile, size, height, width)
            wait_for_block()
            at = at + blocks(0)

    word = types.uint64
    return CudaKernel(name, move, (word, word, *[types.uint32] * 3, OUTER, word, OUTER, word))


@cache
def make_transpose(item_bytes: int) -> CudaKernel:
    """Make the kernel that copies items of 1, 2, 4 or 8 bytes."""
    return make_tiles(f"transpose_{item_bytes}", WORDS[item_bytes], WORDS[item_bytes], unchanged)


def move_tiles(kernel: CudaKernel, device: int, walk: Walk, row: int, item_bytes: int) -> None:
    """Launch a kernel of `make_tiles`, whose shorter items have `item_bytes`.

    The target is consecutive along the last axis and the source along the axis `row`.
    """
    axes, side, last = walk.axes, side_of(item_bytes), len(walk.axes) - 1
    others = [at for at in range(last) if at != row]
    tiles = math.prod([-(-axis.length // (side if at in (row, last) else 1)) for at, axis in enumerate(axes)])
    too_long = [(at, LAUNCH_LIMIT) for at in (row, last) if axes[at].length > LAUNCH_LIMIT]
    if len(others) > MAX_OUTER_AXES or (others and tiles > LAUNCH_LIMIT):
        too_long = [(others[0], 1)]
    if too_long:
        at, length = too_long[0]
        for part in parts(walk, at, length):
            move_tiles(kernel, device, part, row - (length == 1 and at < row), item_bytes)
        return
    lengths, targets, sources = padded([axes[at] for at in others])
    words = (
        walk.target, walk.source, tiles, axes[row].length, axes[last].length,
        *lengths, *targets, axes[row].target, *lengths, *sources, axes[last].source,
    )  # fmt: skip
    launch_blocks(device, kernel, tiles, (ACROSS, DOWN), (word % 2**64 for word in words))
