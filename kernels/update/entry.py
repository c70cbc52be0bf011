"""Optimizer steps in place: each array is read once and written once.

All arrays of a call are on one device, C-contiguous, and of one size. Weights of 16 bits are computed in float32 and
rounded to nearest even, or up or down by random words, or they are the rounded copy of float32 master weights. What an
element becomes depends on nothing but what is at its place, so bits are the same for every thread count and shard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.dispatch import kind, on_cuda
from numparam.kernels.formula.access import state_dtype
from numparam.kernels.update import cpu
from numparam.kernels.update.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Dtype = np.dtype[Any]


def update(
    rule: str,
    value: Any,
    gradient: Any,
    states: Sequence[Any],
    numbers: Sequence[float],
    mode: str = "nearest",
    extra: Any = None,
) -> None:
    """Update all elements of weights by a rule of `RULES`, which defines its `states` and `numbers`.

    Weights have a floating-point dtype of 16 bits or more. States are float64 for weights of float64, else float32, and
    so is the gradient, which may also be shorter. `numbers` begins with the scale of the gradient. `mode` rounds the
    weights: ``"nearest"``, ``"stochastic"`` by the `Words` in `extra`, which the shape of `value` is for, or
    ``"master"``, where `extra` holds the weights in float32 and `value` is their rounded copy.
    """
    if value.size:
        _TWINS[kind(value)](rule, value, gradient, states, _scalars(rule, numbers, value.dtype), mode, extra)


def update_rows(
    rule: str, value: Any, rows: Any, gradient: Any, states: Sequence[Any], numbers: Sequence[float]
) -> None:
    """Update some rows along axis 0: ``rows``, distinct and of dtype int64, whose gradients lie one after another."""
    if gradient.size:
        _ROW_TWINS[kind(value)](rule, value, rows, gradient, states, _scalars(rule, numbers, value.dtype))


def update_rowwise(
    value: Any, rows: Any, gradient: Any, totals: Any, numbers: tuple[float, float, float, float]
) -> None:
    """Update distinct rows along axis 0, or all if `rows` is None, by Adagrad with one number a row.

    The mean of the squares of a row's decayed gradient is added to its total, and the row moves by the rate over the
    root of that. The sum over a row has an order that depends on its length alone. `gradient` holds the rows to update
    one after another, and `numbers` the scale of the gradient, the decay, the rate and eps.
    """
    if gradient.size:
        count = totals.size if rows is None else rows.size
        scalars = tuple([state_dtype(value.dtype).type(number) for number in (*numbers, gradient.size // count)])
        _ROWWISE_TWINS[kind(value)](value, rows, gradient, totals, count, scalars)


def row_sums(array: Any, rows: int) -> np.ndarray[Any, Dtype]:
    """Return the sum of squares of each row. The order of additions depends on the length of the row alone."""
    sums: np.ndarray[Any, Dtype] = _SUM_TWINS[kind(array)](array, rows) if array.size else np.zeros(rows)
    return sums


def update_moments(
    value: Any, gradient: Any, states: Sequence[Any], rows: int, first: Sequence[float], numbers: Sequence[float]
) -> np.ndarray[Any, Dtype]:
    """Update two moments by the rule of that name and its numbers `first`, and leave the weights as they are.

    Returns the `row_sums` of the weights and of LAMB's directions, of shape (2, rows); `numbers` are those of the rule
    ``"lamb"`` without the step.
    """
    if not value.size:
        return np.zeros((2, rows))
    scalars = _scalars("moments", first, value.dtype), _scalars("lamb", (*numbers, 0.0), value.dtype)
    sums: np.ndarray[Any, Dtype] = _MOMENT_TWINS[kind(value)](value, gradient, states, rows, *scalars)
    return sums


def _scalars(rule: str, numbers: Sequence[float], value: Dtype) -> tuple[Any, ...]:
    names = RULES[rule].numbers
    if len(numbers) != len(names) + 1:
        raise ValueError(f"rule {rule!r} takes the scale of the gradient and {', '.join(names)}; found {numbers}")
    return tuple(map(state_dtype(value).type, numbers))


def _twins(name: str) -> dict[str, Callable[..., Any]]:
    return {"cpu": getattr(cpu, name), "cuda": on_cuda("update.cuda", name)}


_TWINS, _ROW_TWINS, _SUM_TWINS, _ROWWISE_TWINS, _MOMENT_TWINS = map(
    _twins, ("update", "update_rows", "row_sums", "update_rowwise", "update_moments")
)
