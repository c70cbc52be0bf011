"""Search lazy parameters, drawn anew, for lines that begin with given values.

A line is a row or a column of the last two axes; the axes before them are counted together with it. Of an array of one
axis it is a window of consecutive elements.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np

from numparam.indexing.region import Region
from numparam.tensor import Tensor

Array = np.ndarray[Any, Any]
Kind = Literal["rows", "columns", "elements"]

PROBE_BYTES = 16
"""Of the first values of a line, which are compared: float8 has too few different ones for less."""
_STARTS = 16
"""At most so many places where a shard of a line may begin are tried."""
_STEPS = (127, 61, 31, 11, 7, 5, 3)
_INTERLEAVED = 8
"""At most so many shards may be interleaved."""


class Query(NamedTuple):
    """What lines are looked for."""

    width: int | None
    """Of a line; None for windows of an array of one axis."""
    first: int
    """How many of the first values of a line are compared."""


class Hit(NamedTuple):
    """A line of a parameter that begins as wanted."""

    name: str
    line: int
    along: range
    """The places in the line."""


Hits = dict[tuple[Query, Kind], dict[int, Hit]]


def probes(dtype: np.dtype[Any]) -> int:
    """Count the values that are compared."""
    return max(1, PROBE_BYTES // dtype.itemsize)


def beginnings(array: Array, kind: Kind, count: int) -> Array:
    """Return the first values of all lines, a line each."""
    if kind == "elements":
        bits = array.view(f"u{array.itemsize}") if array.itemsize <= 8 else array  # NumPy knows no windows of float8
        return np.lib.stride_tricks.sliding_window_view(bits, count)
    part = array[..., :count] if kind == "rows" else array[..., :count, :].swapaxes(-1, -2)
    return part.reshape(-1, count)


def keys(lines: Array) -> Array:
    """Return a number for the bits of the first values of each line."""
    content = np.ascontiguousarray(lines).view(np.uint8).reshape(len(lines), -1)[:, :PROBE_BYTES]
    if content.shape[1] < PROBE_BYTES:
        content = np.pad(content, ((0, 0), (0, PROBE_BYTES - content.shape[1])))
    low, high = np.ascontiguousarray(content).view(np.uint64).T
    key: Array = (low ^ (high >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + high * np.uint64(0xD6E8FEB86659FD93)
    key ^= key >> np.uint64(32)
    return key


def is_plain(lines: Array) -> Array:
    """Find which lines repeat one value, such as zeros, and so are of no parameter in particular."""
    if lines.shape[1] == 1:
        return np.zeros(len(lines), bool)
    items = np.ascontiguousarray(lines).view(np.uint8).reshape(*lines.shape, -1)
    plain: Array = (items == items[:, :1]).all((1, 2))
    return plain


def search(
    wanted: Mapping[Query, Array],
    tensors: Mapping[str, Tensor],
    lines: Mapping[Query, int] | None,
    is_done: Callable[[Hits], bool],
) -> Hits:
    """Find the lines of lazy parameters that have the wanted keys.

    Parameters
    ----------
    wanted : mapping of Query to ndarray
        Sorted keys.
    tensors : mapping of str to Tensor
    lines : mapping of Query to int, optional
        How many lines an array has, if shards of lines are looked for too, as ``torch.chunk`` and interleaving cut
        them: so many lines follow each other, at some steps, so a few lines show whether all are worth drawing.
    is_done : callable
        Whether what is found so far will do.
    """
    # A table of one bit of each key spares most lines a binary search.
    maybe = {}
    wanted = {query: known for query, known in wanted.items() if known.size}
    for query, known in wanted.items():
        maybe[query] = np.zeros(1 << 18, bool)
        maybe[query][_short(known)] = True

    def matching(query: Query, drawn: Array) -> Array:
        found, known = np.flatnonzero(maybe[query][_short(drawn)]), wanted[query]
        places = np.minimum(np.searchsorted(known, drawn[found]), len(known) - 1)
        lines: Array = found[known[places] == drawn[found]]
        return lines

    hits: Hits = {}
    for name, tensor in tensors.items():
        drawn = cache(partial(_drawn, tensor))  # queries that differ in width begin alike
        for query in wanted:
            step = 1 if lines is None else _step(lines[query])
            for kind, places in _places(tensor.shape, query, lines is not None):
                first = [along[: query.first] for along in places]
                chosen = set(range(len(places)))
                if step > 1:
                    chosen = {line % len(places) for line in matching(query, drawn(kind, *first, step=step)).tolist()}
                for place in chosen:
                    every, table = drawn(kind, first[place]), hits.setdefault((query, kind), {})
                    found = matching(query, every)
                    for key, line in zip(every[found].tolist(), found.tolist(), strict=True):
                        table.setdefault(key, Hit(name, line, places[place]))
        if is_done(hits):
            break
    return hits


def _short(key: Array) -> Array:
    return (key & np.uint64((1 << 18) - 1)).astype(np.intp)


def _step(count: int) -> int:
    """Return the step of the lines that are drawn of `count`: a prime, so that it finds lines that have steps too."""
    return next((step for step in _STEPS if step <= max(count // 8, min(count, 11))), 1)


def _drawn(tensor: Tensor, kind: Kind, *places: range, step: int = 1) -> Array:
    """Return the keys of every line, or of one in so many, from several places on: of all places for each line."""
    full, lines, count = Region.full(tensor.shape), slice(None, None, step), len(places[0])

    def begun(first: int, stop: int, by: int = 1) -> Array:
        along = slice(first, stop, by)
        part = full if kind == "elements" else full[..., lines, along] if kind == "rows" else full[..., along, lines]
        return beginnings(_values(tensor, part), kind, len(range(first, stop, by)))

    # One draw of one value is about as fast as of a thousand: as few draws as can be.
    if places[0].step > 1 and len(places) > 1:  # interleaved
        found = begun(0, count * places[0].step).reshape(-1, count, len(places)).swapaxes(1, 2)
    elif len(places) > count:
        width = places[1].start - places[0].start
        found = np.stack([begun(at, places[-1].start + at + 1, width) for at in range(count)], -1)
    else:
        found = np.stack([begun(place.start, place.stop, place.step) for place in places], 1)
    return keys(found.reshape(-1, count))


def _values(tensor: Tensor, region: Region) -> Array:
    out = np.empty(region.shape, tensor.dtype)
    tensor.fill_into(out, region)
    return out


def _places(shape: tuple[int, ...], query: Query, everywhere: bool) -> Iterator[tuple[Kind, list[range]]]:
    """Yield where lines of some width may be in a parameter: at their beginnings, or everywhere else."""
    if query.width is None:
        if len(shape) == 1 and query.first <= shape[0] and not everywhere:
            yield "elements", [range(query.first)]
        return
    kinds: tuple[tuple[Kind, int], ...] = (("rows", -1), ("columns", -2))
    for kind, axis in kinds if len(shape) > 1 else ():
        length, width = shape[axis], query.width
        if width <= length and not everywhere:
            yield kind, [range(width)]
        elif width < length:
            starts = range(0, length - width + 1, width)[:_STARTS]
            yield kind, [range(start, start + width) for start in starts]
            if length % width:
                yield kind, [range(length - width, length)]
            elif length <= _INTERLEAVED * width:
                step = length // width
                yield kind, [range(phase, length, step) for phase in range(step)]
