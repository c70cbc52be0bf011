"""Arrays in the memory of a CUDA device: memory, views, and copies from and to the host.

What computes or moves values inside a device is in other files. An array goes to other libraries, and comes from them,
through DLPack or the CUDA array interface, without a copy.
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


STAGING_BYTES = 4 << 20
"""Of each of the two pinned buffers that copies from and to the host go through, whatever their size."""

# NumPy and cuda.core export NumPy's own dtypes only: the others go as words, and then are called by their DLPack code.
DLPACK_CODES = {"bfloat16": 4, "float8_e4m3fn": 10, "float8_e5m2": 12}


class DeviceArray:
    """Hold numbers in the memory of a CUDA device, with any strides.

    `address` is of the first element, `owner` keeps the memory alive, and `strides` are in bytes, row-major by default.
    """

    kind = "cuda"

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int, address: int, owner: Any,
        strides: tuple[int, ...] | None = None, writable: bool = True,
    ) -> None:  # fmt: skip
        self.shape, self.dtype, self.device, self.address, self.writable = shape, dtype, device, address, writable
        self._owner = owner
        self._strides = None if strides is None or _is_row_major(shape, strides, dtype.itemsize) else strides

    @property
    def strides(self) -> tuple[int, ...]:
        """Return the steps along the axes in bytes."""
        return _row_major(self.shape, self.itemsize) if self._strides is None else self._strides

    @property
    def is_contiguous(self) -> bool:
        """Return whether the elements are consecutive in row-major order."""
        return self._strides is None

    @property
    def ndim(self) -> int:
        """Count the axes."""
        return len(self.shape)

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
        """Count the bytes of the elements."""
        return self.size * self.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> DeviceArray:
        """Allocate a row-major array."""
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
        """Share the memory of an array with ``__cuda_array_interface__`` or ``__dlpack__``, of any strides."""
        from cuda.core.utils import StridedMemoryView

        try:
            view = StridedMemoryView.from_any_interface(array, stream_ptr=_driver.LEGACY_DEFAULT_STREAM)
        except BufferError:
            raise TypeError(f"an array on a CUDA device was expected, found {type(array).__name__}") from None
        if not view.is_device_accessible:
            raise TypeError(f"an array on a CUDA device was expected, found {type(array).__name__} on the host")
        dtype = np.dtype(view.dtype)
        strides = None if view.strides is None else tuple([step * dtype.itemsize for step in view.strides])
        owner, writable = (array, view), not view.readonly
        return cls(tuple(view.shape), dtype, view.device_id, view.ptr, owner, strides, writable)

    def arranged(self, arrange: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> DeviceArray:
        """Return the view that a function of NumPy views, which reads no element, gives of an array like this one."""
        # Nobody reads this array: it has the shape and strides of this one, and a single element.
        like = np.lib.stride_tricks.as_strided(np.empty(1, f"V{self.itemsize}"), self.shape, self.strides)
        view = arrange(like)
        return self._view(self.dtype, view.shape, view.strides, view.ctypes.data - like.ctypes.data)

    def _view(
        self, dtype: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
    ) -> DeviceArray:
        return DeviceArray(shape, dtype, self.device, self.address + offset, self._owner, strides, self.writable)

    def __getitem__(self, index: Any) -> DeviceArray:
        """Share what a basic index selects: integers, slices, ``...`` and None."""
        index = index if isinstance(index, tuple) else (index,)
        return self.arranged(lambda array: array[index if Ellipsis in index else (*index, ...)])

    def reshape(self, shape: tuple[int, ...]) -> DeviceArray:
        """Share the elements in row-major order under another shape of the same size."""
        if self.is_contiguous and math.prod(shape) == self.size and min(shape, default=0) >= 0:
            return self._view(self.dtype, shape, _row_major(shape, self.itemsize))
        return self.arranged(lambda array: array.reshape(shape, copy=False))

    def ravel(self) -> DeviceArray:
        """Share the elements of a row-major array along one axis."""
        self._require_row_major()
        return self._view(self.dtype, (self.size,), (self.itemsize,))

    def transpose(self, *axes: int) -> DeviceArray:
        """Share the elements with the axes reversed, or in another order."""
        return self.arranged(lambda array: array.transpose(*axes))

    def broadcast_to(self, shape: tuple[int, ...]) -> DeviceArray:
        """Share the elements under a shape in which some are repeated; it is not to be written."""
        try:
            return self.arranged(lambda array: np.broadcast_to(array, shape))
        except ValueError:
            raise ValueError(f"an array of shape {self.shape} cannot be broadcast to {shape}") from None

    def view(self, dtype: np.dtype[Any]) -> DeviceArray:
        """Share the bytes of a row-major array as elements of another dtype; the last axis grows or shrinks."""
        self._require_row_major()
        *outer, last = self.shape or (1,)
        count, rest = divmod(last * self.itemsize, dtype.itemsize)
        if rest:
            raise ValueError(f"rows of {last * self.itemsize} bytes do not hold whole elements of {dtype}")
        shape = self.shape if dtype.itemsize == self.itemsize else (*outer, count)
        return self._view(dtype, shape, _row_major(shape, dtype.itemsize))

    def parts(self, dtype: np.dtype[Any]) -> tuple[DeviceArray, DeviceArray]:
        """Share the first and the second half of every element, as elements of another dtype: parts of a complex."""
        half = dtype.itemsize
        return self._view(dtype, self.shape, self.strides), self._view(dtype, self.shape, self.strides, half)

    def overlaps(self, other: DeviceArray) -> bool:
        """Return whether two arrays may share memory."""
        (start, stop), (other_start, other_stop) = self._bounds(), other._bounds()
        return start < other_stop and other_start < stop

    def _bounds(self) -> tuple[int, int]:
        """Return the first address and the one after the last."""
        if not self.size:
            return self.address, self.address
        steps = [(length - 1) * step for length, step in zip(self.shape, self.strides, strict=True)]
        low, high = sum(min(step, 0) for step in steps), sum(max(step, 0) for step in steps)
        return self.address + low, self.address + high + self.itemsize

    def _require_row_major(self) -> None:
        if not self.is_contiguous:
            raise ValueError(f"a row-major array was expected, found strides {self.strides} for shape {self.shape}")

    def _check_host_copy(self, nbytes: int) -> None:
        self._require_row_major()
        if nbytes != self.nbytes:
            raise ValueError(f"{self.nbytes} bytes were expected, found {nbytes}")

    def write(self, values: np.ndarray[Any, Any]) -> None:
        """Copy the elements of a NumPy array of the same size and dtype to this row-major array, in that order."""
        self._check_host_copy(values.nbytes)
        with _staging(self.device) as staging:
            at = self.address
            for piece in _pieces(values):
                pinned = staging.take()[: piece.size]
                pinned[...] = piece
                staging.send(at, piece.size)
                at += piece.size

    def read(self, out: np.ndarray[Any, Any], after: Any = None) -> None:
        """Copy the elements of this row-major array to a C-contiguous NumPy array of the same size and dtype.

        They are the results of the work that was queued until now, or until an event.
        """
        target = out.reshape(-1).view(np.uint8)
        self._check_host_copy(target.size)
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
        """Return the function `read` for the results of the work that was queued until now."""
        return partial(self.read, after=_driver.get_driver().record(self.device))

    def to_host(self) -> np.ndarray[Any, Any]:
        """Return a copy of a row-major array on the host."""
        out = np.empty(self.shape, self.dtype)
        self.read(out)
        return out

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Describe the array to Numba, CuPy and others; version 3."""
        if self.dtype.isbuiltin != 1:
            raise AttributeError(f"the CUDA array interface has no name for {self.dtype}; use DLPack")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, not self.writable),
            "strides": self._strides,
            "stream": _driver.LEGACY_DEFAULT_STREAM,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device  # kDLCUDA

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        from cuda.core import Buffer, Stream
        from cuda.core.utils import StridedMemoryView

        size = self.itemsize
        if any(step < 0 or step % size for step in self.strides):
            raise BufferError(
                f"DLPack takes steps of 0, 1, 2, ... elements, found strides {self.strides}; copy it first"
            )
        done = _driver.get_driver().record(self.device)
        if stream not in (None, -1, 0, _driver.LEGACY_DEFAULT_STREAM):
            Stream.from_handle(stream).wait(done)
        start, stop = self._bounds()
        buffer, code = Buffer.from_handle(start, stop - start, owner=self), DLPACK_CODES.get(self.dtype.name)
        dtype = self.dtype if code is None else np.dtype(f"u{size}")
        steps = None if self.is_contiguous else tuple(step // size for step in self.strides)
        capsule = StridedMemoryView.from_buffer(buffer, self.shape, steps, dtype=dtype).__dlpack__(stream=-1, **options)
        if code is not None:
            dtype_code(capsule).value = code
        return capsule


def dtype_code(capsule: Any) -> ctypes.c_uint8:
    """Return the place, to read or write, of the kind of the elements in a DLPack capsule that is not consumed yet."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # The kind follows data, device and number of axes; in a versioned capsule also version, owner, deleter, flags.
    versioned = "dltensor_versioned" in repr(capsule)
    address = get(capsule, b"dltensor_versioned" if versioned else b"dltensor") + (32 if versioned else 0) + 20
    return ctypes.c_uint8.from_address(address)


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
    words = values.view(f"u{size}") if size <= 8 else values  # NumPy's iterator takes its own dtypes only
    flags, needs = ["external_loop", "buffered", "zerosize_ok"], [["readonly", "contig"]]
    pieces = np.nditer(words, flags, needs, order="C", buffersize=STAGING_BYTES // size)  # type: ignore[call-overload]
    for piece in pieces:
        yield piece.view(np.uint8)


def _row_major(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple([math.prod(shape[axis + 1 :]) * itemsize for axis in range(len(shape))])


def _is_row_major(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Return whether the steps that are taken, along axes longer than 1, are row-major."""
    wanted = _row_major(shape, itemsize)
    return 0 in shape or all(
        length == 1 or step == found for length, step, found in zip(shape, wanted, strides, strict=True)
    )
