"""What a server does: it holds its part of parameters and tables, and answers the workers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from numparam.checkpoint.loading import load_checkpoint
from numparam.checkpoint.saving import save_checkpoint
from numparam.communication.reduction import Reduction
from numparam.communication.ring import Ring
from numparam.embedding import Counters, EmbeddingLookup
from numparam.embedding.schema import Schema
from numparam.embedding.snapshot import load_content, table_content
from numparam.embedding.store import Rooms
from numparam.errors import CheckpointError, StateError
from numparam.server.dense import Dense
from numparam.server.division import owners
from numparam.server.messages import (
    DENSE,
    READING,
    Acknowledgement,
    Request,
    Ways,
    accepted,
    check_same,
    each_piece,
    inbox,
    messages_of,
    pieces,
    receive,
    send,
)

Array = np.ndarray[Any, np.dtype[Any]]
Asked = dict[int, Request]


_SAVE = "snapshot.save"


def check_one_save(contents: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that snapshots of servers, by their paths, are of one save; a job may have ended between two servers.

    Raises
    ------
    CheckpointError
        If they are not; files of `save_table` have no mark and are not checked.
    """
    marks = {int(content[_SAVE].asnumpy()): path for path, content in contents.items() if _SAVE in content}
    if len(marks) > 1:
        first, second, *_ = marks.values()
        raise CheckpointError(f"{second} is of another save than {first}; load the snapshots of one save")


