"""Arrays in the memory of a CUDA device.

An array is row-major. It goes to other libraries, and comes from them, through DLPack or the CUDA array interface,
without a copy.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels import _driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import EllipsisType

    from numparam.kernels.fill import Span

STAGING_BYTES = 4 << 20
"""Of each of the two pinned buffers that copies from and to the host go through, whatever their size."""

_LEGACY_DEFAULT_STREAM = 1  # as both protocols number it


class DeviceArray:
    """Numbers in device memory, row-major.

    Parameters
    ----------
    shape : tuple of int
        The lengths of the axes.
    dtype : numpy.dtype
        Of the elements.
    device : int
        The number of the CUDA device.
    address : int
        Of the first element.
    owner : object
        What keeps the memory alive.
    """

    kind = "cuda"

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int, address: int, owner: Any) -> None:
        self.shape, self.dtype, self.device, self.address, self._owner = shape, dtype, device, address, owner

    @property
    def size(self) -> int:
        """Count the elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Count the bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Count the bytes."""
        return self.size * self.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> DeviceArray:
        """Allocate an array.

        Raises
        ------
        DeviceMemoryError
            If the device has no room.
        """
        buffer = _driver.get_driver().allocate(device, max(math.prod(shape) * dtype.itemsize, 1))
        return cls(shape, dtype, device, int(buffer.handle), buffer)

    @classmethod
    def from_host(cls, array: np.ndarray[Any, Any], device: int) -> DeviceArray:
        """Copy a NumPy array to a device."""
        copy = cls.empty(array.shape, array.dtype, device)
        copy.write(array)
        return copy

    @classmethod
    def from_foreign(cls, array: Any) -> DeviceArray:
        """Share the memory of another library's array.

        Parameters
        ----------
        array : object
            Row-major, on a CUDA device, with ``__cuda_array_interface__`` or ``__dlpack__``.

        Raises
        ------
        TypeError
            If the array speaks neither protocol, or is not on a CUDA device.
        ValueError
            If it is not row-major.
        """
        from cuda.core.utils import StridedMemoryView

        try:
            view = StridedMemoryView.from_any_interface(array, stream_ptr=_LEGACY_DEFAULT_STREAM)
        except BufferError:
            raise TypeError(f"an array on a CUDA device was expected, found {type(array).__name__}") from None
        if not view.is_device_accessible:
            raise TypeError(f"an array on a CUDA device was expected, found {type(array).__name__} on the host")
        steps = [math.prod(view.shape[axis + 1 :]) for axis in range(len(view.shape))]
        if view.strides is not None and list(view.strides) != steps:
            raise ValueError(f"a row-major array was expected, found strides {view.strides} for shape {view.shape}")
        return cls(tuple(view.shape), np.dtype(view.dtype), view.device_id, view.ptr, (array, view))

    def __getitem__(self, index: slice) -> DeviceArray:
        """Share a range of the first axis."""
        start, stop, step = index.indices(self.shape[0])
        if step != 1:
            raise IndexError(f"a range of rows was expected, found {index}")
        shape = max(stop - start, 0), *self.shape[1:]
        address = self.address + start * math.prod(self.shape[1:]) * self.itemsize
        return DeviceArray(shape, self.dtype, self.device, address, self._owner)

    def __setitem__(self, index: EllipsisType, value: Any) -> None:
        """Give every element one value, or copy a NumPy array of the same shape."""
        if index is not ...:
            raise IndexError(f"the whole array is written as array[...], found {index!r}")
        if isinstance(value, np.ndarray) and value.ndim:
            self.write(np.broadcast_to(value, self.shape).astype(self.dtype, copy=False))
            return
        from numparam.kernels import constant

        constant.fill(self, value)

    def reshape(self, shape: tuple[int, ...]) -> DeviceArray:
        """Share the elements under another shape of the same size."""
        if math.prod(shape) != self.size:
            raise ValueError(f"{self.size} elements were expected, found shape {shape}")
        return DeviceArray(shape, self.dtype, self.device, self.address, self._owner)

    # ---------------------------------------------------------------- copies

    def write(self, values: np.ndarray[Any, Any]) -> None:
        """Copy the elements of a NumPy array of the same size and dtype here."""
        source = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        _check_size(source.size, self.nbytes)
        with _staging(self.device) as staging:
            for start in range(0, self.nbytes, STAGING_BYTES):
                piece = source[start : start + STAGING_BYTES]
                pinned = staging.take()[: piece.size]
                pinned[...] = piece
                staging.copy(self.address + start, pinned.ctypes.data, piece.size)

    def read(self, out: np.ndarray[Any, Any]) -> None:
        """Copy the elements to a C-contiguous NumPy array of the same size and dtype."""
        target = out.reshape(-1).view(np.uint8)
        _check_size(target.size, self.nbytes)
        waiting: deque[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], Any]] = deque()
        with _staging(self.device) as staging:
            for start in range(0, self.nbytes, STAGING_BYTES):
                piece = target[start : start + STAGING_BYTES]
                pinned = staging.take()[: piece.size]
                waiting.append((piece, pinned, staging.copy(pinned.ctypes.data, self.address + start, piece.size)))
                if len(waiting) == 2:  # the device copies the next piece while this one is moved on
                    _move_on(*waiting.popleft())
            while waiting:
                _move_on(*waiting.popleft())

    def to_host(self) -> np.ndarray[Any, Any]:
        """Return a copy on the host."""
        out = np.empty(self.shape, self.dtype)
        self.read(out)
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> DeviceArray:
        return self.copy_to(self.device)

    def __reduce__(self) -> tuple[Any, ...]:
        return DeviceArray.from_host, (self.to_host(), self.device)

    def read_slice(self, shape: tuple[int, ...], span: Span) -> DeviceArray:
        """Return a copy of a slice of the array."""
        from numparam.kernels import copy_threads

        part = DeviceArray.empty(shape, self.dtype, self.device)
        copy_threads.copy(part, self, shape, source_span=span)
        return part

    def write_slice(self, values: DeviceArray, span: Span) -> None:
        """Copy the values of another array on the device into a slice of this one."""
        from numparam.kernels import copy_threads

        copy_threads.copy(self, values, values.shape, target_span=span)

    def astype(self, dtype: np.dtype[Any]) -> DeviceArray:
        """Return a copy of another floating-point dtype, rounded to nearest even."""
        from numparam.kernels import copy_threads

        converted = DeviceArray.empty(self.shape, dtype, self.device)
        copy_threads.copy(converted, self, self.shape)
        return converted

    def copy_to(self, device: int) -> DeviceArray:
        """Return a copy on a device, this one or another."""
        copy = DeviceArray.empty(self.shape, self.dtype, device)
        driver = _driver.get_driver()
        if device != self.device:
            driver.record(self.device).sync()  # the other device's stream knows nothing of this one's
        driver.copy(device, copy.address, self.address, self.nbytes)
        if device != self.device:
            driver.record(device).sync()
        return copy

    # ---------------------------------------------------------------- protocols

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Describe the array to Numba, CuPy and others; version 3."""
        if not self.dtype.isbuiltin == 1:
            raise AttributeError(f"the CUDA array interface has no name for {self.dtype}; use DLPack")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, False),
            "strides": None,
            "stream": _LEGACY_DEFAULT_STREAM,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device  # kDLCUDA

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        from cuda.core import Buffer, Stream
        from cuda.core.utils import StridedMemoryView

        done = _driver.get_driver().record(self.device)
        if stream not in (None, -1, 0, _LEGACY_DEFAULT_STREAM):
            Stream.from_handle(stream).wait(done)
        buffer = Buffer.from_handle(self.address, self.nbytes, owner=self)
        return StridedMemoryView.from_buffer(buffer, self.shape, dtype=self.dtype).__dlpack__(stream=-1, **options)


