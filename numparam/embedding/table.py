"""Tables of rows by key: trained, evicted, logged and exported, on one machine."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from numparam.checks import as_int
from numparam.embedding.distinct import Distinct
from numparam.embedding.log import Record
from numparam.embedding.mapped import Mapped
from numparam.embedding.schema import OptimizerMaker, Schema, as_keys, as_rows, as_unseen
from numparam.embedding.store import LOGS, Store
from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.initializer import Initializer
from numparam.stream.seed import choose_seed

Array = np.ndarray[Any, np.dtype[Any]]

SCORES = ("lru", "lfu", "step", "custom", "none")
_KEPT_OF_16 = 15  # rows that stay when a table is over its limit: to rank all of them takes as long for one as for many


class Export(NamedTuple):
    """Hold rows of a table: their keys in ascending order, their values, and the steps that last changed them."""

    keys: Array
    values: Array
    steps: Array


class Embedding:
    """Keep a table of rows by key, of which only those that were changed take memory.

    A row that was never changed, or was evicted, is what the random stream has at (seed, name, key): the row of a
    parameter of this name, seed and initializer, in any order of access, on any machine.

    Parameters
    ----------
    vocab_size : int or None
        Keys are from 0 to ``vocab_size - 1``; None takes every int64.
    dim : int
        The length of a row.
    name : str
        Of the table, and of its random stream.
    init : Initializer, str or number
        Generates the rows, each without the others.
    dtype : dtype
        float32, float64, float16 or bfloat16.
    seed : int, optional
        By default the seed that the files were written with, or else the global one.
    optimizer : callable, optional
        Makes the optimizer of `update` from a list of one parameter, as
        ``lambda parameters: Adagrad(parameters, learning_rate=0.1)``. Without one, `update` adds.
    path : str or path, optional
        A folder for the table, created if it does not exist. By default a temporary file without a log.
    sync : bool
        Whether a change is on the disk when a method returns. By default it is in the log, with the system: it
        survives the end of the process, however sudden, but not a loss of power.
    storage : {"file", "lmdb"}
        What `path` holds: a sparse file of rows and a log, or an LMDB database (``pip install "numparam[server]"``), in
        which every change is a transaction.
    score : {"lru", "lfu", "step", "custom", "none"}
        What a row is ranked by for eviction: its last use, the number of its uses, the step of its last update, what
        the caller gives, or nothing. Rows of equal score are ranked by key.
    max_rows : int, optional
        When a call leaves more rows, those of the lowest scores are evicted until fifteen sixteenths of them are left.
    admit : int
        How often a key is looked up by `find_or_insert` or `update` before it takes a row: until then it has its
        initial value, and updates to it are dropped.
    unseen : {"stream", "zeros"} or float
        What `find` returns for a key without a row: its initial value, zeros or another constant.

    Attributes
    ----------
    counters : Counters
        ``hits``, ``misses``, ``inserted``, ``updated``, ``evicted``, ``erased``, ``not_admitted``, ``log_bytes``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not suit, or the files hold another table.
    OSError
        If the folder cannot be written, or another process has the table open.

    Examples
    --------
    >>> from numparam import Parameter
    >>> from numparam.initializer import Normal, initializer
    >>> from numparam.optim import SGD
    >>> table = Embedding(10**9, 4, name="items", init=Normal(), optimizer=lambda items: SGD(items, 0.5))
    >>> table.update([7, 2, 7], np.ones((3, 4), np.float32))
    >>> full = Parameter(initializer(Normal(), (10**9, 4)), name="items")
    >>> rows = np.stack([full[key].asnumpy() for key in (7, 2, 5)])
    >>> (table.find([7, 2, 5]) - rows)[:, 0].round(6), len(table)
    (array([-1. , -0.5,  0. ], dtype=float32), 2)
    """

    def __init__(
        self,
        vocab_size: int | None,
        dim: int,
        *,
        name: str = "embedding",
        init: Initializer | str | float = "normal",
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
        optimizer: OptimizerMaker | None = None,
        path: str | os.PathLike[str] | None = None,
        sync: bool = False,
        storage: str = "file",
        score: str = "lru",
        max_rows: int | None = None,
        admit: int = 1,
        unseen: str | float = "stream",
    ) -> None:
        given: Any = name
        if not isinstance(given, str) or not given:
            raise ArgumentTypeError(f"the name of a table is a str that is not empty, found {name!r:.80}")
        where = f"table {name!r}: "
        if vocab_size is not None:
            vocab_size = as_int(f"{where}vocab_size", vocab_size, 1, 2**62)
        if score not in SCORES:
            raise ArgumentValueError(f"{where}score is one of {', '.join(SCORES)}; found {score!r}")
        self.score, self._admit = score, as_int(f"{where}admit", admit, 1)
        self._max_rows = None if max_rows is None else as_int(f"{where}max_rows", max_rows, 1)
        self._unseen = as_unseen(where, unseen)
        if storage not in LOGS:
            raise ArgumentValueError(f"{where}storage is one of {', '.join(LOGS)}; found {storage!r}")
        self._lock = threading.RLock()
        self._store = Store(
            lambda known: Schema(
                name, vocab_size, as_int(f"{where}dim", dim, 1), init, dtype,
                choose_seed(getattr(init, "seed", None), known if seed is None else seed), optimizer,
            ),
            name, None if path is None else Path(path), sync, storage,
        )  # fmt: skip
        self.schema, self.counters = self._store.schema, self._store.counters
        self._keep_limit()

    # ------------------------------------------------------------------ reading

    @property
    def step(self) -> int:
        """Count the updates so far."""
        return self._store.step

    @property
    def name(self) -> str:
        """Return the name."""
        return self.schema.name

    @property
    def size(self) -> int:
        """Count the rows that take memory."""
        return len(self._store.rows)

    def __len__(self) -> int:
        return self.size

    def __contains__(self, key: int) -> bool:
        return bool(self._store.rows.find(as_keys(self.schema, [key])[0])[0] >= 0)

    def find(self, ids: npt.ArrayLike) -> Array:
        """Return rows, and change nothing.

        Parameters
        ----------
        ids : int or array of int
            Of any shape; ids may be repeated.

        Returns
        -------
        numpy.ndarray
            Of the shape of `ids` and one more axis of length `dim`.

        Raises
        ------
        TypeError, ValueError
            If they are not integers, or out of range.
        """
        keys, shape = as_keys(self.schema, ids)
        with self._lock:
            numbers = self._rows().find(keys)
            out = np.empty((keys.size, self.schema.dim), self.schema.dtype)
            misses = self._store.fill(0, keys, numbers, out, self._unseen)
            self.counters.update(hits=keys.size - misses, misses=misses)
        return out.reshape(*shape, self.schema.dim)

    def columns(self, keys: Array) -> list[Array]:
        """Return all that is kept of the rows of distinct keys, values first; what begins of those without a row."""
        with self._lock:
            numbers = self._rows().find(keys)
            return [self._store.gathered(column, keys, numbers) for column in range(len(self.schema.columns))]

    def present(self, keys: Array) -> tuple[Array, Array]:
        """Return which of some keys have rows, and the numbers of these rows."""
        with self._lock:
            numbers = self._rows().find(keys)
            present = numbers >= 0
            return present, numbers if present.all() else numbers[present]

    def read(self, column: int, numbers: Array, out: Array) -> None:
        """Write a column of rows into an array."""
        with self._lock:
            self._rows().read(column, numbers, out)

    def held(self, keys: Array, columns: int) -> tuple[Array, list[Array]]:
        """Return which of some keys have rows, and the first columns of these rows."""
        with self._lock:
            present, numbers = self.present(keys)
            self.counters.update(hits=numbers.size, misses=keys.size - numbers.size)
            return present, [self._store.gathered(column, keys[present], numbers) for column in range(columns)]

    # ------------------------------------------------------------------ changing

    def find_or_insert(self, ids: npt.ArrayLike, scores: npt.ArrayLike | None = None) -> Array:
        """Return rows; keys without one get one, with its initial value, once they are admitted.

        Parameters
        ----------
        ids : int or array of int
        scores : array of int, optional
            One for each id, if the table's `score` is ``"custom"``.
        """
        keys, shape = as_keys(self.schema, ids)
        with self._lock:
            chosen = self._distinct(scores, keys)
            admitted, counted = self._admitted(chosen)
            found = chosen.found >= 0
            self._change(chosen.part(found), {})
            self._store.clock -= 1  # one use
            self._change(chosen.part(admitted & ~found), {}, counted)
            numbers = self._store.rows.find(keys)
            out = np.empty((keys.size, self.schema.dim), self.schema.dtype)
            self._store.fill(0, keys, numbers, out, None)
            self.counters.update(hits=int(found.sum()), misses=int((~found).sum()))
        return out.reshape(*shape, self.schema.dim)

    def assign(self, ids: npt.ArrayLike, rows: npt.ArrayLike, scores: npt.ArrayLike | None = None) -> None:
        """Replace rows; of a repeated id the last one stays. Admission is skipped."""
        keys, shape = as_keys(self.schema, ids)
        values = as_rows(self.schema, "rows", rows, shape).astype(self.schema.dtype, copy=False)
        with self._lock:
            chosen = self._distinct(scores, keys)
            last = np.empty(chosen.keys.size, np.int64)
            last[chosen.which] = np.arange(keys.size)
            self._change(chosen, {0: values[last]})

    def accumulate(self, ids: npt.ArrayLike, deltas: npt.ArrayLike, scores: npt.ArrayLike | None = None) -> None:
        """Add to rows; what is given for an id that is repeated is summed first, in its order, in float32 or float64.

        Parameters
        ----------
        ids : int or array of int
        deltas : Tensor or array of float
            One row for each id.
        """
        self._update(ids, deltas, scores, False)

    def update(self, ids: npt.ArrayLike, gradients: npt.ArrayLike, scores: npt.ArrayLike | None = None) -> None:
        """Step the optimizer on rows; gradients of an id that is repeated are summed first, in their order.

        Parameters
        ----------
        ids : int or array of int
        gradients : Tensor or array of float
            One row for each id: float64 for tables of float64, else float32, float16 or bfloat16.
        scores : array of int, optional
            One for each id, if the table's `score` is ``"custom"``.

        Raises
        ------
        TypeError, ValueError
            If the ids or gradients do not suit; nothing is changed then.
        OSError
            If the disk is full; nothing is changed then.
        """
        self._update(ids, gradients, scores, True)

    def update_from(self, sources: Mapping[int, int], keys: Array, gradients: Iterable[Array]) -> Array:
        """Do the updates of workers by their numbers, which rise, unless they were done; return the keys evicted.

        The gradients come some rows after the other, each valid until the next. If no key is repeated, they are stepped
        as they come, while they are in a cache.
        """
        from numparam.kernels.keys import sum_parts

        with self._lock:
            if all(self.done(source) >= number for source, number in sources.items()):
                deque(gradients, 0)
                return np.empty(0, np.int64)
            chosen = Distinct(keys, self._rows())
            admitted, counted = self._admitted(chosen)
            if chosen.keys.size < keys.size or not admitted.all():
                sums = self._store.rooms.get("sums", (chosen.keys.size, self.schema.dim), self.schema.wide)
                sum_parts(gradients, chosen.which, sums)
                chosen, sums = _only(admitted, chosen, sums)
                gradients = [sums]
            self.counters["updated"] += chosen.keys.size
            return self._change(chosen, {}, counted, self.step + 1, sources, gradients)

    def done(self, source: int) -> int:
        """Return the number of the last request of a worker that the table includes, 0 before the first."""
        return self._store.sources.get(source, 0)

    def store(self, keys: Array, columns: list[Array], step: int) -> None:
        """Replace the values of distinct keys, and the states of the optimizer, by what they were after a step."""
        with self._lock:
            self._change(Distinct(keys, self._rows()), dict(enumerate(columns)), step=max(step, self.step))

    def erase(self, ids: npt.ArrayLike) -> int:
        """Forget rows, with the states of the optimizer, and return how many there were."""
        keys, _ = as_keys(self.schema, ids)
        with self._lock:
            chosen = Distinct(keys, self._rows())
            keys = chosen.keys[chosen.found >= 0]
            self._store.commit(self._store.record(erased=keys))
            self.counters["erased"] += keys.size
        return int(keys.size)

    def evict(self, count: int | None = None, below: int | None = None) -> Array:
        """Forget the rows of the lowest scores, of equal ones the lowest keys.

        Parameters
        ----------
        count : int, optional
            How many.
        below : int, optional
            All rows whose score is less.

        Returns
        -------
        numpy.ndarray
            Their keys, in this order.
        """
        if count is None and below is None:
            raise ArgumentValueError(f"table {self.name!r}: give the count of rows to evict, or the score below")
        most = None if count is None else as_int("count", count, 0)
        with self._lock:
            keys = self._rows().keys()
            scores = self._store.gathered(len(self.schema.columns) - 2, keys, self._store.rows.find(keys))[:, 0]
            if below is not None:
                keys, scores = keys[scores < below], scores[scores < below]
            chosen = keys[np.lexsort((keys, scores))[:most]]
            self._store.commit(self._store.record(erased=chosen))
            self.counters["evicted"] += chosen.size
        return chosen

    # ------------------------------------------------------------------ the table as one

    def export(self, since: int | None = None) -> Export:
        """Return all rows, or the ones that were changed after a step.

        Parameters
        ----------
        since : int, optional
            What `step` was.
        """
        with self._lock:
            keys = self._rows().keys()
            numbers = self._store.rows.find(keys)
            steps = self._store.gathered(len(self.schema.columns) - 1, keys, numbers)[:, 0]
            if since is not None:
                chosen = steps > as_int("since", since)
                keys, numbers, steps = keys[chosen], numbers[chosen], steps[chosen]
            return Export(keys, self._store.gathered(0, keys, numbers), steps)

    def checkpoint(self) -> None:
        """Write the table to its file, wait for the disk, and begin a new log."""
        with self._lock:
            self._store.checkpoint()

    def close(self) -> None:
        """Write the table to its files and leave them to others. Nothing works on it afterwards."""
        with self._lock:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        keys = "any int64" if self.schema.vocab_size is None else self.schema.vocab_size
        return (
            f"Embedding (name={self.name}, keys={keys}, dim={self.schema.dim}, dtype={self.schema.dtype}, "
            f"rows={self.size}, step={self.step})"
        )

    # ------------------------------------------------------------------ parts

    def _rows(self) -> Mapped:
        if self._store.is_closed:
            raise StateError(f"table {self.name!r} is closed; open it again")
        return self._store.rows

    def _distinct(self, scores: npt.ArrayLike | None, keys: Array) -> Distinct:
        if scores is not None and self.score != "custom":
            raise ArgumentValueError(
                f"table {self.name!r}: scores are for tables of score='custom', found {self.score!r}; leave them out"
            )
        return Distinct(keys, self._rows(), scores)

    def _admitted(self, chosen: Distinct) -> tuple[Array, dict[int, int]]:
        """Return which keys may have a row, and the new counts of those who may not yet, or no longer need one."""
        if self._admit == 1:
            return np.ones(chosen.keys.size, bool), {}
        admitted = chosen.found >= 0
        counted: dict[int, int] = {}
        for place in np.flatnonzero(~admitted).tolist():
            key = int(chosen.keys[place])
            total = self._store.counts.get(key, 0) + int(chosen.uses[place])
            admitted[place] = total >= self._admit
            if not admitted[place] or key in self._store.counts:
                counted[key] = 0 if admitted[place] else total
        self.counters["not_admitted"] += int((~admitted).sum())
        return admitted, counted

    def _update(self, ids: npt.ArrayLike, deltas: npt.ArrayLike, scores: npt.ArrayLike | None, step: bool) -> None:
        from numparam.kernels.keys import sum_rows

        keys, shape = as_keys(self.schema, ids)
        given = as_rows(self.schema, "gradients", deltas, shape)
        with self._lock:
            chosen = self._distinct(scores, keys)
            admitted, counted = self._admitted(chosen)
            sums = sum_rows(given, chosen.which, chosen.keys.size, partial(self._store.rooms.get, "sums"))
            chosen, sums = _only(admitted, chosen, sums)
            self.counters["updated"] += chosen.keys.size
            if step:
                self._change(chosen, {}, counted, self.step + 1, sums=[sums])
            else:
                values = self._store.gathered(0, chosen.keys, chosen.found)
                self._change(chosen, {0: (values.astype(sums.dtype) + sums).astype(self.schema.dtype)}, counted)

    def _change(
        self,
        chosen: Distinct,
        columns: dict[int, Any],
        counted: Mapping[int, int] | None = None,
        step: int | None = None,
        sources: Mapping[int, int] | None = None,
        sums: Iterable[Array] | None = None,
    ) -> Array:
        """Log and write columns of rows and their scores; what is not given of new ones is what they begin with.

        With sums of gradients, some rows after the other, the optimizer steps first. Returns the keys evicted.
        """
        keys, found = chosen.keys, chosen.found
        new, counted = int(np.count_nonzero(found < 0)), counted or {}
        self._store.rows.check_room(new)
        score, stamp = len(self.schema.columns) - 2, len(self.schema.columns) - 1
        now, clock = self.step if step is None else step, self._store.clock + 1
        if sums is not None and keys.size:
            found, columns = self._store.stepped(now, keys, found, sums)
        for column in range(self.schema.states.stop if new and sums is None else 0):
            if columns.get(column) is None:
                columns[column] = self._store.gathered(column, keys, found)
        if keys.size:
            is_changed = bool(columns) or sums is not None
            old = partial(self._store.gathered, score, keys, found)
            columns[score] = self._scored(old, chosen, clock, now if is_changed else None)
            if is_changed:
                columns[stamp] = np.broadcast_to(np.int64(max(now, self.step + 1)), (keys.size, 1))
        record = Record(
            now, clock, {**self._store.sources, **(sources or {})}, keys, columns,
            counted=np.array([*counted], np.int64), counts=np.array([*counted.values()], np.int64),
        )  # fmt: skip
        self._store.commit(record, found)
        self.counters["inserted"] += new
        return self._keep_limit()

    def _scored(self, old: Callable[[], Array], chosen: Distinct, clock: int, step: int | None) -> Array:
        """Return the scores of rows after a use, and after an update if there is the number of one."""
        if self.score == "custom" and chosen.scores is not None:
            return chosen.scores.reshape(-1, 1)
        now = clock if self.score == "lru" else step
        if now is not None and self.score in ("lru", "step"):
            return np.broadcast_to(np.int64(now), (chosen.keys.size, 1))
        return old() + (chosen.uses.reshape(-1, 1) if self.score == "lfu" else 0)

    def _keep_limit(self) -> Array:
        over = self._max_rows is not None and self.size > self._max_rows
        least = max(1, (self._max_rows or 0) * _KEPT_OF_16 // 16)
        return self.evict(self.size - least) if over else np.empty(0, np.int64)


def _only(admitted: Array, chosen: Distinct, sums: Array) -> tuple[Distinct, Array]:
    """Return the keys that are admitted, and the sums of their rows."""
    return (chosen, sums) if admitted.all() else (chosen.part(admitted), sums[admitted])
