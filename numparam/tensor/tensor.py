"""A tensor: values, or a description of values that are materialised when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, SupportsIndex, overload

import numpy as np

from numparam import dtypes
from numparam.device import Device
from numparam.device import device as as_device
from numparam.errors import ArgumentTypeError, DtypeError, NumberRangeError, RegionError, ShapeError
from numparam.indexing import arrays
from numparam.indexing.region import Region, Shape, as_shape
from numparam.stream.seed import next_number
from numparam.tensor.arithmetic import is_operand, plain
from numparam.tensor.convert import SupportsDLPack, as_array, from_dlpack, from_torch
from numparam.tensor.declared import Declared
from numparam.tensor.promotion import promoted
from numparam.tensor.recipe import Recipe
from numparam.tensor.values import CPU, HOLDERS, Array, Host, OnDevice, Values
from numparam.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from numparam.indexing.arrays import Index
    from numparam.tensor.recipe import Generator

_DLPACK_CUDA = 2


class Tensor(Declared["Tensor"]):
    """Hold an array of numbers, or the recipe for one.

    A tensor of an initializer is lazy: it takes no memory until its values are needed. A slice of it is lazy too,
    and generates only its own values, the same bits that the full tensor has there. The seed of a lazy tensor is chosen
    when the tensor is created.

    Parameters
    ----------
    input_data : number, bool, sequence, numpy.ndarray or Tensor, optional
        The values, which are copied. Python ints become int64 and Python floats float32, and so does ``np.float64``,
        which is one; arrays and other NumPy scalars keep their dtype.
    dtype : numpy.dtype or str, optional
        Converts the values. Integers and bools must stay exactly what they were. A lazy tensor is drawn in the dtype.
    shape : int or sequence of int, optional
        The shape of a lazy tensor.
    init : Initializer, optional
        Generates the values of a lazy tensor; takes the place of `input_data`.
    device : str or Device, optional
        Where the values are, or will be materialised: ``"cpu"`` or ``"cuda"``. By default the device of an input
        on a CUDA device, else the default device, see `numparam.device`.
    seed : int, optional
        Of a lazy tensor, from 0 to 2**64 - 1; see `numparam.stream.seed.choose_seed`.

    Raises
    ------
    TypeError
        If the values, the dtype or `init` are of a kind that is not accepted.
    ValueError
        If a value does not fit the dtype, or the shape does not fit the initializer.

    Examples
    --------
    >>> Tensor([1, 2, 3])[1:] * 0.5
    Tensor(shape=[2], dtype=Float32, value=
    [1.  1.5])
    >>> from numparam.initializer import Normal
    >>> huge = Tensor(shape=(2**20, 2**20), dtype="bfloat16", init=Normal(0.02))
    >>> huge.nbytes, huge[-1, ::2].shape
    (2199023255552, (524288,))
    """

    def __init__(
        self,
        input_data: npt.ArrayLike | None = None,
        dtype: npt.DTypeLike | None = None,
        shape: Shape | None = None,
        init: Generator | None = None,
        device: str | None = None,
        seed: SupportsIndex | None = None,
    ) -> None:
        if init is not None:
            if input_data is not None or shape is None:
                raise ArgumentTypeError("a tensor with an initializer needs a shape, and no input_data")
            if not hasattr(init, "check"):
                raise ArgumentTypeError(
                    f"init is an Initializer, found {shown(init)}; numparam.initializer.initializer takes its name"
                )
            target = dtypes.as_dtype("float32" if dtype is None else dtype)
            self._values = Recipe.of(init, next_number(), Region.full(as_shape(shape)), target, seed)
        elif shape is not None or seed is not None:
            raise ArgumentTypeError("a shape or a seed goes with an initializer; input_data has its own")
        elif isinstance(input_data, Tensor):
            self._copy(input_data)
            if dtype is not None:
                target = dtypes.as_dtype(dtype)
                self._convert(target, lambda array: as_array(array, target))
        else:
            self._hold(as_array(input_data, dtype))
        self._place(device)

    @classmethod
    def from_numpy(cls, array: Array) -> Tensor:
        """Return a tensor whose storage is an array: writing to one is seen in the other.

        Parameters
        ----------
        array : numpy.ndarray
            Of any strides, in native byte order. The tensor of a read-only array is read-only.

        Raises
        ------
        TypeError
            If it is not an array, or of a dtype that numparam does not have.

        Examples
        --------
        >>> array = np.zeros(3)
        >>> Tensor.from_numpy(array)[1:] = 5
        >>> array
        array([0., 5., 5.])
        """
        if not isinstance(array, np.ndarray):
            raise ArgumentTypeError(f"a NumPy array is needed, found {type(array).__name__}; Tensor(...) copies others")
        if dtypes.as_dtype(array.dtype) != array.dtype:
            raise DtypeError(f"the array has dtype {array.dtype}, in foreign byte order; Tensor(array) copies it")
        return Tensor._of(Host(array))

    @classmethod
    def from_dlpack(cls, array: SupportsDLPack) -> Tensor:
        """Return a tensor whose storage is the storage of another library's array, such as torch's, CuPy's or JAX's.

        Parameters
        ----------
        array : object
            Has ``__dlpack__`` and ``__dlpack_device__``, or ``__cuda_array_interface__``.

        Raises
        ------
        TypeError
            If it is not such an array.
        BufferError
            If the library does not share the array, or NumPy cannot read it where it is.
        """
        if not hasattr(array, "__dlpack__") and not hasattr(array, "__cuda_array_interface__"):
            raise ArgumentTypeError(f"an array with __dlpack__ is needed, found {type(array).__name__}")
        kind, _ = array.__dlpack_device__() if hasattr(array, "__dlpack_device__") else (_DLPACK_CUDA, 0)
        if kind == _DLPACK_CUDA:
            return Tensor._of(OnDevice.from_foreign(array))
        return cls.from_numpy(from_dlpack(array))

    @staticmethod
    def _of(values: Values) -> Tensor:
        """Return a tensor around values that nothing else changes."""
        tensor = Tensor.__new__(Tensor)
        tensor._values = values
        return tensor

    def _made(self, array: Array) -> Tensor:
        """Return a tensor that adopts an array, moved to the device of this one."""
        dtypes.as_dtype(array.dtype)  # NumPy computes in dtypes that numparam does not have, such as longdouble
        return Tensor._of(Host(array).move(self.device))

    def __getitem__(self, index: Index) -> Tensor:
        """Return the values at an index as a new tensor; an IndexError if the index does not fit.

        A lazy tensor takes integers, slices, ``...`` and None, and gives a lazy slice. One with values takes any index
        that NumPy takes, tensors included, and gives a copy; see `alias` for a slice that shares storage.
        """
        return Tensor._of(self._values.read(index, self._own_name))

    def __setitem__(self, index: Index, value: npt.ArrayLike) -> None:
        """Write values in place; the values of a lazy tensor are materialised first.

        The value is broadcast to the part and converted to the dtype of the tensor. Bools become numbers, integers
        become floats and floats become complex, never the other way. On a CUDA device the part is read and written
        there; masks and arrays of integers are looked at on the host.

        Raises
        ------
        IndexError
            If the index does not fit.
        TypeError
            If the value is of a kind that the dtype cannot hold, such as floats for integers.
        ValueError
            If the value cannot be broadcast, or an integer dtype cannot hold it.
        """
        self._settle().write(index, value._settle() if isinstance(value, Tensor) else from_torch(value))

    def alias(self, index: Index = ...) -> Tensor:
        """Return a tensor that shares the storage of a part of this one: writing to one is seen in the other.

        The values of a lazy tensor are materialised first.

        Parameters
        ----------
        index : int, slice, ``...``, None or tuple of these
            The full tensor by default.

        Raises
        ------
        IndexError
            If the index does not fit, or selects values that only a copy can hold.

        Examples
        --------
        >>> tensor = Tensor([[1, 2], [3, 4]])
        >>> tensor.alias((slice(None), 0))[...] = 0
        >>> tensor.tolist()
        [[0, 2], [0, 4]]
        """
        if not arrays.is_basic(index):
            raise RegionError(f"an alias takes ints, slices, ... and None, found {shown(index)}")
        return Tensor._of(self._settle().alias(index))

    def view(self, *shape: SupportsIndex | Sequence[SupportsIndex]) -> Tensor:
        """Return a tensor of another shape that shares the storage; see `reshape` for one that may copy.

        The values of a lazy tensor are materialised first. `alias` shares a part at an index.

        Parameters
        ----------
        *shape : int or sequence of int
            One length may be -1: what is left.

        Raises
        ------
        ValueError
            If the sizes differ, or the values are not in an order that the shape can share.

        Examples
        --------
        >>> tensor = Tensor([1, 2, 3, 4])
        >>> tensor.view(2, 2)[0] = 0
        >>> tensor.tolist()
        [0, 0, 3, 4]
        """
        lengths: Any = shape[0] if len(shape) == 1 else shape
        try:
            return Tensor._of(self._settle().reshaped(lengths))
        except (ValueError, TypeError) as error:
            raise ShapeError(f"a tensor of shape {self.shape} cannot be viewed as {shown(lengths)}: {error}") from None

    def copy(self) -> Tensor:
        """Return a new tensor with the same values, lazy if this one is."""
        return Tensor(self)

    def clone(self) -> Tensor:
        """Return a new tensor with the same values, lazy if this one is."""
        return self.copy()

    def contiguous(self) -> Tensor:
        """Return this tensor if its values are in row-major order, as they are unless it is a view, else a copy."""
        return self if self._values.is_row_major else self.copy()

    def _rearranged(self, arrange: Callable[[Array], Array], problem: str = "", given: Any = None) -> Tensor:
        """Return a tensor in the order of a view; a ShapeError with the problem, and what was given, if it fails."""
        try:
            return Tensor._of(self._settle().rearranged(arrange))
        except (ValueError, OverflowError) as error:
            if not problem:
                raise
            raise ShapeError(f"a tensor of shape {self.shape} {problem.format(shown(given))}: {error}") from None

    def reshape(self, *shape: SupportsIndex | Sequence[SupportsIndex]) -> Tensor:
        """Return a tensor of another shape with the same values in row-major order; a ValueError if the sizes differ.

        Parameters
        ----------
        *shape : int or sequence of int
            One length may be -1: what is left.

        Examples
        --------
        >>> Tensor([1, 2, 3, 4]).reshape(2, -1).tolist()
        [[1, 2], [3, 4]]
        """
        lengths: Any = shape[0] if len(shape) == 1 else shape
        try:
            return self._rearranged(lambda array: array.reshape(lengths))
        except (ValueError, OverflowError):
            raise ShapeError(f"a tensor of shape {self.shape} cannot be reshaped to {shown(lengths)}") from None

    def flatten(self) -> Tensor:
        """Return a tensor with one axis."""
        return self.reshape(-1)

    def expand_dims(self, axis: int) -> Tensor:
        """Return a tensor with another axis of length 1; a ValueError if its place does not exist."""
        return self._rearranged(lambda array: np.expand_dims(array, axis), "has no place {} for an axis", axis)

    def expand_as(self, other: Tensor) -> Tensor:
        """Return a tensor that is broadcast to the shape of another; a ValueError if it cannot be."""
        if not hasattr(other, "shape"):
            raise ArgumentTypeError(f"expand_as takes a tensor, found {shown(other)}")
        try:
            return self._rearranged(lambda array: np.broadcast_to(array, other.shape))
        except ValueError as error:
            raise ShapeError(str(error)) from None

    def assign_value(self, value: npt.ArrayLike) -> Self:
        """Replace the values in place, in this dtype and shape; as ``self[...] = value``."""
        self[...] = value
        return self

    def set_dtype(self, dtype: npt.DTypeLike) -> Self:
        """Convert the tensor to another dtype, in place; see `astype`."""
        self._values = self._settle().convert(dtypes.as_dtype(dtype))
        return self

    def fill(self, value: float) -> Self:
        """Write a number to every element, in place, and return this tensor."""
        self[...] = value
        return self

    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> Tensor:
        """Return a tensor without its axes of length 1, all or some; a ValueError if an axis is longer."""
        return self._rearranged(lambda array: array.squeeze(axis), "cannot be squeezed along {}", axis)

    def transpose(self, *axes: int | Sequence[int] | None) -> Tensor:
        """Return a tensor with the axes in another order, reversed by default; a ValueError if one is missing."""
        order: Any = axes[0] if len(axes) == 1 else axes or None
        return self._rearranged(lambda array: array.transpose(order), "cannot be transposed by {}", order)

    @property
    def T(self) -> Tensor:
        """Return a tensor with the axes reversed."""
        return self.transpose()

    def astype(self, dtype: npt.DTypeLike) -> Tensor:
        """Return a tensor with the values converted to another dtype; a TypeError if the dtype is unknown.

        Floating-point values are rounded once, to nearest even. A value that is too large becomes infinity, or NaN in
        float8_e4m3fn. Everything else is converted as NumPy does, unchecked; floats that an integer dtype cannot hold
        may differ between processors and devices.

        Parameters
        ----------
        dtype : numpy.dtype or str

        Examples
        --------
        >>> Tensor([0.1, 1e6]).astype("float16").tolist()
        [0.0999755859375, inf]
        """
        return Tensor._of(self._settle().convert(dtypes.as_dtype(dtype)))

    @overload
    def to(self, target: Device) -> Self: ...
    @overload
    def to(self, target: npt.DTypeLike) -> Tensor: ...
    def to(self, target: Device | npt.DTypeLike) -> Tensor:
        """Return the tensor on a device, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``, or in another dtype, see `astype`.

        It is this tensor if nothing changes. On another device a lazy tensor stays lazy, and its values are the same
        bits on every device.

        Raises
        ------
        DeviceError
            If the device does not exist, or is out of memory.
        TypeError
            If the dtype does not exist.
        """
        if isinstance(target, Device) or (isinstance(target, str) and target.partition(":")[0].lower() in HOLDERS):
            return self._on(as_device(target))
        dtype = dtypes.as_dtype(target)
        return self if dtype == self.dtype else self.astype(dtype)

    def _on(self, target: Device) -> Self:
        if target == self.device:
            return self
        moved = self._sibling()
        moved._move(target)
        return moved

    def cpu(self) -> Self:
        """Return the tensor on the CPU; see `to`."""
        return self._on(CPU)

    def cuda(self, index: int = 0) -> Self:
        """Return the tensor on a CUDA device; see `to`."""
        return self._on(as_device(f"cuda:{index}"))

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.__getitem__, range(len(self)))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if not all(map(is_operand, inputs)):
            return NotImplemented
        if out is not None:
            options["out"] = tuple([plain(array) for array in out])
        operands = [plain(value) for value in inputs]
        if method in ("__call__", "outer") and options.get("dtype") is None:
            operands = promoted(ufunc, operands)
        try:
            results = getattr(ufunc, method)(*operands, **{name: plain(x) for name, x in options.items()})
        except OverflowError as error:  # a Python integer
            raise NumberRangeError(f"{ufunc.__name__}: {error}") from None
        if out is not None:
            for target, array in zip(out, options["out"], strict=True):
                if isinstance(target, Tensor) and target._settle().array is not array:  # a copy, of a CUDA device
                    target[...] = array
            return out[0] if len(out) == 1 else out
        if isinstance(results, tuple):
            return tuple([self._made(np.asarray(result)) for result in results])
        return None if results is None else self._made(np.asarray(results))

    def _repr_html_(self) -> str:
        from numparam import html

        return html.tensor(self, "Tensor")

    def __repr__(self) -> str:
        values = self._values if self.has_init else f"value=\n{self.asnumpy()}"
        return f"Tensor(shape={list(self.shape)}, dtype={dtypes.type_name(self.dtype)}, {values})"
