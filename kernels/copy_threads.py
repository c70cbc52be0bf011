"""Copies and conversions inside the memory of a CUDA device: any slice to any slice, by the formulas of the CPU.

A NaN stays a NaN; its sign and payload are those that the hardware gives it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import types

from numparam.kernels import _driver, _launch, conversion
from numparam.kernels._compile import CudaKernel, formula
from numparam.kernels._cuda import holds, lane, load_item, load_line, store_item, store_line, thread, threads
from numparam.kernels.device_array import DeviceArray
from numparam.kernels.fill_threads import MAX_OUTER_AXES, locate

if TYPE_CHECKING:
    from numparam.kernels.fill import Span

_WORD = np.uint64(0)
_BITS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class _Axis(NamedTuple):
    """One axis of a copy: its length, and the steps of both sides, in elements."""

    length: int
    target: int
    source: int


# --------------------------------------------------------------------------- kernels

_OUTER = types.UniTuple(types.UniTuple(types.uint64, MAX_OUTER_AXES), 2)
_SIGNATURE = (*[types.uint64] * 4, _OUTER, types.uint64, _OUTER, types.uint64)


def _make_kernel(name: str, move: Any) -> CudaKernel:
    """Make a kernel that calls ``move(target, source)`` on the addresses of every pair of items."""

    def copy(
        target: Any, source: Any, rows: Any, length: Any,
        target_axes: Any, target_step: Any, source_axes: Any, source_step: Any,
    ) -> None:  # fmt: skip
        at = thread(1)
        while holds(at < rows):
            to, origin = locate(at, target_axes, lane(target)), locate(at, source_axes, lane(source))
            column = thread(0)
            while holds(column < length):
                move(to + column * target_step, origin + column * source_step)
                column = column + threads(0)
            at = at + threads(1)

    return CudaKernel(name, copy, _SIGNATURE)


@cache
def make_copy(item_bytes: int) -> CudaKernel:
    """Make the kernel that copies items of 1, 2, 4, 8 or 16 bytes."""
    if item_bytes == 16:
        return _make_kernel("copy_16", formula(lambda to, origin: store_line(to, load_line(origin), _WORD)))
    item = _BITS[item_bytes](0)
    return _make_kernel(f"copy_{item_bytes}", formula(lambda to, origin: store_item(to, load_item(origin, item), item)))


@cache
def make_conversion(target: np.dtype[Any], source: np.dtype[Any]) -> CudaKernel:
    """Make the kernel that converts one floating-point dtype to another."""
    convert = conversion._make_formula(conversion._FORMATS[target], conversion._FORMATS[source])
    to_item, from_item = (_item(dtype) for dtype in (target, source))
    move = formula(lambda to, origin: store_item(to, convert(load_item(origin, from_item)), to_item))
    return _make_kernel(f"convert_{source}_to_{target}", move)


def _item(dtype: np.dtype[Any]) -> Any:
    return dtype.type(0) if dtype in (np.float32, np.float64) else _BITS[dtype.itemsize](0)


# --------------------------------------------------------------------------- entry


def copy(
    target: DeviceArray,
    source: DeviceArray,
    shape: tuple[int, ...],
    target_span: Span | None = None,
    source_span: Span | None = None,
) -> None:
    """Copy a slice of one array to a slice of another on the same device, which must not overlap.

    Parameters
    ----------
    target, source : DeviceArray
        Of one dtype, or of two floating-point dtypes: then values are rounded once, to nearest even.
    shape : tuple of int
        Of both slices.
    target_span, source_span : Span, optional
        Where the slices lie in their arrays; row-major from the first element by default.

    Raises
    ------
    TypeError
        If the dtypes differ and one of them is no floating-point dtype.
    """
    axes, target_base, source_base = _merged(shape, target_span, source_span)
    if not math.prod(shape):
        return
    to, origin = target.address + target_base * target.itemsize, source.address + source_base * source.itemsize
    if target.dtype == source.dtype:
        if len(axes) == 1 and axes[0].target == axes[0].source == 1:
            _driver.get_driver().copy(target.device, to, origin, axes[0].length * target.itemsize)
            return
        *outer, inner = _in_bytes(axes, target.itemsize, source.itemsize)
        item = _widest(outer, inner, target.itemsize, to, origin)
        if item > target.itemsize:
            inner = _Axis(inner.length * target.itemsize // item, item, item)
        axes = [*outer, inner]
        kernel = make_copy(item)
    elif {target.dtype, source.dtype} <= set(conversion._FORMATS):
        axes = _in_bytes(axes, target.itemsize, source.itemsize)
        kernel = make_conversion(target.dtype, source.dtype)
    else:
        raise TypeError(f"a device converts between floating-point dtypes, found {source.dtype} and {target.dtype}")
    _copy_rows(kernel, target.device, to, origin, axes)


def _copy_rows(kernel: CudaKernel, device: int, to: int, origin: int, axes: list[_Axis]) -> None:
    *outer, inner = axes
    if len(outer) > MAX_OUTER_AXES:  # seldom: one launch for each index of the first axis
        for at in range(axes[0].length):
            _copy_rows(kernel, device, to + at * axes[0].target, origin + at * axes[0].source, axes[1:])
        return
    outer = [_Axis(1, 0, 0)] * (MAX_OUTER_AXES - len(outer)) + outer
    lengths, targets, sources = zip(*outer, strict=True)
    rows = math.prod(lengths)
    words = (
        to, origin, rows, inner.length, *lengths, *targets, inner.target, *lengths, *sources, inner.source
    )  # fmt: skip
    _launch.launch(device, kernel, inner.length, rows, (word % 2**64 for word in words))


def _in_bytes(axes: list[_Axis], target: int, source: int) -> list[_Axis]:
    return [_Axis(axis.length, axis.target * target, axis.source * source) for axis in axes]


def _widest(outer: list[_Axis], inner: _Axis, itemsize: int, to: int, origin: int) -> int:
    """Return the most bytes, up to 16, in which all items of a copy can be moved."""
    if not inner.target == inner.source == itemsize:
        return itemsize
    steps = [step for axis in outer for step in (axis.target, axis.source)]
    return math.gcd(16, to, origin, inner.length * itemsize, *steps)


def _merged(shape: tuple[int, ...], target: Span | None, source: Span | None) -> tuple[list[_Axis], int, int]:
    """Return the axes with neighbours merged where both sides walk on, and where both sides begin."""
    whole = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    target_base, target_steps = (0, whole) if target is None else target
    source_base, source_steps = (0, whole) if source is None else source
    axes: list[_Axis] = []
    for axis in map(_Axis, shape, target_steps, source_steps):
        if axis.length == 1:
            continue
        outer = axes[-1] if axes else None
        if outer and outer.target == axis.length * axis.target and outer.source == axis.length * axis.source:
            axes[-1] = _Axis(outer.length * axis.length, axis.target, axis.source)
        else:
            axes.append(axis)
    return axes or [_Axis(1, 1, 1)], target_base, source_base
