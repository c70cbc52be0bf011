"""How the pieces of one parameter fit together: in a grid, for which every axis is split at some indices."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

from numparam.checkpoint.piece import Piece
from numparam.errors import CheckpointError
from numparam.indexing.region import Region, as_slice


class Overlap(NamedTuple):
    """Describe what a region and a piece of a grid, at the place `cell`, have in common.

    `within` selects it from the piece, and `target` from the region, of which every dropped axis counts as one of
    length 1.
    """

    cell: tuple[int, ...]
    within: tuple[slice, ...]
    target: tuple[slice, ...]


class Grid(NamedTuple):
    """Split a parameter into pieces that leave no gap and do not overlap.

    Examples
    --------
    >>> grid = Grid((8, 6), ((0, 5), (0, 3)))
    >>> print(grid.piece((1, 0)))
    [5:8, 0:3] of shape (8, 6)
    >>> for overlap in grid.overlaps(Region.full((8, 6))[::2, 4]):
    ...     print(overlap.cell, overlap.within, overlap.target)
    (0, 1) (slice(0, 6, 2), slice(1, 2, 1)) (slice(0, 3, None), slice(0, 1, None))
    (1, 1) (slice(1, 3, 2), slice(1, 2, 1)) (slice(3, 4, None), slice(0, 1, None))
    """

    shape: tuple[int, ...]
    cuts: tuple[tuple[int, ...], ...]

    @classmethod
    def join(cls, name: str, found: Mapping[Piece, Path]) -> Grid:
        """Find the grid that pieces of one parameter form, all of the same full shape; the paths are for errors."""
        shape = next(iter(found)).full_shape
        cuts = []
        for axis, length in enumerate(shape):
            bounds = {(piece.start[axis], piece.stop[axis]): file for piece, file in found.items()}
            ordered = sorted(bounds)
            for one, other in pairwise([(0, 0), *ordered, (length, length)]):
                if one[1] < other[0]:
                    raise CheckpointError(
                        f"parameter {name!r} of shape {shape}: no file holds {one[1]}:{other[0]} along axis {axis}; "
                        f"looked in {_listed(found)}"
                    )
                if one[1] > other[0]:
                    raise CheckpointError(
                        f"parameter {name!r} of shape {shape}: the pieces do not line up along axis {axis}: "
                        f"{bounds[one]} holds {one[0]}:{one[1]} and {bounds[other]} holds {other[0]}:{other[1]}"
                    )
            cuts.append(tuple(start for start, _ in ordered))
        grid = cls(shape, tuple(cuts))
        for cell in grid.cells():
            if (piece := grid.piece(cell)) not in found:
                raise CheckpointError(f"parameter {name!r}: no file holds {piece}; looked in {_listed(found)}")
        return grid

    def cells(self) -> Iterator[tuple[int, ...]]:
        """Yield the place of every piece, in row-major order."""
        return product(*(range(len(starts)) for starts in self.cuts))

    def piece(self, cell: tuple[int, ...]) -> Piece:
        """Return the piece at a place."""
        start = tuple(starts[part] for starts, part in zip(self.cuts, cell, strict=True))
        stop = [
            starts[part + 1] if part + 1 < len(starts) else length
            for starts, part, length in zip(self.cuts, cell, self.shape, strict=True)
        ]
        return Piece(self.shape, start, tuple(high - low for low, high in zip(start, stop, strict=True)))

    def number(self, cell: tuple[int, ...]) -> int:
        """Count the pieces before one, in row-major order."""
        number = 0
        for starts, part in zip(self.cuts, cell, strict=True):
            number = number * len(starts) + part
        return number

    def overlaps(self, region: Region) -> Iterator[Overlap]:
        """Yield what each piece that overlaps a region has of it."""
        axes = zip(region.ranges, self.cuts, self.shape, strict=True)
        for parts in product(*(list(_along(*axis)) for axis in axes)):
            cell, within, target = zip(*parts, strict=True) if parts else ((), (), ())
            yield Overlap(cell, within, target)


def _along(chosen: range, starts: tuple[int, ...], length: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield for each part of an axis with chosen indices which these are, and their places among them."""
    count, rising = len(chosen), chosen if chosen.step > 0 else chosen[::-1]
    for part in range(bisect_right(starts, rising[0]) - 1 if count else len(starts), len(starts)):
        begin, end = starts[part], starts[part + 1] if part + 1 < len(starts) else length
        if begin > rising[-1]:
            break
        low, high = bisect_left(rising, begin), bisect_left(rising, end)
        if chosen.step < 0:
            low, high = count - high, count - low
        if low < high:
            inner = chosen[low:high]
            yield part, as_slice(range(inner.start - begin, inner.stop - begin, inner.step)), slice(low, high)


def _listed(found: Mapping[Piece, Path]) -> str:
    files = sorted({str(file) for file in found.values()})
    return ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
