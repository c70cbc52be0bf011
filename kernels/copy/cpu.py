"""Copies on a CPU: the loop that suits a walk, from runs, transposes and NumPy's own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.copy.walk import STREAM_FROM_BYTES, Array, Axis, Walk, steps, table, transposed_axis, walk_of
from numparam.kernels.machine import pool

if TYPE_CHECKING:
    from collections.abc import Callable

# Below this size NumPy is as fast at runs.
RUNS_FROM_BYTES = 1 << 20
SLAB_BYTES = 1 << 18
LINE = 64

_kept = threading.local()


def copy(target: Array, source: Array) -> None:
    """Copy between arrays of one shape and dtype."""
    (copy_overlapping if np.may_share_memory(target, source) else copy_apart)(target, source)


def copy_apart(target: Array, source: Array) -> None:
    """Copy between arrays of one shape and dtype that share no memory."""
    walk = walk_of(target, source)
    size, inner = target.itemsize, walk.axes[-1]
    past_caches = target.nbytes >= STREAM_FROM_BYTES
    if inner.target != size:
        copy_by_numpy(target, source)
    elif inner.source == size:
        if target.nbytes < RUNS_FROM_BYTES:
            np.copyto(target, source)
        else:
            copy_runs(walk, size, past_caches)
    elif size <= 8 and (row := transposed_axis(walk.axes, size)) is not None:
        from numparam.kernels.copy import transposes

        copy_transposed(transposes.transposing(size), walk, row, size, past_caches)
    else:
        copy_by_numpy(target, source)


def copy_runs(walk: Walk, size: int, past_caches: bool) -> None:
    """Copy where both sides are consecutive along the last axis."""
    from numparam.kernels.copy import runs

    loop, axes, run = runs.copying(), walk.axes[:-1], walk.axes[-1].length * size
    outer = table(axes)

    def work(start: int, stop: int) -> None:
        loop(walk.target, walk.source, start, stop, outer, run, past_caches)

    pool.run(work, run * steps(axes), 1, run if run < SLAB_BYTES else size)


def copy_transposed(loop: Any, walk: Walk, row: int, size: int, past_caches: bool) -> None:
    """Copy or convert where the target is consecutive along the last axis and the source along the axis `row`.

    The loop is one that `transposes.transposer` made for target items of this size.
    """
    from numparam.kernels.copy.transposes import block as block_of
    from numparam.kernels.copy.transposes import columns_of_blocks
    from numparam.kernels.machine.memory import tile_rows

    block = block_of(size)
    axes = [axis for at, axis in enumerate(walk.axes[:-1]) if at != row]
    rows, columns = walk.axes[row], walk.axes[-1]
    inner, skip = columns.length, 0
    if axes and axes[-1].target == inner * size and inner < block.columns and inner % tile_rows(size) == 0:
        # Short rows of the target that follow each other are written as one.
        near = axes.pop()
        columns, skip = Axis(near.length * inner, size, columns.source), near.source - inner * columns.source
    outer = table(axes)
    most_columns = block.columns if skip else columns_of_blocks(size, columns.source)
    # The first block ends where lines of both sides do, so that the others read and write whole lines: a NumPy array
    # begins 16 bytes after one, and is transposed a fifth faster for it. Among few blocks one more would cost more.
    row_shift = walk.source % LINE // rows.source if rows.length >= 8 * block.rows else 0
    shift = walk.target % LINE // size if skip == 0 else 0
    blocks = -(-(rows.length + row_shift) // block.rows) * -(-(columns.length + shift) // most_columns) * steps(axes)

    def work(start: int, stop: int) -> None:
        scratch = _scratch(block.scratch_bytes)
        loop(
            walk.target, walk.source, start, stop, outer, rows.length, columns.length, rows.target, columns.source,
            inner, skip, row_shift, shift, most_columns, scratch, past_caches,
        )  # fmt: skip

    pool.run(work, blocks, min(rows.length, block.rows) * min(columns.length, most_columns) * size, 1)


def _scratch(size: int) -> int:
    """Return the address of scratch memory that this thread keeps, at the start of a line.

    New pages would take longer than a small transpose, and stores across lines twice as long.
    """
    if getattr(_kept, "size", 0) < size:
        _kept.buffer, _kept.size = np.empty(size + LINE, np.uint8), size
        _kept.address = -(-_kept.buffer.ctypes.data // LINE) * LINE
    address: int = _kept.address
    return address


def copy_by_numpy(target: Array, source: Array) -> None:
    """Copy and convert by NumPy, in pieces along the longest axis."""
    if target.nbytes < pool.BYTES_PER_PIECE:
        _copy_and_convert(target, source)
        return
    axis = int(np.argmax(target.shape))
    target, source = np.moveaxis(target, axis, 0), np.moveaxis(source, axis, 0)
    if np.may_share_memory(target, source):
        source = source.copy()

    def work(start: int, stop: int) -> None:
        _copy_and_convert(target[start:stop], source[start:stop])

    pool.run(work, len(target), target.nbytes // len(target), 1)


def _copy_and_convert(target: Array, source: Array) -> None:
    with np.errstate(all="ignore"):
        np.copyto(target, source, casting="unsafe")


def copy_overlapping(target: Array, source: Array) -> None:
    """Copy between arrays whose memory may overlap."""
    try:
        apart = not np.shares_memory(target, source, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        apart = False
    if apart:
        copy_apart(target, source)
    elif target.strides == source.strides and (axes := _nested_axes(target)) is not None:
        upwards = tuple([slice(None, None, -1 if step < 0 else None) for step in target.strides])
        move(target[upwards].transpose(axes), source[upwards].transpose(axes))
    else:
        copy_apart(target, source.copy())


def _nested_axes(array: Array) -> list[int] | None:
    """Return the axes by falling step if each step passes all of the inner axes, else None."""
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    extent = array.itemsize
    for axis in reversed(axes):
        if array.shape[axis] > 1 and abs(array.strides[axis]) < extent:
            return None
        extent += (array.shape[axis] - 1) * abs(array.strides[axis])
    return axes


def move(target: Array, source: Array) -> None:
    """Copy in the order of memory that reads every item before it is overwritten, a slab at a time."""
    if target.nbytes <= SLAB_BYTES or target.ndim == 0:
        np.copyto(target, source)
        return
    count = len(target)
    size = max(1, SLAB_BYTES * count // target.nbytes)
    starts = range(0, count, size)
    copy_slab: Callable[[Array, Array], None] = move if size == 1 else np.copyto
    for start in starts if target.ctypes.data < source.ctypes.data else reversed(starts):
        copy_slab(target[start : start + size], source[start : start + size])
