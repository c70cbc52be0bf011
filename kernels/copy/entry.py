"""Copy arrays of any rank, strides and dtype, at the speed of memory.

Axes are put into the order of the target's memory and merged where both sides walk on. What is left decides the loop:
runs that are consecutive on both sides, a transpose, or NumPy's own loop. Small arrays and arrays
that fit the caches go to NumPy, which is as fast there, so that nothing is compiled or imported for them.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numparam.kernels.machine import pool

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]

# Below these sizes NumPy is as fast, or the time that the compiled loop could save is less than a few microseconds.
RUNS_FROM_BYTES = 1 << 20
TRANSPOSES_FROM_BYTES = 1 << 17
CONVERSIONS_FROM_BYTES = 1 << 14
# Smaller targets are better left in the caches, where the next operation finds them.
STREAM_FROM_BYTES = 4 << 20
# A transpose of fewer rows or columns wastes most of its tiles.
SHORTEST_SIDE = 8
SLAB_BYTES = 1 << 18
LINE = 64

_kept = threading.local()


class Axis(NamedTuple):
    """One axis of a copy: how long it is, and the steps in bytes of both sides."""

    length: int
    target: int
    source: int


class Walk(NamedTuple):
    """A copy without its arrays: axes in the order of the target's memory, and where both sides start."""

    axes: list[Axis]
    target: int
    source: int


def copy(target: Array, source: Array) -> None:
    """Write the values of `source` into `target`.

    Both may have any strides and byte order. They may overlap: the result is that of copying `source` first. Extra
    memory is less than 1 MiB, except where the two overlap and have different strides: then it is the size of `source`.

    Parameters
    ----------
    target : ndarray
        Writable.
    source : ndarray
        Broadcast to the shape of `target`; of the same dtype, or one that `convert.convert` takes.

    Raises
    ------
    ValueError
        If `target` is read-only or `source` cannot be broadcast to its shape.

    Examples
    --------
    >>> target = np.zeros((2, 3), np.float32)
    >>> copy(target, np.arange(3, dtype=np.float32)[::-1])
    >>> target
    array([[2., 1., 0.],
           [2., 1., 0.]], dtype=float32)
    """
    if target.dtype != source.dtype:
        # On its way to a dtype that is not NumPy's own, float64 would be rounded twice.
        if target.nbytes < CONVERSIONS_FROM_BYTES and (source.dtype.char != "d" or target.dtype.isbuiltin != 2):
            copy_by_numpy(target, np.broadcast_to(source, target.shape))
            return
        from numparam.kernels.copy import convert

        convert.convert(target, source)
        return
    if target.nbytes < TRANSPOSES_FROM_BYTES or target.dtype.hasobject or target.itemsize not in (1, 2, 4, 8, 16):
        np.copyto(target, source)
        return
    if not target.flags.writeable:
        raise ValueError("the target of a copy must be writable, found a read-only array")
    if source.shape != target.shape:
        source = np.broadcast_to(source, target.shape)
    if np.may_share_memory(target, source):
        copy_overlapping(target, source)
    else:
        copy_apart(target, source)


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


# --------------------------------------------------------------------------- layout


def walk_of(target: Array, source: Array) -> Walk:
    """Return the walk of a copy between two arrays of one shape; it has at least one axis."""
    walk = walk_at(target.shape, (target.ctypes.data, target.strides), (source.ctypes.data, source.strides))
    return walk if walk.axes else walk._replace(axes=[Axis(1, target.itemsize, source.itemsize)])


def walk_at(shape: tuple[int, ...], target: tuple[int, tuple[int, ...]], source: tuple[int, tuple[int, ...]]) -> Walk:
    """Put the axes into the order of the target's memory, all walked upwards there, and merge what can be merged.

    Both sides are an address and the steps of the axes in bytes.
    """
    (to, target_steps), (origin, source_steps) = target, source
    axes = []
    for length, step, source_step in zip(shape, target_steps, source_steps, strict=True):
        if length == 1:
            continue
        if step < 0:
            to += (length - 1) * step
            origin += (length - 1) * source_step
            step, source_step = -step, -source_step  # noqa: PLW2901
        axes.append(Axis(length, step, source_step))
    axes.sort(key=lambda axis: -axis.target)
    merged: list[Axis] = []
    for axis in axes:
        if merged:
            outer = merged[-1]
            if outer.target == axis.length * axis.target and outer.source == axis.length * axis.source:
                merged[-1] = Axis(outer.length * axis.length, axis.target, axis.source)
                continue
        merged.append(axis)
    return Walk(merged, to, origin)


def table(axes: list[Axis]) -> Array:
    """Return outer axes as the compiled loops take them."""
    return np.array(axes or [Axis(1, 0, 0)], np.int64)


def steps(axes: list[Axis]) -> int:
    """Count the steps over all axes."""
    return math.prod([axis.length for axis in axes])


def transposed_axis(axes: list[Axis], size: int) -> int | None:
    """Return the axis along which source items of one size are consecutive, if it makes tiles worth transposing."""
    for at, axis in enumerate(axes[:-1]):
        if axis.source == size and axis.length >= SHORTEST_SIDE and axes[-1].length >= SHORTEST_SIDE:
            return at
    return None


# --------------------------------------------------------------------------- loops


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

    block = block_of(size)
    axes = [axis for at, axis in enumerate(walk.axes[:-1]) if at != row]
    outer = table(axes)
    rows, columns = walk.axes[row], walk.axes[-1]
    # The first block ends where lines of both sides do, so that the others read and write whole lines: a NumPy array
    # begins 16 bytes after one, and is transposed a fifth faster for it. Among few blocks one more would cost more.
    row_shift = walk.source % LINE // rows.source if rows.length >= 8 * block.rows else 0
    shift = walk.target % LINE // size
    blocks = -(-(rows.length + row_shift) // block.rows) * -(-(columns.length + shift) // block.columns) * steps(axes)

    def work(start: int, stop: int) -> None:
        scratch = _scratch(block.scratch_bytes)
        loop(
            walk.target, walk.source, start, stop, outer, rows.length, columns.length, rows.target, columns.source,
            row_shift, shift, scratch, past_caches,
        )  # fmt: skip

    pool.run(work, blocks, min(rows.length, block.rows) * min(columns.length, block.columns) * size, 1)


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


# --------------------------------------------------------------------------- overlap


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
