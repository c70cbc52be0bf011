"""The state of a tensor: values in host or device memory, or a description of values that are not materialised yet."""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from numparam import dtypes
from numparam.device import Device, device
from numparam.errors import ArgumentValueError, DeviceOutOfMemoryError, ShapeError
from numparam.indexing import arrays
from numparam.indexing.region import Region, row_major

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numparam.entry import Block
    from numparam.kernels.array import DeviceArray

Array = np.ndarray[Any, np.dtype[Any]]

CPU = device("cpu")

# NumPy begins all large arrays at the same place of a page. An Adam step reads four arrays there and writes three: it
# took 16 ms for 2**24 weights on one core of an AMD EPYC (Zen 3), and takes 13 ms where the places differ.
_LARGE_BYTES = 1 << 20
_LINE = 64
_STAGGER = 1024 + _LINE
_places = count()


class Values:
    """Hold the values of a tensor, or describe them.

    The values change in place, by `write`, and nothing else does: every other method leaves this object alone and
    returns another one, so that a thread that reads a tensor finds its values before or after a change. Of a
    description `in_memory` is false, and `region` is the region of a larger tensor that it is about.
    """

    __slots__ = ()
    in_memory = True
    region: Any = None
    array: Any
    """The memory that holds the values; only if they are in memory."""

    @property
    def is_row_major(self) -> bool:
        """Return whether the values are, or will be, in row-major order."""
        return True

    def named(self, name: str) -> Values:  # noqa: ARG002
        """Return the values under the name of a parameter, which decides lazy values that have no name yet."""
        return self

    def settle(self) -> Values:
        """Return the values in memory."""
        return self

    if TYPE_CHECKING:

        @property
        def shape(self) -> tuple[int, ...]:
            """Return the shape."""

        @property
        def dtype(self) -> np.dtype[Any]:
            """Return the dtype."""

        @property
        def device(self) -> Device:
            """Return where the values are, or will be materialised."""

        def to_host(self) -> Array:
            """Return the values as an array: the memory itself on the CPU, else a copy."""

        def fill_into(self, out: Any, region: Region | None = None) -> None:
            """Write the values of a region, or all, into a C-contiguous array on the host."""

        def read(self, index: Any, name: str | None = None) -> Values:
            """Return a copy of the part at an index; of a description, the description of the part, see `named`."""

        def write(self, index: Any, value: Any) -> None:
            """Write a value, or `Values`, that is broadcast and converted, into the part at an index."""

        def alias(self, index: Any) -> Values:
            """Return the part at a basic index, in the same memory."""

        def reshaped(self, shape: Any) -> Values:
            """Return the values under another shape, in the same memory; a ValueError if that needs a copy."""

        def rearranged(self, arrange: Callable[[Array], Array]) -> Values:
            """Return a copy of the values in the order of a view that `arrange` makes of an array of their shape."""

        def duplicate(self) -> Values:
            """Return a copy, or a description itself."""

        def convert(self, dtype: np.dtype[Any], checked: Callable[[Array], Array] | None = None) -> Values:
            """Return the values in another dtype.

            `checked` converts on the host, and raises where a value does not fit an integer or a bool dtype. Without it
            all values are converted as by ``astype``.
            """

        def move(self, target: Device) -> Values:
            """Return the values on a device, this object itself if they are there."""

    def blocks(self, limit: int | None = None) -> Iterator[Block]:
        """Split the values into blocks of at most so many bytes, `BUFFER_BYTES` by default, in row-major order."""
        from numparam.entry import BUFFER_BYTES, Block

        for index in row_major(self.shape, (limit or BUFFER_BYTES) // self.dtype.itemsize):
            part = Region.full(self.shape)[index]
            yield Block(part.shape, partial(self.fill_into, region=part))


class Host(Values):
    """Hold values in a NumPy array of any strides."""

    __slots__ = ("array",)
    array: Array
    device = CPU

    def __init__(self, array: Array) -> None:
        self.array = array

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: np.dtype[Any], target: Device) -> Host:  # noqa: ARG003
        """Allocate memory; large arrays begin at different places of their pages."""
        if (nbytes := math.prod(shape) * dtype.itemsize) >= _LARGE_BYTES:
            with suppress(MemoryError, ValueError, OverflowError):  # below, the error has the shape
                memory = np.empty(nbytes + 4 * _STAGGER, np.uint8)
                start = -memory.ctypes.data % _LINE + next(_places) % 4 * _STAGGER
                return cls(memory[start : start + nbytes].view(dtype).reshape(shape))
        return cls(np.empty(shape, dtype))

    @classmethod
    def from_host(cls, array: Array, target: Device) -> Host:  # noqa: ARG003
        """Hold an array."""
        return cls(array)

    @classmethod
    def from_device(cls, values: DeviceArray, target: Device) -> Host:  # noqa: ARG003
        """Copy values to the CPU."""
        return cls(values.to_host())

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def is_row_major(self) -> bool:
        return self.array.flags.c_contiguous

    def to_host(self) -> Array:
        return self.array

    def fill_into(self, out: Any, region: Region | None = None) -> None:
        arrays.overwrite(out, self.array if region is None else region.take(self.array))

    def read(self, index: Any, name: str | None = None) -> Host:  # noqa: ARG002
        return Host(arrays.read(self.array, index))

    def write(self, index: Any, value: Any) -> None:
        arrays.write(self.array, index, value.to_host() if isinstance(value, Values) else value)

    def alias(self, index: Any) -> Host:
        return Host(arrays.select(self.array, index))

    def reshaped(self, shape: Any) -> Host:
        return Host(np.reshape(self.array, shape, copy=False))

    def rearranged(self, arrange: Callable[[Array], Array]) -> Host:
        return Host(arrays.duplicate(arrange(self.array)))

    def duplicate(self) -> Host:
        return Host(arrays.duplicate(self.array))

    def convert(self, dtype: np.dtype[Any], checked: Callable[[Array], Array] | None = None) -> Host:
        return Host(checked(self.array) if checked else arrays.converted(self.array, dtype))

    def move(self, target: Device) -> Values:
        return self if target is CPU else HOLDERS[target.kind].from_host(self.array, target)


