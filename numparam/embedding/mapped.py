"""The columns of a table in one sparse file that is mapped: rows without writes take neither memory nor disk."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from numparam.embedding.schema import Column, Schema
from numparam.errors import CheckpointFileError, StateError
from numparam.kernels.keys import Bitmap, Index, distinct
from numparam.kernels.rows.cpu import gather, scatter_distinct

Array = np.ndarray[Any, np.dtype[Any]]

_PAGE = 4096
_SPARE = 16 << 20  # bytes that must stay free on the disk; a page without a block on it would end the process


class Mapped:
    """Keep rows by key. A key of a dense table is the number of its row; any other key has one from an index.

    Parameters
    ----------
    schema : Schema
    path : Path, optional
        Of the file, created if it does not exist; by default a temporary one.

    Raises
    ------
    CheckpointFileError
        If it cannot be opened or has another size.
    """

    def __init__(self, schema: Schema, path: Path | None = None) -> None:
        self.schema, self.where = schema, path or Path(tempfile.gettempdir())
        is_open = not schema.is_dense
        columns = (*schema.columns, Column("key", 1, np.dtype(np.int64), 0)) if is_open else schema.columns
        starts = [0]
        bits = 0 if is_open else -(-schema.rows // 8)
        for nbytes in (bits, *(schema.rows * column.row_bytes for column in columns)):
            starts.append(-(-(starts[-1] + nbytes) // _PAGE) * _PAGE)
        try:
            self._file = _temporary() if path is None else open_file(path)
            if (size := os.fstat(self._file.fileno()).st_size) not in (0, starts[-1]):
                raise CheckpointFileError(f"{path}: expected a table of {starts[-1]} bytes, found {size}")
            os.truncate(self._file.fileno(), starts[-1])
            self._map = mmap.mmap(self._file.fileno(), starts[-1])
        except OSError as error:
            if isinstance(error, CheckpointFileError):
                raise
            raise CheckpointFileError(f"cannot map a table at {self.where}: {error}") from error
        self._bits = Bitmap(np.frombuffer(self._map, np.uint8, bits))
        arrays = [
            np.frombuffer(self._map, column.dtype, schema.rows * column.width, start).reshape(schema.rows, column.width)
            for column, start in zip(columns, starts[1:], strict=False)
        ]
        self.columns = arrays[: len(schema.columns)]
        # Rows of an open key space lie one after another; any two rows of a dense table may be on different pages.
        self._new_bytes = sum(
            column.row_bytes if is_open else _PAGE * (1 + column.row_bytes // _PAGE) for column in columns
        )
        self._keys = arrays[-1] if is_open else None
        self._index, self._free, self._end, self.size = Index(), np.empty(0, np.int64), 0, 0

    def __len__(self) -> int:
        return self.size

    @property
    def is_written(self) -> bool:
        """Return whether the file may hold rows."""
        return getattr(os.fstat(self._file.fileno()), "st_blocks", 0) > 0

    @property
    def slots(self) -> Array:
        """Return what `recover` needs of an open key space: the number of rows in the file, and the free ones."""
        return np.empty(0, np.int64) if self._keys is None else np.concatenate([[self._end], self._free])

    def recover(self, size: int, slots: Array) -> None:
        """Find the rows that there were at a checkpoint, of which the log knows what followed.

        Parameters
        ----------
        size : int
            How many rows there are, if nothing followed, else -1: what followed may have reached the file in part.
        slots : ndarray
            What `slots` was.
        """
        if self._keys is None:
            self.size = self._touched().size if size < 0 else size
            return
        self._end, self._free = (int(slots[0]), slots[1:].copy()) if slots.size else (0, np.empty(0, np.int64))
        numbers = np.setdiff1d(np.arange(self._end), self._free, assume_unique=True)
        keys = np.ascontiguousarray(self._keys[numbers, 0])
        first, _ = distinct(keys)
        self._index = Index(first.size)
        self._index.insert(keys[first], numbers[first])
        # A key that the file has twice was erased and written again since: the log has it.
        self._free = np.concatenate([self._free, np.delete(numbers, first)])
        self.size = first.size

    def find(self, keys: Array) -> Array:
        """Return the numbers of the rows of keys, -1 for keys without one."""
        return self._bits.find(keys) if self._keys is None else self._index.find(keys)

    def distinct(self, keys: Array) -> tuple[Array, Array, Array]:
        """Return what `distinct` of the keys returns, and the numbers of the rows of the distinct ones."""
        if self._keys is not None:
            return self._index.distinct(keys)
        first, which = distinct(keys)
        return first, which, self._bits.find(keys[first])

    def read(self, column: int, numbers: Array, out: Array) -> None:
        """Write rows into an array; rows with a negative number stay as they are there."""
        gather(out, self.columns[column], numbers)

    def check_room(self, count: int) -> None:
        """Check that so many new rows have room.

        Raises
        ------
        CheckpointFileError
            If the disk is full, or the table is.
        """
        if self.size + count > self.schema.rows:
            raise StateError(
                f"table {self.schema.name!r} has room for {self.schema.rows} rows; evict some, found {self.size}"
            )
        if hasattr(os, "fstatvfs"):
            disk = os.fstatvfs(self._file.fileno())
            needed, free = count * self._new_bytes + _SPARE, disk.f_bavail * disk.f_frsize
            if free < needed:
                raise CheckpointFileError(
                    f"table {self.schema.name!r}: no room on the disk of {self.where} for {count} new rows: {needed} "
                    f"bytes are needed, {free} are free; nothing was changed"
                )

    def write(self, keys: Array, rows: dict[int, Array], found: Array | None = None) -> Array:
        """Write columns of the rows of distinct keys, which are all given for keys that are new.

        Returns the numbers of the rows; `found` are the ones that `find` returns, if that is known.
        """
        numbers = self._placed(keys) if found is None or (found.size and found.min() < 0) else found
        for column, values in rows.items():
            scatter_distinct(self.columns[column], numbers, values)
        return numbers

    def _placed(self, keys: Array) -> Array:
        """Return the numbers of the rows of keys, of which some may be new."""
        if self._keys is None:
            self.size += self._bits.add(keys).size
            return keys
        reused = self._free[: keys.size]
        given = np.concatenate([reused, np.arange(self._end, self._end + keys.size - reused.size)])
        numbers, fresh = self._index.insert(keys, given)
        self._free, self._end = self._free[fresh.size :], self._end + max(0, fresh.size - reused.size)
        new = numbers[fresh]
        self._keys[new, 0] = keys[fresh]
        self.size += fresh.size
        return numbers

    def remove(self, keys: Array) -> None:
        """Forget the rows of keys."""
        if self._keys is None:
            self.size -= self._bits.remove(keys).size
            return
        numbers = self._index.remove(keys)
        numbers = numbers[numbers >= 0]
        self._free = np.concatenate([np.sort(numbers), self._free])
        self.size -= numbers.size

    def keys(self) -> Array:
        """Return the keys of all rows in ascending order."""
        if self._keys is not None:
            return np.sort(self._index.items()[0])
        return self._touched()

    def flush(self) -> None:
        """Write what changed to the disk, and wait for it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; views of it must be gone by then or keep the mapping alive."""
        self._file.close()

    def _touched(self) -> Array:
        parts = [self._bits.members(first, last) for first, last in self._extents()]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _extents(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the bitmap that are not holes, which would take memory if they were read."""
        end = self._bits.bits.size
        if not hasattr(os, "SEEK_DATA"):
            yield 0, end
            return
        self._map.flush(0, -(-end // _PAGE) * _PAGE)  # some file systems know of data only once they are written
        descriptor, at = self._file.fileno(), 0
        while at < end:
            try:
                first = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError:  # nothing but a hole
                return
            if first >= end:
                return
            at = min(end, os.lseek(descriptor, first, os.SEEK_HOLE))
            yield first, at


class File:
    """Hold the descriptor of a file until it is closed or unused."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


def open_file(path: Path) -> File:
    """Open a file for reading and writing, created if it does not exist."""
    return File(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666))


def _temporary() -> File:
    """Open a file that vanishes when it is closed."""
    with tempfile.TemporaryFile() as file:
        return File(os.dup(file.fileno()))
