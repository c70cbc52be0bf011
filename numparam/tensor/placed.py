"""Where the values of a tensor are: what every tensor can do about its device."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from numparam.device import Device, device, get_default_device
from numparam.dtypes import as_dtype
from numparam.errors import ArgumentValueError, DeviceOutOfMemoryError, ShapeError
from numparam.indexing import arrays
from numparam.indexing.region import Region
from numparam.indexing.rows import select_rows
from numparam.stream.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numparam.initializer import Initializer
    from numparam.kernels.array import DeviceArray
    from numparam.kernels.fill import Span
    from numparam.tensor.tensor import Recipe, Tensor

_CPU = device("cpu")
_DLPACK_CUDA = 2


class Placed:
    """Hold values on a device."""

    _device: Device = _CPU
    _on_device: DeviceArray | None = None

    if TYPE_CHECKING:
        _array: np.ndarray[Any, np.dtype[Any]] | None
        _recipe: Recipe | None
        _dtype: np.dtype[Any]

        def asnumpy(self) -> np.ndarray[Any, np.dtype[Any]]: ...  # noqa: D102

        def _stream_name(self, recipe: Recipe) -> str | int: ...

    @property
    def device(self) -> Device:
        """Return where the values are, or will be made."""
        return self._device

    def to(self, name: Any) -> Self:
        """Return the tensor on a device.

        Parameters
        ----------
        name : str or Device
            ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

        Returns
        -------
        Tensor
            This tensor if it is there already, else another one of the same values. A lazy one stays lazy, and its
            values are the same bits on every device.

        Raises
        ------
        DeviceError
            If there is no such device, or it has no room.

        Examples
        --------
        >>> from numparam import Tensor
        >>> tensor = Tensor([1.0, 2.0])
        >>> tensor.to("cpu") is tensor
        True
        """
        target = device(name)
        if target == self._device:
            return self
        moved = self.__class__.__new__(self.__class__)
        vars(moved).update(vars(self))  # to move makes new storage and leaves the old one alone
        moved._move(target)
        return moved

    def cpu(self) -> Self:
        """Return the tensor on the CPU; see `to`."""
        return self.to(_CPU)

    def cuda(self, index: int = 0) -> Self:
        """Return the tensor on a CUDA device; see `to`."""
        return self.to(f"cuda:{index}")

    def _place(self, name: Any) -> None:
        """Put a new tensor where it was asked for, or on the default device unless it has a place."""
        if name is not None:
            self._move(device(name))
        elif self._device == _CPU and (default := get_default_device()) != _CPU:
            self._move(default)

    def _move(self, target: Device) -> None:
        """Put this tensor on a device; a lazy one, or one whose values are on the host, only notes it."""
        if target != self._device and self._recipe is None and self._array is None:
            source = self._device_values()
            if target == _CPU:
                self._array, self._on_device = source.to_host(), None
            else:
                self._on_device = allocated(source.copy_to, target.index)
        elif target != self._device and target == _CPU and self._array is not None:
            self._array = self._array.copy()
        before, self._device = self._device, target
        if target != _CPU and self._recipe is None:
            try:
                self._device_values()
            except Exception:
                self._device = before
                raise

    def _device_values(self) -> DeviceArray:
        """Return the values on the tensor's CUDA device, making them or copying them there first."""
        recipe, array = self._recipe, self._array
        if recipe is not None:
            source = Source(recipe.seed, self._stream_name(recipe))
            self._on_device = made_on_device(recipe.init, recipe.region, self._dtype, source, self._device)
            self._recipe = None
        elif array is not None:  # new values, given on the host
            self._on_device = upload(array, self._device)
            self._array = None
        assert self._on_device is not None
        return self._on_device

    def _adopt(self, array: Any) -> None:
        """Take another library's array on a CUDA device as the storage."""
        from numparam.kernels.array import DeviceArray

        try:
            values = DeviceArray.from_foreign(array)
        except ValueError as error:
            raise ShapeError(str(error)) from None
        self._on_device, self._dtype = values, as_dtype(values.dtype)
        self._device = Device(f"cuda:{values.device}")

    def _part_on_device(self, index: Any) -> DeviceArray:
        """Return a part of the values, copied on their device; a mask or an array of integers is read on the host."""
        from numparam.kernels.fill import Span

        values = self._device_values()
        if arrays.is_basic(index):
            region = Region.full(values.shape)[index]
            return allocated(values.read_slice, region.shape, Span(*region.span()))
        selected = select_rows(values.shape, index)
        rows = values.reshape((selected.of, *selected.row))
        return allocated(rows.gather, selected.numbers.reshape(-1)).reshape(selected.shape)

    def _write_on_device(self, index: Any, value: Any) -> None:
        """Write a part of the values where they are; see `_part_on_device`."""
        from numparam.kernels.fill import Span

        own = self._device_values()
        if not own.writable:
            raise ArgumentValueError("the storage is a read-only array: write to a copy of the tensor")
        if arrays.is_basic(index):
            region = Region.full(own.shape)[index]
            _write_slice(own, self._to_write(value), region.shape, Span(*region.span()))
            return
        selected, values = select_rows(own.shape, index), self._to_write(value)
        shape, numbers = selected.shape, selected.numbers.reshape(-1)
        if (values.shape, values.dtype) != (shape, own.dtype):
            whole = allocated(type(own).empty, shape, own.dtype, own.device)
            _write_slice(whole, values, shape, Span(*Region.full(shape).span()))
            values = whole
        rows = own.reshape((selected.of, *selected.row))
        rows.scatter(numbers, values.reshape((numbers.size, *selected.row)))

    def _to_write(self, value: Any) -> DeviceArray:
        """Return a value on the tensor's device, in a dtype that converts to the tensor's.

        What comes from the host or another device comes in its own size, before it is broadcast.
        """
        if isinstance(value, Placed) and value._device != _CPU and arrays.is_assignable(value._dtype, self._dtype):
            values = value._device_values()
            return values if value._device == self._device else allocated(values.copy_to, self._device.index)
        return upload(arrays.converted(arrays.assignable(value, self._dtype), self._dtype), self._device)

    def _rearranged_on_device(self, arrange: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> DeviceArray:
        """Return a copy of the values in the order that `arrange` gives to an array of their shape."""
        from numparam.kernels.fill import Span

        values = self._device_values()
        # Nobody reads this array: one byte stands for an element, so its strides are steps.
        _, steps = Region.full(values.shape).span()
        view = arrange(np.lib.stride_tricks.as_strided(np.empty(1, np.uint8), values.shape, steps))
        return allocated(values.read_slice, view.shape, Span(0, view.strides))

    def _holding(self, values: DeviceArray) -> Tensor:
        """Return a tensor that adopts values on this tensor's device."""
        from numparam.tensor.tensor import Tensor

        tensor = Tensor.__new__(Tensor)
        tensor._device, tensor._on_device, tensor._dtype = self._device, values, values.dtype
        return tensor

    def _settle(self) -> None:
        """Make the values now if the tensor is lazy."""
        if self._device == _CPU:
            self.asnumpy()
        else:
            self._device_values()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Describe the values to other libraries, which share them; version 3."""
        if self._device.kind == "cpu":
            raise AttributeError("the tensor is on the CPU")
        return self._device_values().__cuda_array_interface__

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's kind and number of the device."""
        return (1, 0) if self._device.kind == "cpu" else (_DLPACK_CUDA, self._device.index)

    def __dlpack__(self, **options: Any) -> Any:
        """Share the values with another library."""
        if self._device.kind == "cpu":
            options = {name: value for name, value in options.items() if value is not None}
            return self.asnumpy().__dlpack__(**options)
        return self._device_values().__dlpack__(**options)


def is_on_cuda(array: Any) -> bool:
    """Say whether another library's array is on a CUDA device."""
    if hasattr(array, "__dlpack_device__"):
        return bool(array.__dlpack_device__()[0] == _DLPACK_CUDA)
    return hasattr(array, "__cuda_array_interface__")


@contextmanager
def made_together(tensors: Iterable[Placed]) -> Iterator[None]:
    """Launch the fills of small tensors on CUDA devices together, at the end of the block."""
    if all(tensor.device == "cpu" for tensor in tensors):
        yield
        return
    from numparam.kernels.batch import Batch

    with Batch():
        yield


def made_on_device(
    init: Initializer, region: Region, dtype: np.dtype[Any], source: Source, target: Device
) -> DeviceArray:
    """Return a region of what an initializer makes, in the memory of a CUDA device.

    Raises
    ------
    DeviceOutOfMemoryError
        If the device has no room.
    """
    from numparam.kernels.array import DeviceArray

    out = allocated(DeviceArray.empty, region.shape, dtype, target.index)
    if init.on_device:
        init.fill(out, region, source)  # type: ignore[arg-type]
    elif out.size:
        values = np.empty(region.shape, dtype)
        init.fill(values, region, source)
        out.write(values)
    return out


def _write_slice(target: DeviceArray, values: DeviceArray, shape: tuple[int, ...], span: Span) -> None:
    try:
        target.write_slice(values, shape, span)
    except ValueError:
        raise ShapeError(
            f"values of shape {values.shape} cannot be broadcast to the shape {shape} of the part"
        ) from None


def upload(array: np.ndarray[Any, Any], target: Device) -> DeviceArray:
    """Copy an array to a CUDA device.

    Raises
    ------
    DeviceOutOfMemoryError
        If the device has no room.
    """
    from numparam.kernels.array import DeviceArray

    return allocated(DeviceArray.from_host, array, target.index)


def allocated(make: Any, *arguments: Any) -> DeviceArray:
    """Return a new device array, or say what was asked for and how much room there is."""
    from numparam.kernels.machine.driver import DeviceMemoryError

    try:
        array: DeviceArray = make(*arguments)
    except DeviceMemoryError as error:
        raise DeviceOutOfMemoryError(str(error)) from error
    return array
