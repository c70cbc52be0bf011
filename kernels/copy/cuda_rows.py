"""CUDA kernels that move rows of items, which may become others on the way, with any steps.

Rows that are consecutive on both sides and equally aligned to lines of 16 bytes are moved a line at a time; the others
an item at a time, neighbours by neighbouring threads.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from numparam.kernels.copy.walk import Axis, Walk
from numparam.kernels.formula.axes import MAX_OUTER_AXES, OUTER, locate
from numparam.kernels.formula.formats import unchanged
from numparam.kernels.launch import launch
from numparam.kernels.machine.compile import CudaKernel, formula
from numparam.kernels.machine.cuda import (
    LAUNCH_LIMIT,
    holds,
    lane,
    line_loader,
    load_item,
    on_each,
    several,
    store_item,
    store_line,
    thread,
    threads,
)
from numparam.kernels.machine.lanes import low_word, select, widened

if TYPE_CHECKING:
    from collections.abc import Iterator

ITEMS_AHEAD = 4
"""Single items that a thread loads before it stores the first of them."""

WORDS: dict[int, Any] = {1: np.uint8(0), 2: np.uint16(0), 4: np.uint32(0), 8: np.uint64(0)}


def mover(load: Any, store: Any, ahead: int) -> Any:
    """Make the formula for this thread's share of a row: it calls ``store(target, load(source))`` on addresses.

    `ahead` things, a power of two, are loaded before the first of them is stored.
    """
    load_all, store_all = several(load, store, ahead)
    others = ahead - 1  # here and below: Numba types an operation of two integers longer than one of lanes

    @formula
    def move(to: Any, origin: Any, count: Any, to_step: Any, origin_step: Any) -> None:
        at, step = thread(0), threads(0)
        to, origin = to + widened(at) * to_step, origin + widened(at) * origin_step
        to_step, origin_step = widened(step) * to_step, widened(step) * origin_step
        while holds(at + step * others < count):
            store_all(to, to_step, load_all(origin, origin_step))
            to, origin, at = to + to_step * ahead, origin + origin_step * ahead, at + step * ahead
        while holds(at < count):
            store(to, load(origin))
            to, origin, at = to + to_step, origin + origin_step, at + step

    return move


def line_mover(to_item: Any, from_item: Any, convert: Any) -> Any:
    """Make the formula for this thread's share of a row of items that become others.

    A group of items fills a line of the shorter ones; groups begin at lines of the target.
    """
    to_size, from_size = to_item.itemsize, from_item.itemsize
    group = group_of(to_size, from_size)
    load_lines, convert_all = line_loader(group), on_each(convert)
    # 64 bytes on their way to each thread keep a memory busy, and more than 128 to be stored take too many registers.
    ahead = max(1, min(64 // (group * from_size), 128 // (group * to_size)))
    load_group = formula(lambda origin: load_lines(origin, from_item))
    move_groups = mover(load_group, formula(lambda to, things: store_line(to, convert_all(things), to_item)), ahead)
    load = formula(lambda origin: load_item(origin, from_item))
    store = formula(lambda to, thing: store_item(to, convert(thing), to_item))
    move_items = mover(load, store, ITEMS_AHEAD)
    in_group, to_group, from_group = group - 1, group * to_size, group * from_size

    @formula
    def lines(to: Any, origin: Any, length: Any, to_step: Any, origin_step: Any) -> None:
        head = low_word(0 - to // to_size) & in_group  # items before the first whole group
        alike = ((origin + widened(head) * from_size) & 15) == 0
        if holds(alike & (to_step == to_size) & (origin_step == from_size)):
            head = select(head < length, head, length)
            groups = (length - head) // group
            first = widened(head)
            move_groups(to + first * to_size, origin + first * from_size, groups, to_group, from_group)
            at = thread(0)
            while holds(at < length - groups * group):  # the items before and after the groups
                item = widened(select(at < head, at, at + groups * group))
                store(to + item * to_size, load(origin + item * from_size))
                at = at + threads(0)
        else:
            move_items(to, origin, length, to_step, origin_step)

    return lines


def group_of(to_size: int, from_size: int) -> int:
    """Return how many items a thread moves at once."""
    return max(16 // min(to_size, from_size), 1)


_SIGNATURE = (*[types.uint64] * 2, *[types.uint32] * 2, OUTER, types.uint64, OUTER, types.uint64)


def make_rows(name: str, move_row: Any) -> CudaKernel:
    """Make a kernel that calls ``move_row`` on the two addresses of every pair of rows, their length and steps."""

    def rows_of(
        target: Any, source: Any, rows: Any, length: Any,
        target_axes: Any, target_step: Any, source_axes: Any, source_step: Any,
    ) -> None:  # fmt: skip
        at = thread(1)
        while holds(at < rows):
            to, origin = locate(at, target_axes, lane(target)), locate(at, source_axes, lane(source))
            move_row(to, origin, lane(length), lane(target_step), lane(source_step))
            at = at + threads(1)

    return CudaKernel(name, rows_of, _SIGNATURE)


@cache
def row_mover(item_bytes: int) -> Any:
    """Make the formula that copies a row of items of 1, 2, 4, 8 or 16 bytes."""
    if item_bytes == 16:
        load, word = line_loader(2), WORDS[8]
        load_pair = formula(lambda origin: load(origin, word))
        return mover(load_pair, formula(lambda to, pair: store_line(to, pair, word)), ITEMS_AHEAD)
    return line_mover(WORDS[item_bytes], WORDS[item_bytes], unchanged)


@cache
def make_copy(item_bytes: int) -> CudaKernel:
    """Make the kernel that copies items of 1, 2, 4, 8 or 16 bytes."""
    return make_rows(f"copy_{item_bytes}", row_mover(item_bytes))


def move_rows(kernel: CudaKernel, device: int, walk: Walk, to_size: int, from_size: int) -> None:
    """Launch a kernel of `make_rows`."""
    walk = walk if walk.axes else walk._replace(axes=[Axis(1, to_size, from_size)])
    *outer, inner = walk.axes
    rows = math.prod([axis.length for axis in outer])
    if len(outer) > MAX_OUTER_AXES or max(rows, inner.length) > LAUNCH_LIMIT:  # rarely: several launches
        if len(outer) > MAX_OUTER_AXES:
            cut = 0, 1
        elif inner.length > LAUNCH_LIMIT:
            cut = len(outer), LAUNCH_LIMIT
        else:
            cut = 0, max(LAUNCH_LIMIT * outer[0].length // rows, 1)
        for part in parts(walk, *cut):
            move_rows(kernel, device, part, to_size, from_size)
        return
    group = group_of(to_size, from_size)
    shift = walk.target // to_size % group * from_size
    alike = inner.target == to_size and inner.source == from_size and (walk.source - shift) % 16 == 0
    columns = -(-inner.length // group) + 1 if alike else inner.length
    lengths, targets, sources = padded(outer)
    words = (
        walk.target, walk.source, rows, inner.length, *lengths, *targets, inner.target, *lengths, *sources,
        inner.source,
    )  # fmt: skip
    launch(device, kernel, columns, rows, (word % 2**64 for word in words))


def parts(walk: Walk, at: int, length: int) -> Iterator[Walk]:
    """Yield a walk in pieces, each for its own launch, of `length` along an axis that is left out if that is 1."""
    axis = walk.axes[at]
    for start in range(0, axis.length, length):
        kept = [] if length == 1 else [axis._replace(length=min(length, axis.length - start))]
        axes = [*walk.axes[:at], *kept, *walk.axes[at + 1 :]]
        yield Walk(axes, walk.target + start * axis.target, walk.source + start * axis.source)


def padded(outer: list[Axis]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the lengths and the steps of both sides as a kernel takes them."""
    lengths, targets, sources = zip(*[Axis(1, 0, 0)] * (MAX_OUTER_AXES - len(outer)), *outer, strict=True)
    return lengths, targets, sources
