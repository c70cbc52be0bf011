"""The log of a table as an LMDB database: one record a row, so that it never grows beyond the rows."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from numparam.embedding.log import Record
from numparam.embedding.schema import Schema
from numparam.errors import CheckpointFileError, StateError

Array = np.ndarray[Any, np.dtype[Any]]

_MOST_BYTES = 2**42  # of address space; the file is as large as its content
_STATE = b"state"
_KEY = struct.Struct(">q")
_ROWS_AT_ONCE = 1 << 16


class LmdbLog:
    """Keep what the rows of a table became in LMDB, with the methods of `numparam.embedding.log.Log`.

    A record is a transaction: it is in the database in full or not at all, and on the disk with `sync`.

    Parameters
    ----------
    path : Path
        A folder.
    schema : Schema
    sync : bool

    Raises
    ------
    StateError
        If lmdb is not installed.
    CheckpointFileError
        If the database cannot be opened.
    """

    nbytes = 0
    """What `checkpoint` could shorten: nothing."""

    def __init__(self, path: Path, schema: Schema, sync: bool) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise StateError('storage="lmdb" needs lmdb: pip install "numparam[server]"') from error
        self.path, self._schema, self._error = path, schema, lmdb.Error
        try:
            self._database = lmdb.open(str(path), map_size=_MOST_BYTES, sync=sync, max_dbs=3, lock=True)
        except lmdb.Error as error:
            raise CheckpointFileError(f"cannot open table {schema.name!r} at {path}: {error}") from error
        self._rows, self._counts, self._meta = (self._database.open_db(name) for name in (b"rows", b"counts", b"meta"))
        ends = np.cumsum([0, *(column.row_bytes for column in schema.columns)]).tolist()
        self._fields = [slice(first, last) for first, last in pairwise(ends)]
        self._widths = [column.row_bytes for column in schema.columns]
        self._row_bytes = ends[-1]

    def append(self, record: Record) -> int:
        """Write a record as one transaction, and return its bytes.

        Raises
        ------
        CheckpointFileError
            If the disk is full or fails; the database is then what it was.
        """
        content = np.zeros((record.keys.size, self._row_bytes), np.uint8)
        for column, values in record.rows.items():
            content[:, self._fields[column]] = (
                np.ascontiguousarray(values).view(np.uint8).reshape(content.shape[0], self._widths[column])
            )
        try:
            with self._database.begin(write=True) as changes:
                for key in record.erased.tolist():
                    changes.delete(_KEY.pack(key), db=self._rows)
                for key, count in zip(record.counted.tolist(), record.counts.tolist(), strict=True):
                    if count:
                        changes.put(_KEY.pack(key), _KEY.pack(count), db=self._counts)
                    else:
                        changes.delete(_KEY.pack(key), db=self._counts)
                for place, key in enumerate(record.keys.tolist()):
                    row = content[place]
                    if len(record.rows) < len(self._fields):
                        kept = changes.get(_KEY.pack(key), db=self._rows)
                        assert kept is not None  # some columns of a row are logged only after all of them
                        row = np.frombuffer(kept, np.uint8).copy()
                        for column in record.rows:
                            row[self._fields[column]] = content[place, self._fields[column]]
                    changes.put(_KEY.pack(key), row.tobytes(), db=self._rows)
                head = Record(record.step, record.clock, record.sources)
                changes.put(_STATE, b"".join(bytes(part) for part in head.encode()), db=self._meta)
        except self._error as error:
            raise CheckpointFileError(
                f"table {self._schema.name!r}: cannot write to {self.path}: {error}; nothing was changed"
            ) from error
        return content.nbytes

    def replay(self) -> Iterator[Record]:
        """Yield what the table is, some rows at a time."""
        with self._database.begin() as view:
            state = view.get(_STATE, db=self._meta)
            if state is None:
                return
            head = Record.decode(self._schema, bytes(state))
            counts = [(_KEY.unpack(key)[0], _KEY.unpack(count)[0]) for key, count in view.cursor(self._counts)]
            pairs = np.array(counts, np.int64).reshape(-1, 2)
            yield head._replace(size=0, counted=pairs[:, 0], counts=pairs[:, 1])
            keys: list[int] = []
            rows: list[bytes] = []
            for key, row in view.cursor(self._rows):
                keys.append(_KEY.unpack(key)[0])
                rows.append(row)
                if len(keys) == _ROWS_AT_ONCE:
                    yield self._part(head, keys, rows)
                    keys, rows = [], []
            yield self._part(head, keys, rows)

    def restart(self, record: Record) -> None:
        """Wait for the disk; the state of a new table is written."""
        self.append(Record(record.step, record.clock, record.sources))
        self._database.sync(True)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _part(self, head: Record, keys: list[int], rows: list[bytes]) -> Record:
        content = np.frombuffer(b"".join(rows), np.uint8).reshape(len(keys), self._row_bytes)
        columns = {
            number: np.ascontiguousarray(content[:, field]).view(column.dtype).reshape(len(keys), column.width)
            for number, (column, field) in enumerate(zip(self._schema.columns, self._fields, strict=True))
        }
        return Record(head.step, head.clock, head.sources, np.array(keys, np.int64), columns)