class Service:
    """Answer workers.

    Parameters
    ----------
    workers : tuple of int
        Their ranks.
    servers, place : int
    dense : Dense
    layers : list of EmbeddingLookup
    folder : Path or None
        Where all servers keep their files.
    staleness : int or None
        How many updates a worker may be ahead of the slowest one; None for synchronous updates.
    counters : Counters
    """

    def __init__(
        self,
        workers: tuple[int, ...],
        servers: int,
        place: int,
        dense: Dense,
        layers: list[EmbeddingLookup],
        folder: Path | None,
        staleness: int | None,
        counters: Counters,
    ) -> None:
        self._workers, self._servers, self._place, self._folder = workers, servers, place, folder
        self._staleness, self.counters, self._dense = staleness, counters, dense
        self._tables = [layer.table for layer in layers]
        # For each table with caches on the workers: the keys that each of them must forget with its next update.
        self._stale: dict[int, dict[int, list[Array]]] = {
            number: {worker: [] for worker in workers} for number, layer in enumerate(layers) if layer.cache_rows
        }
        self._live = {*workers}
        self._rooms, self._ways = Rooms(), Ways()
        self._held: dict[int, tuple[Request, Acknowledgement]] = {}

    def run(self) -> None:
        """Answer until all workers have ended."""
        self._inbox, waiting = inbox(), Asked()
        singly = READING if self._staleness is None else (*READING, "update", "push", "end")
        while self._live:
            for worker, head in self._inbox.take(self._live - waiting.keys() - self._held.keys()).items():
                waiting[worker] = Request(*head.tolist())
                self.counters["requests"] += 1
            for worker in [worker for worker, request in waiting.items() if request.name in singly]:
                self._answer({worker: waiting.pop(worker)})
            if waiting and waiting.keys() == self._live:
                check_same(waiting)
                self._answer(dict(sorted(waiting.items())))
                waiting.clear()
            self._release(self._live - waiting.keys())
        self._inbox.finish()
        for table in self._tables:
            table.close()
        self._dense.close()

    def load(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Take this server's part of the snapshots of all servers of a job, however many there were."""
        contents = {str(path): load_checkpoint(path) for path in paths}
        check_one_save(contents)
        self._dense.load([*contents.values()])
        for table in self._tables:
            load_content(table, contents, lambda keys: owners(keys, self._servers) == self._place)

    # ------------------------------------------------------------------ acknowledgements

    def _answer(self, asked: Asked) -> None:
        request = next(iter(asked.values()))
        getattr(self, f"_answer_{request.name}")(asked, request.target)

    def _acknowledge(self, asked: Asked, step: int = 0) -> None:
        """Acknowledge a request, at once or when the slowest worker has come near enough."""
        for worker, request in asked.items():
            self._held[worker] = request, Acknowledgement(step)

    def _release(self, active: set[int]) -> None:
        """Send the acknowledgements of the workers that are not too far ahead of the others that go on."""
        if not self._held:
            return
        clocks = {worker: self._clock(worker) for worker in active}
        least = min(clocks.values(), default=0)
        heads, lists = [], []
        for worker, (request, acknowledgement) in [*self._held.items()]:
            ahead = 0 if self._staleness is None else clocks.get(worker, least) - least
            if self._staleness is not None and request.name in ("update", "push") and ahead > self._staleness:
                self._held[worker] = request, acknowledgement._replace(waited=1)
                continue
            keys = np.empty(0, np.int64)
            if request.name == "update" and request.target in self._stale:
                stale = self._stale[request.target]
                keys, stale[worker] = np.concatenate([keys, *stale[worker]]), []
            if self._staleness is not None:
                self.counters["waits"] += acknowledgement.waited
                self.counters["staleness"] = max(self.counters["staleness"], ahead)
            heads.append((worker, np.array(acknowledgement._replace(ahead=ahead, forgotten=keys.size), np.int64)))
            lists.append((worker, keys))
            del self._held[worker]
        self._inbox.send([*heads, *lists])

    def _clock(self, worker: int) -> int:
        """Count the updates of a worker."""
        return self._dense.done(worker) + sum(table.done(worker) for table in self._tables)

    # ------------------------------------------------------------------ answers

    def _answer_end(self, asked: Asked, _: int) -> None:
        self._inbox.send([(worker, np.array(Acknowledgement(), np.int64)) for worker in asked])
        self._live -= asked.keys()

    def _answer_step(self, asked: Asked, target: int) -> None:
        source = self._dense if target == DENSE else self._tables[target]
        for worker, request in asked.items():
            is_own = self._staleness is not None and source.step > 0
            self._acknowledge({worker: request}, source.done(worker) if is_own else source.step)

    def _answer_ring(self, asked: Asked, _: int) -> None:
        for worker, request in asked.items():
            if rings := accepted(worker, request.number):
                self._ways[worker] = rings
            self._acknowledge({worker: request}, int(rings is not None))

    def _receive(self, what: str, buffers: Mapping[int, Array]) -> None:
        receive(what, [(self._ways.of(worker), buffer) for worker, buffer in buffers.items()])

    def _keys(self, asked: Asked) -> dict[int, Array]:
        keys = {worker: np.empty(request.length, np.int64) for worker, request in asked.items()}
        self._receive("ids", keys)
        return keys

    def _answer_find(self, asked: Asked, target: int) -> None:
        """Send which of the keys have rows, and columns of these; the worker knows how all others begin."""
        for worker, keys in self._keys(asked).items():
            table, to = self._tables[target], self._to(worker)
            present, numbers = table.present(keys)
            self._reply("ids", worker, present)
            for column, kind in enumerate(table.schema.columns[: asked[worker].number]):
                if not isinstance(to, Ring) or not to.holds(kind.row_bytes):
                    rows = np.empty((numbers.size, kind.width), kind.dtype)
                    table.read(column, numbers, rows)
                    self._reply("rows", worker, rows)
                    continue
                parts = pieces(numbers.size, kind.row_bytes)
                batches = (([to], (part.stop - part.start, kind.width), kind.dtype) for part in parts)
                for [rows], part in zip(each_piece("rows", batches, self._rooms.get), parts, strict=True):
                    table.read(column, numbers[part], rows)
                self.counters["bytes_sent"] += numbers.size * kind.row_bytes

    def _to(self, worker: int) -> int | Ring:
        """Return where long replies go; with rings, two servers could wait for two workers in a circle."""
        return self._ways.to(worker) if self._servers == 1 else worker

    def _reply(self, what: str, worker: int, array: Array) -> None:
        """Send an array that nobody changes: through a ring at once, else some time."""
        if isinstance(to := self._to(worker), Ring):
            send(what, to, array)
        else:
            self._inbox.send([(worker, part) for _, part in messages_of(worker, array)])
        self.counters["bytes_sent"] += array.nbytes

    def _answer_update(self, asked: Asked, target: int) -> None:
        table, lengths = self._tables[target], {worker: request.length for worker, request in asked.items()}
        joined, step = self._rooms.get("keys", (sum(lengths.values()),), np.dtype(np.int64)), table.step
        keys = dict(zip(asked, np.split(joined, np.cumsum([*lengths.values()])[:-1]), strict=True))
        self._receive("ids", keys)
        sources = {worker: request.number for worker, request in asked.items()}
        evicted = table.update_from(sources, joined, self._gradient_rows(lengths, table.schema))
        if target in self._stale:
            self._note_changes(target, keys, joined, evicted, table.step == step)
        self.counters["bytes_received"] += joined.nbytes
        self._acknowledge(asked, table.step)

    def _gradient_rows(self, lengths: dict[int, int], schema: Schema) -> Iterator[Array]:
        """Yield the gradients of workers, some rows after the other, each valid until the next."""
        batches = (
            ([self._ways.of(worker)], (rows.stop - rows.start, schema.dim), schema.wide)
            for worker, length in lengths.items()
            for rows in pieces(length, schema.dim * schema.wide.itemsize)
        )
        for [rows] in each_piece("gradients", batches, self._rooms.get):
            self.counters["bytes_received"] += rows.nbytes
            yield rows

    def _note_changes(self, target: int, keys: dict[int, Array], joined: Array, evicted: Array, was_done: bool) -> None:
        """Note what caches must forget: what others changed too, and what a worker cannot change as the table did."""
        from numparam.kernels.keys import distinct

        first, which = distinct(joined)
        by = np.repeat([*keys], [part.size for part in keys.values()])
        changed, by_first = joined[first], by[first]
        # Not admitted or evicted, or updated before a restart.
        shared = ~self._tables[target].present(changed)[0] | was_done
        shared[which[by != by_first[which]]] = True
        for worker, stale in self._stale[target].items():
            stale += [changed[(by_first != worker) | shared], evicted]

    def _answer_pull(self, asked: Asked, target: int) -> None:
        values = self._dense.parts[target].asnumpy()
        for worker in asked:
            self._reply("values", worker, values if isinstance(self._to(worker), Ring) else values.copy())

    def _answer_push(self, asked: Asked, _: int) -> None:
        sources = {worker: request.number for worker, request in asked.items()}
        self._dense.update(self._gradient_sums([*asked]), sources)
        self._acknowledge(asked, self._dense.step)

    def _gradient_sums(self, workers: list[int]) -> Iterator[Array]:
        """Yield the sums of the gradients of workers, in the order of `Dense.pieces`, each valid until the next."""
        senders = [self._ways.of(worker) for worker in workers]
        batches = ((senders, shape, dtype) for shape, dtype in self._dense.pieces())
        for arrays in each_piece("gradients", batches, self._rooms.get):
            total, *others = (array.reshape(-1) for array in arrays)
            if others:
                Reduction("sum", total.dtype).into(total, [total, *others])
            self.counters["bytes_received"] += total.nbytes * len(workers)
            yield arrays[0]

    def _answer_send(self, asked: Asked, target: int) -> None:
        part = self._dense.parts[target]
        values = np.empty(part.shape, part.dtype)
        self._receive("values", {self._workers[0]: values})
        self._dense.receive(target, values)
        self._acknowledge(asked)

    def _answer_save(self, asked: Asked, _: int) -> None:
        if self._folder is None:
            raise StateError("save() needs the path of ParameterServer")
        # The number that the first worker has drawn and sent to all servers.
        content = self._dense.content() | {_SAVE: np.array(next(iter(asked.values())).number)}
        for table in self._tables:
            content |= table_content(table)
        save_checkpoint(content, self._folder / f"snapshot-{self._place}-of-{self._servers}")
        self._acknowledge(asked)
