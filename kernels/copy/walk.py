"""The walk of a copy: what is left of two arrays when their axes are ordered and merged."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

# Smaller targets are better left in the caches, where the next operation finds them.
STREAM_FROM_BYTES = 4 << 20
# A transpose of fewer rows or columns wastes most of its tiles.
SHORTEST_SIDE = 8


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
    arrays: Any = None
    """What keeps the memory alive."""


def walk_of(target: Array, source: Array) -> Walk:
    """Return the walk of a copy between two arrays of one shape; it has at least one axis."""
    walk = walk_at(target.shape, (target.ctypes.data, target.strides), (source.ctypes.data, source.strides))
    return walk._replace(axes=walk.axes or [Axis(1, target.itemsize, source.itemsize)], arrays=(target, source))


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
