"""What selects the random words of a fill: the stream, and the places in the logical tensor."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np


class Key(NamedTuple):
    """Select a stream of random words by the Philox key and the upper half of the counter, twice for float64."""

    seed: int
    stream: int
    refinement: int


class Span(NamedTuple):
    """Locate an output in a tensor: the flat index of its first element, and the steps of that along its axes."""

    base: int
    strides: tuple[int, ...]


class Rows(NamedTuple):
    """Name the rows of a table that the rows of an output are, by int64 keys, in place of a `Span`.

    Row `k` of a table with rows of `d` elements has the flat indices ``(k % 2**64) * d`` and on. They may exceed 64
    bits: the counter of Philox is the 128-bit integer ``stream * 2**64 + block``, as for all other fills.
    """

    keys: np.ndarray[Any, Any]


_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def first_index(key: Any, length: Any) -> Any:
    """Return the low and the high word of the flat index of a row's first element, of 128 bits; all are uint64."""
    high = (key >> _HALF) * length + ((key & _LOW) * length >> _HALF)
    return key * length, high >> _HALF


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
