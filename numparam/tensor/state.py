"""What a tensor holds: one `Values`, and how it is replaced."""

from __future__ import annotations

from _thread import allocate_lock  # `import threading` takes a millisecond
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from numparam.device import device as as_device
from numparam.device import get_default_device
from numparam.errors import ShapeError
from numparam.indexing.region import Region
from numparam.tensor.convert import check_buffer, to_capsule
from numparam.tensor.values import CPU, Array, Host, Values
from numparam.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numparam.device import Device
    from numparam.entry import Block
    from numparam.tensor.recipe import Generator

_settling = allocate_lock()


class State:
    """Hold values in memory, or the description of values that are materialised when they are needed."""

    _values: Values
    """The full state. It is only ever replaced, so that a thread that reads it finds one state or the other."""
    _own_name: str | None = None
    """The name of a parameter, which decides lazy values that have no name yet."""

    def _hold(self, array: Array) -> None:
        """Adopt an array on the CPU."""
        self._values = Host(array)

    def _replace(self, array: Array) -> None:
        """Take the values of an array, on the device where the tensor is."""
        self._values = Host(array).move(self.device)

    def _place(self, name: Any) -> None:
        """Move a new tensor to a device by name, or to the default device unless it is on a device."""
        if name is not None:
            self._move(as_device(name))
        elif (default := get_default_device()) is not CPU and self.device == CPU:
            self._move(default)

    def _move(self, target: Device) -> None:
        self._values = self._values.move(target)

    def _convert(self, target: np.dtype[Any], convert: Callable[[Array], Array]) -> None:
        """Change the dtype; `convert` does it on the host, and refuses what does not fit an integer or bool dtype."""
        self._values = self._values.convert(target, convert)

    def _copy(self, other: State) -> None:
        """Take the values of another tensor, or their description, and share no storage.

        They are on its device if that is a CUDA device, else where this tensor is, if it has values.
        """
        values = other._named().duplicate()
        # `vars` would make a dict, which all later reads go through.
        held: Values | None = getattr(self, "_values", None)
        self._values = values if held is None or values.device != CPU else values.move(held.device)

    def _sibling(self) -> Self:
        """Return a tensor that has the same attributes, and for now the same values."""
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __copy__(self) -> Self:
        twin = self._sibling()
        if self._values.in_memory:  # a description is shared: a later name decides as for the original
            twin._copy(self)
        return twin

    def _named(self) -> Values:
        """Return the values under the name that decides them."""
        name = self._own_name
        return self._values if name is None else self._values.named(name)

    def _settle(self) -> Values:
        """Return the values in memory, materialised first if the tensor is lazy."""
        while not (values := self._values).in_memory:
            made = self._named().settle()
            with _settling:  # of several threads the first one wins, so that all get the same storage
                if self._values is values:
                    self._values = made
                    return made
        return values

    def blocks(self, limit: int | None = None) -> Iterator[Block]:
        """Split the values into blocks of at most so many bytes; a lazy tensor stays lazy."""
        return self._named().blocks(limit)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape, as a tuple."""
        return self._values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the NumPy dtype."""
        return self._values.dtype

    @property
    def device(self) -> Device:
        """Return where the values are, or will be materialised."""
        return self._values.device

    @property
    def has_init(self) -> bool:
        """Return whether the values are still to be materialised."""
        return not self._values.in_memory

    @property
    def init(self) -> Generator | None:
        """Return the initializer that will generate the values, None when they are materialised."""
        return getattr(self._values, "init", None)

    def init_data(self) -> Self:
        """Materialise the values now if the tensor is lazy, and return this tensor."""
        self._settle()
        return self

    def asnumpy(self) -> Array:
        """Return the values, materialised first if the tensor is lazy.

        Returns
        -------
        numpy.ndarray
            The storage itself: writing to it changes the tensor. Of a tensor on a CUDA device, a copy.
        """
        values = self._values
        return (values if values.in_memory else self._settle()).to_host()

    def numpy(self) -> Array:
        """Return the values, as `asnumpy`."""
        return self.asnumpy()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Describe the values to other libraries, which share them; version 3."""
        if self.device == CPU:
            raise AttributeError("the tensor is on the CPU")
        interface: dict[str, Any] = self._settle().array.__cuda_array_interface__
        return interface

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's kind and number of the device."""
        kind, number = self._settle().array.__dlpack_device__()
        return int(kind), int(number)

    def __dlpack__(self, **options: Any) -> Any:
        """Share the values with another library."""
        return to_capsule(self._settle().array, **options)

    def fill_into(self, out: Array, region: Region | None = None) -> None:
        """Write the values of a region into a buffer, keeping nothing.

        A lazy tensor stays lazy, so a tensor of any size can be written piece by piece.

        Parameters
        ----------
        out : numpy.ndarray
            Writable, C-contiguous, of the dtype of the tensor and the shape of the region.
        region : Region, optional
            A region of ``Region.full(tensor.shape)``; the full tensor by default.

        Raises
        ------
        TypeError
            If `out` is not an array of the dtype.
        ValueError
            If the region is one of another shape, or `out` does not fit the region or is not writable.

        Examples
        --------
        >>> from numparam import Region, Tensor
        >>> from numparam.initializer import One
        >>> out = np.empty((2, 3), np.float32)
        >>> lazy = Tensor(shape=(2**40, 3), init=One())
        >>> lazy.fill_into(out, Region.full(lazy.shape)[-2:])
        >>> out.sum()
        np.float32(6.0)
        """
        values = self._named()
        if region is not None and getattr(region, "full_shape", None) != values.shape:
            raise ShapeError(f"a region of a tensor of shape {values.shape} was asked for, found {shown(region)}")
        check_buffer(out, values.shape if region is None else region.shape, values.dtype)
        values.fill_into(out, region)
