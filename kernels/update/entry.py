"""Optimizer steps in place: each array is read once and written once.

All arrays of a call are on one device, C-contiguous, and of one size. Weights of 16 bits are computed in float32 and
rounded to nearest even, or up or down by random words, or they are the rounded copy of float32 master weights. What an
element becomes depends on nothing but what is at its place, so bits are the same for every thread count and shard.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.dispatch import kind
from numparam.kernels.formula.formats import FORMATS, Format
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.lanes import WIDTH
from numparam.kernels.machine.memory import access
from numparam.kernels.update.rules import RULES
from numparam.kernels.update.step import Access, make_step, make_term, per_item, state_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Dtype = np.dtype[Any]

_WORDS = Format("u32", 4)

_PARTIAL = 8
"""Running sums of a row, whatever the width of the registers: the order of its additions is fixed."""


# --------------------------------------------------------------------------- loops


def lanes_access(width: int) -> Callable[[Dtype], Access]:
    """Make the function that gives access to `width` values at a time."""

    def of(dtype: Dtype) -> Access:
        form = FORMATS.get(dtype) or _WORDS
        load, store, _ = access(form.element, width, form.item_bytes if form.element == "u32" else None)
        widen = form.widen
        return Access(formula(lambda address: widen(load(address))), store, form.shorten)

    return of


@cache
def _make_update(rule: str, value: Dtype, gradient: Dtype, mode: str) -> Any:
    many, one = (make_step(rule, value, gradient, mode, lanes_access(width)) for width in (WIDTH, 1))

    @kernel(f"update {rule} {value} {gradient} {mode}")
    def loop(value: Any, gradient: Any, states: Any, extra: Any, start: Any, stop: Any, numbers: Any) -> None:
        at = start
        while at + WIDTH <= stop:
            many(value, gradient, states, extra, at, numbers)
            at += WIDTH
        while at < stop:
            one(value, gradient, states, extra, at, numbers)
            at += 1

    return loop


@cache
def _make_rows(rule: str, value: Dtype, gradient: Dtype) -> Any:
    many, one = (make_step(rule, value, gradient, "nearest", lanes_access(width)) for width in (WIDTH, 1))
    size, gradient_size, state_size = value.itemsize, gradient.itemsize, state_dtype(value).itemsize
    shifted = per_item(formula(lambda address: address), RULES[rule].states)

    @kernel(f"update rows {rule} {value} {gradient}")
    def loop(
        value: Any, gradient: Any, states: Any, rows: Any, length: Any, start: Any, stop: Any, numbers: Any
    ) -> None:
        for row in range(start, stop):
            place = rows[row] * length
            here, given = value + place * size, gradient + row * length * gradient_size
            kept = shifted(states, place * state_size)
            at = 0
            while at + WIDTH <= length:
                many(here, given, kept, 0, at, numbers)
                at += WIDTH
            while at < length:
                one(here, given, kept, 0, at, numbers)
                at += 1

    return loop


@cache
def _make_row_sums(dtypes: tuple[Dtype, ...]) -> Any:
    many, one = make_term(dtypes, lanes_access(_PARTIAL)), make_term(dtypes, lanes_access(1))
    load_many, store_many, _ = access("f64", _PARTIAL)
    _, store_one, _ = access("f64", 1)

    @kernel(f"row sums {' '.join(map(str, dtypes))}")
    def loop(out: Any, arrays: Any, length: Any, start: Any, stop: Any, numbers: Any) -> None:
        partial = np.empty(_PARTIAL)
        address = partial.ctypes.data
        for row in range(start, stop):
            at, end, total = row * length, (row + 1) * length, 0.0
            if length >= _PARTIAL:
                for k in range(_PARTIAL):
                    partial[k] = 0.0
                sums = load_many(address)
                while at + _PARTIAL <= end:
                    x = many(arrays, at, numbers)
                    sums = sums + x * x
                    at += _PARTIAL
                store_many(address, sums)
                even = (partial[0] + partial[4]) + (partial[2] + partial[6])
                total = even + ((partial[1] + partial[5]) + (partial[3] + partial[7]))
            while at < end:
                x_one = one(arrays, at, numbers)
                store_one(address, x_one * x_one)
                total += partial[0]
                at += 1
            out[row] = total

    return loop


# --------------------------------------------------------------------------- entries


def update(
    rule: str,
    value: Any,
    gradient: Any,
    states: Sequence[Any],
    numbers: Sequence[float],
    mode: str = "nearest",
    extra: Any = None,
) -> None:
    """Update all elements.

    Parameters
    ----------
    rule : str
        One of `RULES`, which say what `states` and `numbers` are.
    value : ndarray or DeviceArray
        The weights, of a floating-point dtype of 16 bits or more.
    gradient : ndarray or DeviceArray
        float64 for weights of float64, else of a shorter floating-point dtype.
    states : sequence of ndarray or DeviceArray
        float32, or float64 for weights of float64.
    numbers : sequence of float
        The scale of the gradient, then those that `RULES` names.
    mode : str
        How the weights are rounded: ``"nearest"``, ``"stochastic"`` by the words of `extra`, of dtype uint32, or
        ``"master"``: `extra` holds the weights in float32, and `value` is their rounded copy.
    extra : ndarray or DeviceArray, optional
    """
    if value.size:
        _TWINS[kind(value)](rule, value, gradient, states, _scalars(rule, numbers, value.dtype), mode, extra)


def update_rows(
    rule: str, value: Any, rows: Any, gradient: Any, states: Sequence[Any], numbers: Sequence[float]
) -> None:
    """Update some rows along axis 0: ``rows``, distinct and of dtype int64, whose gradients lie one after another."""
    if gradient.size:
        _ROW_TWINS[kind(value)](rule, value, rows, gradient, states, _scalars(rule, numbers, value.dtype))


def row_sums(arrays: Sequence[Any], rows: int, numbers: Sequence[float] = ()) -> np.ndarray[Any, Dtype]:
    """Return the sum of squares of each row, of an array or, given weights and two moments, of LAMB's direction.

    The order of additions depends on the length of the row alone.
    """
    if not arrays[0].size:
        return np.zeros(rows)
    scalars = _scalars("lamb", (*numbers, 0.0), arrays[0].dtype) if numbers else ()
    sums: np.ndarray[Any, Dtype] = _SUM_TWINS[kind(arrays[0])](arrays, rows, scalars)
    return sums


def _scalars(rule: str, numbers: Sequence[float], value: Dtype) -> tuple[Any, ...]:
    names = RULES[rule].numbers
    if len(numbers) != len(names) + 1:
        raise ValueError(f"rule {rule!r} takes the scale of the gradient and {', '.join(names)}; found {numbers}")
    return tuple([state_dtype(value).type(number) for number in numbers])


def _update_cpu(
    rule: str, value: Any, gradient: Any, states: Sequence[Any], numbers: tuple[Any, ...], mode: str, extra: Any
) -> None:
    loop = _make_update(rule, value.dtype, gradient.dtype, mode)
    arguments = value.ctypes.data, gradient.ctypes.data, _addresses(states), _addresses([extra])[0]
    nbytes = value.itemsize + gradient.itemsize + sum(state.itemsize for state in states)
    pool.run(lambda start, stop: loop(*arguments, start, stop, numbers), value.size, nbytes, 64)


def _update_rows_cpu(
    rule: str, value: Any, rows: Any, gradient: Any, states: Sequence[Any], numbers: tuple[Any, ...]
) -> None:
    loop, length = _make_rows(rule, value.dtype, gradient.dtype), gradient.size // rows.size
    arguments = value.ctypes.data, gradient.ctypes.data, _addresses(states), rows, length
    nbytes = length * (value.itemsize + gradient.itemsize + sum(state.itemsize for state in states))
    pool.run(lambda start, stop: loop(*arguments, start, stop, numbers), rows.size, nbytes, 1)


def _row_sums_cpu(arrays: Sequence[Any], rows: int, numbers: tuple[Any, ...]) -> np.ndarray[Any, Dtype]:
    out, length = np.empty(rows), arrays[0].size // rows
    loop, addresses = _make_row_sums(tuple(array.dtype for array in arrays)), _addresses(arrays)
    nbytes = length * sum(array.itemsize for array in arrays)
    pool.run(lambda start, stop: loop(out, addresses, length, start, stop, numbers), rows, nbytes, 8)
    return out


def _addresses(arrays: Sequence[Any]) -> tuple[int, ...]:
    return tuple([0 if array is None else array.ctypes.data for array in arrays])


def _cuda(name: str) -> Callable[..., Any]:
    def twin(*arguments: Any) -> Any:
        from numparam.kernels.update import cuda

        return getattr(cuda, name)(*arguments)

    return twin


_TWINS: dict[str, Callable[..., None]] = {"cpu": _update_cpu, "cuda": _cuda("update")}
_ROW_TWINS: dict[str, Callable[..., None]] = {"cpu": _update_rows_cpu, "cuda": _cuda("update_rows")}
_SUM_TWINS: dict[str, Callable[..., Any]] = {"cpu": _row_sums_cpu, "cuda": _cuda("row_sums")}
