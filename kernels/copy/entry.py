"""Copy and convert arrays of any strides, dtype and device: one table finds the way by the kinds of the devices.

On a CPU axes are put into the order of the target's memory and merged where both sides walk on. What is left decides
the loop: runs that are consecutive on both sides, a transpose, or NumPy's own loop. Small arrays and arrays that fit
the caches go to NumPy, which is as fast there, so that nothing is compiled or imported for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.array import DeviceArray
from numparam.kernels.copy import cpu
from numparam.kernels.copy.walk import Array
from numparam.kernels.dispatch import kind
from numparam.kernels.machine import driver as _driver

if TYPE_CHECKING:
    from collections.abc import Callable

# Below these sizes the time that a compiled loop could save is less than a few microseconds.
TRANSPOSES_FROM_BYTES = 1 << 17
CONVERSIONS_FROM_BYTES = 1 << 14

_READ_ONLY = "the target of a copy must be writable, found a read-only array"


def copy(target: Any, source: Any) -> None:
    """Write the values of `source`, broadcast and converted as NumPy does, into the writable array `target`.

    Both may have any strides and byte order, and be on any device. They may overlap: the result is as of copying
    `source` first. On a CPU extra memory is less than 1 MiB, except where the two overlap and have different strides:
    then it is the size of `source`. On a CUDA device a copy of `source` is made where the two overlap or are on
    different devices, and where the host meets what is not row-major. It raises a ValueError if `target` is read-only
    or `source` cannot be broadcast to its shape.
    """
    if (
        type(target) is type(source) is np.ndarray
        and target.dtype == source.dtype
        and target.nbytes < TRANSPOSES_FROM_BYTES
    ):
        np.copyto(target, source)  # before the table, which takes as long as a small copy
    else:
        _WAYS[kind(target), kind(source)](target, source)


def duplicate(source: DeviceArray) -> DeviceArray:
    """Return a row-major copy of a device array, on its device."""
    copied = DeviceArray.empty(source.shape, source.dtype, source.device)
    copy(copied, source)
    return copied


def _on_cpu(target: Array, source: Array) -> None:
    same = target.dtype == source.dtype
    if same and (
        target.nbytes < TRANSPOSES_FROM_BYTES or target.dtype.hasobject or target.itemsize not in (1, 2, 4, 8, 16)
    ):
        np.copyto(target, source)
        return
    if not target.flags.writeable:
        raise ValueError(_READ_ONLY)
    if source.shape != target.shape:
        source = np.broadcast_to(source, target.shape)
    if same:
        cpu.copy(target, source)
    # On its way to a dtype that is not NumPy's own, float64 would be rounded twice.
    elif target.nbytes < CONVERSIONS_FROM_BYTES and (source.dtype.char != "d" or target.dtype.isbuiltin != 2):
        cpu.copy_by_numpy(target, source)
    else:
        from numparam.kernels.copy import convert

        convert.convert(target, source)


def _on_cuda(target: DeviceArray, source: DeviceArray) -> None:
    from numparam.kernels.copy import cuda

    if not target.writable:
        raise ValueError(_READ_ONLY)
    if source.shape != target.shape:
        source = source.broadcast_to(target.shape)
    if not target.size:
        return
    if source.device != target.device:
        source = _moved(source, target)
        if source is target:
            return
    elif target.overlaps(source):
        source = duplicate(source)
    cuda.copy(target, source)


def _moved(source: DeviceArray, target: DeviceArray) -> DeviceArray:
    """Return the values on the device of `target`: in `target` itself, where its memory can take them as they are."""
    source = source if source.is_contiguous else duplicate(source)
    fits = target.is_contiguous and target.dtype == source.dtype
    moved = target if fits else DeviceArray.empty(source.shape, source.dtype, target.device)
    driver = _driver.get_driver()
    driver.record(source.device).sync()  # the streams of the devices are independent
    driver.copy(target.device, moved.address, source.address, source.nbytes)
    driver.record(target.device).sync()
    return moved


def _to_cuda(target: DeviceArray, source: Array) -> None:
    if target.dtype != source.dtype:
        converted = np.empty(source.shape, target.dtype)
        copy(converted, source)
        source = converted
    if target.is_contiguous and target.writable and target.shape == source.shape:
        target.write(source)
    else:
        _on_cuda(target, DeviceArray.from_host(source, target.device))


def _to_cpu(target: Array, source: DeviceArray) -> None:
    source = source if source.is_contiguous else duplicate(source)
    if target.flags.c_contiguous and target.flags.writeable and (target.shape, target.dtype) == (
        source.shape, source.dtype,
    ):  # fmt: skip
        source.read(target)
    else:
        copy(target, source.to_host())


_WAYS: dict[tuple[str, str], Callable[[Any, Any], None]] = {
    ("cpu", "cpu"): _on_cpu, ("cuda", "cuda"): _on_cuda, ("cuda", "cpu"): _to_cuda, ("cpu", "cuda"): _to_cpu,
}  # fmt: skip
"""How values come to an array on a device of the first kind from one of the second."""
