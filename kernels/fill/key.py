"""What selects the random words of a fill: the stream, and the places in the logical tensor."""

from __future__ import annotations

import math
from typing import NamedTuple


class Key(NamedTuple):
    """Select a stream of random words by the Philox key and the upper half of the counter, twice for float64."""

    seed: int
    stream: int
    refinement: int


class Span(NamedTuple):
    """Locate an output in a tensor: the flat index of its first element, and the steps of that along its axes."""

    base: int
    strides: tuple[int, ...]


def merged(shape: tuple[int, ...], span: Span | None) -> tuple[list[int], list[int], int]:
    """Return shape and strides with neighbouring axes merged where one walks on where the other ends."""
    if span is None:
        return [math.prod(shape)], [1], 0
    lengths, steps = [1], [1]
    for length, step in zip(shape, span.strides, strict=True):
        if length == 1:
            continue
        if lengths[-1] == 1:
            lengths[-1], steps[-1] = length, step
        elif steps[-1] == length * step:
            lengths[-1], steps[-1] = lengths[-1] * length, step
        else:
            lengths.append(length)
            steps.append(step)
    return lengths, steps, span.base
