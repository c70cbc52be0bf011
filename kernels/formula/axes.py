"""The outer axes of what a CUDA kernel walks over, and where a row of them lies."""

from __future__ import annotations

from typing import Any

from numba import types

from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.cuda import holds, lane
from numparam.kernels.machine.lanes import widened

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
