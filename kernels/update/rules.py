"""What becomes of one element in an optimizer step: the formulas of the CPU and of CUDA threads.

A rule takes a weight, its gradient, the states and numbers that are the same for all elements, and returns the new
weight and states. ``numbers[0]`` scales the gradient before the rule sees it. Only operations of `lanes` are used, so
the bits are the same everywhere. Divisions and roots take longer than the memory where there are more than three.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import (
    U32,
    bits,
    float_of_bits,
    select,
    signed,
    sqrt,
    to_float32,
    truncated32,
)

_ZERO, _ONE, _INFINITY, _QUIET = np.uint32(0), np.uint32(1), np.uint32(0x7C00), np.uint32(0x7E00)


class Rule(NamedTuple):
    """Hold a formula, how many states it reads, the names of its numbers after the scale, and whether states change."""

    formula: Any
    states: int
    numbers: tuple[str, ...]
    writes_states: bool = True


@formula
def _sgd(w: Any, g: Any, _states: Any, c: Any) -> Any:
    return w - c[2] * (g + c[1] * w), ()


@formula
def _momentum(w: Any, g: Any, states: Any, c: Any) -> Any:
    m = c[3] * states[0] + c[4] * (g + c[1] * w)
    return w - c[2] * m, (m,)


@formula
def _nesterov(w: Any, g: Any, states: Any, c: Any) -> Any:
    decayed = g + c[1] * w
    m = c[3] * states[0] + c[4] * decayed
    return w - c[2] * (decayed + c[3] * m), (m,)


@formula
def _adam(w: Any, g: Any, states: Any, c: Any) -> Any:
    """Step as in Kingma and Ba, "Adam" (2015), and with `keep` below 1 as in Loshchilov and Hutter, "AdamW" (2019)."""
    decayed = g + c[1] * w
    m = states[0] + c[4] * (decayed - states[0])
    v = c[5] * states[1] + c[6] * (decayed * decayed)
    return c[3] * w - c[2] * (m / (sqrt(v) / c[7] + c[8])), (m, v)


@formula
def _amsgrad(w: Any, g: Any, states: Any, c: Any) -> Any:
    """Step as in Reddi, Kale and Kumar, "On the convergence of Adam and beyond" (2018)."""
    decayed = g + c[1] * w
    m = states[0] + c[4] * (decayed - states[0])
    v = c[5] * states[1] + c[6] * (decayed * decayed)
    most = select(v > states[2], v, states[2])
    return c[3] * w - c[2] * (m / (sqrt(most) / c[7] + c[8])), (m, v, most)


@formula
def _adagrad(w: Any, g: Any, states: Any, c: Any) -> Any:
    decayed = g + c[1] * w
    total = states[0] + decayed * decayed
    return w - c[2] * (decayed / (sqrt(total) + c[3])), (total,)


@formula
def _ftrl(w: Any, g: Any, states: Any, c: Any) -> Any:
    """Step as in McMahan et al., "Ad click prediction: a view from the trenches" (2013), with the power -1/2."""
    decayed = g + c[1] * w
    total = states[0] + decayed * decayed
    root = sqrt(total)
    linear = states[1] + (decayed - (root - sqrt(states[0])) * (c[2] * w))
    size = select(linear < 0.0, -linear, linear)
    pulled = select(linear < 0.0, linear + c[3], linear - c[3])
    return select(size > c[3], -pulled / (c[2] * root + c[4]), 0.0), (total, linear)


@formula
def _moments(w: Any, g: Any, states: Any, c: Any) -> Any:
    m = states[0] + c[1] * (g - states[0])
    v = c[2] * states[1] + c[3] * (g * g)
    return w, (m, v)


@formula
def lamb_direction(w: Any, m: Any, v: Any, c: Any) -> Any:
    """Return where You et al., "Large batch optimization for deep learning" (2020), step before the trust ratio."""
    return c[1] * m / (sqrt(v) + c[2]) + c[3] * w


@formula
def _lamb(w: Any, _g: Any, states: Any, c: Any) -> Any:
    return w - c[4] * lamb_direction(w, states[0], states[1], c), ()


RULES = {
    "sgd": Rule(_sgd, 0, ("decay", "rate")),
    "momentum": Rule(_momentum, 1, ("decay", "rate", "momentum", "undamped")),
    "nesterov": Rule(_nesterov, 1, ("decay", "rate", "momentum", "undamped")),
    "adam": Rule(_adam, 2, ("decay", "step", "keep", "first", "beta2", "second", "root_correction", "eps")),
    "amsgrad": Rule(_amsgrad, 3, ("decay", "step", "keep", "first", "beta2", "second", "root_correction", "eps")),
    "adagrad": Rule(_adagrad, 1, ("decay", "rate", "eps")),
    "ftrl": Rule(_ftrl, 2, ("decay", "inverse_rate", "l1", "twice_l2")),
    "moments": Rule(_moments, 2, ("first", "beta2", "second")),
    "lamb": Rule(_lamb, 2, ("correction", "eps", "decay", "step"), writes_states=False),
}


# --------------------------------------------------------------------------- stochastic rounding


@formula
def stochastic_bfloat16(x: Any, word: U32) -> U32:
    """Return the bits of one of the two neighbours of x, each the likelier the nearer; NaN and infinity stay."""
    b = bits(x)
    rounded = (b + (word >> 16)) >> 16
    return select((b & 0x7F800000) == 0x7F800000, select(x != x, (b >> 16) | 0x40, b >> 16), rounded)


@formula
def stochastic_float16(x: Any, word: U32) -> U32:
    """Return the bits of one of the two neighbours of x, as `stochastic_bfloat16` does."""
    b = bits(x)
    magnitude = b & 0x7FFFFFFF
    normal = ((magnitude + (word >> 19)) >> 13) - 0x1C000
    # Below 2**-14 numbers are multiples of 2**-24: 24 bits of the word are the fraction of one.
    small = select(magnitude < 0x38800000, float_of_bits(magnitude), 0.0) * 16777216.0
    fraction = to_float32(signed(word >> 8)) * 5.9604644775390625e-08
    down = truncated32(small)
    subnormal = down + select(small - to_float32(signed(down)) > fraction, _ONE, _ZERO)
    result = select(magnitude < 0x38800000, subnormal, normal)
    result = select(result > 0x7C00, 0x7C00, result)
    result = select(magnitude >= 0x7F800000, select(x != x, _QUIET, _INFINITY), result)
    return result | ((b >> 16) & 0x8000)
