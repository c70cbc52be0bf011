"""Arrays in the memory of a CUDA device.

An array is row-major. It goes to other libraries, and comes from them, through DLPack or the CUDA array interface,
without a copy.
"""

from __future__ import annotations

import ctypes
import math
from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.machine import driver as _driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import EllipsisType

    from numparam.kernels.fill import Span

STAGING_BYTES = 4 << 20
"""Of each of the two pinned buffers that copies from and to the host go through, whatever their size."""

# cuda.core exports NumPy's own dtypes only: the others go as words, and are then called by their DLPack code.
_DLPACK_CODES = {"bfloat16": 4, "float8_e4m3fn": 10, "float8_e5m2": 12}


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
    writable = True
    """Whether other libraries, whose memory it may be, let it be written."""

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
            view = StridedMemoryView.from_any_interface(array, stream_ptr=_driver.LEGACY_DEFAULT_STREAM)
        except BufferError:
            raise TypeError(f"an array on a CUDA device was expected, found {type(array).__name__}") from None
        if not view.is_device_accessible:
            raise TypeError(f"an array on a CUDA device was expected, found {type(array).__name__} on the host")
        steps = [math.prod(view.shape[axis + 1 :]) for axis in range(len(view.shape))]
        walked = [axis for axis, length in enumerate(view.shape) if length > 1]
        if view.strides is not None and any(view.strides[axis] != steps[axis] for axis in walked):
            raise ValueError(f"a row-major array was expected, found strides {view.strides} for shape {view.shape}")
        taken = cls(tuple(view.shape), np.dtype(view.dtype), view.device_id, view.ptr, (array, view))
        taken.writable = not view.readonly
        return taken

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
        from numparam.kernels.fill import constant

        constant.fill(self, value)

    def reshape(self, shape: tuple[int, ...]) -> DeviceArray:
        """Share the elements under another shape of the same size."""
        if math.prod(shape) != self.size:
            raise ValueError(f"{self.size} elements were expected, found shape {shape}")
        return DeviceArray(shape, self.dtype, self.device, self.address, self._owner)

    # ---------------------------------------------------------------- copies

    def write(self, values: np.ndarray[Any, Any]) -> None:
        """Copy the elements of a NumPy array of the same size and dtype here, in row-major order."""
        _check_size(values.nbytes, self.nbytes)
        with _staging(self.device) as staging:
            at = self.address
            for piece in _pieces(values):
                pinned = staging.take()[: piece.size]
                pinned[...] = piece
                staging.send(at, piece.size)
                at += piece.size

    def read(self, out: np.ndarray[Any, Any], after: Any = None) -> None:
        """Copy the elements to a C-contiguous NumPy array of the same size and dtype.

        They are those that the work queued until now gives, or until an event.
        """
        target = out.reshape(-1).view(np.uint8)
        _check_size(target.size, self.nbytes)
        after = after or _driver.get_driver().record(self.device)
        waiting: deque[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], Any]] = deque()
        with _staging(self.device) as staging:
            for start in range(0, self.nbytes, STAGING_BYTES):
                piece = target[start : start + STAGING_BYTES]
                pinned = staging.take()[: piece.size]
                waiting.append((piece, pinned, staging.fetch(self.address + start, piece.size, after)))
                if len(waiting) == 2:  # the device copies the next piece while this one is moved on
                    _move_on(*waiting.popleft())
            while waiting:
                _move_on(*waiting.popleft())

    def reader(self) -> Callable[[np.ndarray[Any, Any]], None]:
        """Return the function `read` for the elements that the work queued until now gives."""
        return partial(self.read, after=_driver.get_driver().record(self.device))

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
        from numparam.kernels.copy import cuda_rows

        part = DeviceArray.empty(shape, self.dtype, self.device)
        cuda_rows.copy(part, self, shape, source_span=span)
        return part

    def write_slice(self, values: DeviceArray, shape: tuple[int, ...], span: Span) -> None:
        """Copy another array on the device, broadcast to `shape` and converted, into a slice of this one."""
        from numparam.kernels.copy import cuda_rows

        if values.overlaps(self):
            values = values.copy_to(self.device)
        cuda_rows.copy(self, values, shape, span, values.broadcast(shape))

    def gather(self, indices: np.ndarray[Any, Any]) -> DeviceArray:
        """Return a copy of the rows at indices, which count from the first row and are not checked."""
        from numparam.kernels.rows import cuda as rows_cuda

        part = DeviceArray.empty((indices.size, *self.shape[1:]), self.dtype, self.device)
        rows_cuda.gather(part, self, DeviceArray.from_host(indices, self.device))
        return part

    def scatter(self, indices: np.ndarray[Any, Any], values: DeviceArray) -> None:
        """Copy the rows of another array on the device to those at indices; of the same ones the last stays."""
        from numparam.kernels.rows import cuda as rows_cuda

        if values.overlaps(self):
            values = values.copy_to(self.device)
        if not (indices[1:] > indices[:-1]).all():  # rising ones, as those of masks, are different
            _, last = np.unique(indices[::-1], return_index=True)
            if last.size < indices.size:  # threads have no order
                kept = np.sort(indices.size - 1 - last)
                indices, values = indices[kept], values.gather(kept)
        rows_cuda.scatter(self, DeviceArray.from_host(indices, self.device), values)

    def overlaps(self, other: DeviceArray) -> bool:
        """Say whether two arrays share memory."""
        return self.address < other.address + other.nbytes and other.address < self.address + self.nbytes

    def broadcast(self, shape: tuple[int, ...]) -> Span:
        """Return where the items of the array are once it is broadcast to a shape.

        Raises
        ------
        ValueError
            If it cannot be.
        """
        from numparam.kernels.fill import Span

        surplus = len(self.shape) - len(shape)
        if math.prod(self.shape[: max(surplus, 0)]) != 1:
            raise ValueError(f"an array of shape {self.shape} cannot be broadcast to {shape}")
        own = (1,) * -surplus + self.shape[max(surplus, 0) :]
        if any(length not in (1, wanted) for length, wanted in zip(own, shape, strict=True)):
            raise ValueError(f"an array of shape {self.shape} cannot be broadcast to {shape}")
        return Span(0, tuple([0 if length == 1 else math.prod(own[axis + 1 :]) for axis, length in enumerate(own)]))

    def astype(self, dtype: np.dtype[Any]) -> DeviceArray:
        """Return a copy of another dtype; see `conversion_threads`."""
        from numparam.kernels.copy import cuda_rows

        converted = DeviceArray.empty(self.shape, dtype, self.device)
        cuda_rows.copy(converted, self, self.shape)
        return converted

    def copy_to(self, device: int) -> DeviceArray:
        """Return a copy on a device, this one or another."""
        copy = DeviceArray.empty(self.shape, self.dtype, device)
        if not self.nbytes:
            return copy
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
            "stream": _driver.LEGACY_DEFAULT_STREAM,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device  # kDLCUDA

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        from cuda.core import Buffer, Stream
        from cuda.core.utils import StridedMemoryView

        done = _driver.get_driver().record(self.device)
        if stream not in (None, -1, 0, _driver.LEGACY_DEFAULT_STREAM):
            Stream.from_handle(stream).wait(done)
        buffer, code = Buffer.from_handle(self.address, self.nbytes, owner=self), _DLPACK_CODES.get(self.dtype.name)
        dtype = self.dtype if code is None else np.dtype(f"u{self.itemsize}")
        capsule = StridedMemoryView.from_buffer(buffer, self.shape, dtype=dtype).__dlpack__(stream=-1, **options)
        if code is not None:
            name_dtype(capsule, code)
        return capsule


