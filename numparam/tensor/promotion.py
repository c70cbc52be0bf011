"""The dtype in which operands of several dtypes are computed: one rule, that of torch, JAX and MindSpore.

The kinds are ordered: bools, integers, floats, complex numbers. The highest kind decides, and among the dtypes of that
kind the widest; float16 with bfloat16, which neither holds, gives float32. Python numbers have a kind and no width:
where theirs is the highest, it is int64, float32 or complex64. A float that is computed from integers is a float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.tensor.convert import as_array

_KINDS = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2, "c": 3}
_UNEQUAL = {np.ldexp}  # takes a float and an integer
_ALL = 99
_PAIRS = (
    np.append, np.dot, np.inner, np.outer, np.vdot, np.kron, np.cross, np.tensordot, np.union1d, np.intersect1d,
    np.setxor1d, np.setdiff1d, np.linalg.matmul, np.linalg.outer, np.linalg.cross, np.linalg.tensordot,
    np.linalg.vecdot,
)  # fmt: skip
_LISTS = (np.concatenate, np.stack, np.vstack, np.hstack, np.dstack, np.column_stack, np.linalg.multi_dot)
# The arguments that are computed together, and how many lists are around the arrays there.
_TOGETHER: dict[Any, dict[int, int]] = {
    **{function: {0: 0, 1: 0} for function in _PAIRS},
    **{function: {0: 1} for function in _LISTS},
    np.where: {1: 0, 2: 0},
    np.clip: {0: 0, 1: 0, 2: 0},
    np.select: {1: 1, 2: 0},
    np.block: {0: _ALL},
    np.einsum: dict.fromkeys(range(1, _ALL), 0),
}
_NARROW = {"d": np.float32, "D": np.complex64}
_WEAK = {bool: "bool", int: "int64", float: "float32", complex: "complex64"}


def common_dtype(held: Iterable[np.dtype[Any]], numbers: Iterable[Any] = ()) -> np.dtype[Any]:
    """Return the dtype of a computation with arrays of some dtypes and with Python numbers."""
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
    """Convert the arrays that `numpy.where`, `numpy.concatenate` or their kin compute together to one dtype."""
    depths = _TOGETHER.get(function, {})
    leaves: list[Any] = []
    for place, value in enumerate(inputs):
        if place in depths:
            _each_leaf(leaves.append, value, depths[place])
    read, target = _read(leaves)
    if target is None:
        return inputs
    results = iter([np.asarray(value, target) for value in read])
    return [
        _each_leaf(lambda _: next(results), value, depths[place]) if place in depths else value
        for place, value in enumerate(inputs)
    ]


def narrowed(result: Any, inputs: Iterable[Any]) -> Any:
    """Return a float64 that NumPy computed from arrays of other dtypes as float32, and a complex128 as complex64."""
    if not isinstance(result, np.ndarray | np.generic) or result.dtype.char not in _NARROW:
        return result
    if any(isinstance(value, np.ndarray) and value.dtype.char in _NARROW for value in inputs):
        return result
    return result.astype(_NARROW[result.dtype.char])


def _each_leaf(change: Callable[[Any], Any], value: Any, depth: int) -> Any:
    if depth and isinstance(value, list | tuple):
        return [_each_leaf(change, item, depth - 1) for item in value]
    return change(value)


def _read(values: Sequence[Any]) -> tuple[list[Any], np.dtype[Any] | None]:
    """Return operands, lists as arrays, and their common dtype; None if one is not of numbers."""
    read = [as_array(value) if isinstance(value, list | tuple) else value for value in values]
    held = [np.asarray(value).dtype for value in read if not _is_number(value)]
    if not read or any(dtype.kind not in _KINDS for dtype in held):
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
