"""The dtype in which operands of several dtypes are computed: one rule, that of torch, JAX and MindSpore.

The kinds are ordered: bools, integers, floats, complex numbers. The highest kind decides, and among the dtypes of that
kind the widest; float16 with bfloat16, which neither holds, gives float32. Python numbers have a kind and no width:
where theirs is the highest, it is int64, float32 or complex64. A float that is computed from integers is a float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.tensor.convert import as_array

_KINDS = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2, "c": 3}
_UNEQUAL = {np.ldexp}  # takes a float and an integer
_JOINING = {np.concatenate, np.stack, np.vstack, np.hstack, np.dstack, np.column_stack}
_WEAK = {bool: "bool", int: "int64", float: "float32", complex: "complex64"}


def common_dtype(held: Iterable[np.dtype[Any]], numbers: Iterable[Any] = ()) -> np.dtype[Any]:
    """Return the dtype of a computation with arrays of some dtypes and with Python numbers.

    Examples
    --------
    >>> common_dtype(map(np.dtype, ("int64", "float16")))
    dtype('float16')
    >>> common_dtype([np.dtype("int32")], [1.5]), common_dtype([np.dtype("float16")], [1.5])
    (dtype('float32'), dtype('float16'))
    """
    given = list(held)
    top = max(map(_kind, given), default=-1)
    weak = max((dtypes.as_dtype(_weak(number)) for number in numbers), key=_kind, default=None)
    if weak is not None and _kind(weak) > top:
        wide = weak.kind == "c" and any(dtype.name == "float64" for dtype in given)
        return dtypes.as_dtype("complex128") if wide else weak
    least = 2 if top == 3 else top  # a float64 widens complex64
    return reduce(_wider, [dtype for dtype in given if _kind(dtype) >= least])


def promoted(ufunc: np.ufunc, inputs: Sequence[Any]) -> list[Any]:
    """Convert the operands of a ufunc; Python numbers stay what they are where NumPy treats them in the same way."""
    inputs, target = _read(inputs)
    if target is None or ufunc in _UNEQUAL:
        return inputs
    if target.kind in "biu" and _gives_floats(ufunc, target):
        target = dtypes.as_dtype("float32")
    keep = target.name not in dtypes.EXTENSIONS
    return [
        value if keep and type(value) in _WEAK else np.asarray(value).astype(target, copy=False) for value in inputs
    ]


def aligned(function: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    """Convert what `numpy.where` chooses from, or `numpy.concatenate` and its kin join, to one dtype."""
    if function is np.where and len(inputs) == 3:
        return (inputs[0], *_converted(inputs[1:]))
    if function in _JOINING and inputs and isinstance(inputs[0], list | tuple) and inputs[0]:
        return (_converted(inputs[0]), *inputs[1:])
    return inputs


def _converted(values: Sequence[Any]) -> list[Any]:
    values, target = _read(values)
    return values if target is None else [np.asarray(value, target) for value in values]


def _read(values: Sequence[Any]) -> tuple[list[Any], np.dtype[Any] | None]:
    """Return operands, lists as arrays, and their common dtype; None if one is not of numbers."""
    read = [as_array(value) if isinstance(value, list | tuple) else value for value in values]
    held = [np.asarray(value).dtype for value in read if not _is_number(value)]
    if any(dtype.kind not in _KINDS for dtype in held):
        return read, None
    return read, common_dtype(held, [value for value in read if _is_number(value)])


def _is_number(value: Any) -> bool:
    return type(value) in _WEAK or isinstance(value, np.float64)


def _weak(number: Any) -> str:
    return next(name for kind, name in _WEAK.items() if isinstance(number, kind))


def _kind(dtype: np.dtype[Any]) -> int:
    return _KINDS["f" if dtypes.is_floating(dtype) else dtype.kind]


def _wider(one: np.dtype[Any], other: np.dtype[Any]) -> np.dtype[Any]:
    try:
        return np.promote_types(one, other)
    except TypeError:  # the small floats have nothing in common
        return dtypes.as_dtype("float32")


def _gives_floats(ufunc: np.ufunc, dtype: np.dtype[Any]) -> bool:
    try:
        resolved = ufunc.resolve_dtypes((*[dtype] * ufunc.nin, *[None] * ufunc.nout))
    except TypeError:
        return False
    return any(found.kind == "f" for found in resolved[ufunc.nin :])
