"""Optimizer steps by CUDA threads: the rules of the CPU, a line of 16 bytes a thread at a time, the same bits.

A row of a sum is one thread's, which keeps the order of its additions.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from numparam.kernels import launch as _launch
from numparam.kernels.array import DeviceArray
from numparam.kernels.fill.cuda import make_blocks
from numparam.kernels.fill.key import merged
from numparam.kernels.formula.access import line_access, state_dtype, thread_access
from numparam.kernels.formula.axes import OUTER, launches, locate
from numparam.kernels.machine.compile import CudaKernel, formula
from numparam.kernels.machine.cuda import LAUNCH_LIMIT, holds, lane, load_item, store_item, thread, threads
from numparam.kernels.machine.lanes import joined, low_word, widened
from numparam.kernels.update.rules import RULES
from numparam.kernels.update.step import (
    make_accumulate,
    make_decayed,
    make_step,
    make_term,
    per_item,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numparam.kernels.update.step import Words

Dtype = np.dtype[Any]

_ROW, _SUM = np.uint64(0), np.float64(0)


def _numbers(rule: str, value: Dtype) -> Any:
    kind = types.float64 if value == np.float64 else types.float32
    return types.UniTuple(kind, len(RULES[rule].numbers) + 1)


@cache
def make_update(rule: str, value: Dtype, gradient: Dtype, mode: str) -> CudaKernel:
    """Make the kernel for rows of elements: those that follow each other, or those whose numbers are given.

    A row has so many groups of elements that begin with a line in each array; the elements after them come one by one.
    """
    count, group_size = RULES[rule].states, _group_size(value, gradient)
    steps, step = (make_step(rule, value, gradient, mode, of) for of in (line_access(group_size), thread_access))
    size, gradient_size, state_size = value.itemsize, gradient.itemsize, state_dtype(value).itemsize
    shifted = per_item(formula(lambda address: address), count)

    def update(
        value: Any, gradient: Any, states: Any, extra: Any, chosen: Any, rows: Any, length: Any, groups: Any,
        numbers: Any,
    ) -> None:  # fmt: skip
        row = thread(1)
        while holds(row < rows):
            place = widened(row)
            if holds(lane(chosen) != 0):
                place = load_item(lane(chosen) + widened(row) * 8, _ROW)
            place = place * widened(lane(length))
            here = lane(value) + place * size
            given = lane(gradient) + widened(row) * widened(lane(length)) * gradient_size
            kept = shifted(states, place * state_size)
            group = thread(0)
            while holds(group < groups):
                steps(here, given, kept, lane(extra), widened(group) * group_size, numbers)
                group = group + threads(0)
            column = lane(groups) * group_size + thread(0)
            while holds(column < length):
                step(here, given, kept, lane(extra), widened(column), numbers)
                column = column + threads(0)
            row = row + threads(1)

    word, short = types.uint64, types.uint32
    signature = word, word, types.UniTuple(word, count), word, word, short, short, short, _numbers(rule, value)
    return CudaKernel(f"update_{rule}_{value}_{gradient}_{mode}", update, signature)


@cache
def make_stochastic(rule: str, value: Dtype, gradient: Dtype) -> CudaKernel:
    """Make the kernel for rows of elements that follow each other in the full tensor: a thread draws eight words."""
    steps, step = (make_step(rule, value, gradient, "stochastic", of) for of in (line_access(8), thread_access))
    draw = make_blocks("bits", np.dtype(np.uint32), 2)

    def stochastic(
        value: Any, gradient: Any, states: Any, lines: Any, rows: Any, length: Any, step_of_row: Any, axes: Any,  # noqa: ARG001
        first: Any, key: Any, numbers: Any,
    ) -> None:  # fmt: skip
        row = thread(1)
        while holds(row < rows):
            index = locate(row, axes, lane(first))
            start, skip = widened(row) * widened(lane(length)), low_word(index) & 3
            groups, group = (lane(length) + skip + 7) // 8, thread(0)
            while holds(group < groups):
                at = group * 8 - skip  # what comes before the row has a number above any in it
                place = start + widened(group) * 8 - widened(skip)
                words = draw((index >> 2) + widened(group) * 2, lane(key), ())
                inside = (at < length) & (at + 7 < length)
                if holds(inside & ((low_word(place) & 7 | lane(lines)) == 0)):
                    a, b, c, d, e, f, g, h = words
                    word = joined(joined(joined(a, b), joined(c, d)), joined(joined(e, f), joined(g, h)))
                    steps(lane(value), lane(gradient), states, word, place, numbers)
                else:
                    for k in range(8):
                        if holds(at + k < length):
                            step(lane(value), lane(gradient), states, words[k], place + k, numbers)
                group = group + threads(0)
            row = row + threads(1)

    word, short = types.uint64, types.uint32
    signature = (
        word, word, types.UniTuple(word, RULES[rule].states), short, short, short, word, OUTER, word,
        types.UniTuple(word, 3), _numbers(rule, value),
    )  # fmt: skip
    return CudaKernel(f"update_{rule}_{value}_{gradient}_stochastic", stochastic, signature)


def _group_size(value: Dtype, gradient: Dtype) -> int:
    """Return how many elements fill a line of the shorter ones."""
    return 16 // min(value.itemsize, gradient.itemsize)


def _make_total(term: Any) -> Any:
    """Make the formula of the sum of the squares of a term from one place to another, in the order of the CPU."""

    @formula
    def square(arrays: Any, at: Any, numbers: Any) -> Any:
        x = term(arrays, at, numbers)
        return x * x

    @formula
    def total_of(arrays: Any, at: Any, end: Any, numbers: Any) -> Any:
        zero = lane(_SUM)
        a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
        while holds(at + 8 <= end):
            a = a + square(arrays, at, numbers)
            b = b + square(arrays, at + 1, numbers)
            c = c + square(arrays, at + 2, numbers)
            d = d + square(arrays, at + 3, numbers)
            e = e + square(arrays, at + 4, numbers)
            f = f + square(arrays, at + 5, numbers)
            g = g + square(arrays, at + 6, numbers)
            h = h + square(arrays, at + 7, numbers)
            at = at + 8
        total = ((a + e) + (c + g)) + ((b + f) + (d + h))
        while holds(at < end):
            total = total + square(arrays, at, numbers)
            at = at + 1
        return total

    return total_of


@cache
def make_row_sums(dtypes: tuple[Dtype, ...]) -> CudaKernel:
    """Make the kernel that sums the squares of each row, or of LAMB's direction there, in the order of the CPU."""
    total_of = _make_total(make_term(dtypes, thread_access))

    def row_sums(out: Any, arrays: Any, rows: Any, length: Any, numbers: Any) -> None:
        row = thread(0)
        while holds(row < rows):
            at = widened(row) * widened(lane(length))
            total = total_of(arrays, at, at + widened(lane(length)), numbers)
            store_item(lane(out) + widened(row) * 8, total, _SUM)
            row = row + threads(0)

    word, short = types.uint64, types.uint32
    numbers = _numbers("lamb", dtypes[0]) if len(dtypes) > 1 else types.UniTuple(types.float32, 0)
    name = f"row_sums_{'_'.join(map(str, dtypes))}"
    return CudaKernel(name, row_sums, (word, types.UniTuple(word, len(dtypes)), short, short, numbers))


