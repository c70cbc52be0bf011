"""Optimizer steps on a CPU: loops over vectors, an element at a time where a row ends."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.fill.cpu import TILE, make_write, over_runs, runs
from numparam.kernels.formula.access import Access, lanes_access, state_dtype
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.cuda import lane
from numparam.kernels.machine.lanes import WIDTH
from numparam.kernels.machine.memory import access, in_memory_order, prefetch, prefetch_row
from numparam.kernels.update.rules import RULES
from numparam.kernels.update.step import (
    make_accumulate,
    make_decayed,
    make_directed,
    make_step,
    make_term,
    per_item,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Dtype = np.dtype[Any]

_PARTIAL = 8
"""Running sums of a row, whatever the width of the registers: the order of its additions is fixed."""
_AHEAD = 1024
"""Bytes before a row whose memory is asked for: a processor does not guess which row is next."""
_ROWS_AHEAD, _STATE_BYTES_AHEAD = 4, 255
_WORD = np.dtype(np.uint32)


# --------------------------------------------------------------------------- loops


def _make_steps(rule: str, value: Dtype, gradient: Dtype, mode: str, most: int = WIDTH) -> Any:
    """Make the formula that steps the elements from one place to another, at most so many at a time."""
    many, one = (make_step(rule, value, gradient, mode, lanes_access(width)) for width in (most, 1))

    @formula
    def steps(value: Any, gradient: Any, states: Any, extra: Any, at: Any, end: Any, numbers: Any) -> None:
        while at + most <= end:
            many(value, gradient, states, extra, at, numbers)
            at += most
        while at < end:
            one(value, gradient, states, extra, at, numbers)
            at += 1

    return steps


@cache
def _make_update(rule: str, value: Dtype, gradient: Dtype, mode: str) -> Any:
    # A cache may hold one line of arrays whose addresses are alike, as those of long ones: it is read and written once.
    steps = _make_steps(rule, value, gradient, mode, 2 * WIDTH)

    @kernel(f"update {rule} {value} {gradient} {mode}")
    def loop(value: Any, gradient: Any, states: Any, extra: Any, start: Any, stop: Any, numbers: Any) -> None:
        steps(value, gradient, states, extra, start, stop, numbers)

    return loop


@cache
def _make_stochastic(rule: str, value: Dtype, gradient: Dtype) -> Any:
    """Make the loop that steps a tile of elements while the words that round them are in registers."""
    many, one = (make_step(rule, value, gradient, "stochastic", lanes_access(width)) for width in (2 * WIDTH, 1))

    @formula
    def store(arrays: Any, at: Any, words: Any) -> None:
        (value, gradient, states, numbers), (lower, upper) = arrays, in_memory_order(words)
        many(value, gradient, states, lower, at, numbers)
        many(value, gradient, states, upper, at + 2 * WIDTH, numbers)

    @formula
    def put(arrays: Any, at: Any, word: Any) -> None:
        value, gradient, states, numbers = arrays
        one(value, gradient, states, lane(word), at, numbers)

    loop = over_runs(make_write("bits", _WORD, store, put), _WORD)
    return kernel(f"update {rule} {value} {gradient} stochastic")(loop)


def _ask(address: Any) -> Any:
    """Ask for the first lines of a state of a row."""
    prefetch_row(address, _STATE_BYTES_AHEAD)
    return address


@cache
def _make_rows(rule: str, value: Dtype, gradient: Dtype) -> Any:
    steps = _make_steps(rule, value, gradient, "nearest")
    size, gradient_size, state_size = value.itemsize, gradient.itemsize, state_dtype(value).itemsize
    shifted, asked = (per_item(formula(each), RULES[rule].states) for each in (lambda address: address, _ask))

    @kernel(f"update rows {rule} {value} {gradient}")
    def loop(
        value: Any, gradient: Any, states: Any, rows: Any, length: Any, start: Any, stop: Any, numbers: Any
    ) -> None:
        for row in range(start, stop):
            place, later = rows[row] * length, rows[min(row + _ROWS_AHEAD, stop - 1)] * length
            prefetch_row(value + later * size, length * size)
            asked(states, later * state_size)
            here, given = value + place * size, gradient + row * length * gradient_size
            kept = shifted(states, place * state_size)
            steps(here, given, kept, 0, 0, length, numbers)

    return loop


def _make_total(make: Callable[[Callable[[Dtype], Access]], Any], count: int = 1) -> Any:
    """Make the formula of the sums of squares of `count` terms from one place to another, in an order that is fixed.

    The terms, one behind the other, are given as the function that makes them for some access. The totals are written
    to ``out[place]``; ``partial`` has `_PARTIAL` floats a term.
    """
    many, one = make(lanes_access(_PARTIAL)), make(lanes_access(1))
    load_many, store_many, _ = access("f64", count * _PARTIAL)
    _, store_one, _ = access("f64", count)

    @formula
    def total_of(out: Any, arrays: Any, at: Any, end: Any, numbers: Any, partial: Any) -> None:
        address = partial.ctypes.data
        for k in range(count * _PARTIAL):
            partial[k] = 0.0
        sums = load_many(address)
        while at + _PARTIAL <= end:
            x = many(arrays, at, numbers)
            sums = sums + x * x
            at += _PARTIAL
        store_many(address, sums)
        for k in range(count):
            a = partial[k * _PARTIAL : (k + 1) * _PARTIAL]
            out[k] = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
        while at < end:
            x_one = one(arrays, at, numbers)
            store_one(address, x_one * x_one)
            for k in range(count):
                out[k] += partial[k]
            at += 1

    return total_of


@cache
def _make_row_sums(dtype: Dtype) -> Any:
    total_of = _make_total(partial(make_term, (dtype,)))

    @kernel(f"row sums {dtype}")
    def loop(out: Any, array: Any, length: Any, start: Any, stop: Any) -> None:
        sums = np.empty(_PARTIAL)
        for row in range(start, stop):
            total_of(out[row], (array,), row * length, (row + 1) * length, (), sums)

    return loop


@cache
def _make_moments(value: Dtype, gradient: Dtype) -> Any:
    """Make the loop that updates the moments, and sums the squares of weights and directions of rows meanwhile."""
    total_of = _make_total(partial(make_directed, value, gradient), 2)

    @kernel(f"update moments {value} {gradient}")
    def loop(
        out: Any, value: Any, gradient: Any, states: Any, length: Any, start: Any, stop: Any, first: Any, numbers: Any
    ) -> None:
        sums = np.empty(2 * _PARTIAL)
        for row in range(start, stop):
            total_of(out[row], (value, gradient, states), row * length, (row + 1) * length, (first, numbers), sums)

    return loop


@cache
def _make_rowwise(value: Dtype, gradient: Dtype) -> Any:
    size, gradient_size, state = value.itemsize, gradient.itemsize, state_dtype(value)

    def made(of: Callable[[Dtype], Access]) -> Any:
        decayed = make_decayed(value, gradient, of)

        @formula
        def term(arrays: Any, at: Any, numbers: Any) -> Any:
            here, given, next_here, next_given = arrays
            prefetch(next_here + at * size)
            prefetch(next_given + at * gradient_size)
            return decayed((here, given), at, numbers)

        return term

    total_of, steps = _make_total(made), _make_steps("sgd", value, gradient, "nearest")
    accumulate, load_total = make_accumulate(value, lanes_access(1)), access("f64", 1)[0]
    store_step, kind, state_size = lanes_access(1)(state).store, state.type, state.itemsize

    @kernel(f"update rowwise {value} {gradient}")
    def loop(
        value: Any, gradient: Any, totals: Any, rows: Any, length: Any, start: Any, stop: Any, numbers: Any
    ) -> None:
        partial, total, step = np.empty(_PARTIAL), np.empty(1), np.empty(1, kind)
        line, given_line = length * size, length * gradient_size
        ahead = 1 + _AHEAD // line
        for row in range(start, stop):
            later = min(row + ahead, stop - 1)
            place, next_place = (rows[row], rows[later]) if rows.size else (row, later)
            here, given = value + place * line, gradient + row * given_line
            arrays = here, given, value + next_place * line, gradient + later * given_line
            total_of(total, arrays, 0, length, numbers, partial)
            rate = accumulate(totals + place * state_size, load_total(total.ctypes.data), numbers)
            store_step(step.ctypes.data, rate)
            steps(here, given, (), 0, 0, length, (numbers[0], numbers[1], step[0]))

    return loop


# --------------------------------------------------------------------------- entries


def update(
    rule: str, value: Any, gradient: Any, states: Sequence[Any], numbers: tuple[Any, ...], mode: str, extra: Any
) -> None:
    """Update all elements; see the entries of `update`."""
    addresses = value.ctypes.data, gradient.ctypes.data, _addresses(states)
    nbytes = value.itemsize + gradient.itemsize + sum(state.itemsize for state in states)
    if mode == "stochastic":
        loop, axes, first = _make_stochastic(rule, value.dtype, gradient.dtype), *runs(value.shape, extra.span)
        place = axes, first, tuple(map(np.uint64, extra.key)), (), 0
        pool.run(lambda start, stop: loop((*addresses, numbers), start, stop, *place), value.size, nbytes, TILE)
        return
    loop, other = _make_update(rule, value.dtype, gradient.dtype, mode), 0 if extra is None else extra.ctypes.data
    pool.run(lambda start, stop: loop(*addresses, other, start, stop, numbers), value.size, nbytes, 64)


def update_rows(
    rule: str, value: Any, rows: Any, gradient: Any, states: Sequence[Any], numbers: tuple[Any, ...]
) -> None:
    """Update some rows along axis 0."""
    loop, length = _make_rows(rule, value.dtype, gradient.dtype), gradient.size // rows.size
    arguments = value.ctypes.data, gradient.ctypes.data, _addresses(states), rows, length
    nbytes = length * (value.itemsize + gradient.itemsize + sum(state.itemsize for state in states))
    pool.run(lambda start, stop: loop(*arguments, start, stop, numbers), rows.size, nbytes, 1)


def update_rowwise(value: Any, rows: Any, gradient: Any, totals: Any, count: int, numbers: tuple[Any, ...]) -> None:
    """Update rows by row-wise Adagrad."""
    loop, length = _make_rowwise(value.dtype, gradient.dtype), gradient.size // count
    chosen = np.empty(0, np.int64) if rows is None else rows
    arguments = value.ctypes.data, gradient.ctypes.data, totals.ctypes.data, chosen, length
    nbytes = length * (value.itemsize + gradient.itemsize)
    pool.run(lambda start, stop: loop(*arguments, start, stop, numbers), count, nbytes, 1)


def row_sums(array: Any, rows: int) -> np.ndarray[Any, Dtype]:
    """Return the sums of squares of rows."""
    out, length, loop, address = np.empty((rows, 1)), array.size // rows, _make_row_sums(array.dtype), array.ctypes.data
    pool.run(lambda start, stop: loop(out, address, length, start, stop), rows, length * array.itemsize, 8)
    return out[:, 0]


def update_moments(
    value: Any, gradient: Any, states: Sequence[Any], rows: int, first: tuple[Any, ...], numbers: tuple[Any, ...]
) -> np.ndarray[Any, Dtype]:
    """Update moments, and return the sums of squares of rows of weights and of directions."""
    out, length, loop = np.empty((rows, 2)), value.size // rows, _make_moments(value.dtype, gradient.dtype)
    arguments = out, value.ctypes.data, gradient.ctypes.data, _addresses(states), length
    nbytes = length * (value.itemsize + gradient.itemsize + sum(state.itemsize for state in states))
    pool.run(lambda start, stop: loop(*arguments, start, stop, first, numbers), rows, nbytes, 8)
    return np.ascontiguousarray(out.T)


def _addresses(arrays: Sequence[Any]) -> tuple[int, ...]:
    return tuple([0 if array is None else array.ctypes.data for array in arrays])
