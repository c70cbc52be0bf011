"""Tests of draws: counts in intervals of known probability, far into the tails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numparam.kernels import fill
from numparam.kernels.fill import Key, Span
from numparam.stream.seed import stream

Counts = np.ndarray[Any, np.dtype[np.int64]]
Probabilities = np.ndarray[Any, np.dtype[np.float64]]

_CHUNK = 1 << 20
_STEPS, _LAST = 16, 7  # intervals of a sixteenth of a sigma, and all beyond seven


class Draw(NamedTuple):
    """Name a distribution, how the kernel `fill` draws it, and the probability below a number.

    `below` is the distribution function, from an array of numbers.
    """

    name: str
    fill: str
    arguments: tuple[float, ...]
    dtype: str
    below: Callable[[Any], Any]


def _normal(x: Any) -> Any:
    from scipy import special

    return special.ndtr(x)


def _truncated(low: float, high: float) -> Callable[[Any], Any]:
    def below(x: Any) -> Any:
        from scipy import special

        # By the tail on the side of the interval, where small differences are exact.
        upper = special.ndtr(-np.clip(x, low, high))
        return (special.ndtr(-low) - upper) / (special.ndtr(-low) - special.ndtr(-high))

    return below


DRAWS = (
    Draw("uniform", "uniform", (-6.0, 6.0), "float32", lambda x: np.clip((x + 6) / 12, 0, 1)),
    Draw("normal", "normal", (0.0, 1.0), "float32", _normal),
    Draw("normal, float64", "normal", (0.0, 1.0), "float64", _normal),
    Draw("normal within 2", "truncated_normal", (0.0, 1.0, -2.0, 2.0), "float32", _truncated(-2.0, 2.0)),
    Draw("normal above 3", "truncated_normal", (0.0, 1.0, 3.0, 8.0), "float32", _truncated(3.0, 8.0)),
)
"""The draws that are tested."""


def edges() -> Probabilities:
    """Return the ends of the intervals, in units of sigma."""
    return np.arange(-_STEPS * _LAST, _STEPS * _LAST + 1) / _STEPS


def probabilities(draw: Draw) -> Probabilities:
    """Return the probability of each interval, the open ones at both ends included."""
    below = draw.below(edges())
    symmetric = draw.name.startswith("normal") and draw.fill == "normal"
    inner = np.diff(below)
    if symmetric:  # above zero, 1 minus something tiny has lost it
        inner = np.concatenate([inner[: len(inner) // 2], inner[: len(inner) // 2][::-1]])
    first = float(below[0])
    return np.array([first, *inner, first if symmetric else 1.0 - float(below[-1])])


def count(draw: Draw, seed: int, start: int) -> Counts:
    """Count how many of some draws, from an index on, lie in each interval."""
    out = np.empty(_CHUNK, draw.dtype)
    name = "encoder.layers.0.weight"
    key = Key(seed, stream(name), stream(name, "refine") if out.dtype == np.float64 else 0)
    getattr(fill, draw.fill)(out, key, *draw.arguments, Span(start, (1,)))
    # Exact: a product with a power of two, and a floor.
    places = np.floor(np.multiply(out, _STEPS, out=out), out=out)
    np.clip(places, -_STEPS * _LAST - 1, _STEPS * _LAST, out=places)
    return np.bincount(places.astype(np.int64) + (_STEPS * _LAST + 1), minlength=2 * _STEPS * _LAST + 2)


def counts(draw: Draw, seed: int, limit: int) -> Counts:
    """Count how many of the first draws lie in each interval; `limit` is rounded up to full chunks."""
    total = np.zeros(2 * _STEPS * _LAST + 2, np.int64)
    for start in range(0, limit, _CHUNK):
        total += count(draw, seed, start)
    return total
