"""Find which parameter, and which region of it, an array holds, from its values alone."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from numparam.cell import Cell
from numparam.errors import ArgumentTypeError, ShapeError
from numparam.fingerprints.search import (
    Array,
    Hit,
    Hits,
    Kind,
    Query,
    Wanted,
    beginnings,
    is_plain,
    keys,
    probes,
    search,
)
from numparam.fingerprints.verifying import by_name
from numparam.indexing.region import Region
from numparam.tensor import Tensor
from numparam.text import amount, shown

_SHOWN = 6
_COMPARED = 64
"""Pieces whose first, middle and last line are compared completely."""


class Piece(NamedTuple):
    """Match lines of an array with lines of a parameter.

    Of more than two axes, those before the last are counted together as rows, and those without the one before the last
    as columns.
    """

    local: range
    """The rows, columns or elements of the array."""
    name: str
    shape: tuple[int, ...]
    """Of the full parameter."""
    rows: range
    """Of the parameter; a parameter of one axis is one row."""
    columns: range
    agrees: bool = True
    """Whether the first, middle and last of these lines agree to their ends."""

    def __str__(self) -> str:
        return _place(self.name, self.shape, self.rows, self.columns) + (
            "" if self.agrees else ", which differ further on"
        )


class Identification(NamedTuple):
    """Describe what an array holds; printed, it is one line."""

    pieces: tuple[Piece, ...]
    transposed: bool
    unknown: int
    """How many lines are of no parameter that is known."""
    along: Kind = "rows"
    """What the lines are in the array."""

    def __str__(self) -> str:
        parts = [f"{self.along} {_text(piece.local)} hold {piece}" for piece in self.pieces]
        parts = [str(self.pieces[0])] if len(parts) == 1 and not self.unknown else parts
        if len(parts) > _SHOWN:
            parts[_SHOWN:] = [f"{len(parts) - _SHOWN} more pieces"]
        if len(self.pieces) == 2 and not self.unknown:
            first, second = self.pieces
            along = "rows" if first.columns == second.columns else "columns"
            if first.name == second.name and getattr(second, along).stop == getattr(first, along).start:
                parts.append("swapped halves")
        parts += ["transposed"] if self.transposed and self.pieces else []
        parts += [amount(self.unknown, f"unknown {self.along.removesuffix('s')}")] if self.unknown else []
        return "; ".join(parts) or "nothing"

    def region(self) -> tuple[str, range, range] | None:
        """Return the name, rows and columns of the one piece that is all of the array; None if there is another."""
        if len(self.pieces) != 1 or self.unknown or self.transposed or not self.pieces[0].agrees:
            return None
        (piece,) = self.pieces
        return piece.name, piece.rows, piece.columns

    def against(self, name: str, expected: Region | int = 0) -> str:
        """Describe how this differs from what was expected; ``""`` if it does not.

        Parameters
        ----------
        name : str
            The parameter.
        expected : Region or int
            What of it was expected: a region, or full rows from this one on.
        """
        if isinstance(expected, Region):
            rows, columns = rows_and_columns(expected)
            where = _place(name, expected.full_shape, rows, columns)
        else:
            rows, columns, where = range(expected, expected + 1), None, f"rows {expected}:... of {name}"
        if not self.pieces and not self.unknown and not rows:
            return ""
        shifts = [(what, by) for what, by in self._shift(name, rows, columns) or () if by]
        if self.region() is not None and (shifts or self._shift(name, rows, columns)):
            return "; ".join(f"{what} shifted by {by}" for what, by in shifts)
        moved = "".join(f"; {what} shifted by {by}" for what, by in shifts)
        return f"{self}, where {where} {'was' if where.endswith(']') else 'were'} expected{moved}"

    def _shift(self, name: str, rows: range, columns: range | None) -> tuple[tuple[str, int], ...] | None:
        """Return by how many rows and columns all pieces have moved, None if they have not moved together."""
        found = set()
        for piece in self.pieces:
            down, across = (piece.local.start, 0) if self.along == "rows" else (0, piece.local.start)
            down = piece.rows.start - rows.start - down * rows.step
            steps = piece.rows.step == rows.step or 1 in (len(piece.rows), len(rows))
            if columns is not None:
                across = piece.columns.start - columns.start - across * columns.step
                steps = steps and (piece.columns.step == columns.step or len(columns) == 1)
            if piece.name != name or piece.local.step != 1 or not steps or self.transposed:
                return None
            found.add((("rows", down), ("elements" if self.along == "elements" else "columns", across)))
        return found.pop() if len(found) == 1 else None


def rows_and_columns(region: Region) -> tuple[range, range]:
    """Return the rows, axes before the last counted together, and the columns of a region."""
    *lead, columns = region.ranges or (range(1),)
    if not lead:
        return range(1), columns
    inner = math.prod(region.full_shape[1:-1])
    first, last = lead[0].start * inner, lead[0][-1] * inner if lead[0] else 0
    if inner == 1:
        return lead[0], columns
    if len(lead) == 2 and len(lead[0]) == 1:
        return range(first + lead[1].start, first + lead[1].stop, lead[1].step), columns
    return range(first, last + inner), columns


def _place(name: str, shape: tuple[int, ...], rows: range, columns: range) -> str:
    """Write a region."""
    if len(shape) < 2:
        return f"elements {_text(columns)} of {name}"
    if columns == range(shape[-1]):
        height = shape[-2]
        if len(shape) == 3 and rows.step == 1 and len(rows) < shape[0] * height and not rows.start % height:
            first, last = rows.start // height, rows.stop // height
            if not rows.stop % height:
                return f"{name}[{first}]" if last == first + 1 else f"{name}[{first}:{last}]"
        return f"rows {_text(rows)} of {name}"
    across = f"columns {_text(columns)} of {name}"
    return across if rows == range(math.prod(shape[:-1])) else f"rows {_text(rows)}, {across}"


def _text(indices: range) -> str:
    if indices.step < 0:
        return f"{_text(indices[::-1])} reversed"
    return f"{indices.start}:{indices.stop}" + (f":{indices.step}" if indices.step > 1 else "")


def identify(array: Tensor | Array, expected: Cell | Mapping[str, Tensor]) -> Identification:
    """Find which rows or columns of which parameters an array holds, from its values alone.

    The first values of each row and column are looked up among the first values of all rows and columns of the lazy
    parameters, drawn anew; the 7 million rows of 70 billion parameters take a second on one core. Rows of constants are
    of no parameter in particular, and remain unknown.

    Parameters
    ----------
    array : ndarray or Tensor
        A full parameter, some rows of any parameters in any order, some columns of all rows, a shard of both whose
        width is one of ``torch.chunk`` or an interleaved one, or the transpose of any of these. An array of one axis is
        a part of a parameter of one axis.
    expected : Cell or mapping of str to Tensor
        Lazy parameters, as for `numparam.verify`.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the array has no axis.

    Examples
    --------
    >>> import numparam
    >>> from numparam.initializer import Normal, initializer
    >>> numparam.set_seed(7)
    >>> names = ("q_proj", "k_proj")
    >>> model = {name: numparam.Parameter(initializer(Normal(0.02), (64, 48)), name=name) for name in names}
    >>> k = model["k_proj"].copy().asnumpy()
    >>> print(identify(k[16:32], model))
    rows 16:32 of k_proj
    >>> print(identify(np.concatenate([k[32:], k[:32]]), model))
    rows 0:32 hold rows 32:64 of k_proj; rows 32:64 hold rows 0:32 of k_proj; swapped halves
    >>> print(identify(k.T[:, 8:], model))
    rows 8:64 of k_proj; transposed
    >>> print(identify(k[8:24], model).against("k_proj", 0))
    rows shifted by 8
    """
    return identify_all({"": array}, expected)[""]


def identify_all(
    arrays: Mapping[str, Tensor | Array], expected: Cell | Mapping[str, Tensor]
) -> dict[str, Identification]:
    """Find what each of several arrays holds, in one search; see `identify`."""
    tensors = {name: each for name, each in by_name(expected).items() if each.size}
    for name, each in tensors.items():
        if not isinstance(each, Tensor):
            raise ArgumentTypeError(f"parameter {name!r}: a lazy tensor is expected, found {shown(each)}")
    known: dict[np.dtype[Any], dict[str, Array]] = {}
    for name, array in arrays.items():
        values = array.asnumpy() if isinstance(array, Tensor) else array
        if not isinstance(values, np.ndarray):
            raise ArgumentTypeError(f"an array is identified, found {type(array).__name__}")
        if not values.ndim:
            raise ShapeError("an array with at least one axis is identified, found a scalar")
        known.setdefault(values.dtype, {})[name] = values
    found: dict[str, Identification] = {}
    for dtype, group in known.items():
        suitable = {name: each for name, each in tensors.items() if each.dtype == dtype}
        readings = {name: list(_readings(array)) for name, array in group.items()}
        hits: Hits = {}
        for everywhere in (False, True):
            left = {name: each for name, each in readings.items() if name not in found or not _is_sure(found[name])}
            for where, more in _search(left, suitable, everywhere).items():
                hits[where] = more | hits.get(where, {})
            found |= {name: _best(group[name], each, hits, suitable) for name, each in left.items()}
    return {name: found[name] for name in arrays}


def _is_sure(found: Identification) -> bool:
    return not found.unknown and all(piece.agrees for piece in found.pieces)


class _Reading(NamedTuple):
    """One way to see an array as lines."""

    kind: Kind
    query: Query
    keys: Array
    """Of all lines."""
    wanted: Array
    """The first values of the lines that are worth a search."""

    @classmethod
    def of(cls, array: Array, kind: Kind, query: Query) -> "_Reading":
        lines = beginnings(array, kind, query.first)
        return cls(kind, query, keys(lines), lines[~is_plain(lines)])


def _readings(array: Array) -> Iterator[_Reading]:
    most = probes(array.dtype)
    if not array.size:
        return
    if array.ndim == 1:
        query = Query(None, min(most, array.size))
        yield _Reading.of(array, "elements", query)
        return
    kinds: tuple[tuple[Kind, int, int], ...] = (("rows", -1, 1), ("columns", -2, most))
    for kind, axis, least in kinds:
        if array.shape[axis] >= least:
            query = Query(array.shape[axis], min(most, array.shape[axis]))
            yield _Reading.of(array, kind, query)


def _search(readings: Mapping[str, list[_Reading]], tensors: Mapping[str, Tensor], everywhere: bool) -> Hits:
    parts: dict[Query, list[Array]] = {}
    for reading in (each for found in readings.values() for each in found):
        parts.setdefault(reading.query, []).append(reading.wanted)
    wanted = {query: Wanted(np.concatenate(found)) for query, found in parts.items()}
    lines = {query: min((len(each) for each in found if len(each)), default=0) for query, found in parts.items()}

    def is_done(hits: Hits) -> bool:
        complete = {query for (query, _), found in hits.items() if len(found) == len(wanted[query].keys)}
        return all(any(reading.query in complete for reading in found) for found in readings.values())

    return search(wanted, tensors, lines if everywhere else None, is_done)


def _best(array: Array, readings: list[_Reading], hits: Hits, tensors: Mapping[str, Tensor]) -> Identification:
    """Return the explanation that leaves the least unknown: of rows rather than columns, not transposed."""
    kind = readings[0].kind if readings else "rows"
    best = Identification((), False, array.size if array.ndim == 1 else len(readings[0].keys) if readings else 0, kind)
    least = 1.0
    kinds: tuple[Kind, ...] = ("rows", "columns", "elements")
    pairs = [(reading, kind) for reading in readings for kind in kinds]
    for reading, of in sorted(pairs, key=lambda pair: (pair[0].kind != pair[1], pair[0].kind != "rows")):
        table = hits.get((reading.query, of))
        if not table:
            continue
        lines = [(local, hit) for local, key in enumerate(reading.keys.tolist()) if (hit := table.get(key))]
        pieces = tuple(_pieces(array, reading, of, lines, tensors))
        total = array.size if of == "elements" else len(reading.keys)
        unknown = total - len({at for piece in pieces for at in piece.local})
        wrong = (unknown + sum(len(piece.local) for piece in pieces if not piece.agrees) / 2) / total
        if wrong < least:
            least, best = wrong, Identification(pieces, reading.kind != of, unknown, reading.kind)
    return best


def _pieces(
    array: Array, reading: _Reading, of: Kind, lines: list[tuple[int, Hit]], tensors: Mapping[str, Tensor]
) -> Iterator[Piece]:
    by_place: dict[tuple[str, range], list[tuple[int, int]]] = {}
    for local, hit in lines:
        by_place.setdefault((hit.name, hit.along), []).append((local, hit.line))
    found = []
    more = reading.query.first - 1 if of == "elements" else 0
    for (name, along), pairs in by_place.items():
        for mine, line in _progressions(pairs, of == "elements"):
            here, taken = (range(each.start, each.stop + more, each.step) for each in (mine, line))
            rows, columns = {"rows": (taken, along), "columns": (along, taken), "elements": (range(1), taken)}[of]
            found.append(Piece(here, name, tensors[name].shape, rows, columns))
    found.sort(key=lambda piece: piece.local.start)
    for at, piece in enumerate(found):
        agrees = at >= _COMPARED or _agrees(array, reading.kind, piece, of, tensors[piece.name])
        rows, columns, shape = piece.rows, piece.columns, piece.shape
        if of == "columns" and len(rows) * len(columns) == math.prod(shape):
            rows, columns = range(math.prod(shape[:-1])), range(shape[-1])
        yield piece._replace(rows=rows, columns=columns, agrees=agrees)


def _progressions(pairs: list[tuple[int, int]], by_one: bool) -> Iterator[tuple[range, range]]:
    """Split pairs of places into runs that walk with constant steps in both."""
    at = 0
    while at < len(pairs):
        stop, step = at + 1, (1, 1)
        if stop < len(pairs):
            step = _step(pairs, at)
            again = stop + 1 < len(pairs) and _step(pairs, stop) == step and step[1] and not by_one
            if step == (1, 1) or again:
                while stop < len(pairs) and _step(pairs, stop - 1) == step:
                    stop += 1
            else:
                step = (1, 1)
        (local, line), (last_local, last_line) = pairs[at], pairs[stop - 1]
        yield (range(local, last_local + 1, step[0]), range(line, last_line + (1 if step[1] > 0 else -1), step[1]))
        at = stop


def _step(pairs: list[tuple[int, int]], at: int) -> tuple[int, int]:
    return pairs[at + 1][0] - pairs[at][0], pairs[at + 1][1] - pairs[at][1]


def _agrees(array: Array, kind: Kind, piece: Piece, of: Kind, tensor: Tensor) -> bool:
    """Compare the first, the middle and the last line to their ends."""
    full = Region.full(tensor.shape)
    if of == "elements":
        pairs = [((slice(piece.local.start, piece.local.stop),), (slice(piece.columns.start, piece.columns.stop),))]
    else:
        lines, along = (piece.rows, piece.columns) if of == "rows" else (piece.columns, piece.rows)
        pairs = [
            (
                _index(array.shape, kind, piece.local[at], slice(None)),
                _index(tensor.shape, of, lines[at], slice(along.start, along.stop, along.step)),
            )
            for at in {0, len(lines) // 2, len(lines) - 1}
        ]
    for mine, its in pairs:
        part = full[its]
        values = np.empty(part.shape, tensor.dtype)
        tensor.fill_into(values, part)
        if np.ascontiguousarray(array[mine]).tobytes() != values.tobytes():
            return False
    return True


def _index(shape: tuple[int, ...], kind: Kind, line: int, along: slice) -> tuple[Any, ...]:
    """Return the index of a part of a row or column."""
    counted = shape[:-1] if kind == "rows" else (*shape[:-2], shape[-1])
    *lead, last = map(int, np.unravel_index(line, counted))
    return (*lead, last, along) if kind == "rows" else (*lead, along, last)
