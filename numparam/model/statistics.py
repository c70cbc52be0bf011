"""Statistics of the values of a parameter, in one pass and bounded memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from numparam.checkpoint.opening import Checkpoint

CHUNK_VALUES = 2**19  # 4 MiB once they are float64
BINS = 16


@dataclass
class Statistics:
    """Hold statistics of the finite values of a parameter: meaningless without finite values.

    `std` is of the population, and `bins` a histogram from `low` to `high` in 16 equal steps.
    """

    size: int = 0
    finite: int = 0
    mean: float = math.nan
    std: float = math.nan
    low: float = math.inf
    high: float = -math.inf
    bins: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: np.zeros(BINS, np.int64))


def statistics(checkpoint: Checkpoint, name: str) -> Statistics:
    """Compute the statistics of a parameter.

    The values are read twice: for the moments and the range, and for the histogram, which needs the range. The moments
    of the chunks are merged by the rule of Chan, Golub and LeVeque (1979), which does not cancel.
    """
    found = Statistics(size=checkpoint.entries[name].size)
    squares = 0.0
    with np.errstate(over="ignore"):  # a spread beyond float64 is infinite
        for values in _finite_chunks(checkpoint, name):
            count, mean = len(values), float(values.mean())
            total = found.finite + count
            shift = mean - found.mean if found.finite else 0.0
            squares += float(np.square(values - mean).sum()) + shift * shift * found.finite * count / total
            found.mean = found.mean + shift * count / total if found.finite else mean
            found.low = min(found.low, float(values.min()))
            found.high = max(found.high, float(values.max()))
            found.finite = total
    if not found.finite:
        return found
    found.std = math.sqrt(squares / found.finite)
    span = found.high - found.low
    for values in _finite_chunks(checkpoint, name):
        # A range of nothing, or one beyond float64, has one bin.
        scaled = (values - found.low) / span * BINS if 0 < span < math.inf else np.zeros(len(values))
        found.bins += np.bincount(np.minimum(scaled.astype(np.int64), BINS - 1), minlength=BINS)
    return found


def _finite_chunks(checkpoint: Checkpoint, name: str) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
    entry = checkpoint.entries[name]
    buffer = np.empty(min(entry.size, CHUNK_VALUES), entry.dtype)
    with checkpoint.reading(name) as fill:
        for start in range(0, entry.size, CHUNK_VALUES):
            chunk = buffer[: min(CHUNK_VALUES, entry.size - start)]
            fill(chunk)
            values = np.abs(chunk) if chunk.dtype.kind == "c" else chunk
            values = values[np.isfinite(values)].astype(np.float64)
            if len(values):
                yield values