class OnDevice(Values):
    """Hold values in the memory of a CUDA device, in an array of any strides."""

    __slots__ = ("array", "device")

    def __init__(self, array: DeviceArray, target: Device) -> None:
        self.array: DeviceArray = array
        self.device = target  # type: ignore[misc]

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: np.dtype[Any], target: Device) -> OnDevice:
        """Allocate memory on a device."""
        from numparam.kernels.array import DeviceArray

        return cls(_allocated(DeviceArray.empty, shape, dtype, target.index), target)

    @classmethod
    def from_host(cls, array: Array, target: Device) -> OnDevice:
        """Copy an array to a device."""
        from numparam.kernels.array import DeviceArray

        return cls(_allocated(DeviceArray.from_host, array, target.index), target)

    @classmethod
    def from_device(cls, values: DeviceArray, target: Device) -> OnDevice:
        """Copy values of this device or another."""
        from numparam.kernels import copy

        moved = cls.empty(values.shape, values.dtype, target)
        copy.copy(moved.array, values)
        return moved

    @classmethod
    def from_foreign(cls, array: Any) -> OnDevice:
        """Share the memory of another library's array."""
        from numparam.kernels.array import DeviceArray

        values = DeviceArray.from_foreign(array)
        dtypes.as_dtype(values.dtype)
        return cls(values, Device(f"cuda:{values.device}"))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def is_row_major(self) -> bool:
        return self.array.is_contiguous

    def in_order(self) -> DeviceArray:
        """Return the values in row-major order: the memory itself if they are, else a copy."""
        return self.array if self.array.is_contiguous else self.duplicate().array

    def to_host(self) -> Array:
        return self.in_order().to_host()

    def fill_into(self, out: Any, region: Region | None = None) -> None:
        (self if region is None else self.read(region.slices())).in_order().read(out)

    def read(self, index: Any, name: str | None = None) -> OnDevice:  # noqa: ARG002
        from numparam.kernels import rows

        own = self.array
        if arrays.is_basic(index):
            return self._copied(own[Region.full(own.shape)[index].slices()])
        from numparam.indexing.rows import select_rows

        selected = select_rows(own.shape, index)
        numbers = selected.numbers.reshape(-1)
        part = OnDevice.empty((numbers.size, *selected.row), own.dtype, self.device).array
        rows.gather(part, self.in_order().reshape((selected.of, *selected.row)), numbers)
        return OnDevice(part.reshape(selected.shape), self.device)

    def write(self, index: Any, value: Any) -> None:
        from numparam.kernels import rows

        own = self.array
        if not own.writable:
            raise ArgumentValueError("the storage is a read-only array: write to a copy of the tensor")
        if arrays.is_basic(index):
            _overwrite(own[Region.full(own.shape)[index].slices()], self._operand(value))
            return
        from numparam.indexing.rows import select_rows

        selected, values = select_rows(own.shape, index), self._operand(value)
        if (values.shape, values.dtype) != (selected.shape, own.dtype) or not values.is_contiguous:
            full = OnDevice.empty(selected.shape, own.dtype, self.device).array
            _overwrite(full, values)
            values = full
        numbers, target = selected.numbers.reshape(-1), self.in_order()
        rows.scatter(
            target.reshape((selected.of, *selected.row)), numbers, values.reshape((numbers.size, *selected.row))
        )
        if target is not own:
            _overwrite(own, target)

    def _operand(self, value: Any) -> DeviceArray:
        """Return a value on this device, in a dtype that converts to the dtype of these values.

        What comes from the host or another device is copied in its own size, before it is broadcast.
        """
        if isinstance(value, OnDevice) and arrays.is_assignable(value.dtype, self.dtype):
            return value.array if value.device == self.device else OnDevice.from_device(value.array, self.device).array
        given = arrays.assignable(value.to_host() if isinstance(value, Values) else value, self.dtype)
        return OnDevice.from_host(arrays.converted(given, self.dtype), self.device).array

    def alias(self, index: Any) -> OnDevice:
        return OnDevice(self.array[Region.full(self.shape)[index].slices()], self.device)

    def reshaped(self, shape: Any) -> OnDevice:
        lengths = np.broadcast_to(np.uint8(0), self.shape).reshape(shape).shape  # one of them may be -1
        return OnDevice(self.array.reshape(lengths), self.device)

    def rearranged(self, arrange: Callable[[Array], Array]) -> OnDevice:
        return self._copied(self.in_order().arranged(arrange))

    def duplicate(self) -> OnDevice:
        return OnDevice.from_device(self.array, self.device)

    def convert(self, dtype: np.dtype[Any], checked: Callable[[Array], Array] | None = None) -> OnDevice:
        if checked and dtype.kind in "biu":
            return OnDevice.from_host(checked(self.to_host()), self.device)
        if checked:
            dtypes.check_imaginary(self.dtype, dtype)
        return self._copied(self.array, dtype)

    def move(self, target: Device) -> Values:
        return self if target == self.device else HOLDERS[target.kind].from_device(self.in_order(), target)

    def __deepcopy__(self, memo: dict[int, Any]) -> OnDevice:
        return self.duplicate()

    def __reduce__(self) -> tuple[Any, ...]:
        return OnDevice.from_host, (self.to_host(), self.device)

    def _copied(self, view: DeviceArray, dtype: np.dtype[Any] | None = None) -> OnDevice:
        """Return a row-major copy of a view of these values, optionally in another dtype."""
        from numparam.kernels import copy

        part = OnDevice.empty(view.shape, dtype or view.dtype, self.device)
        copy.copy(part.array, view)
        return part


