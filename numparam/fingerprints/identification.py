"""Find which parameter, and which rows of it, an array holds, from its values alone."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from numparam.cell import Cell
from numparam.errors import ArgumentTypeError, ShapeError
from numparam.fingerprints.verifying import by_name
from numparam.indexing.region import Region
from numparam.tensor import Tensor

_PROBE_BYTES = 8
"""Of the first values of a row, which are compared as one integer."""


class Piece(NamedTuple):
    """Say that consecutive rows of an array are consecutive rows of a parameter.

    A row is what the last axis holds; the axes before it are counted together.
    """

    local: range
    """The rows of the array."""
    name: str
    rows: range
    """The rows of the parameter."""
    columns: range

    def __str__(self) -> str:
        return f"rows {self.rows.start}:{self.rows.stop} of {self.name}"


class Identification(NamedTuple):
    """Say what an array holds; printed, it is one line."""

    pieces: tuple[Piece, ...]
    transposed: bool
    unknown: int
    """How many rows are of no parameter that is known."""

    def __str__(self) -> str:
        parts = [f"rows {piece.local.start}:{piece.local.stop} hold {piece}" for piece in self.pieces]
        parts = [str(self.pieces[0])] if len(parts) == 1 and not self.unknown else parts
        if len(self.pieces) == 2 and not self.unknown:
            first, second = self.pieces
            if first.name == second.name and second.rows.stop == first.rows.start:
                parts.append("swapped halves")
        parts += ["transposed"] if self.transposed else []
        parts += [f"{self.unknown} unknown rows"] if self.unknown else []
        return "; ".join(parts)

    def against(self, name: str, first: int = 0) -> str:
        """Say how this differs from rows `first` and following of parameter `name`; ``""`` if it does not."""
        if len(self.pieces) == 1 and not self.unknown and not self.transposed:
            (piece,) = self.pieces
            shift = piece.rows.start - first
            if piece.name == name:
                return f"rows shifted by {shift}" if shift else ""
        return f"{self}, where rows {first}:... of {name} were expected"


def identify(array: Any, expected: Cell | Mapping[str, Tensor]) -> Identification:
    """Find which rows of which parameters an array holds, from its values alone.

    The first values of each row are looked up among those of all rows of the lazy parameters, drawn anew: 7 million
    rows, those of a model of 70 billion parameters, take about a second on one core. Rows of constants and of zeros
    are of no parameter in particular, and remain unknown.

    Parameters
    ----------
    array : ndarray or Tensor
        A full parameter, some rows, a shard of columns whose width divides as ``torch.chunk`` does, rows of several
        parameters, or the transpose of any of these.
    expected : Cell or mapping of str to Tensor
        Lazy parameters, as for `numparam.verify`.

    Returns
    -------
    Identification

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
    >>> print(identify(k.T.copy(), model))
    rows 0:64 of k_proj; transposed
    >>> print(identify(k[8:24], model).against("k_proj", 0))
    rows shifted by 8
    """
    if isinstance(array, Tensor):
        array = array.asnumpy()
    if not isinstance(array, np.ndarray):
        raise ArgumentTypeError(f"an array is identified, found {type(array).__name__}")
    if not array.ndim:
        raise ShapeError("an array with at least one axis is identified, found a scalar")
    tensors = {name: each for name, each in by_name(expected).items() if each.dtype == array.dtype and each.size}
    found = _identified(array, tensors, False)
    if found.unknown and array.ndim > 1:
        found = min(found, _identified(array.swapaxes(-1, -2), tensors, True), key=lambda each: each.unknown)
    return found


def _identified(array: np.ndarray[Any, Any], tensors: Mapping[str, Tensor], transposed: bool) -> Identification:
    rows = np.ascontiguousarray(array).reshape(-1, array.shape[-1])
    place: dict[int, tuple[str, int, int]] = {}
    count = min(max(1, _PROBE_BYTES // array.itemsize), rows.shape[1])
    probes = _integers(rows[:, :count])
    wanted = np.unique(probes)
    wanted = wanted[wanted != _integers(np.zeros((1, count), array.dtype))[0]]
    short = np.zeros(1 << 16, bool)
    short[_hash(wanted)] = True
    for name, tensor in tensors.items():
        if len(place) == len(wanted):
            break
        for column, drawn in _drawn(tensor, rows.shape[1], count, array.ndim == 1):
            maybe = np.flatnonzero(short[_hash(drawn)])
            for at in maybe[np.isin(drawn[maybe], wanted)].tolist():
                place.setdefault(int(drawn[at]), (name, at, column))
    pieces: list[Piece] = []
    unknown = 0
    for local, probe in enumerate(probes.tolist()):
        if probe not in place:
            unknown += 1
            continue
        name, at, column = place[probe]
        if array.ndim == 1:
            at, column = 0, at
        last = pieces[-1] if pieces else None
        columns = range(column, column + rows.shape[1])
        if last and (last.local.stop, last.name, last.rows.stop, last.columns) == (local, name, at, columns):
            pieces[-1] = last._replace(local=range(last.local.start, local + 1), rows=range(last.rows.start, at + 1))
        else:
            pieces.append(Piece(range(local, local + 1), name, range(at, at + 1), columns))
    return Identification(tuple(pieces), transposed, unknown)


def _drawn(tensor: Tensor, width: int, count: int, flat: bool) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """Yield the first column of possible shards, and the first values of all rows there, as integers."""
    length = tensor.shape[-1] if tensor.shape else 0
    if flat != (len(tensor.shape) == 1) or width > length:
        return
    full = Region.full(tensor.shape)
    if flat:
        values = np.empty(length, tensor.dtype)
        tensor.fill_into(values)
        yield (
            0,
            _integers(
                np.lib.stride_tricks.sliding_window_view(values.view(np.uint8), count * values.itemsize)[
                    :: values.itemsize
                ]
            ),
        )
        return
    for column in range(0, length - count + 1, width):
        part = full[..., column : column + count]
        values = np.empty(part.shape, tensor.dtype)
        tensor.fill_into(values, part)
        yield column, _integers(values.reshape(-1, count))


def _integers(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the bits of each row of at most 8 bytes as one integer; of longer ones those of the first 8."""
    found = np.zeros((len(values), _PROBE_BYTES), np.uint8)
    content = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)[:, :_PROBE_BYTES]
    found[:, : content.shape[1]] = content
    return found.view(np.uint64)[:, 0]


def _hash(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (bits * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(48)).astype(np.intp)
