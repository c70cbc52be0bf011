"""The outer axes of what a CUDA kernel walks over, and where a row of them lies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from numba import types

from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.cuda import LAUNCH_LIMIT, holds, lane
from numparam.kernels.machine.lanes import widened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_OUTER_AXES = 5
"""Axes outside the last one that a launch takes; the caller splits what has more."""

OUTER = types.Tuple((types.UniTuple(types.uint32, MAX_OUTER_AXES), types.UniTuple(types.uint64, MAX_OUTER_AXES)))
"""What a kernel takes of the outer axes: their lengths, and their steps."""


@formula
def locate(row: Any, axes: Any, base: Any) -> Any:
    """Return where the first element of a row is, an address or a flat index; the outermost axis takes no division."""
    index = base
    for axis in range(MAX_OUTER_AXES - 1, -1, -1):
        length, step = lane(axes[0][axis]), axes[1][axis]
        if holds(row < length):
            return index + widened(row) * step
        outer = row // length
        index = index + widened(row - outer * length) * step
        row = outer
    return index


def launches(
    lengths: Sequence[int], steps: Sequence[int], first: int
) -> Iterator[tuple[slice, int, int, tuple[int, ...]]]:
    """Yield the elements that a launch writes, its rows and their length, and step, `OUTER` and first index as words.

    Nearly always one launch writes all.
    """
    *outer, length = lengths
    rows = math.prod(outer)
    if len(outer) <= MAX_OUTER_AXES and max(rows, length) <= LAUNCH_LIMIT:
        padding = MAX_OUTER_AXES - len(outer)
        words = steps[-1], *[1] * padding, *outer, *[0] * padding, *steps[:-1], first
        yield slice(0, rows * length), rows, length, tuple(word % 2**64 for word in words)
        return
    singly = outer and (len(outer) > MAX_OUTER_AXES or length > LAUNCH_LIMIT)
    most = 1 if singly else max(LAUNCH_LIMIT // math.prod(outer[1:]), 1)
    size = math.prod(lengths[1:])
    for start in range(0, lengths[0], most):
        count = min(most, lengths[0] - start)
        left = lengths[1:] if outer and count == 1 else [count, *lengths[1:]]
        for part, *launch in launches(left, steps[-len(left) :], first + start * steps[0]):
            yield slice(start * size + part.start, start * size + part.stop), *launch  # type: ignore[misc]
