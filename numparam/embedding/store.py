"""The durable state of a table: its rows, its log, and how far it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from numparam.embedding.counters import Counters
from numparam.embedding.folder import agree, claim, known
from numparam.embedding.lmdb_log import LmdbLog
from numparam.embedding.log import Log, Record
from numparam.embedding.mapped import Mapped
from numparam.embedding.schema import Schema
from numparam.errors import CheckpointError

Array = np.ndarray[Any, np.dtype[Any]]

LOGS: dict[str, type[Log] | type[LmdbLog]] = {"file": Log, "lmdb": LmdbLog}
_LOG_BYTES = 256 << 20


class Rooms:
    """Give memory for arrays by name, the same at each call: to get as much anew takes as long as to fill it."""

    def __init__(self) -> None:
        self._kept: dict[Any, Array] = {}

    def get(self, name: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array of any content, which the next call with this name overwrites."""
        from numparam.kernels.machine.memory import empty_at_line

        nbytes = math.prod(shape) * dtype.itemsize
        if name not in self._kept or self._kept[name].nbytes < nbytes:
            self._kept.pop(name, None)
            self._kept[name] = empty_at_line((nbytes,), np.dtype(np.uint8))
        return self._kept[name][:nbytes].view(dtype).reshape(shape)


class Store:
    """Keep the rows of a table, which change by records that are logged first.

    Parameters
    ----------
    make : callable
        Makes the schema, given the seed that the files were written with, or None.
    name : str
    folder : Path or None
        Without one nothing is logged.
    sync : bool
    storage : str
        One of `LOGS`. With LMDB the rows are also in a temporary file, while the table is open.

    Attributes
    ----------
    rows : Mapped
    step, clock : int
        Updates, and uses, so far.
    sources : dict of int to int
        The last request of each worker.
    counts : dict of int to int
        How often keys that are not admitted were looked up.
    """

    def __init__(
        self, make: Callable[[int | None], Schema], name: str, folder: Path | None, sync: bool, storage: str
    ) -> None:
        self._log: Log | LmdbLog | None = None
        self._guard = None if folder is None else claim(folder, name)
        noted = {} if folder is None else known(folder)
        self.schema = make(noted.get("seed"))
        if folder is not None:
            agree(folder, noted, self.schema, storage)
        self.rows = Mapped(self.schema, folder / "rows" if folder is not None and storage == "file" else None)
        self.step, self.clock, self.sources, self.is_closed = 0, 0, dict[int, int](), False
        self.counts: dict[int, int] = {}
        self.counters, self.rooms = Counters(), Rooms()
        if folder is not None:
            self._log = LOGS[storage](folder / "log", self.schema, sync)
            self._recover()

    @property
    def is_logged(self) -> bool:
        """Return whether changes are logged before they are applied."""
        return self._log is not None

    def checkpoint(self) -> None:
        """Write the rows to the disk, and begin a new log."""
        if self._log is not None and not self.is_closed:
            self.rows.flush()
            self._log.restart(self._summary())

    def close(self) -> None:
        """Write the rows to the disk, and leave the files to others."""
        self.checkpoint()
        self.is_closed = True
        for file in (self._log, self._guard, self.rows):
            if file is not None:
                file.close()

    def fill(self, column: int, keys: Array, numbers: Array, out: Array, unseen: float | None) -> int:
        """Write a column of rows, and for keys without one their initial value, or a constant; return their number."""
        absent = numbers < 0
        count = int(np.count_nonzero(absent))
        if count < keys.size:
            self.rows.read(column, numbers, out)
        if count and unseen is not None and column == 0:
            out[absent] = unseen
        elif count == keys.size and count:
            self.schema.initial(column, keys, out)
        elif count:
            out[absent] = self.schema.initial(column, keys[absent])
        return count

    def gathered(self, column: int, keys: Array, numbers: Array) -> Array:
        """Return a column of rows, and for rows without one their initial value."""
        kind = self.schema.columns[column]
        out = np.empty((keys.size, kind.width), kind.dtype)
        self.fill(column, keys, numbers, out, None)
        return out

    def stepped(self, count: int, keys: Array, found: Array, sums: Iterable[Array]) -> tuple[Array, dict[int, Array]]:
        """Return the numbers of rows, and what their values and states become by a step of the optimizer.

        The sums of gradients come some rows after the other. The columns are valid until the next call. Without a log
        they change in place, and none are returned.
        """
        work, columns, stop = self.schema.stepping(count), self.rows.columns[: self.schema.states.stop], 0
        if self.is_logged:
            columns = [
                self.rooms.get(name, (keys.size, column.shape[1]), column.dtype) for name, column in enumerate(columns)
            ]
        elif (absent := found < 0).any():
            fresh, found = keys[absent], found.copy()
            initial = {number: self.schema.initial(number, fresh) for number in range(len(self.schema.columns))}
            found[absent] = self.rows.write(fresh, initial)
        for part in sums:
            here = slice(stop, stop := stop + len(part))
            numbers = found[here]
            if self.is_logged:
                for number, column in enumerate(columns):
                    self.fill(number, keys[here], numbers, column[here], None)
                numbers = np.arange(here.start, here.stop)
            work(columns[0], numbers, part, columns[1:])
        return found, dict(enumerate(columns)) if self.is_logged else {}

    def record(self, **parts: Any) -> Record:
        """Return a record that leaves the step and the clock as they are."""
        return Record(self.step, self.clock, self.sources, **parts)

    def commit(self, record: Record, found: Array | None = None) -> None:
        """Log a record, and then apply it; see `Mapped.write`."""
        if self._log is not None:
            self.counters["log_bytes"] += self._log.append(record)
        self._apply(record, found)
        if self._log is not None and self._log.nbytes > _LOG_BYTES:
            self.checkpoint()

    def _apply(self, record: Record, found: Array | None = None) -> None:
        self.step, self.clock, self.sources = record.step, record.clock, record.sources
        for key, count in zip(record.counted.tolist(), record.counts.tolist(), strict=True):
            if count:
                self.counts[key] = count
            else:
                self.counts.pop(key, None)
        if record.erased.size:
            self.rows.remove(record.erased)
        if record.keys.size:
            self.rows.write(record.keys, record.rows, found)

    def _summary(self) -> Record:
        counted = np.array([*self.counts.items()], np.int64).reshape(-1, 2)
        return self.record(counted=counted[:, 0], counts=counted[:, 1], size=len(self.rows), slots=self.rows.slots)

    def _recover(self) -> None:
        assert self._log is not None
        records = self._log.replay()
        first = next(records, None)
        second = next(records, None)
        if first is None:
            if self.rows.is_written:
                raise CheckpointError(f"{self._log.path}: there are rows, but no log; restore it or load a snapshot")
            self._log.restart(self._summary())
            return
        if first.size < 0:
            raise CheckpointError(f"{self._log.path}: it does not begin as a log; restore it or load a snapshot")
        self.rows.recover(first.size if second is None else -1, first.slots)
        self._apply(first)
        if second is not None:
            for record in (second, *records):
                self._apply(record)
            self.checkpoint()