def name_dtype(capsule: Any, code: int) -> None:
    """Give the elements of a DLPack capsule that nobody has read yet another kind of the same size."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # Before the kind stand data, device and number of axes; in a versioned capsule also version, owner, deleter, flags.
    versioned = "dltensor_versioned" in repr(capsule)
    address = get(capsule, b"dltensor_versioned" if versioned else b"dltensor") + (32 if versioned else 0) + 20
    ctypes.c_uint8.from_address(address).value = code


class _Staging:
    """Two pinned buffers in turn, each free again when the copy it was used for is done."""

    def __init__(self, driver: Any, device: int) -> None:
        self._driver, self._device = driver, device
        self._buffers = [driver.pinned(device, STAGING_BYTES) for _ in range(2)]
        self._done: list[Any] = [None, None]
        self._turn = 1

    def take(self) -> np.ndarray[Any, Any]:
        """Return the next buffer, waiting until it is free."""
        self._turn ^= 1
        self._wait(self._turn)
        buffer: np.ndarray[Any, Any] = self._buffers[self._turn]
        return buffer

    def send(self, target: int, nbytes: int) -> None:
        """Queue a copy from the buffer taken last."""
        self._driver.copy(self._device, target, self._address(), nbytes)
        self._done[self._turn] = self._driver.record(self._device)

    def fetch(self, source: int, nbytes: int, after: Any) -> Any:
        """Queue a copy to the buffer taken last, after an event; return the event of its end."""
        self._done[self._turn] = self._driver.fetch(self._device, self._address(), source, nbytes, after)
        return self._done[self._turn]

    def _address(self) -> int:
        address: int = self._buffers[self._turn].ctypes.data
        return address

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
    """Lend staging buffers to one thread; after an error, which may leave copies under way, they are given up."""
    driver = _driver.get_driver()
    free = _free.setdefault((driver, device), [])
    try:
        staging = free.pop()
    except IndexError:
        staging = _Staging(driver, device)
    yield staging
    staging.finish()
    free.append(staging)


def _move_on(target: np.ndarray[Any, Any], pinned: np.ndarray[Any, Any], done: Any) -> None:
    done.sync()
    target[...] = pinned


def _pieces(values: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the bytes of an array of any strides in row-major order, at most `STAGING_BYTES` at a time."""
    size = values.itemsize
    words = values.view(f"u{size}") if size <= 8 else values  # NumPy walks over dtypes of its own only
    flags, needs = ["external_loop", "buffered", "zerosize_ok"], [["readonly", "contig"]]
    pieces = np.nditer(words, flags, needs, order="C", buffersize=STAGING_BYTES // size)  # type: ignore[call-overload]
    for piece in pieces:
        yield piece.view(np.uint8)


def _check_size(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{expected} bytes were expected, found {found}")
