"""Dtypes under the names of ``mindspore.dtype``; they are NumPy dtypes."""

from typing import Any

import numpy as np

from numparam.dtypes import as_dtype
from numparam.errors import DtypeError
from numparam.text import shown

bool_ = as_dtype("bool")
int8 = byte = as_dtype("int8")
int16 = short = as_dtype("int16")
int32 = intc = as_dtype("int32")
int64 = long = intp = int_ = as_dtype("int64")
uint8 = ubyte = as_dtype("uint8")
uint16 = ushort = as_dtype("uint16")
uint32 = uintc = as_dtype("uint32")
uint64 = uintp = uint = as_dtype("uint64")
float16 = half = as_dtype("float16")
float32 = single = float_ = as_dtype("float32")
float64 = double = as_dtype("float64")
bfloat16 = as_dtype("bfloat16")
float8_e4m3fn = as_dtype("float8_e4m3fn")
float8_e5m2 = as_dtype("float8_e5m2")
complex64 = cfloat = as_dtype("complex64")
complex128 = cdouble = as_dtype("complex128")

_FROM_PYTHON: dict[type, np.dtype[Any]] = {bool: bool_, int: int64, float: float32, complex: complex128}

__all__ = [
    "bfloat16", "bool_", "byte", "cdouble", "cfloat", "complex64", "complex128", "double", "dtype_to_nptype",
    "dtype_to_pytype", "float8_e4m3fn", "float8_e5m2", "float16", "float32", "float64", "float_", "half", "int8",
    "int16", "int32", "int64", "int_", "intc", "intp", "long", "pytype_to_dtype", "short", "single", "ubyte", "uint",
    "uint8", "uint16", "uint32", "uint64", "uintc", "uintp", "ushort",
]  # fmt: skip


def dtype_to_nptype(type_: Any) -> type[np.generic]:
    """Return the NumPy scalar type of a dtype.

    Examples
    --------
    >>> dtype_to_nptype(float32)
    <class 'numpy.float32'>
    """
    return as_dtype(type_).type


def dtype_to_pytype(type_: Any) -> type:
    """Return the Python type whose numbers a dtype holds.

    Examples
    --------
    >>> dtype_to_pytype(bfloat16)
    <class 'float'>
    """
    return type(np.zeros((), as_dtype(type_)).item())


def pytype_to_dtype(obj: Any) -> np.dtype[Any]:
    """Return the dtype of a Python type, or of a NumPy scalar type.

    Raises
    ------
    DtypeError
        If it has none. It is also a TypeError.

    Examples
    --------
    >>> pytype_to_dtype(int)
    dtype('int64')
    """
    if isinstance(obj, type) and obj in _FROM_PYTHON:
        return _FROM_PYTHON[obj]
    if isinstance(obj, type) and issubclass(obj, np.generic):
        return as_dtype(obj)
    raise DtypeError(f"bool, int, float, complex and NumPy's scalar types have a dtype, found {shown(obj)}")
