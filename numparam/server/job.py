"""Parameters and tables that servers hold: what workers call, and what servers do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from numparam.cell import Cell
from numparam.communication import get_rank
from numparam.communication.reduction import Reduction
from numparam.embedding import Counters, EmbeddingLookup
from numparam.embedding.schema import as_keys, as_rows
from numparam.embedding.snapshot import load_table, save_table
from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.layout.partition import split
from numparam.optim import Lamb, Optimizer, RowwiseAdagrad
from numparam.parameter import Parameter
from numparam.server.context import roles
from numparam.server.messages import OPERATIONS, Request, ask, listen, receive, reply

Array = np.ndarray[Any, np.dtype[Any]]


def owners(keys: Array, servers: int) -> Array:
    """Return which of the servers holds each key, by the finaliser of SplitMix64."""
    x = keys.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(servers)).astype(np.int64)


class ParameterServer:
    """Train the parameters of a cell that have `set_param_ps` on servers; every rank of the job makes one.

    Workers call the methods below together, in the same order, as they do operations of a group. Servers call `run`.
    What the workers bring is taken in the order of their ranks, so a table has the bits of one process that gets their
    batches one after another as one, and a parameter the bits of the sum ``((g0 + g1) + g2)``; for any number
    of servers.

    Parameters
    ----------
    net : Cell
        Its parameters with `is_param_ps` are divided over the servers along axis 0. Tables of its `EmbeddingLookup`
        cells, whose `embedding_table` has it, are divided by key; these cells work as before on every worker, and ask
        the servers. Parameters without it stay with the workers.
    optimizer : callable, optional
        Makes the optimizer of the dense parameters from a list, as ``lambda parameters: SGD(parameters, 0.1)``.
    path : str or path, optional
        The folder where servers keep their tables, with a log: a job that is started again goes on from there.

    Attributes
    ----------
    role : {"worker", "server"}
    counters : Counters
        Of a worker: ``requests``, ``ids``, ``distinct_ids``, ``bytes_sent`` and ``bytes_received``.

    Raises
    ------
    RuntimeError
        If servers are not enabled; see `numparam.server.set_ps_context`.
    TypeError, ValueError
        If the optimizer does not update every element by itself.
    """

    def __init__(
        self,
        net: Cell,
        optimizer: Callable[[list[Parameter]], Optimizer] | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(net, Cell):
            raise ArgumentTypeError(f"expected a Cell, found {type(net).__name__}")
        self.workers, self.servers = roles()
        rank = get_rank()
        self.role = "server" if rank in self.servers else "worker"
        self.counters = Counters()
        self._layers = [
            cell
            for _, cell in net.cells_and_names()
            if isinstance(cell, EmbeddingLookup) and cell.sparse and cell.embedding_table.is_param_ps
        ]
        held = {id(layer.embedding_table) for layer in self._layers}
        self.parameters = [
            parameter for parameter in net.get_parameters() if parameter.is_param_ps and id(parameter) not in held
        ]
        if self.parameters and optimizer is None:
            raise ArgumentValueError(
                f"parameter {self.parameters[0].name!r} is updated on servers, but there is no optimizer; give one"
            )
        if scalars := [parameter.name for parameter in self.parameters if not parameter.shape]:
            raise ArgumentValueError(f"Parameter {scalars[0]!r}: servers hold parameters with axes, found a scalar")
        self._is_ended = False
        if self.role == "server":
            self._start_server(self.servers.index(rank), optimizer, None if path is None else Path(path))
        else:
            for number, layer in enumerate(self._layers):
                layer.serve_from(RemoteTable(self, number, layer))
            self._send_values()

    # ------------------------------------------------------------------ workers

    def step(self, table: int = 0) -> int:
        """Return how many updates of a table, by its place among the layers, every server has done."""
        steps = self._acknowledged("step", table)
        return min(int(step[0]) for step in steps)

    def push(self, gradients: Iterable[Any]) -> None:
        """Sum the gradients of all workers, one for each of `parameters`, and step the optimizer on the servers."""
        given = list(gradients)
        if len(given) != len(self.parameters):
            raise ArgumentValueError(
                f"expected a gradient for each of {len(self.parameters)} parameters, found {len(given)}"
            )
        arrays = []
        for parameter, gradient in zip(self.parameters, given, strict=True):
            array = gradient.asnumpy() if hasattr(gradient, "asnumpy") else np.asarray(gradient)
            if array.shape != parameter.shape or array.dtype != parameter.dtype:
                raise ArgumentValueError(
                    f"Parameter {parameter.name!r}: expected a gradient of {parameter.dtype} of shape "
                    f"{parameter.shape}, found {array.dtype} of {array.shape}"
                )
            arrays.append(np.ascontiguousarray(array))
        payloads = [[self._part(array, server) for array in arrays] for server in range(len(self.servers))]
        self._acknowledged("push", 0, payloads)

    def pull(self) -> None:
        """Replace the values of `parameters` by what the servers hold."""
        for number, parameter in enumerate(self.parameters):
            out = np.empty(parameter.shape, parameter.dtype)
            parts = [self._part(out, server) for server in range(len(self.servers))]
            self._round("pull", number, [[] for _ in self.servers], parts)
            parameter.set_data(out)

    def save(self) -> None:
        """Let every server write its tables to ``snapshot-NAME-I-of-N.safetensors`` in its path, for `load_table`."""
        self._acknowledged("save")

    def end(self) -> None:
        """Let the servers leave `run`; afterwards they answer no requests."""
        if not self._is_ended:
            self._acknowledged("end")
            self._is_ended = True

    def _acknowledged(self, operation: str, target: int = 0, payloads: list[list[Array]] | None = None) -> list[Array]:
        """Send a request that every server answers by one number."""
        return self._round(
            operation, target, payloads or [[] for _ in self.servers], [np.empty(1, np.int64) for _ in self.servers]
        )

    def _round(
        self,
        operation: str,
        target: int,
        payloads: list[list[Array]],
        replies: list[Array],
        counts: list[int] | None = None,
        number: int = 0,
    ) -> list[Array]:
        if self.role != "worker":
            raise StateError(f"{operation} is for workers; rank {get_rank()} is a server and calls run()")
        if self._is_ended:
            raise StateError(f"{operation}: the servers have ended")
        place = OPERATIONS.index(operation)
        counts = [0] * len(self.servers) if counts is None else counts
        ask(self.servers, [Request(place, target, count, number) for count in counts], payloads, replies)
        self.counters["requests"] += 1
        self.counters["bytes_sent"] += sum(part.nbytes for payload in payloads for part in payload)
        self.counters["bytes_received"] += sum(part.nbytes for part in replies)
        return replies

    def _send_values(self) -> None:
        """Send what is not initialised on the servers, by worker 0 alone; the others send nothing."""
        for number, parameter in enumerate(self.parameters):
            if parameter.init_in_server:
                continue
            is_first = get_rank() == self.workers[0]
            array = np.ascontiguousarray(parameter.asnumpy()) if is_first else np.empty(0)
            payloads = [[self._part(array, server)] if is_first else [] for server in range(len(self.servers))]
            self._acknowledged("send", number, payloads)

    def _part(self, array: Array, server: int) -> Array:
        part: Array = array[self._rows(array.shape, server)]
        return part

    def _rows(self, shape: tuple[int, ...], server: int) -> Any:
        """Return the index of a server's part."""
        return slice(*split(shape[0], len(self.servers), server))

    # ------------------------------------------------------------------ servers

    def _start_server(self, place: int, optimizer: Any, path: Path | None) -> None:
        self._place = place
        self._tables = []
        self._path = None if path is None else path / f"server-{place}-of-{len(self.servers)}"
        for layer in self._layers:
            layer._options["path"] = None if self._path is None else self._path / layer.embedding_table.name
            self._tables.append(layer.table)
        self._parts = []
        for parameter in self.parameters:
            rows = self._rows(parameter.shape, place)
            part = parameter[rows] if parameter.init_in_server else np.zeros(parameter[rows].shape, parameter.dtype)
            self._parts.append(Parameter(part, name=parameter.name).init_data())
        self._optimizer = optimizer(self._parts) if self._parts else None
        if (
            isinstance(self._optimizer, Lamb | RowwiseAdagrad)
            or getattr(self._optimizer, "clip_norm", None) is not None
        ):
            raise ArgumentValueError(
                f"{type(self._optimizer).__name__} looks at more than one element; use SGD, Momentum, Adam, AdamW, "
                "Adagrad or FTRL without clip_norm on servers"
            )

    def run(self) -> None:
        """Answer the workers until they end the job."""
        if self.role != "server":
            raise StateError(f"run() is for servers; rank {get_rank()} is a worker")
        name = ""
        while name != "end":
            requests = listen(self.workers)
            name = requests[0].name
            getattr(self, f"_answer_{name}")(requests)
        for table in self._tables:
            table.close()

    def _acknowledge(self, number: int = 0) -> None:
        reply(self.workers, [np.array([number], np.int64) for _ in self.workers], "an acknowledgement")

    def _answer_end(self, _: list[Request]) -> None:
        self._acknowledge()

    def _answer_step(self, requests: list[Request]) -> None:
        self._acknowledge(self._tables[requests[0].target].step)

    def _keys(self, requests: list[Request]) -> list[Array]:
        keys = [np.empty(request.length, np.int64) for request in requests]
        receive(self.workers, keys, "ids")
        return keys

    def _answer_find(self, requests: list[Request]) -> None:
        table = self._tables[requests[0].target]
        keys = self._keys(requests)
        reply(self.workers, [table.find(part) for part in keys], "rows")

    def _answer_update(self, requests: list[Request]) -> None:
        table = self._tables[requests[0].target]
        keys = self._keys(requests)
        kind = np.float64 if table.schema.dtype == np.float64 else np.float32
        rows = [np.empty((part.size, table.schema.dim), kind) for part in keys]
        receive(self.workers, rows, "gradients")
        sources = {worker: request.number for worker, request in zip(self.workers, requests, strict=True)}
        table.update(np.concatenate(keys), np.concatenate(rows), sources=sources)
        self._acknowledge(table.step)

    def _answer_pull(self, requests: list[Request]) -> None:
        part = self._parts[requests[0].target].asnumpy()
        reply(self.workers, [part for _ in self.workers], "values")

    def _answer_push(self, _: list[Request]) -> None:
        sums = []
        gathered: list[list[Array]] = [[np.empty(part.shape, part.dtype) for part in self._parts] for _ in self.workers]
        for number, part in enumerate(self._parts):
            given = [own[number] for own in gathered]
            receive(self.workers, given, "gradients")
            out = np.empty(part.size, part.dtype)
            Reduction("sum", part.dtype).into(out, [array.reshape(-1) for array in given])
            sums.append(out.reshape(part.shape))
        assert self._optimizer is not None
        self._optimizer(sums)
        self._acknowledge()

    def _answer_send(self, requests: list[Request]) -> None:
        part = self._parts[requests[0].target]
        values = np.empty(part.shape, part.dtype)
        receive(self.workers[:1], [values], "values")
        part.set_data(values)
        self._acknowledge()

    def _answer_save(self, _: list[Request]) -> None:
        if self._path is None:
            raise StateError("save() needs the path of ParameterServer")
        for table in self._tables:
            table.checkpoint()
            save_table(table, self._path.parent / f"snapshot-{table.name}-{self._place}-of-{len(self.servers)}")
        self._acknowledge()

    def load(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Load the snapshots of any number of servers into the tables of this one, which have no rows; before `run`."""
        listed = list(paths)
        for table in self._tables:
            load_table(table, listed, lambda keys: owners(keys, len(self.servers)) == self._place)


class RemoteTable:
    """Stand for a table that servers hold, on a worker."""

    def __init__(self, job: ParameterServer, number: int, layer: EmbeddingLookup) -> None:
        self._job, self._number, self._schema = job, number, layer.schema
        self._done: int | None = None

    def find(self, ids: Any) -> Array:
        """Return rows, each of which travels once; see `Embedding.find`."""
        from numparam.kernels.keys import distinct

        keys, shape = as_keys(self._schema, ids)
        first, which = distinct(keys)
        keys = keys[first]
        places = self._by_owner(keys)
        replies = [np.empty((place.size, self._schema.dim), self._schema.dtype) for place in places]
        payloads = [[keys[place]] for place in places]
        self._job._round("find", self._number, payloads, replies, [place.size for place in places])
        self._job.counters.update(ids=which.size, distinct_ids=keys.size)
        rows = np.empty((keys.size, self._schema.dim), self._schema.dtype)
        for place, part in zip(places, replies, strict=True):
            rows[place] = part
        out: Array = rows[which].reshape(*shape, self._schema.dim)
        return out

    def update(self, ids: Any, gradients: Any) -> None:
        """Step the optimizer once for the batches of all workers; see `Embedding.update`.

        Repeated ids are not summed here, but on the server, in the order of all workers' batches.
        """
        keys, shape = as_keys(self._schema, ids)
        given = as_rows(self._schema, "gradients", gradients, shape)
        rows = given.astype(np.float64 if self._schema.dtype == np.float64 else np.float32, copy=False)
        places = self._by_owner(keys)
        if self._done is None:
            self._done = self._job.step(self._number)
        payloads = [[keys[place], rows[place]] for place in places]
        acknowledged = [np.empty(1, np.int64) for _ in places]
        self._done += 1
        self._job._round("update", self._number, payloads, acknowledged, [place.size for place in places], self._done)

    def _by_owner(self, keys: Array) -> list[Array]:
        which = owners(keys, len(self._job.servers))
        return [np.flatnonzero(which == server) for server in range(len(self._job.servers))]
