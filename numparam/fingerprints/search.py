"""Search lazy parameters, drawn anew, for lines that begin with given values.

A line is a row or a column of the last two axes; the axes before them are counted together with it. Of an array of one
axis it is a window of consecutive elements.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
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
    wanted: Mapping[Query, Array], tensors: Mapping[str, Tensor], everywhere: bool, is_done: Callable[[Hits], bool]
) -> Hits:
    """Find the lines of lazy parameters that have the wanted keys.

    Parameters
    ----------
    wanted : mapping of Query to ndarray
        Sorted keys.
    tensors : mapping of str to Tensor
    everywhere : bool
        Whether shards of lines are looked for, as ``torch.chunk`` and interleaving cut them, or full lines only.
    is_done : callable
        Whether what is found so far will do.
    """
    # A table of one bit of each key spares most lines a binary search.
    maybe = {}
    wanted = {query: known for query, known in wanted.items() if known.size}
    for query, known in wanted.items():
        maybe[query] = np.zeros(1 << 18, bool)
        maybe[query][_short(known)] = True
    hits: Hits = {}
    for name, tensor in tensors.items():
        for query, known in wanted.items():
            for kind, along, drawn in _drawn(tensor, query, everywhere):
                table = hits.setdefault((query, kind), {})
                lines = np.flatnonzero(maybe[query][_short(drawn)])
                found = drawn[lines]
                lines = lines[known[np.minimum(np.searchsorted(known, found), len(known) - 1)] == found]
                for key, line in zip(drawn[lines].tolist(), lines.tolist(), strict=True):
                    table.setdefault(key, Hit(name, line, along))
        if is_done(hits):
            break
    return hits


def _short(key: Array) -> Array:
    return (key & np.uint64((1 << 18) - 1)).astype(np.intp)


def _drawn(tensor: Tensor, query: Query, everywhere: bool) -> Iterator[tuple[Kind, range, Array]]:
    """Yield what lines there are, the places along them, and their keys."""
    full, count = Region.full(tensor.shape), query.first
    if query.width is None or len(tensor.shape) < 2:
        if query.width is None and len(tensor.shape) == 1 and count <= tensor.shape[0]:
            yield "elements", range(count), keys(beginnings(_values(tensor, full), "elements", count))
        return
    kinds: tuple[tuple[Kind, int], ...] = (("rows", -1), ("columns", -2))
    for kind, axis in kinds:
        for along in _places(tensor.shape[axis], query.width, everywhere):
            first = slice(along.start, along[count - 1] + 1, along.step)
            part = full[..., first] if kind == "rows" else full[..., first, :]
            yield kind, along, keys(beginnings(_values(tensor, part), kind, count))


def _values(tensor: Tensor, region: Region) -> Array:
    out = np.empty(region.shape, tensor.dtype)
    tensor.fill_into(out, region)
    return out


def _places(length: int, width: int, everywhere: bool) -> Iterator[range]:
    """Yield where a shard of some width may be in a line."""
    if width == length or (width < length and not everywhere):
        yield range(width)
    elif width < length:
        starts = dict.fromkeys([*range(0, length - width + 1, width), length - width])
        yield from (range(start, start + width) for start in islice(starts, _STARTS))
        if length % width == 0 and length <= _INTERLEAVED * width:
            step = length // width
            yield from (range(phase, length, step) for phase in range(step))
