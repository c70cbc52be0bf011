"""Parameters whose pieces stand in several files, read where they are touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.checkpoint import header, piece
from numparam.checkpoint.attempt import check_attempt
from numparam.checkpoint.grid import Grid
from numparam.checkpoint.piece import Piece
from numparam.entry import Entry
from numparam.errors import CheckpointError, DtypeError
from numparam.indexing.arrays import overwrite, select
from numparam.indexing.region import Region, row_major
from numparam.initializer import Initializer
from numparam.stream.source import Buffer, Source
from numparam.tensor import Recipe, Tensor


class Files:
    """Open the files of a checkpoint when something in them is asked for, and keep them mapped.

    Parameters
    ----------
    paths : sequence of Path
    attempt : str, optional
        What their metadata must have as ``numparam.attempt``.
    """

    def __init__(self, paths: Sequence[Path], attempt: str | None = None) -> None:
        self.paths, self._attempt = tuple(paths), attempt
        self._opened: dict[int, _Opened] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_attempt": self._attempt, "_opened": {}}  # a copy maps them again

    def values(self, number: int, entry: Entry, wanted: Piece) -> np.ndarray[Any, np.dtype[Any]]:
        """Return a piece of a parameter from one of the files, mapped.

        Raises
        ------
        CheckpointError
            If the file is missing or damaged, or does not hold just this piece. The message names the parameter.
        """
        path = self.paths[number]
        try:
            opened = self._opened.get(number) or self._opened.setdefault(number, _Opened(path, self._attempt))
        except CheckpointError as error:
            raise CheckpointError(f"parameter {entry.name!r}: {error}") from None
        found = opened.entries.get(entry.name)
        if found is None:
            raise CheckpointError(f"{path}: it should hold parameter {entry.name!r} and does not")
        if found.dtype != entry.dtype or opened.pieces[entry.name] != wanted:
            raise CheckpointError(
                f"{path}: parameter {entry.name!r}: the index says {entry.dtype} {wanted}, "
                f"the file holds {found.dtype} {opened.pieces[entry.name]}"
            )
        return opened.mapped.array(opened.begins[found.name], found.dtype, found.shape, found.nbytes)


class _Opened:
    """Hold a file that is mapped, and what its header says."""

    def __init__(self, path: Path, attempt: str | None) -> None:
        head = header.read(path)
        check_attempt(head, attempt)
        self.mapped = head.file
        self.entries, self.begins = {entry.name: entry for entry in head.entries}, head.begins
        self.pieces = piece.read_record(head.metadata, self.entries, str(path))


class Stored(Initializer):
    """Make the values of a parameter by reading them from the files that hold its pieces.

    A region reads what it needs of the files that it needs.

    Parameters
    ----------
    file : str
        The index that names the pieces.
    entry : Entry
        The whole parameter.
    grid : Grid
        How it is cut.
    places : sequence of int
        The number of the file of each piece, in row-major order.
    files : Files
        Those that the numbers count.
    """

    def __init__(self, file: str, entry: Entry, grid: Grid, places: Sequence[int], files: Files) -> None:
        self.file = file
        self.entry, self._grid, self._places, self._files = entry, grid, places, files

    def tensor(self) -> Tensor:
        """Return a lazy tensor that reads the values."""
        tensor = Tensor.__new__(Tensor)
        tensor._recipe = Recipe(self, 0, self.entry.name, Region.full(self.entry.shape))
        tensor._dtype = self.entry.dtype
        return tensor

    @property
    def paths(self) -> set[Path]:
        """Return the files that hold the parameter."""
        return {self._files.paths[number] for number in self._places}

    def verify(self) -> None:
        """Open every file that holds a piece, and compare what it says of it with the index.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged, or holds something else.
        """
        for cell in self._grid.cells():
            self._piece(cell)

    def read(self, out: Buffer, region: Region) -> None:
        """Write a region of the values into a C-contiguous array of its shape.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged, or holds something else.
        """
        # Of the axes of a region only those of length 1 are dropped or inserted.
        target = out.reshape([len(chosen) for chosen in region.ranges])
        for cell, within, place in self._grid.overlaps(region):
            overwrite(select(target, place), select(self._piece(cell), within))

    def blocks(self, nbytes: int) -> Iterator[np.ndarray[Any, np.dtype[Any]]]:
        """Yield all values in row-major order, as arrays of one axis and at most so many bytes."""
        whole = Region.full(self.entry.shape)
        for index in row_major(whole.shape, nbytes // self.entry.dtype.itemsize):
            block = np.empty(whole[index].shape, self.entry.dtype)
            self.read(block, whole[index])
            yield block.reshape(-1)

    def _piece(self, cell: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
        return self._files.values(self._places[self._grid.number(cell)], self.entry, self._grid.piece(cell))

    def fill(self, out: Buffer, region: Region, source: Source) -> None:  # noqa: ARG002, D102
        self.read(out, region)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:  # noqa: D102
        super().check(shape, dtype)
        if dtype != self.entry.dtype and not (dtypes.is_floating(dtype) and dtypes.is_floating(self.entry.dtype)):
            raise DtypeError(
                f"parameter {self.entry.name!r} is read as {self.entry.dtype}; "
                f"call init_data() first to convert it to {dtype}"
            )