class _Staging:
    """Two pinned buffers in turn, each free again when the copy it was used for is done."""

    def __init__(self, driver: Any, device: int) -> None:
        self._driver, self._device = driver, device
        self._buffers = [driver.pinned(STAGING_BYTES) for _ in range(2)]
        self._done: list[Any] = [None, None]
        self._turn = 1

    def take(self) -> np.ndarray[Any, Any]:
        """Return the next buffer, waiting until it is free."""
        self._turn ^= 1
        self._wait(self._turn)
        buffer: np.ndarray[Any, Any] = self._buffers[self._turn]
        return buffer

    def copy(self, target: int, source: int, nbytes: int) -> Any:
        """Queue a copy from or to the buffer taken last; return the event of its end."""
        self._driver.copy(self._device, target, source, nbytes)
        self._done[self._turn] = self._driver.record(self._device)
        return self._done[self._turn]

    def finish(self) -> None:
        """Wait for the copies."""
        for turn in range(2):
            self._wait(turn)

    def _wait(self, turn: int) -> None:
        if self._done[turn] is not None:
            self._done[turn].sync()
            self._done[turn] = None


_free: dict[tuple[Any, int], list[_Staging]] = {}  # by driver and device; to pin memory takes longer than to use it


@contextmanager
def _staging(device: int) -> Iterator[_Staging]:
    """Lend staging buffers to one thread."""
    driver = _driver.get_driver()
    free = _free.setdefault((driver, device), [])
    try:
        staging = free.pop()
    except IndexError:
        staging = _Staging(driver, device)
    try:
        yield staging
    finally:
        staging.finish()
        free.append(staging)


def _move_on(target: np.ndarray[Any, Any], pinned: np.ndarray[Any, Any], done: Any) -> None:
    done.sync()
    target[...] = pinned


def _check_size(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{expected} bytes were expected, found {found}")
