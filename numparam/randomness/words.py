"""Words of the stream in the orders in which parameters read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np

from numparam.kernels import fill
from numparam.kernels.fill import Key, Span
from numparam.stream.seed import stream

Words = np.ndarray[Any, np.dtype[np.uint32]]

CHUNK = 1 << 20
"""Words that are examined at once: 4 MiB."""

_EACH = 1 << 10  # words from one name or seed
_SIDES = 8  # shards, and tensors that are interleaved


def _drawn(shape: tuple[int, ...], seed: int, number: int, span: Span | None = None) -> Words:
    out = np.empty(shape, np.uint32)
    fill.bits(out, Key(seed, number, 0), span)
    return out


def _by_index(seed: int) -> Iterator[Words]:
    """Yield the words of one tensor in row-major order, as a fill reads them."""
    number = stream("model.embed_tokens.weight")
    for start in count(0, CHUNK):
        yield _drawn((CHUNK,), seed, number, Span(start, (1,)))


def _across_names(seed: int) -> Iterator[Words]:
    """Yield the words at one index of tensors whose names differ in a number."""
    for first in count(0, CHUNK // _EACH):
        names = (f"model.layers.{place}.mlp.up_proj.weight" for place in range(first, first + CHUNK // _EACH))
        yield np.stack([_drawn((_EACH,), seed, stream(name)) for name in names], axis=1).reshape(-1)


def _across_seeds(seed: int) -> Iterator[Words]:
    """Yield the words at one index of one name under consecutive seeds."""
    number = stream("model.norm.weight")
    for first in count(0, CHUNK // _EACH):
        seeds = range(seed + first, seed + first + CHUNK // _EACH)
        yield np.stack([_drawn((_EACH,), each % 2**64, number) for each in seeds], axis=1).reshape(-1)


def _by_shard(seed: int) -> Iterator[Words]:
    """Yield the words of a matrix shard by shard: all rows of the first columns, then those of the next."""
    number, columns = stream("lm_head.weight"), 4096
    rows = CHUNK // columns
    for first in count(0, rows):
        width = columns // _SIDES
        spans = (Span(first * columns + start, (columns, 1)) for start in range(0, columns, width))
        yield np.concatenate([_drawn((rows, width), seed, number, span).reshape(-1) for span in spans])


def _by_column(seed: int) -> Iterator[Words]:
    """Yield the words of a matrix column by column, 4096 apart."""
    number, columns = stream("lm_head.weight"), 4096
    rows = CHUNK // columns
    for first in count(0, rows):
        yield _drawn((columns, rows), seed, number, Span(first * columns, (1, columns))).reshape(-1)


def _interleaved(seed: int) -> Iterator[Words]:
    """Yield the words of eight tensors in turn: high and low words of four float64 tensors."""
    labels = [(name, label) for name in ("q", "k", "v", "o") for label in ("", "refine")]
    numbers = [stream(f"layers.0.{name}_proj.weight", label) for name, label in labels]
    length = CHUNK // len(numbers)
    for start in count(0, length):
        span = Span(start, (1,))
        yield np.stack([_drawn((length,), seed, number, span) for number in numbers], axis=1).reshape(-1)


ORDERS: dict[str, Callable[[int], Iterator[Words]]] = {
    "indices": _by_index,
    "names": _across_names,
    "seeds": _across_seeds,
    "shards": _by_shard,
    "columns": _by_column,
    "interleaved": _interleaved,
}
"""Orders of words, endless, by what comes one after another."""


def words(order: str, seed: int, limit: int) -> Iterator[Words]:
    """Yield at least `limit` words in an order, a key of `ORDERS`, in chunks; the last one is not shortened."""
    done = 0
    for part in ORDERS[order](seed):
        yield part
        done += part.size
        if done >= limit:
            return
