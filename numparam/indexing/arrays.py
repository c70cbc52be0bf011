"""Read and write parts of arrays as NumPy does, at the speed of memory, with errors that name axis and bound."""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

import numpy as np

from numparam import dtypes
from numparam.errors import ArgumentValueError, DtypeError, RegionError, ShapeError

if TYPE_CHECKING:
    import numpy.typing as npt

Array = np.ndarray[Any, np.dtype[Any]]
Index: TypeAlias = "SupportsIndex | slice | EllipsisType | npt.ArrayLike | tuple[Index, ...] | None"
"""What selects a part of a tensor."""

# NumPy is as fast on smaller arrays, and needs no other import.
_LARGE = 1 << 14
_LARGE_ROWS = 1 << 16
# Rows that are shorter than this are gathered faster by NumPy.
_LONG_ROW = 512
_RANKS = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
_BOOLS, _BASIC = (bool, np.bool_), (int, slice, EllipsisType, np.integer, type(None))  # a union takes 0.3 us to make


def duplicate(array: Array) -> Array:
    """Return a C-contiguous copy of an array of any strides."""
    return converted(array, array.dtype)


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return a C-contiguous copy in another dtype, with the values that ``astype`` gives, rounded once."""
    out = np.empty(array.shape, dtype)
    overwrite(out, array)
    return out


def overwrite(target: Array, source: Array) -> None:
    """Write the values of one array into another, which may share memory."""
    if target.nbytes < _LARGE and target.dtype == source.dtype:
        np.copyto(target, source)
    else:
        from numparam.kernels import copy

        copy.copy(target, source)


def is_basic(index: Any) -> bool:
    """Return whether an index selects a view: integers, slices, ``...`` and None only."""
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, _BOOLS) or not isinstance(item, _BASIC):
            return False
    return True


def select(array: Array, index: Any) -> Array:
    """Return the view of an array that basic indexing selects."""
    # The ellipsis keeps a view where integers alone would give a scalar.
    items = index if isinstance(index, tuple) else (index,)
    try:
        view: Array = array[items if Ellipsis in items else (*items, ...)]
    except (IndexError, OverflowError) as error:  # an integer beyond 64 bits overflows
        raise RegionError(f"{error}, in a tensor of shape {array.shape}") from None
    return view


def read(array: Array, index: Any) -> Array:
    """Return a C-contiguous copy of what any index of NumPy selects."""
    if is_basic(index):
        return duplicate(select(array, index))
    index = plain(index)
    try:
        if not is_row_index(index) or array.ndim == 0:
            return np.array(array[index], order="C", copy=None)
        row_bytes = array.nbytes // max(1, len(array))
        if row_bytes < _LONG_ROW or index.size * row_bytes < _LARGE_ROWS or not array.flags.c_contiguous:
            taken: Array = np.take(array, index, axis=0)
            return taken
    except IndexError as error:
        raise RegionError(f"{error}, in a tensor of shape {array.shape}") from None
    from numparam.kernels import rows

    out = np.empty((index.size, *array.shape[1:]), array.dtype)
    rows.gather(out, array, checked_rows(array, index))
    return out.reshape(*index.shape, *array.shape[1:])


def write(array: Array, index: Any, value: Any) -> None:
    """Write a value, broadcast and converted, to what any index of NumPy selects.

    Bools become numbers, integers become floats and floats become complex, never the other way; a number that an
    integer dtype cannot hold is refused.
    """
    if not array.flags.writeable:
        raise ArgumentValueError("the storage is a read-only array: write to a copy of the tensor")
    values = assignable(value, array.dtype)
    if is_basic(index):
        target = select(array, index)
        overwrite(target, _broadcast(values, target.shape))
        return
    index = plain(index)
    try:
        if is_row_index(index) and array.ndim and array.flags.c_contiguous and values.dtype == array.dtype:
            shape = (*index.shape, *array.shape[1:])
            if values.shape == shape and values.nbytes >= _LARGE_ROWS:
                _scatter(array, index, values)
                return
        array[index] = values if values.dtype == array.dtype else converted(values, array.dtype)
    except IndexError as error:
        raise RegionError(f"{error}, in a tensor of shape {array.shape}") from None
    except ValueError as error:
        raise ShapeError(str(error)) from None


def assignable(value: Any, dtype: np.dtype[Any]) -> Array:
    """Return a value as an array that may be written into another of `dtype`; the array may be the value itself."""
    values = np.asarray(value)
    if not is_assignable(values.dtype, dtype) and values.size:
        limits, low, high = np.iinfo(dtype), int(values.min()), int(values.max())
        if low < limits.min or high > limits.max:
            what = f"dtype {dtype} cannot hold values from {low} to {high}"
            raise ArgumentValueError(f"{what}; {dtypes.unchecked(dtype)}")
    return values


def is_assignable(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Return whether every value of a dtype may be written into another; if not, integers that fit may."""
    if source == target:
        return True
    kinds = [_RANKS.get("f" if dtypes.is_floating(kind) else kind.kind) for kind in (source, target)]
    if kinds[0] is None or kinds[1] is None or kinds[0] > kinds[1]:
        dtypes.check_imaginary(source, target)
        way = "they are not numbers or bools" if kinds[0] is None else dtypes.unchecked(target)
        raise DtypeError(f"a tensor of dtype {target} takes no values of dtype {source}; {way}")
    return not kinds[0] == kinds[1] == 1 or np.can_cast(source, target)


def plain(index: Any) -> Any:
    """Turn tensors and lists in an index into arrays."""
    if isinstance(index, tuple):
        return tuple([item if is_basic(item) else plain(item) for item in index])
    array = np.asarray(index)
    return array.astype(np.intp) if array.size == 0 and array.dtype.kind == "f" else array  # an empty list


def is_row_index(index: Any) -> bool:
    """Return whether an index of `plain` is integers, which name rows of the first axis."""
    return isinstance(index, np.ndarray) and index.ndim > 0 and index.dtype.kind in "iu"


def checked_rows(array: Array, index: Array) -> Array:
    """Return the indices of rows counted from the first, as int64."""
    count, rows = len(array), index.reshape(-1)
    low, high = int(rows.min()), int(rows.max())
    if low < -count or high >= count:
        wrong = low if low < -count else high
        raise RegionError(
            f"index {wrong} is out of bounds for axis 0 with size {count}, in a tensor of shape {array.shape}"
        )
    rows = rows.astype(np.int64, copy=False)
    return np.where(rows < 0, rows + count, rows) if low < 0 else np.ascontiguousarray(rows)


def _scatter(array: Array, index: Array, values: Array) -> None:
    from numparam.kernels import rows

    if np.may_share_memory(array, values) or not values.flags.c_contiguous:
        values = values.copy()
    rows.scatter(array, checked_rows(array, index), values.reshape(index.size, *array.shape[1:]))


def _broadcast(values: Array, shape: tuple[int, ...]) -> Array:
    while values.ndim > len(shape) and values.shape[0] == 1:
        values = values[0]
    try:
        return values if values.shape == shape else np.broadcast_to(values, shape)
    except ValueError:
        raise ShapeError(
            f"values of shape {values.shape} cannot be broadcast to the shape {shape} of the part"
        ) from None