@cache
def make_rowwise(value: Dtype, gradient: Dtype) -> CudaKernel:
    """Make the kernel of row-wise Adagrad: a row is one thread's, which keeps the order of its additions."""
    total_of = _make_total(make_decayed(value, gradient, thread_access))
    step, accumulate = (
        make_step("sgd", value, gradient, "nearest", thread_access),
        make_accumulate(value, thread_access),
    )
    size, gradient_size, state_size = value.itemsize, gradient.itemsize, state_dtype(value).itemsize

    def rowwise(value: Any, gradient: Any, totals: Any, chosen: Any, rows: Any, length: Any, numbers: Any) -> None:
        row, columns = thread(0), widened(lane(length))
        while holds(row < rows):
            place = widened(row)
            if holds(lane(chosen) != 0):
                place = load_item(lane(chosen) + widened(row) * 8, _ROW)
            here, given = lane(value) + place * columns * size, lane(gradient) + widened(row) * columns * gradient_size
            total = total_of((here, given), columns - columns, columns, numbers)
            scalars = numbers[0], numbers[1], accumulate(lane(totals) + place * state_size, total, numbers)
            at = columns - columns
            while holds(at < columns):
                step(here, given, (), here, at, scalars)
                at = at + 1
            row = row + threads(0)

    word, short = types.uint64, types.uint32
    kind = types.float64 if value == np.float64 else types.float32
    signature = word, word, word, word, short, short, types.UniTuple(kind, 5)
    return CudaKernel(f"update_rowwise_{value}_{gradient}", rowwise, signature)


