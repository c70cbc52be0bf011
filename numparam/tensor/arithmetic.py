"""Operators, comparisons and NumPy's functions on tensors: NumPy computes, and the results are tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.errors import ArgumentValueError, DtypeError

if TYPE_CHECKING:
    from numparam.device import Device
    from numparam.tensor.tensor import Tensor


class Arithmetic:
    """Take part in NumPy's arithmetic.

    Dtypes are promoted as NumPy does: a Python number takes the dtype of the tensor beside it where it can. ``w += 1``
    changes a `numparam.Parameter` in place; of a tensor that is not one it creates a new tensor.

    NumPy computes on the CPU. The values of tensors on CUDA devices are copied to the host, and the result goes to the
    device of the first tensor. A library that computes on a GPU can share a tensor's memory instead, through DLPack.
    """

    if TYPE_CHECKING:

        @property
        def shape(self) -> tuple[int, ...]: ...  # noqa: D102

        @property
        def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

        @property
        def device(self) -> Device: ...  # noqa: D102

        def asnumpy(self) -> np.ndarray[Any, np.dtype[Any]]: ...  # noqa: D102

        def __setitem__(self, index: Any, value: Any) -> None: ...

        def _made(self, array: np.ndarray[Any, np.dtype[Any]]) -> Tensor: ...

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if not all(map(_takes_part, inputs)):
            return NotImplemented
        if out is not None:
            options["out"] = tuple([_plain(array) for array in out])
        results = getattr(ufunc, method)(*map(_plain, inputs), **{name: _plain(x) for name, x in options.items()})
        if out is not None:
            for target, array in zip(out, options["out"], strict=True):
                if isinstance(target, Arithmetic) and target.device != "cpu":  # the array is a copy
                    target[...] = array
            return out[0] if len(out) == 1 else out
        if isinstance(results, tuple):
            return tuple([self._made(np.asarray(result)) for result in results])
        return None if results is None else self._made(np.asarray(results))

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
            raise ArgumentValueError(f"a tensor with one element is needed, found the shape {self.shape}")
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
        if self.dtype.kind not in "iu":
            raise DtypeError(f"an index is a tensor of integers, found dtype {self.dtype}")
        return operator.index(self.item())

    __hash__ = object.__hash__


def _takes_part(value: Any) -> bool:
    return isinstance(value, Arithmetic | np.ndarray | np.generic | bool | int | float | complex | list | tuple)


def _plain(value: Any) -> Any:
    return value.asnumpy() if isinstance(value, Arithmetic) else value


def _binary(ufunc: np.ufunc) -> Callable[[Any, Any], Any]:
    return lambda self, other: ufunc(self, other) if _takes_part(other) else NotImplemented


def _reflected(ufunc: np.ufunc) -> Callable[[Any, Any], Any]:
    return lambda self, other: ufunc(other, self) if _takes_part(other) else NotImplemented


def _unary(ufunc: np.ufunc) -> Callable[[Any], Any]:
    return lambda self: ufunc(self)  # noqa: PLW0108  # a ufunc is no function that becomes a method


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
