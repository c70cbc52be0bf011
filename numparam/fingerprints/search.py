"""Search lazy parameters, drawn anew, for lines that begin with given values.

A line is a row or a column of the last two axes; the axes before them are counted together with it. Of an array of one
axis it is a window of consecutive elements.
"""

from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np

from numparam.indexing.region import Region
from numparam.tensor import Tensor

Array = np.ndarray[Any, Any]
Kind = Literal["rows", "columns", "elements"]

PROBE_BYTES = 16
"""Of the first values of a line, which are compared: float8 has too few different ones for less."""
_WORD_BYTES = 8
"""Of the first values of a line, which tell it from most others."""
_SAMPLE_BYTES = 4
"""Of the first values of a few lines at each place where a shard of a line may begin."""
_DRAWN = 4
"""Values that are drawn as fast as one."""
_STARTS = 16
"""At most so many places where a shard of a line may begin are tried."""
_STEPS = (127, 61, 31, 13, 11, 7, 5, 3)
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
    low, high = _packed(lines, PROBE_BYTES).T
    key: Array = (low ^ (high >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + high * np.uint64(0xD6E8FEB86659FD93)
    key ^= key >> np.uint64(32)
    return key


def _packed(lines: Array, nbytes: int) -> Array:
    """Return the bits of the first values of each line, so many bytes, as words of 64 bits."""
    content = np.ascontiguousarray(lines).view(np.uint8).reshape(len(lines), lines.shape[1] * lines.itemsize)
    size, unit = max(content.shape[1], nbytes), min(nbytes, 8)
    if lacking := size - content.shape[1] + -size % unit:
        content = np.pad(content, ((0, 0), (0, lacking)))
    words: Array = content.view(f"u{unit}")[:, : nbytes // unit].astype(np.uint64, copy=False)
    return words


def is_plain(lines: Array) -> Array:
    """Find which lines repeat one value, such as zeros, and so are of no parameter in particular."""
    if lines.shape[1] == 1:
        return np.zeros(len(lines), bool)
    items = np.ascontiguousarray(lines).view(np.uint8).reshape(*lines.shape, -1)
    plain: Array = (items == items[:, :1]).all((1, 2))
    return plain


class Wanted:
    """Lines that are looked for, by the first values of each."""

    def __init__(self, lines: Array) -> None:
        self.keys = np.unique(keys(lines))
        self._words = {nbytes: np.unique(_scattered(lines, nbytes)) for nbytes in (_SAMPLE_BYTES, _WORD_BYTES)}
        # A table of one bit of each word spares most lines a binary search.
        self._shift = np.uint64(64 - max(16, len(self.keys).bit_length() + 5))
        self._maybe = {nbytes: np.zeros(1 << 64 - int(self._shift), bool) for nbytes in self._words}
        for nbytes, words in self._words.items():
            self._maybe[nbytes][words >> self._shift] = True

    def like(self, words: Array, nbytes: int) -> Array:
        """Return which lines begin with so many bytes of a wanted one, by what `_scattered` gives for them."""
        places = (words >> self._shift).view(np.int64)
        return _among(self._words[nbytes], words, np.flatnonzero(self._maybe[nbytes].take(places)))

    def equal(self, lines: Array, words: Array) -> tuple[Array, Array]:
        """Return which lines are wanted, and their keys."""
        found = self.like(words, _WORD_BYTES)
        drawn = keys(lines[found])
        chosen = _among(self.keys, drawn, np.arange(len(drawn)))
        return found[chosen], drawn[chosen]


def _scattered(lines: Array, nbytes: int) -> Array:
    """Return a word for each line, different for different first bytes, whose upper bits depend on all of them."""
    words: Array = _packed(lines, nbytes)[:, 0] * np.uint64(0x9E3779B97F4A7C15)
    return words


def _among(known: Array, words: Array, chosen: Array) -> Array:
    """Return which of the chosen words are known; the known ones are sorted."""
    places = np.minimum(np.searchsorted(known, words[chosen]), len(known) - 1)
    found: Array = chosen[known[places] == words[chosen]]
    return found


def search(
    wanted: Mapping[Query, Wanted],
    tensors: Mapping[str, Tensor],
    lines: Mapping[Query, int] | None,
    is_done: Callable[[Hits], bool],
) -> Hits:
    """Find the wanted lines of lazy parameters, until `is_done` says that what is found will do.

    Where shards of lines are looked for too, as ``torch.chunk`` and interleaving split them, `lines` has how many lines
    of an array follow each other, at some steps: a few of them show whether all are worth drawing.
    """
    wanted = {query: known for query, known in wanted.items() if len(known.keys)}
    hits: Hits = {}
    for name, tensor in tensors.items():
        drawn = cache(partial(_drawn, tensor))  # queries that differ in width begin alike
        words = cache(lambda nbytes, *what, drawn=drawn: _scattered(drawn(*what), nbytes))
        item = tensor.dtype.itemsize
        for query, known in wanted.items():
            sample = min(query.first, max(1, _SAMPLE_BYTES // item))
            few = min(query.first, max(_DRAWN, _WORD_BYTES // item))
            if lines is not None:
                step = _step(lines[query])
                stages = [(sample, _SAMPLE_BYTES, step), (few, _WORD_BYTES, step)]
            else:
                stages = [(few, _WORD_BYTES, 1)] if few < query.first else []
            for kind, places in _places(tensor.shape, query, lines is not None):
                groups = [places]
                for count, nbytes, step in stages:
                    found = [(group, known.like(words(nbytes, kind, count, step, *group), nbytes)) for group in groups]
                    groups = [[group[place]] for group, those in found for place in np.unique(those % len(group))]
                for (place,) in groups:
                    what = kind, query.first, 1, place
                    at, its = known.equal(drawn(*what), words(_WORD_BYTES, *what))
                    table = hits.setdefault((query, kind), {})
                    for key, line in zip(its.tolist(), at.tolist(), strict=True):
                        table.setdefault(key, Hit(name, line, place))
        if is_done(hits):
            break
    return hits


def _step(count: int) -> int:
    """Return the step of the lines that are drawn of `count`: a prime, so that it finds lines that have steps too."""
    return next((step for step in _STEPS if step <= max(count // 4, min(count, 11))), 1)


def _drawn(tensor: Tensor, kind: Kind, count: int, step: int, *places: range) -> Array:
    """Return the first values of every line, or of one in so many, from several places on: all places of each line."""

    def begun(first: int, stop: int, by: int = 1) -> Array:
        part = _part(tensor.shape, kind, step, range(first, stop, by))
        out = np.empty(part.shape, tensor.dtype)
        tensor.fill_into(out, part)
        return beginnings(out, kind, count if kind == "elements" else len(range(first, stop, by)))

    first = [place[:count] for place in places]
    if len(places) == 1:
        return begun(first[0].start, first[0].stop, first[0].step)
    # One draw of one value is about as fast as of a thousand: as few draws as can be.
    if places[0].step > 1:  # interleaved
        found = begun(0, count * places[0].step).reshape(-1, count, len(places)).swapaxes(1, 2)
    else:
        width = places[1].start - places[0].start
        found = np.stack([begun(at, places[-1].start + at + 1, width) for at in range(count)], -1)
    return found.reshape(-1, count)


@lru_cache(maxsize=1024)  # the layers of a model have the same shapes
def _part(shape: tuple[int, ...], kind: Kind, step: int, along: range) -> Region:
    full, lines, values = Region.full(shape), slice(None, None, step), slice(along.start, along.stop, along.step)
    return full if kind == "elements" else full[..., lines, values] if kind == "rows" else full[..., values, lines]


@lru_cache(maxsize=1024)
def _places(shape: tuple[int, ...], query: Query, everywhere: bool) -> list[tuple[Kind, list[range]]]:
    """Return where lines of some width may be in a parameter: at their beginnings, or everywhere else."""
    if query.width is None:
        fits = len(shape) == 1 and query.first <= shape[0] and not everywhere
        return [("elements", [range(query.first)])] if fits else []
    found: list[tuple[Kind, list[range]]] = []
    kinds: tuple[tuple[Kind, int], ...] = (("rows", -1), ("columns", -2))
    for kind, axis in kinds if len(shape) > 1 else ():
        length, width = shape[axis], query.width
        if width <= length and not everywhere:
            found.append((kind, [range(width)]))
        elif width < length:
            starts = range(0, length - width + 1, width)[:_STARTS]
            found.append((kind, [range(start, start + width) for start in starts]))
            if length % width:
                found.append((kind, [range(length - width, length)]))
            elif length <= _INTERLEAVED * width:
                step = length // width
                found.append((kind, [range(phase, length, step) for phase in range(step)]))
    return found
