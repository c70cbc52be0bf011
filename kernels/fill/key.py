"""What selects the random words of a fill: the stream, and the places in the logical tensor."""

from __future__ import annotations

import math
from typing import NamedTuple


class Key(NamedTuple):
    """What selects a stream of random words.

    Attributes
    ----------
    seed, stream : int
        Philox key and upper half of the counter, below 2**64.
    refinement : int
        Stream of the low words that float64 needs.
    """

    seed: int
    stream: int
    refinement: int


class Span(NamedTuple):
    """Where the elements of an output lie in the logical tensor.

    Attributes
    ----------
    base : int
        Global flat index of the first element of the output.
    strides : tuple of int
        Step of the global flat index along each axis of the output.
    """

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
