"""Operators, comparisons and NumPy's functions on tensors: NumPy computes, and the results are tensors."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError
from numparam.indexing.region import Region
from numparam.tensor.convert import from_torch
from numparam.tensor.promotion import aligned, narrowed
from numparam.tensor.state import State
from numparam.text import shown

_WRITING = {np.copyto, np.put, np.place, np.putmask, np.fill_diagonal, np.put_along_axis}


class Arithmetic(State):
    """Take part in NumPy's arithmetic.

    Dtypes are promoted as by torch, JAX and MindSpore, see `numparam.tensor.promotion`: integers with a float32 give
    float32, and a Python number takes the dtype of the other operand where it can. ``w += 1`` changes a
    `numparam.Parameter` in place; of a tensor that is not one it creates a new tensor.

    NumPy computes on the CPU. The values of tensors on CUDA devices are copied to the host, and the result goes to the
    device of the first tensor. A library that computes on a GPU can share a tensor's memory instead, through DLPack.

    With a tensor of torch or an array of JAX, or in a function of theirs, that library computes and the result is its
    own: torch on the storage that it shares, without gradients for it, and JAX on a copy.
    """

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
        """Count the bytes of the values, materialised or not."""
        return self.size * self.dtype.itemsize

    @property
    def itemsize(self) -> int:
        """Count the bytes of one element."""
        return self.dtype.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Return the bytes from one element to the next along each axis; a lazy tensor is row-major."""
        if self._values.in_memory:
            return tuple(self._values.array.strides)
        return tuple([step * self.itemsize for step in Region.full(self.shape).span()[1]])

    def numel(self) -> int:
        """Count the elements."""
        return self.size

    def dim(self) -> int:
        """Count the axes."""
        return self.ndim

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentTypeError("a tensor of shape () has no length")
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, np.dtype[Any]]:
        return np.array(self.asnumpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """Return the value of the only element as a Python number; a ValueError if there is not exactly one element."""
        array = self.asnumpy()
        if array.size != 1:
            raise ArgumentValueError(f"a tensor with one element is needed, found the shape {array.shape}")
        return array.item()

    def tolist(self) -> Any:
        """Return the values as nested lists of Python numbers; a number for a scalar."""
        return self.asnumpy().tolist()

    def __contains__(self, value: Any) -> bool:
        return bool(np.any(self.asnumpy() == plain(value)))

    def __format__(self, specification: str) -> str:
        return format(self.item(), specification) if specification else str(self)

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        array = self.asnumpy()
        if array.dtype.kind not in "iu":
            raise DtypeError(f"an index is a tensor of integers, found dtype {array.dtype}")
        return operator.index(self.item())

    __hash__ = object.__hash__

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        name = _NAMES.get(function)
        if name and isinstance(inputs[0], Arithmetic) and len(inputs) < 3 and "out" not in options:
            return getattr(inputs[0], name)(*inputs[1:], **options)
        read, named = _each(plain, inputs), _each(plain, options)
        given: list[Any] = []
        _each(given.append, (read, named))
        free = options.get("dtype") is None
        result = function(*(aligned(function, read) if free else read), **named)
        targets = [(options.get("out"), named.get("out")), *([(inputs[0], read[0])] if function in _WRITING else [])]
        for tensor, array in targets:
            if isinstance(tensor, Arithmetic) and tensor._settle().array is not array:  # a copy, of a CUDA device
                tensor._settle().write(..., array)
            if isinstance(tensor, Arithmetic) and result is array:
                return tensor
        return _each(lambda item: self._wrapped(narrowed(item, given) if free else item), result)

    def __jax_array__(self) -> Any:
        return sys.modules["jax"].numpy.array(self.asnumpy(), copy=True)  # arrays of JAX never change

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, inputs: Any = (), options: Any = None) -> Any:
        view = sys.modules["torch"].from_dlpack
        inputs, options = _each(lambda item: view(item) if isinstance(item, Arithmetic) else item, (inputs, options))
        return function(*inputs, **(options or {}))

    def _wrapped(self, result: Any) -> Any:
        known = isinstance(result, np.ndarray | np.generic) and result.dtype.name in dtypes.TABLE
        return self._made(np.array(result, order="C")) if known else result  # it may be a view of a storage

    def _made(self, array: np.ndarray[Any, np.dtype[Any]]) -> Any:
        raise NotImplementedError


