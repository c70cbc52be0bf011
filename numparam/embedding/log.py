"""The write-ahead log of a table: what was acknowledged is in it.

A record holds what rows become, not how: to apply one again changes nothing, so a table and its log are recovered by
applying all records in order, whatever of them had reached the table. A record that was not written to its end, or
whose checksum is wrong, ends the log; it was never acknowledged.

What a log begins with is in a file of its own, with the number of the log. The next log has the next number and is
written over the records of the last one: to write to new pages of a file takes up to five times as long.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from numparam.checkpoint.atomic_file import replacing
from numparam.embedding.mapped import open_file
from numparam.embedding.schema import Column
from numparam.errors import CheckpointError, CheckpointFileError

Array = np.ndarray[Any, np.dtype[Any]]

_FRAME = struct.Struct("<4sIQQ")  # magic, checksum, bytes, number of the log
_HEAD = struct.Struct("<9q")
_MAGIC = b"npr2"
_DIGESTED = 1 << 18  # bytes from which zlib's checksum takes longer than a digest on all threads
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
        return [head, *(np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays if array.size)]

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


def _checksum(parts: Iterable[Any], number: int) -> int:
    """Return the checksum of the parts of a record in a log of some number."""
    from numparam.kernels.digest import DigestKey, digest

    total = number & 0xFFFFFFFF
    for part in parts:
        tail = part
        if len(part) >= _DIGESTED:
            whole = len(part) // 8 * 8
            words, tail = np.frombuffer(part, np.uint64, whole // 8), part[whole:]
            words = words if words.flags.aligned else words.copy()
            total = zlib.crc32(struct.pack("<2Q", *digest(words, DigestKey(0, 1, 2))), total)
        total = zlib.crc32(tail, total)
    return total


class Log:
    """Append records to a file, and read them back.

    Parameters
    ----------
    path : Path
        The file next to it with the suffix ``.begin`` has what the log begins with.
    schema : Schema
    sync : bool
        Whether a record is on the disk when `append` returns (``fdatasync``), which survives a loss of power; else it
        is with the system, which survives the end of this process, however sudden.

    Attributes
    ----------
    nbytes : int
        Of the records so far.
    """

    def __init__(self, path: Path, schema: Schema, sync: bool) -> None:
        self.path, self._schema, self._sync = path, schema, sync
        self._begin, self._file, self._is_restarting = path.with_suffix(".begin"), open_file(path), False
        self._number, first = self._begun()
        self.nbytes = os.fstat(self._file.fileno()).st_size
        if first is None and self.nbytes:
            raise CheckpointError(f"{self._begin} is missing; restore it, or load a snapshot into a new table")

    def append(self, record: Record) -> int:
        """Write a record, and return its bytes.

        Raises
        ------
        CheckpointFileError
            If the disk is full or fails; the log is then what it was.
        """
        if self._is_restarting:  # a restart was interrupted, before or after its file was in place
            number = self._begun()[0]
            self.nbytes, self._number, self._is_restarting = self.nbytes * (number == self._number), number, False
        end = self._write(self._file.fileno(), record, self.nbytes, self._number)
        written, self.nbytes = end - self.nbytes, end
        return written

    def replay(self) -> Iterator[Record]:
        """Yield what the log begins with and all records that were written to their end, and drop what follows.

        Raises
        ------
        CheckpointError
            If a record in the middle is damaged: the ones after it were acknowledged.
        """
        _, first = self._begun()
        if first is None:
            return
        yield first
        at, descriptor = 0, self._file.fileno()
        size = os.fstat(descriptor).st_size
        while found := self._read(descriptor, at, size, self._number):
            yield found[0]
            at = found[1]
        if place := self._another_follows(at + 1, size):
            raise CheckpointError(
                f"{self.path}: the record at byte {at} is damaged, and another follows it at byte {place}; restore the "
                "file, or load a snapshot into a new table"
            )
        self.nbytes = at

    def restart(self, record: Record) -> None:
        """Begin the next log with a record, once the table itself is on the disk."""
        self._is_restarting = True
        with replacing(self._begin) as file:
            self._write(file.fileno(), record, 0, self._number + 1)
        self.nbytes, self._number, self._is_restarting = 0, self._number + 1, False

    def close(self) -> None:
        """Close the file, without the records of earlier logs."""
        if not self._is_restarting:
            os.truncate(self._file.fileno(), self.nbytes)
        self._file.close()

    def _begun(self) -> tuple[int, Record | None]:
        """Return the number of the log in place and what it begins with, nothing if it is new."""
        try:
            content = self._begin.read_bytes()
        except FileNotFoundError:
            return 0, None
        number = _FRAME.unpack_from(content.ljust(_FRAME.size, b"\0"))[3]
        with self._begin.open("rb") as file:
            found = self._read(file.fileno(), 0, len(content), number)
        if found is None:
            raise CheckpointError(f"{self._begin} is damaged; restore it, or load a snapshot into a new table")
        return number, found[0]

    def _write(self, descriptor: int, record: Record, at: int, number: int) -> int:
        """Write a record, and return where it ends."""
        parts = record.encode()
        nbytes = sum(len(part) for part in parts)
        frame = _FRAME.pack(_MAGIC, _checksum(parts, number), nbytes, number)
        buffers, end = [memoryview(part) for part in (frame, *parts)], at
        try:
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
        return end

    def _read(self, descriptor: int, at: int, size: int, number: int) -> tuple[Record, int] | None:
        """Return the record at a place of a log of some number and where it ends, if there is a sound one."""
        head = os.pread(descriptor, _FRAME.size, at)
        if len(head) < _FRAME.size:
            return None
        magic, checksum, nbytes, of = _FRAME.unpack(head)
        if magic != _MAGIC or of != number or not _HEAD.size <= nbytes <= size - at - _FRAME.size:
            return None
        content = os.pread(descriptor, nbytes, at + _FRAME.size)
        try:
            record = Record.decode(self._schema, content)
        except (ValueError, OverflowError):  # it is not as long as it says
            return None
        parts = record.encode()
        is_sound = sum(len(part) for part in parts) == nbytes and _checksum(parts, number) == checksum
        return (record, at + _FRAME.size + nbytes) if is_sound else None

    def _another_follows(self, at: int, size: int) -> int:
        """Return where a sound record of this log begins behind a place, 0 if there is none."""
        descriptor, step = self._file.fileno(), 1 << 24
        while at < size:
            block = os.pread(descriptor, step + len(_MAGIC), at)
            place = block.find(_MAGIC)
            while place >= 0:
                if self._read(descriptor, at + place, size, self._number):
                    return at + place
                place = block.find(_MAGIC, place + 1)
            at += step
        return 0
