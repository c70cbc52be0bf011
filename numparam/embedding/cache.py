"""A cache of a table's rows, with the states of the optimizer, in the memory of the host or of a CUDA device."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from numparam.checks import as_int, of_type
from numparam.device import Device
from numparam.device import device as as_device
from numparam.embedding.counters import Counters
from numparam.embedding.schema import as_keys, as_rows
from numparam.embedding.table import Embedding
from numparam.errors import ArgumentValueError
from numparam.kernels.machine.pool import Task, begin
from numparam.tensor import Tensor
from numparam.tensor.values import HOLDERS, Array


class EmbeddingCache:
    """Read and train the rows of a table in a cache; they are written back when others need their place.

    The bits are the same as without a cache. What was not written back is lost with the process: the table's log
    has what `flush` wrote. Nothing else may change the table meanwhile.

    Parameters
    ----------
    table : Embedding
        Scores, limits and admission see the rows when they are written back.
    rows : int
        The size of the cache; a call has at most as many different ids.
    device : str or Device
        Where the cache is.

    Attributes
    ----------
    counters : Counters
        ``hits`` and ``misses``, counted by id; ``prefetched``, ``evicted`` and ``written_back`` rows.

    Examples
    --------
    >>> from numparam.optim import SGD
    >>> table = Embedding(None, 2, init="zeros", optimizer=lambda items: SGD(items, 1.0))
    >>> cache = EmbeddingCache(table, 2)
    >>> cache.update([7, 8], np.ones((2, 2), np.float32))
    >>> len(table), cache.lookup([9, 7]).tolist(), len(table)
    (0, [[0.0, 0.0], [-1.0, -1.0]], 1)
    """

    _of: ClassVar[type] = Embedding

    def __init__(self, table: Embedding, rows: int, device: Device | str = "cpu") -> None:
        from numparam.kernels.keys import Recent

        of_type(self._of)("the table of a cache", table)
        self.table = table
        self.rows = rows = as_int(f"table {table.name!r}: the rows of a cache", rows, 1)
        self.device, self.step, self.counters = as_device(device), table.step, Counters()
        self._recent, self._holder = Recent(rows), HOLDERS[self.device.kind]
        self._kept = table.schema.columns[: table.schema.states.stop]
        self._columns = [
            self._holder.empty((rows, column.width), column.dtype, self.device).array for column in self._kept
        ]
        self._dirty, self._new, self._lock = np.zeros(rows, bool), np.zeros(rows, bool), threading.RLock()
        self._ahead: Task | None = None  # its result: keys, which of them the table has, and columns of these
        self._stale: list[Array] = []

    def lookup(self, ids: npt.ArrayLike) -> Array | Tensor:
        """Return rows.

        Returns
        -------
        numpy.ndarray or Tensor
            Of the shape of `ids` and one more axis; on the device of the cache, a tensor if that is not the CPU.
        """
        from numparam.kernels import rows as row_kernels

        keys, shape = as_keys(self.table.schema, ids)
        with self._lock:
            places = self._use(keys)
            full = (*shape, self.table.schema.dim)
            held = self._holder.empty((keys.size, self.table.schema.dim), self.table.schema.dtype, self.device)
            if keys.size:
                row_kernels.gather(held.array, self._columns[0], places)
        values = held.reshaped(full)
        return values.array if isinstance(values.array, np.ndarray) else Tensor._of(values)

    def update(self, ids: npt.ArrayLike, gradients: npt.ArrayLike) -> None:
        """Step the optimizer on rows in the cache, as `Embedding.update` does in the table."""
        from numparam.kernels.keys import distinct, sum_rows

        schema = self.table.schema
        keys, shape = as_keys(schema, ids)
        given = as_rows(schema, "gradients", gradients, shape)
        with self._lock:
            first, which = distinct(keys)
            places = self._use(keys[first])
            self.step += 1
            if first.size:
                sums = self._holder.from_host(sum_rows(given, which, first.size), self.device).array
                rows = self._holder.from_host(places, self.device).array
                schema.stepping(self.step)(self._columns[0], rows, sums, self._columns[1:])
            self._dirty[places] = True

    def prefetch(self, ids: npt.ArrayLike) -> None:
        """Begin to read, in a thread, the rows of the next `lookup` that are not in the cache."""
        from numparam.kernels.keys import distinct

        keys, _ = as_keys(self.table.schema, ids)
        with self._lock:
            keys = keys[distinct(keys)[0]]
            keys = keys[self._recent.find(keys) < 0]
            self._stale = []
            self._ahead = begin(lambda: (keys, self.table.held(keys, len(self._kept))))

    def flush(self) -> None:
        """Write all rows that were changed back to the table."""
        with self._lock:
            places = np.flatnonzero(self._dirty)
            self._write_back(self._recent.keys[places], places)

    def close(self) -> None:
        """Write back, and wait for what is read ahead."""
        self.flush()
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead.take_back():
            ahead.wait()

    def _use(self, keys: Array) -> Array:
        """Return the places of keys in the cache, where their rows are read into first."""
        from numparam.kernels import rows as row_kernels
        from numparam.kernels.keys import distinct

        if keys.size > self.rows and (count := distinct(keys)[0].size) > self.rows:
            raise ArgumentValueError(
                f"table {self.table.name!r}: a cache of {self.rows} rows cannot hold the {count} ids of a call; "
                "enlarge vocab_cache_size or split the batch"
            )
        places, missed, left = self._recent.use(keys)
        dirty = left[self._dirty[left[:, 1]]]
        self._write_back(dirty[:, 0].copy(), dirty[:, 1].copy())
        absent = keys[missed]
        if absent.size:
            into = places[missed]
            present, columns = self._fetched(absent)
            for number, held in enumerate(self._columns):
                if columns[number].size:
                    row_kernels.scatter(held, into[present], self._holder.from_host(columns[number], self.device).array)
                if not present.all():
                    row_kernels.scatter(held, into[~present], self._begin(number, absent[~present]))
        self._new[places[missed]] = True
        repeated = int(self._new[places].sum())
        self._new[places[missed]] = False
        self.counters.update(hits=keys.size - repeated, misses=repeated, evicted=len(left))
        return places

    def _note_change(self, keys: Array) -> None:
        """Note whose rows may be older where they were read ahead."""
        if self._ahead is not None:
            self._stale.append(keys)

    def _begin(self, number: int, keys: Array) -> Any:
        """Return a column of rows that were never changed, generated where the cache is."""
        schema, kind = self.table.schema, self._kept[number]
        if number == 0 and not schema.init.on_device:
            return self._holder.from_host(schema.initial(number, keys), self.device).array
        return schema.initial(number, keys, self._holder.empty((keys.size, kind.width), kind.dtype, self.device).array)

    def _fetched(self, keys: Array) -> tuple[Array, list[Array]]:
        """Return which keys have rows in the table, and columns of these, as far as possible the ones read ahead."""
        from numparam.kernels.keys import Index

        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return self.table.held(keys, len(self._kept))
        read, (had, columns) = ahead.result()
        index = Index(read.size)
        index.insert(read, np.arange(read.size))
        for stale in self._stale:
            index.remove(stale)
        numbers = index.find(keys)
        known = numbers >= 0
        late, rest = self.table.held(keys[~known], len(self._kept))
        self.counters["prefetched"] += int(known.sum())
        present = np.empty(keys.size, bool)
        present[known], present[~known] = had[numbers[known]], late
        rows, from_ahead = (np.cumsum(had) - 1)[numbers[known & present]], known[present]
        out = []
        for column, other in zip(columns, rest, strict=True):
            values = np.empty((from_ahead.size, *column.shape[1:]), column.dtype)
            values[from_ahead], values[~from_ahead] = column[rows], other
            out.append(values)
        return present, out

    def _write_back(self, keys: Array, places: Array) -> None:
        from numparam.kernels import rows as row_kernels

        if not keys.size:
            return
        columns = []
        for held, kind in zip(self._columns, self._kept, strict=True):
            part = self._holder.empty((keys.size, kind.width), kind.dtype, self.device)
            row_kernels.gather(part.array, held, places)
            columns.append(part.to_host())
        self.table.store(keys, columns, self.step)
        self._dirty[places] = False
        self._note_change(keys)
        self.counters["written_back"] += keys.size