def takes_part(value: Any) -> bool:
    """Return whether an operand is one that NumPy computes with."""
    return isinstance(value, Arithmetic | np.ndarray | np.generic | bool | int | float | complex | list | tuple)


def is_operand(value: Any) -> bool:
    """Return whether a ufunc takes an operand: also arrays of libraries that leave ufuncs to others."""
    return takes_part(value) or (hasattr(value, "__array__") and not hasattr(value, "__array_ufunc__"))


def plain(value: Any) -> Any:
    """Return the array of a tensor, of torch too, and anything else itself."""
    return value.asnumpy() if isinstance(value, Arithmetic) else from_torch(value)


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """Return nested lists, tuples and dicts with their other items changed."""
    if isinstance(value, dict):
        return {name: _each(change, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_each(change, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return change(value)


def _conversion(dtype: str) -> Callable[[Any], Any]:
    return lambda self: self.to(dtype)


def _binary(ufunc: np.ufunc) -> Callable[[Any, Any], Any]:
    return lambda self, other: ufunc(self, other) if takes_part(other) else NotImplemented


def _reflected(ufunc: np.ufunc) -> Callable[[Any, Any], Any]:
    return lambda self, other: ufunc(other, self) if takes_part(other) else NotImplemented


def _unary(ufunc: np.ufunc) -> Callable[[Any], Any]:
    return lambda self: ufunc(self)  # noqa: PLW0108  # a ufunc does not become a method


for _name, _ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "divmod": np.divmod, "pow": np.power, "matmul": np.matmul, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift,
}.items():  # fmt: skip
    setattr(Arithmetic, f"__{_name}__", _binary(_ufunc))
    setattr(Arithmetic, f"__r{_name}__", _reflected(_ufunc))
for _name, _ufunc in {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}.items():  # fmt: skip
    setattr(Arithmetic, f"__{_name}__", _binary(_ufunc))
for _name, _ufunc in {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}.items():
    setattr(Arithmetic, f"__{_name}__", _unary(_ufunc))
for _name, _method in {"abs": _unary(np.absolute), "matmul": _binary(np.matmul)}.items():
    setattr(Arithmetic, _name, _method)


def _reduction(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def reduction(self: Arithmetic, axis: Any = None, *, keepdims: bool = False, **options: Any) -> Any:
        array = self.asnumpy()
        own = array.dtype
        if dtypes.is_floating(own) and own.itemsize < 4:
            array = array.astype(np.float32)
        try:
            result = np.asarray(function(array, axis=axis, keepdims=keepdims, **options))
        except OverflowError:
            raise ArgumentValueError(f"{name}: axis {shown(axis)} or keepdims {shown(keepdims)} is too large") from None
        if options.get("dtype") is not None:
            pass
        elif dtypes.is_floating(own) and result.dtype.kind == "f":
            result = result.astype(own)
        elif own.kind in "biu" and result.dtype.kind == "f":
            result = result.astype(np.float32)
        return self._made(result)

    reduction.__name__, reduction.__qualname__ = name, f"Tensor.{name}"
    reduction.__doc__ = (
        f"Return the {_REDUCTIONS[name][1]} of all elements or along axes, as ``numpy.{name}``.\n\n"
        "Floats keep their dtype and are added up in float32 at least; a float that comes from integers is a float32.\n"
    )
    return reduction


_REDUCTIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "sum": (np.sum, "sum"),
    "prod": (np.prod, "product"),
    "mean": (np.mean, "mean"),
    "std": (np.std, "standard deviation"),
    "var": (np.var, "variance"),
    "norm": (np.linalg.norm, "Euclidean norm"),
    "min": (np.min, "least"),
    "max": (np.max, "greatest"),
    "argmin": (np.argmin, "index of the least"),
    "argmax": (np.argmax, "index of the greatest"),
    "all": (np.all, "conjunction"),
    "any": (np.any, "disjunction"),
}
for _name, (_function, _) in _REDUCTIONS.items():
    setattr(Arithmetic, _name, _reduction(_name, _function))
for _name, _dtype in {
    "bool": "bool", "int": "int32", "long": "int64", "half": "float16", "bfloat16": "bfloat16", "float": "float32",
    "double": "float64",
}.items():  # fmt: skip
    setattr(Arithmetic, _name, _conversion(_dtype))
_NAMES = {function: name for name, (function, _) in _REDUCTIONS.items()}
