"""The write-ahead log of a table: what was acknowledged is in it.

A record holds what rows become, not how: to apply one again changes nothing, so a table and its log are recovered by
applying all records in order, whatever of them had reached the table. A record that was not written to its end, or
whose checksum is wrong, ends the log; it was never acknowledged.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from numparam.checkpoint.atomic_file import replacing
from numparam.embedding.mapped import File, open_file
from numparam.embedding.schema import Column
from numparam.errors import CheckpointError, CheckpointFileError

Array = np.ndarray[Any, np.dtype[Any]]

_FRAME = struct.Struct("<4sIQ")  # magic, checksum, bytes
_HEAD = struct.Struct("<9q")
_MAGIC = b"npr1"
_NONE = np.empty(0, np.int64)


class Schema(Protocol):
    """Describe what records hold of each row."""

    @property
    def name(self) -> str:
        """Return the name of the table."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the columns of a row."""


class Record(NamedTuple):
    """Hold what one operation changes.

    Attributes
    ----------
    step, clock : int
        Of the table, after it.
    sources : dict of int to int
        The number of the last request of each worker that it includes.
    keys, rows : ndarray, dict of int to ndarray
        Distinct keys, and what columns of their rows become.
    erased : ndarray
        Keys whose rows are forgotten, before the others are written.
    counted, counts : ndarray
        Keys that are not admitted yet, and how often they were looked up; 0 forgets one.
    size : int
        How many rows the table has; -1 but at the beginning of a log.
    slots : ndarray
        What `Mapped.slots` was; only at the beginning of a log.
    """

    step: int
    clock: int
    sources: dict[int, int] = {}  # noqa: RUF012
    keys: Array = _NONE
    rows: dict[int, Array] = {}  # noqa: RUF012
    erased: Array = _NONE
    counted: Array = _NONE
    counts: Array = _NONE
    size: int = -1
    slots: Array = _NONE

    def encode(self) -> list[Any]:
        """Return the record as buffers."""
        mask = sum(1 << column for column in self.rows)
        sources = np.array([*self.sources.items()], np.int64).reshape(-1)
        head = _HEAD.pack(
            self.step, self.clock, self.size, self.keys.size, mask,
            sources.size, self.erased.size, self.counted.size, self.slots.size,
        )  # fmt: skip
        rows = [self.rows[column] for column in sorted(self.rows)]
        arrays = [sources, self.keys, self.erased, self.counted, self.counts, self.slots, *rows]
        return [head, *(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays if array.size)]

    @classmethod
    def decode(cls, schema: Schema, content: bytes) -> Record:
        """Return the record that buffers hold."""
        step, clock, size, keys, mask, sources, erased, counted, slots = _HEAD.unpack_from(content)
        at = _HEAD.size

        def take(count: int, dtype: Any = np.int64) -> Array:
            nonlocal at
            array = np.frombuffer(content, dtype, count, at)
            at += array.nbytes
            return array

        pairs: dict[int, int] = dict(take(sources).reshape(-1, 2).tolist())
        vectors = [take(count) for count in (keys, erased, counted, counted, slots)]
        rows = {
            number: take(keys * column.width, column.dtype).reshape(keys, column.width)
            for number, column in enumerate(schema.columns)
            if mask >> number & 1
        }
        named = dict(zip(("keys", "erased", "counted", "counts", "slots"), vectors, strict=True))
        return cls(step, clock, pairs, rows=rows, size=size, **named)


class Log:
    """Append records to a file, and read them back.

    Parameters
    ----------
    path : Path
    schema : Schema
    sync : bool
        Whether a record is on the disk when `append` returns (``fdatasync``), which survives a loss of power; else it
        is with the system, which survives the end of this process, however sudden.
    """

    def __init__(self, path: Path, schema: Schema, sync: bool) -> None:
        self.path, self._schema, self._sync = path, schema, sync
        self._file: File | None = None
        self._opened()

    def append(self, record: Record) -> int:
        """Write a record, and return its bytes.

        Raises
        ------
        CheckpointFileError
            If the disk is full or fails; the log is then what it was.
        """
        return self._append(self._opened(), record, self.nbytes)

    def _opened(self) -> int:
        """Return the descriptor of the file in place."""
        if self._file is None:
            file = open_file(self.path)
            self.nbytes = os.fstat(file.fileno()).st_size
            self._file = file
        return self._file.fileno()

    def _append(self, descriptor: int, record: Record, at: int) -> int:
        parts = record.encode()
        checksum, nbytes = 0, 0
        for part in parts:
            checksum, nbytes = zlib.crc32(part, checksum), nbytes + len(part)
        buffers = [memoryview(_FRAME.pack(_MAGIC, checksum, nbytes)), *[memoryview(part) for part in parts]]
        try:
            end = at
            while buffers:
                written = os.pwritev(descriptor, buffers[:64], end)
                end += written
                while buffers and written >= len(buffers[0]):
                    written -= len(buffers.pop(0))
                if written:
                    buffers[0] = buffers[0][written:]
            if self._sync:
                os.fdatasync(descriptor)
        except BaseException as error:
            os.truncate(descriptor, at)
            if not isinstance(error, OSError):
                raise
            raise CheckpointFileError(
                f"table {self._schema.name!r}: cannot write to the log {self.path}: {error}; nothing was changed"
            ) from error
        self.nbytes = end
        return end - at

    def replay(self) -> Iterator[Record]:
        """Yield all records that were written to their end, and drop what follows.

        Raises
        ------
        CheckpointError
            If a record in the middle is damaged: the ones after it were acknowledged.
        """
        at, descriptor = 0, self._opened()
        size = self.nbytes
        while at < size:
            head = os.pread(descriptor, _FRAME.size, at)
            magic, checksum, nbytes = _FRAME.unpack(head.ljust(_FRAME.size, b"\0"))
            content = os.pread(descriptor, nbytes, at + _FRAME.size) if magic == _MAGIC and nbytes <= size - at else b""
            if len(head) < _FRAME.size or magic != _MAGIC or len(content) < nbytes or zlib.crc32(content) != checksum:
                if self._another_follows(at + 1, size):
                    raise CheckpointError(
                        f"{self.path}: the record at byte {at} is damaged, and others follow it; restore the file, or "
                        "load a snapshot into a new table"
                    )
                os.truncate(descriptor, at)
                break
            yield Record.decode(self._schema, content)
            at += _FRAME.size + nbytes
        self.nbytes = at

    def restart(self, record: Record) -> None:
        """Replace the log by one with a single record, once the table itself is on the disk."""
        self._file = None  # whatever interrupts this, no record goes to a file that is no longer in place
        with replacing(self.path) as file:
            self._append(file.fileno(), record, 0)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _another_follows(self, at: int, size: int) -> bool:
        """Return whether a sound record begins behind a place."""
        descriptor, step = self._opened(), 1 << 24
        while at < size:
            block = os.pread(descriptor, step + len(_MAGIC), at)
            place = block.find(_MAGIC)
            while place >= 0:
                head = os.pread(descriptor, _FRAME.size, at + place)
                if len(head) == _FRAME.size:
                    _, checksum, nbytes = _FRAME.unpack(head)
                    content = os.pread(descriptor, min(nbytes, size), at + place + _FRAME.size)
                    if len(content) == nbytes and zlib.crc32(content) == checksum:
                        return True
                place = block.find(_MAGIC, place + 1)
            at += step
        return False
