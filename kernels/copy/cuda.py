"""Copies inside the memory of one CUDA device: the kernel that suits a walk and a pair of dtypes.

Of complex numbers the real part is taken, and what becomes complex has no imaginary part.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from numparam.kernels.copy.cuda_convert import canonical, make_conversion, make_transposed
from numparam.kernels.copy.cuda_rows import make_copy, move_rows
from numparam.kernels.copy.cuda_tiles import make_transpose, move_tiles
from numparam.kernels.copy.walk import Axis, Walk, steps, transposed_axis, walk_at
from numparam.kernels.fill import constant
from numparam.kernels.formula.integers import PART_OF
from numparam.kernels.machine import driver as _driver

if TYPE_CHECKING:
    from numparam.kernels.array import DeviceArray

_BOOL = np.dtype(np.bool_)


def copy(target: DeviceArray, source: DeviceArray) -> None:
    """Copy between arrays of one shape that do not overlap; steps of the source may be 0."""
    if target.dtype in PART_OF and target.dtype != source.dtype:
        real, imaginary = target.parts(PART_OF[target.dtype])
        if source.dtype in PART_OF:
            parts = source.parts(PART_OF[source.dtype])
            copy(real, parts[0])
            copy(imaginary, parts[1])
        else:
            copy(real, source)
            zero = type(target).empty((1,), real.dtype, target.device)
            constant.fill(zero, 0)
            copy(imaginary, zero.broadcast_to(target.shape))
        return
    if source.dtype in PART_OF and target.dtype not in (source.dtype, _BOOL):
        source = source.parts(PART_OF[source.dtype])[0]
    to, origin = (target.dtype, source.dtype) if target.dtype == source.dtype else canonical(target.dtype, source.dtype)
    walk = walk_at(target.shape, (target.address, target.strides), (source.address, source.strides))
    if to == origin:
        _copy_walk(target.device, walk, to.itemsize)
        return
    row = _tiled_axis(walk, to.itemsize, origin.itemsize)
    if row is not None:
        move_tiles(make_transposed(to, origin), target.device, walk, row, min(to.itemsize, origin.itemsize))
    else:
        move_rows(make_conversion(to, origin), target.device, walk, to.itemsize, origin.itemsize)


def _copy_walk(device: int, walk: Walk, size: int) -> None:
    if not walk.axes or (len(walk.axes) == 1 and walk.axes[0].target == walk.axes[0].source == size):
        _driver.get_driver().copy(device, walk.target, walk.source, size * steps(walk.axes))
        return
    row = _tiled_axis(walk, size, size)
    if row is not None:
        move_tiles(make_transpose(size), device, walk, row, size)
        return
    *outer, inner = walk.axes
    item = _widest(outer, inner, size, walk.target, walk.source)
    if item > size:
        inner = Axis(inner.length * size // item, item, item)
    move_rows(make_copy(item), device, walk._replace(axes=[*outer, inner]), item, item)


def _tiled_axis(walk: Walk, to_size: int, from_size: int) -> int | None:
    """Return the axis along which the source is consecutive, if tiles are worth it and can hold the items."""
    if not walk.axes or walk.axes[-1].target != to_size or from_size > 8:
        return None
    return transposed_axis(walk.axes, from_size)


def _widest(outer: list[Axis], inner: Axis, itemsize: int, to: int, origin: int) -> int:
    """Return the most bytes, up to 16, in which all items of a copy can be moved."""
    if not inner.target == inner.source == itemsize:
        return itemsize
    strides = [step for axis in outer for step in (axis.target, axis.source)]
    return math.gcd(16, to, origin, inner.length * itemsize, *strides)