# --------------------------------------------------------------------------- entries


def update(
    rule: str, value: Any, gradient: Any, states: Sequence[Any], numbers: tuple[Any, ...], mode: str, extra: Any
) -> None:
    """Update all elements; see the entries of `update`."""
    if mode == "stochastic":
        _update_stochastic(rule, value, [value, gradient, *states], numbers, extra)
        return
    arrays = [value, gradient, *states, *([] if extra is None else [extra])]
    flat = [array.reshape((array.size,)) for array in arrays]
    for start in range(0, value.size, LAUNCH_LIMIT):
        part = [array[start : start + LAUNCH_LIMIT] for array in flat]
        given = part.pop() if extra is not None else None
        _launch_update(rule, part, numbers, mode, given, 0, 1, part[0].size)


def _update_stochastic(rule: str, value: Any, arrays: list[Any], numbers: tuple[Any, ...], words: Words) -> None:
    flat = [array.ravel() for array in arrays]
    kernel = make_stochastic(rule, value.dtype, arrays[1].dtype)
    lengths, steps, first = merged(value.shape, words.span)
    if steps[-1] != 1:  # an element is a row
        lengths, steps = [*lengths, 1], [*steps, 1]
    for part, rows, length, place in launches(lengths, steps, first):
        addresses = [array[part].address for array in flat]
        off_line = sum(address % 16 for address in addresses)
        launched = *addresses, off_line, rows, length, *place, *words.key, *numbers
        _launch.launch(value.device, kernel, length // 8 + 2, rows, launched)


def update_rows(
    rule: str, value: Any, rows: Any, gradient: Any, states: Sequence[Any], numbers: tuple[Any, ...]
) -> None:
    """Update some rows along axis 0."""
    length = gradient.size // rows.size
    _launch_update(rule, [value, gradient, *states], numbers, "nearest", None, rows.address, rows.size, length)


def _launch_update(
    rule: str, arrays: list[Any], numbers: tuple[Any, ...], mode: str, extra: Any, chosen: int, rows: int, length: int
) -> None:
    value, gradient = arrays[:2]
    kernel = make_update(rule, value.dtype, gradient.dtype, mode)
    given = [*arrays, *([] if extra is None else [extra])]
    addresses = [array.address for array in given]
    starts = addresses + ([] if rows == 1 and not chosen else [length * array.itemsize for array in given])
    group_size = _group_size(value.dtype, gradient.dtype)
    groups = 0 if any(start % 16 for start in starts) else length // group_size
    if extra is None:
        addresses.append(0)
    words = *addresses, chosen, rows, length, groups
    _launch.launch(value.device, kernel, max(groups, length - groups * group_size), rows, (*words, *numbers))


def update_rowwise(value: Any, rows: Any, gradient: Any, totals: Any, count: int, numbers: tuple[Any, ...]) -> None:
    """Update rows by row-wise Adagrad."""
    chosen = 0 if rows is None else rows.address
    words = value.address, gradient.address, totals.address, chosen, count, gradient.size // count
    _launch.launch(value.device, make_rowwise(value.dtype, gradient.dtype), count, 1, (*words, *numbers))


def row_sums(array: Any, rows: int) -> np.ndarray[Any, Dtype]:
    """Return the sums of squares of rows on the host."""
    return _row_sums([array], rows, ())


def update_moments(
    value: Any, gradient: Any, states: Sequence[Any], rows: int, first: tuple[Any, ...], numbers: tuple[Any, ...]
) -> np.ndarray[Any, Dtype]:
    """Update moments, and return the sums of squares of rows of weights and of directions, on the host."""
    update("moments", value, gradient, states, first, "states", None)
    return np.stack([_row_sums([value], rows, ()), _row_sums([value, *states], rows, numbers)])


def _row_sums(arrays: Sequence[Any], rows: int, numbers: tuple[Any, ...]) -> np.ndarray[Any, Dtype]:
    out = DeviceArray.empty((rows,), np.dtype(np.float64), arrays[0].device)
    words = out.address, *(array.address for array in arrays), rows, arrays[0].size // rows
    kernel = make_row_sums(tuple(array.dtype for array in arrays))
    _launch.launch(out.device, kernel, rows, 1, (*words, *numbers))
    return out.to_host()
