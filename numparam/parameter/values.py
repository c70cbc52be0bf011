"""The values that a parameter may be given, and their conversion to its dtype."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from numparam import dtypes
from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError
from numparam.tensor import Array, Tensor, as_array

T = TypeVar("T", bound=Tensor)


def as_values(name: str, given: Any) -> Array:
    """Copy the values that a parameter was given, of the kinds that it takes."""
    if isinstance(given, bool | np.bool_):
        raise ArgumentValueError(f"Parameter {name!r}: the input cannot be a bool; use an array of dtype bool")
    if not isinstance(given, int | float | list) and not hasattr(given, "__array__"):
        raise ArgumentTypeError(
            f"Parameter {name!r}: the input is a Tensor, int, float, ndarray or list, found {type(given).__name__}"
        )
    return as_array(given, "int32" if isinstance(given, int) else None)


def refuse_imaginary(name: str, source: np.dtype[Any], target: np.dtype[Any]) -> None:
    """Raise, with the name of the parameter, if a conversion would drop imaginary parts."""
    try:
        dtypes.check_imaginary(source, target)
    except DtypeError as error:
        raise DtypeError(f"Parameter {name!r}: {error}") from None


def converted(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Convert values as ``astype`` does, but refuse those that an integer dtype cannot hold, and imaginary parts."""
    refuse_imaginary(name, array.dtype, dtype)
    if dtype.kind in "iu" and array.size:
        limits, low, high = np.iinfo(dtype), array.min().item(), array.max().item()
        # An inexact comparison with 2**63 - 1 would let 2**63 pass: compare Python numbers, which are exact.
        if not (limits.min - 1 < low and high < limits.max + 1):
            what = f"Parameter {name!r}: dtype {dtype} cannot hold values from {low} to {high}"
            raise ArgumentValueError(f"{what}; {dtypes.unchecked(dtype)}")
    with np.errstate(all="ignore"):
        return array.astype(dtype, copy=False)


def in_place(ufunc: np.ufunc) -> Callable[[T, Any], T]:
    """Return an operator such as ``+=``, which writes what a ufunc returns into the tensor itself.

    It broadcasts and converts as ``tensor[...] = value`` does: floats do not go into integers.
    """

    def operate(tensor: T, other: Any) -> T:
        tensor[...] = ufunc(tensor, other)
        return tensor

    return operate
