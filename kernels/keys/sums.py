"""Sums of rows of gradients by numbers that are repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

from numparam.kernels.formula.access import lanes_access
from numparam.kernels.machine.compile import kernel
from numparam.kernels.machine.lanes import WIDTH

Array = np.ndarray[Any, np.dtype[Any]]


@cache
def _make_sum(dtype: np.dtype[Any]) -> Any:
    wide = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    (many, one), (many_sums, one_sum) = [[lanes_access(width)(kind) for width in (WIDTH, 1)] for kind in (dtype, wide)]
    load_many, load_one, size, wide_size = many.load, one.load, dtype.itemsize, wide.itemsize
    sums_many, store_many = many_sums.load, many_sums.store
    sum_one, store_one = one_sum.load, one_sum.store

    @kernel(f"sum rows {dtype}")
    def add(out: Any, source: Any, numbers: Any, length: Any, seen: Any) -> Any:
        for row in range(numbers.size):
            into, given, at = out + numbers[row] * length * wide_size, source + row * length * size, 0
            if numbers[row] == seen:
                seen += 1
                while at + WIDTH <= length:
                    store_many(into + at * wide_size, load_many(given + at * size))
                    at += WIDTH
                while at < length:
                    store_one(into + at * wide_size, load_one(given + at * size))
                    at += 1
            while at + WIDTH <= length:
                place = into + at * wide_size
                store_many(place, sums_many(place) + load_many(given + at * size))
                at += WIDTH
            while at < length:
                place = into + at * wide_size
                store_one(place, sum_one(place) + load_one(given + at * size))
                at += 1
        return seen

    return add


def sum_rows(source: Array, numbers: Array, count: int, room: Callable[..., Array] = np.empty) -> Array:
    """Return `count` rows, each the sum of the rows of `source` with its number, in their order, in float32 or float64.

    The numbers are as `distinct` returns them: new ones rise by one. If all are distinct, float32 and float64 rows are
    their own sums and not copied. `room` gives the memory for a shape and a dtype.

    Examples
    --------
    >>> sum_rows(np.float32([[1, 2], [3, 4], [5, 6]]), np.array([0, 1, 0]), 2)
    array([[6., 8.],
           [3., 4.]], dtype=float32)
    """
    wide = np.dtype(np.float64 if source.dtype == np.float64 else np.float32)
    if count == len(source) and source.dtype == wide:
        return source
    out = room((count, *source.shape[1:]), wide)
    sum_parts([source], numbers, out)
    return out


def sum_parts(parts: Iterable[Array], numbers: Array, out: Array) -> None:
    """Write what `sum_rows` returns; the rows come some after the other."""
    length, seen, stop = out.size // max(1, len(out)), 0, 0
    for part in parts:
        start, stop = stop, stop + len(part)
        seen = _make_sum(part.dtype)(out.ctypes.data, part.ctypes.data, numbers[start:stop], length, seen)
