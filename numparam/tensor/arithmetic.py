"""Operators, comparisons and NumPy's functions on tensors: NumPy computes, and the results are tensors."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError
from numparam.tensor.state import State


class Arithmetic(State):
    """Take part in NumPy's arithmetic.

    Dtypes are promoted as NumPy does: a Python number takes the dtype of the other operand where it can. ``w += 1``
    changes a `numparam.Parameter` in place; of a tensor that is not one it creates a new tensor.

    NumPy computes on the CPU. The values of tensors on CUDA devices are copied to the host, and the result goes to the
    device of the first tensor. A library that computes on a GPU can share a tensor's memory instead, through DLPack.
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

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentTypeError("a tensor of shape () has no length")
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, np.dtype[Any]]:
        return np.array(self.asnumpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """Return the value of the only element as a Python number.

        Raises
        ------
        ValueError
            If there is not exactly one element.

        Examples
        --------
        >>> from numparam import Tensor
        >>> Tensor([[2.5]]).item()
        2.5
        """
        array = self.asnumpy()
        if array.size != 1:
            raise ArgumentValueError(f"a tensor with one element is needed, found the shape {array.shape}")
        return array.item()

    def tolist(self) -> Any:
        """Return the values as nested lists of Python numbers; a number if there are no axes.

        Examples
        --------
        >>> from numparam import Tensor
        >>> Tensor([[1, 2], [3, 4]]).tolist()
        [[1, 2], [3, 4]]
        """
        return self.asnumpy().tolist()

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


def takes_part(value: Any) -> bool:
    """Say whether an operand is one that NumPy computes with."""
    return isinstance(value, Arithmetic | np.ndarray | np.generic | bool | int | float | complex | list | tuple)


def plain(value: Any) -> Any:
    """Return the array of a tensor, and anything else itself."""
    return value.asnumpy() if isinstance(value, Arithmetic) else value


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
