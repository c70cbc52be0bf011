"""One optimizer step on whatever is loaded at a time: vectors of a CPU, or the element of a CUDA thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np

from numparam.kernels.formula.access import Access, state_dtype
from numparam.kernels.formula.formats import unchanged
from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import extended, joined, rounded, sqrt
from numparam.kernels.update.rules import RULES, lamb_direction, stochastic_bfloat16, stochastic_float16

if TYPE_CHECKING:
    from collections.abc import Callable

    from numparam.kernels.fill import Key, Span

Dtype = np.dtype[Any]

STOCHASTIC = {np.dtype(np.float16): stochastic_float16, np.dtype(ml_dtypes.bfloat16): stochastic_bfloat16}
"""Weights that may be rounded by random words, and how."""


class Words(NamedTuple):
    """Locate the random words that round weights: the stream, and where the weights lie in the full tensor."""

    key: Key
    span: Span | None


def per_item(make: Callable[[Any], Any], count: int) -> Any:
    """Make the formula that applies one to the place of each of some arrays; tuples know their length when compiled."""
    if count == 0:
        return formula(lambda _addresses, _at: ())
    if count == 1:
        return formula(lambda addresses, at: (make(addresses[0] + at),))
    if count == 2:
        return formula(lambda addresses, at: (make(addresses[0] + at), make(addresses[1] + at)))
    return formula(lambda addresses, at: (make(addresses[0] + at), make(addresses[1] + at), make(addresses[2] + at)))


def _storing(store: Any, count: int) -> Any:
    """Make the formula that stores one value in each of some arrays."""

    @formula
    def none(addresses: Any, at: Any, values: Any) -> None:
        pass

    @formula
    def one(addresses: Any, at: Any, values: Any) -> None:
        store(addresses[0] + at, values[0])

    @formula
    def two(addresses: Any, at: Any, values: Any) -> None:
        store(addresses[0] + at, values[0])
        store(addresses[1] + at, values[1])

    @formula
    def three(addresses: Any, at: Any, values: Any) -> None:
        two(addresses, at, values)
        store(addresses[2] + at, values[2])

    return (none, one, two, three)[count]


def make_step(rule: str, value: Dtype, gradient: Dtype, mode: str, access: Callable[[Dtype], Access]) -> Any:
    """Make the formula that updates what is at place `at` of all arrays."""
    apply, count, _, writes_states = RULES[rule]
    state = state_dtype(value)
    load, store, shorten = access(value)
    load_gradient = access(gradient).load
    load_state, store_state, _ = access(state)
    load_states, store_states = per_item(load_state, count), _storing(store_state, count * writes_states)
    size, gradient_size, state_size = value.itemsize, gradient.itemsize, state.itemsize
    round_by: Any = STOCHASTIC.get(value)

    @formula
    def applied(w: Any, gradient: Any, states: Any, at: Any, numbers: Any) -> Any:
        g = load_gradient(gradient + at * gradient_size) * numbers[0]
        w, new = apply(w, g, load_states(states, at * state_size), numbers)
        store_states(states, at * state_size, new)
        return w, new

    @formula
    def nearest(value: Any, gradient: Any, states: Any, extra: Any, at: Any, numbers: Any) -> None:  # noqa: ARG001
        place = value + at * size
        store(place, shorten(applied(load(place), gradient, states, at, numbers)[0]))

    @formula
    def stochastic(value: Any, gradient: Any, states: Any, words: Any, at: Any, numbers: Any) -> None:
        place = value + at * size
        w, _ = applied(load(place), gradient, states, at, numbers)
        store(place, round_by(w, words))

    @formula
    def master(value: Any, gradient: Any, states: Any, extra: Any, at: Any, numbers: Any) -> None:
        place = extra + at * state_size
        w, _ = applied(load_state(place), gradient, states, at, numbers)
        store_state(place, w)
        store(value + at * size, shorten(w))

    @formula
    def only_states(value: Any, gradient: Any, states: Any, extra: Any, at: Any, numbers: Any) -> Any:  # noqa: ARG001
        return applied(load(value + at * size), gradient, states, at, numbers)

    return {"states": only_states, "nearest": nearest, "stochastic": stochastic, "master": master}[mode]


def make_term(dtypes: tuple[Dtype, ...], access: Callable[[Dtype], Access]) -> Any:
    """Make the formula of what is squared and summed: a value, or LAMB's direction from weight and moments."""
    load, size = access(dtypes[0]).load, dtypes[0].itemsize
    widen = extended if dtypes[0] != np.float64 else unchanged
    if len(dtypes) == 1:
        return formula(lambda arrays, at, _numbers: widen(load(arrays[0] + at * size)))
    load_state, state_size = access(dtypes[1]).load, dtypes[1].itemsize

    @formula
    def term(arrays: Any, at: Any, numbers: Any) -> Any:
        m, v = load_state(arrays[1] + at * state_size), load_state(arrays[2] + at * state_size)
        return widen(lamb_direction(load(arrays[0] + at * size), m, v, numbers))

    return term


def make_directed(value: Dtype, gradient: Dtype, access: Callable[[Dtype], Access]) -> Any:
    """Make the formula that updates LAMB's moments, and returns a weight and its direction, one behind the other."""
    step = make_step("moments", value, gradient, "states", access)
    widen = extended if value != np.float64 else unchanged

    @formula
    def directed(arrays: Any, at: Any, numbers: Any) -> Any:
        (value, gradient, states), (first, second) = arrays, numbers
        w, (m, v) = step(value, gradient, states, 0, at, first)
        return joined(widen(w), widen(lamb_direction(w, m, v, second)))

    return directed


def make_decayed(value: Dtype, gradient: Dtype, access: Callable[[Dtype], Access]) -> Any:
    """Make the formula of what row-wise Adagrad squares and sums: scaled gradients and the decay of weights."""
    load, load_gradient = access(value).load, access(gradient).load
    size, gradient_size = value.itemsize, gradient.itemsize
    widen = extended if value != np.float64 else unchanged

    @formula
    def decayed(arrays: Any, at: Any, c: Any) -> Any:
        g = load_gradient(arrays[1] + at * gradient_size) * c[0]
        return widen(g + c[1] * load(arrays[0] + at * size))

    return decayed


def make_accumulate(value: Dtype, access: Callable[[Dtype], Access]) -> Any:
    """Make the formula that adds to the total of a row, and returns the rate of the row: in float64, one at a time.

    Row-wise Adagrad as in Mudigere et al., "Software-hardware co-design for fast and scalable training of deep learning
    recommendation models" (2022).
    """
    load, store, _ = access(state_dtype(value))
    shorten = rounded if value != np.float64 else unchanged

    @formula
    def accumulate(place: Any, total: Any, c: Any) -> Any:
        kept = load(place) + shorten(total / c[4])
        store(place, kept)
        return c[2] / (sqrt(kept) + c[3])

    return accumulate
