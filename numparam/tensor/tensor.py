"""A tensor: values, or the description of values that are made when they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self, SupportsIndex

import numpy as np

from numparam import dtypes
from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError, RegionError, ShapeError
from numparam.indexing import arrays
from numparam.indexing.region import Region, Shape, as_shape
from numparam.stream.seed import choose_seed, next_number
from numparam.stream.source import Source
from numparam.tensor.arithmetic import Arithmetic
from numparam.tensor.convert import Reshaping
from numparam.tensor.placed import Placed, allocated, is_on_cuda

if TYPE_CHECKING:
    from numparam.initializer import Initializer

Array = np.ndarray[Any, np.dtype[Any]]


class Recipe(NamedTuple):
    """Describe values that are not made yet: a region of what an initializer makes of a seed and a name."""

    init: Initializer
    seed: int
    name: str | int
    region: Region


class Tensor(Arithmetic, Reshaping, Placed):
    """Hold an array of numbers, or the recipe for one.

    A tensor made from an initializer is lazy: it takes no memory until its values are asked for. A slice of it is lazy
    too, and makes only its own values, the same bits that the whole tensor has there. The seed of a lazy tensor is
    that of the moment it is made.

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
        Makes the values of a lazy tensor; takes the place of `input_data`.
    device : str or Device, optional
        Where the values are, or will be made: ``"cpu"`` or ``"cuda"``. The default device, see `numparam.device`, or
        that of an input that is on a CUDA device.

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
    >>> Tensor([1.5, 2.5])
    Tensor(shape=[2], dtype=Float32, value=
    [1.5 2.5])
    >>> from numparam.initializer import Normal
    >>> huge = Tensor(shape=(2**20, 2**20), dtype="bfloat16", init=Normal(0.02))
    >>> huge.nbytes, huge[-1, ::2].shape
    (2199023255552, (524288,))
    """

    _array: Array | None = None
    _recipe: Recipe | None = None
    _dtype: np.dtype[Any]

    def __init__(
        self,
        input_data: Any = None,
        dtype: Any = None,
        shape: Shape | None = None,
        init: Initializer | None = None,
        device: Any = None,
        seed: SupportsIndex | None = None,
    ) -> None:
        if init is not None:
            if input_data is not None or shape is None:
                raise ArgumentTypeError("a tensor with an initializer needs a shape, and no input_data")
            self._dtype = dtypes.as_dtype("float32" if dtype is None else dtype)
            self._recipe = _recipe(init, as_shape(shape), self._dtype, seed)
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
            Of any strides, in native byte order. A read-only one makes a tensor that refuses to be written to.

        Raises
        ------
        TypeError
            If it is no array, or of a dtype that numparam does not have.

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
        tensor = Tensor.__new__(Tensor)
        tensor._hold(array)
        return tensor

    @classmethod
    def from_dlpack(cls, array: Any) -> Tensor:
        """Return a tensor whose storage is that of another library's array, such as one of torch, CuPy or JAX.

        Parameters
        ----------
        array : object
            Has ``__dlpack__`` and ``__dlpack_device__``, or ``__cuda_array_interface__``. On a CUDA device it must be
            row-major. On the CPU, DLPack has no bfloat16 and float8 that NumPy can read.

        Raises
        ------
        TypeError
            If it is no such array.
        BufferError
            If NumPy cannot read the array where it is.
        ValueError
            If an array on a CUDA device is not row-major.

        Examples
        --------
        >>> Tensor.from_dlpack(np.arange(3)).tolist()
        [0, 1, 2]
        """
        if not hasattr(array, "__dlpack__") and not hasattr(array, "__cuda_array_interface__"):
            raise ArgumentTypeError(f"an array with __dlpack__ is needed, found {type(array).__name__}")
        if not is_on_cuda(array):
            return cls.from_numpy(np.from_dlpack(array))
        tensor = Tensor.__new__(Tensor)
        tensor._adopt(array)
        return tensor

    def _made(self, array: Array) -> Tensor:
        """Return a tensor that adopts an array of its own, where this one is."""
        dtypes.as_dtype(array.dtype)  # NumPy computes in dtypes that numparam has not, such as longdouble
        tensor = Tensor.__new__(Tensor)
        tensor._hold(array)
        if self.device != "cpu":
            tensor._move(self.device)
        return tensor

    def _hold(self, array: Array) -> None:
        self._array, self._dtype = array, array.dtype

    def _replace(self, array: Array) -> None:
        """Hold an array instead of what is held; a thread that reads meanwhile finds the one or the other."""
        self._hold(array)
        vars(self).pop("_on_device", None)
        vars(self).pop("_recipe", None)

    def _discard(self) -> None:
        for storage in ("_array", "_on_device", "_recipe"):
            vars(self).pop(storage, None)

    def _convert(self, target: np.dtype[Any], convert: Callable[[Array], Array]) -> None:
        """Change the dtype; `convert` makes integers, bools and whatever is on the host."""
        recipe = self._recipe
        if recipe is not None:
            recipe.init.check(recipe.region.full_shape, target)
            self._dtype = target
        elif self.device != "cpu" and target.kind not in "biu":
            dtypes.check_imaginary(self._dtype, target)
            on_device = self.astype(target)._device_values()
            self._discard()
            self._on_device, self._dtype = on_device, target
        else:
            self._replace(convert(self.asnumpy()))

    def _sibling(self) -> Self:
        """Return a tensor with the same attributes, and no values yet."""
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        twin._discard()
        return twin

    def __copy__(self) -> Self:
        twin = self._sibling()
        if self._recipe is None:
            twin._copy(self)
        else:  # also its seed and number stay, so that a name given later counts as it would for the original
            twin._recipe, twin._dtype = self._recipe, self._dtype
        return twin

    def _copy(self, other: Tensor) -> None:
        """Take the values or the recipe of another tensor, sharing neither."""
        recipe = other._recipe
        if other.device != "cpu":
            self._device = other._device
        if recipe is None and other.device != "cpu":
            values = other._device_values()
            self._on_device, self._dtype = allocated(values.copy_to, values.device), other._dtype
        elif recipe is None:
            self._hold(arrays.duplicate(other.asnumpy()))
        else:
            name = other._stream_name(recipe)
            self._recipe = recipe if name == recipe.name else recipe._replace(name=name)
            self._dtype = other._dtype

    def _stream_name(self, recipe: Recipe) -> str | int:
        """Return the name that decides the values; a parameter puts its own."""
        return recipe.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape, as a tuple."""
        recipe = self._recipe
        if recipe is not None:
            return recipe.region.shape
        return self._on_device.shape if self._array is None and self._on_device is not None else self.asnumpy().shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the NumPy dtype."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """Count the axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Count the elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Count the bytes of the values, made or not."""
        return self.size * self._dtype.itemsize

    @property
    def has_init(self) -> bool:
        """Say whether the values are still to be made."""
        return self._recipe is not None

    @property
    def init(self) -> Initializer | None:
        """Return the initializer that will make the values, None when they are made."""
        recipe = self._recipe
        return None if recipe is None else recipe.init

    def init_data(self) -> Tensor:
        """Make the values now if the tensor is lazy.

        Returns
        -------
        Tensor
            This tensor.
        """
        self._settle()
        return self

    def asnumpy(self) -> Array:
        """Return the values, which are made first if the tensor is lazy.

        Returns
        -------
        numpy.ndarray
            The storage itself: writing to it changes the tensor. Of a tensor on a CUDA device, a copy.
        """
        if self._array is not None:
            return self._array
        if self.device != "cpu":
            return self._device_values().to_host()
        array = np.empty(self.shape, self._dtype)
        self._write(array)
        # Of several threads the first one wins, so that all get the same storage.
        stored: Array = vars(self).setdefault("_array", array)
        self._recipe = None
        return stored

    def fill_into(self, out: Array, region: Region | None = None) -> None:
        """Write the values of a region into a buffer, keeping nothing.

        A lazy tensor stays lazy, so a tensor of any size can be written piece by piece.

        Parameters
        ----------
        out : numpy.ndarray
            Writable, C-contiguous, of the dtype of the tensor and the shape of the region.
        region : Region, optional
            A region of ``Region.full(tensor.shape)``; the whole tensor if absent.

        Raises
        ------
        TypeError
            If `out` is not an array of the dtype.
        ValueError
            If the region is one of another shape, or `out` does not fit the region or is not writable.

        Examples
        --------
        >>> from numparam.initializer import One
        >>> out = np.empty((2, 3), np.float32)
        >>> lazy = Tensor(shape=(2**40, 3), init=One())
        >>> lazy.fill_into(out, Region.full(lazy.shape)[-2:])
        >>> out.sum()
        np.float32(6.0)
        """
        if region is not None and getattr(region, "full_shape", None) != self.shape:
            raise ShapeError(f"a region of a tensor of shape {self.shape} was asked for, found {region!r:.80}")
        _check_buffer(out, self.shape if region is None else region.shape, self._dtype)
        self._write(out, region)

    def _write(self, out: Array, region: Region | None = None) -> None:
        recipe = self._recipe
        if recipe is None and self.device != "cpu":
            (self._device_values() if region is None else self._part_on_device(region.slices())).read(out)
        elif recipe is None:
            arrays.overwrite(out, self.asnumpy() if region is None else region.take(self.asnumpy()))
        elif out.size:
            selected = recipe.region if region is None else recipe.region[region.slices()]
            recipe.init.fill(out, selected, Source(recipe.seed, self._stream_name(recipe)))

    def __getitem__(self, index: Any) -> Tensor:
        """Return the values at an index as a tensor of its own.

        A lazy tensor takes integers, slices, ``...`` and None, and gives a lazy slice. One with values takes any index
        that NumPy takes, tensors included, and gives a copy; see `view` for a slice that shares storage.

        Raises
        ------
        IndexError
            If the index does not fit.
        """
        recipe = self._recipe
        if recipe is None:
            if self.device != "cpu":
                return self._holding(self._part_on_device(index))
            return self._made(arrays.read(self.asnumpy(), index))
        part = Tensor.__new__(Tensor)
        part._recipe = Recipe(recipe.init, recipe.seed, self._stream_name(recipe), recipe.region[index])
        part._dtype = self._dtype
        if self.device != "cpu":
            part._move(self.device)
        return part

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write values in place; those of a lazy tensor are made first.

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
        if self.device != "cpu":
            self._write_on_device(index, value)
        else:
            arrays.write(self.asnumpy(), index, value)

    def view(self, index: Any = ...) -> Tensor:
        """Return a tensor that shares the storage of a part of this one: writing to one is seen in the other.

        Parameters
        ----------
        index : int, slice, ``...``, None or tuple of these
            All of the tensor by default. The values of a lazy tensor are made first.

        Raises
        ------
        IndexError
            If the index does not fit, or is one that only copies can be made of.
        ValueError
            If the tensor is not on the CPU.

        Examples
        --------
        >>> tensor = Tensor([[1, 2], [3, 4]])
        >>> tensor.view((slice(None), 0))[...] = 0
        >>> tensor.tolist()
        [[0, 2], [0, 4]]
        """
        if self.device != "cpu":
            raise ArgumentValueError(f"views show the storage of tensors on the CPU, found one on {self.device}")
        if not arrays.is_basic(index):
            raise RegionError(f"a view takes ints, slices, ... and None, found {index!r:.80}")
        return self.from_numpy(arrays.select(self.asnumpy(), index))

    def copy(self) -> Tensor:
        """Return a tensor of its own with the same values, lazy if this one is.

        Examples
        --------
        >>> Tensor([1, 2]).copy().tolist()
        [1, 2]
        """
        return Tensor(self)

    def contiguous(self) -> Tensor:
        """Return this tensor if its values lie in row-major order, as they do unless it is a view, else a copy."""
        return self if self.has_init or self.device != "cpu" or self.asnumpy().flags.c_contiguous else self.copy()

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentTypeError("a tensor of shape () has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.__getitem__, range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.asnumpy(), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        values = f"init={self.init}" if self.has_init else f"value=\n{self.asnumpy()}"
        return f"Tensor(shape={list(self.shape)}, dtype={dtypes.type_name(self._dtype)}, {values})"


def as_array(data: Any, dtype: Any = None) -> Array:
    """Copy values into a new C-contiguous array of a dtype that numparam knows.

    Raises
    ------
    TypeError
        If the values are ragged, or not numbers or bools.
    ValueError
        If a value does not fit the dtype.
    """
    if isinstance(data, list | tuple):
        data = [np.asarray(item) if isinstance(item, Tensor) else item for item in data]
    try:
        array = np.array(data, order="C")
    except ValueError:
        raise ArgumentTypeError(f"every row of the values needs the same length, found {data!r:.80}") from None
    if isinstance(data, float | list | tuple) and array.dtype == np.float64:
        with np.errstate(over="ignore"):  # to infinity, as for arrays
            array = array.astype(np.float32)
    if array.dtype.name not in dtypes.TABLE:
        if isinstance(data, int):
            raise ArgumentValueError(f"no integer dtype can hold {data!r:.80}")
        raise DtypeError(f"values are numbers or bools, found {data!r:.80} of type {type(data).__name__}")
    target = dtypes.as_dtype(array.dtype if dtype is None else dtype)
    if target == array.dtype:
        return np.asarray(array, target)
    dtypes.check_imaginary(array.dtype, target)
    with np.errstate(all="ignore"):
        converted = array.astype(target)
    if target.kind in "biu" and not np.array_equal(converted, array):
        raise ArgumentValueError(f"a value of {data!r:.80} is not exactly representable in {target}")
    return converted


def _recipe(init: Initializer, shape: tuple[int, ...], dtype: np.dtype[Any], seed: SupportsIndex | None) -> Recipe:
    init.check(shape, dtype)
    return Recipe(init, choose_seed(init.seed, seed), next_number(), Region.full(shape))


def _check_buffer(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        found = f"dtype {out.dtype}" if isinstance(out, np.ndarray) else type(out)
        raise DtypeError(f"values of dtype {dtype} go into a NumPy array of that dtype, found {found}")
    if out.shape != shape or not (out.flags.c_contiguous and out.flags.writeable):
        flags = f"writeable={out.flags.writeable}, c_contiguous={out.flags.c_contiguous}"
        raise ShapeError(
            f"values of shape {shape} go into a writable C-contiguous array of that shape, found {out.shape}, {flags}"
        )