HOLDERS: dict[str, type[Host | OnDevice]] = {"cpu": Host, "cuda": OnDevice}
"""What holds values in memory, by the kind of the device."""


class Lazy(Values):
    """Describe values that are not materialised yet; immutable.

    A subclass writes them, by `fill_into`. Those with `on_device` can also write device memory.
    """

    in_memory = False
    on_device = False
    region: Region

    def __init__(self, region: Region, dtype: np.dtype[Any], target: Device = CPU) -> None:
        self.region, self.dtype, self.device = region, dtype, target  # type: ignore[misc]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.region.shape

    def replace(self, **changes: Any) -> Self:
        """Return the same description with some attributes changed."""
        twin = object.__new__(type(self))
        twin.__dict__ = {**self.__dict__, **changes}
        return twin

    def settle(self) -> Values:
        # The CPU first: the name of a device is split to find its kind, which takes as long as all else here.
        holder = Host if self.device is CPU or not self.on_device else HOLDERS[self.device.kind]
        try:
            values = holder.empty(self.region.shape, self.dtype, self.device)
        except ValueError:  # beyond the address space, which NumPy finds before it allocates
            asked = f"an array of shape {self.region.shape} and dtype {self.dtype}"
            raise ShapeError(f"{asked} is too large; read a slice") from None
        self.fill_into(values.array)
        return values.move(self.device)

    def read(self, index: Any, name: str | None = None) -> Self:  # noqa: ARG002
        return self.replace(region=self.region[index])

    def duplicate(self) -> Self:
        return self

    def move(self, target: Device) -> Self:
        return self.replace(device=target)


@contextmanager
def launched_together(devices: Iterable[Device]) -> Iterator[None]:
    """Launch the fills of small tensors on CUDA devices together, at the end of the block."""
    if all(HOLDERS[target.kind] is Host for target in devices):
        yield
        return
    from numparam.kernels.batch import Batch

    with Batch():
        yield


def _overwrite(target: DeviceArray, values: DeviceArray) -> None:
    from numparam.kernels import copy

    shape = values.shape
    while values.ndim > target.ndim and values.shape[0] == 1:
        values = values[0]
    try:
        copy.copy(target, values)
    except ValueError:
        raise ShapeError(
            f"values of shape {shape} cannot be broadcast to the shape {target.shape} of the part"
        ) from None


def _allocated(make: Any, *arguments: Any) -> DeviceArray:
    """Return a new device array, or raise an error with the bytes requested and free."""
    from numparam.kernels.machine.driver import DeviceMemoryError

    try:
        array: DeviceArray = make(*arguments)
    except DeviceMemoryError as error:
        raise DeviceOutOfMemoryError(str(error)) from error
    return array
