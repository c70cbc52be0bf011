"""Parameters whose pieces are in several files, read where they are touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from numparam import dtypes
from numparam.checkpoint import header, piece
from numparam.checkpoint.attempt import check_attempt
from numparam.checkpoint.grid import Grid
from numparam.checkpoint.piece import Piece
from numparam.entry import Entry
from numparam.errors import CheckpointError, DtypeError
from numparam.indexing.arrays import overwrite, select
from numparam.indexing.region import Region
from numparam.stream.source import Buffer
from numparam.tensor import Lazy


class Files:
    """Open the files of a checkpoint when something in them is needed, and keep them mapped.

    `attempt` is what their metadata must have as ``numparam.attempt``.
    """

    def __init__(self, paths: Sequence[Path], attempt: str | None = None) -> None:
        self.paths, self._attempt = tuple(paths), attempt
        self._opened: dict[int, _Opened] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_attempt": self._attempt, "_opened": {}}  # a copy maps them again

    def values(self, number: int, entry: Entry, wanted: Piece) -> np.ndarray[Any, np.dtype[Any]]:
        """Return a piece of a parameter from one of the files, mapped."""
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
                f"{path}: parameter {entry.name!r}: the index has {entry.dtype} {wanted}, "
                f"the file holds {found.dtype} {opened.pieces[entry.name]}"
            )
        return opened.mapped.array(opened.begins[found.name], found.dtype, found.shape, found.nbytes)


class _Opened:
    """Hold a file that is mapped, and the content of its header."""

    def __init__(self, path: Path, attempt: str | None) -> None:
        head = header.read(path)
        check_attempt(head, attempt)
        self.mapped = head.file
        self.entries, self.begins = {entry.name: entry for entry in head.entries}, head.begins
        self.pieces = piece.read_record(head.metadata, self.entries, str(path))


class Stored(Lazy):
    """Describe values that are read from the files that hold the pieces of a parameter.

    A region reads what it needs of the files that it needs. `file` is the index that names the pieces, and `places` are
    the numbers of the file of each piece, in row-major order of the grid.
    """

    def __init__(self, file: str, entry: Entry, grid: Grid, places: Sequence[int], files: Files) -> None:
        super().__init__(Region.full(entry.shape), entry.dtype)
        self.file = file
        self.entry, self._grid, self._places, self._files = entry, grid, places, files

    @property
    def paths(self) -> set[Path]:
        """Return the files that hold the parameter."""
        return {self._files.paths[number] for number in self._places}

    def verify(self) -> None:
        """Open every file that holds a piece, and compare its header with the index."""
        for cell in self._grid.cells():
            self._piece(cell)

    def fill_into(self, out: Buffer, region: Region | None = None) -> None:
        """Write the values of a region of these ones, or all, into a C-contiguous array of its shape."""
        if not out.size:
            return
        selected = self.region if region is None else self.region[region.slices()]
        # Of the axes of a region only those of length 1 are dropped or inserted.
        target = out.reshape([len(chosen) for chosen in selected.ranges])
        for cell, within, place in self._grid.overlaps(selected):
            overwrite(select(target, place), select(self._piece(cell), within))

    def convert(self, dtype: np.dtype[Any], checked: Callable[[Buffer], Buffer] | None = None) -> Self:  # noqa: ARG002
        if dtype != self.entry.dtype and not (dtypes.is_floating(dtype) and dtypes.is_floating(self.entry.dtype)):
            raise DtypeError(
                f"parameter {self.entry.name!r} is read as {self.entry.dtype}; "
                f"call init_data() first to convert it to {dtype}"
            )
        return self.replace(dtype=dtype)

    def _piece(self, cell: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
        return self._files.values(self._places[self._grid.number(cell)], self.entry, self._grid.piece(cell))

    def __str__(self) -> str:
        return f"file={self.file!r}"
