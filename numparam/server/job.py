"""Parameters and tables that servers hold: what every rank of a job calls."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from numparam.cell import Cell
from numparam.checks import as_bool
from numparam.communication import get_rank
from numparam.embedding import Counters, EmbeddingLookup
from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError, StateError
from numparam.optim import Optimizer
from numparam.optim.gradients import as_array
from numparam.parameter import Parameter
from numparam.server.client import Client
from numparam.server.context import get_ps_context, roles
from numparam.server.dense import Dense
from numparam.server.division import part
from numparam.server.messages import DENSE
from numparam.server.remote import RemoteTable, SharedCache
from numparam.server.service import Service
from numparam.tensor import SupportsDLPack

Array = np.ndarray[Any, np.dtype[Any]]


class ParameterServer:
    """Train the parameters of a cell that have `set_param_ps` on servers; every rank of the job makes one.

    Workers call the methods below, servers call `run`. Updates are synchronous by default: all workers call `push` and
    the updates of tables in the same order, and each is one step. What the workers bring is taken in the order of their
    ranks, so a table has the bits of one process that gets their batches one after another as one, and a parameter the
    bits of the sum ``((g0 + g1) + g2)``; for any number of servers. With ``set_ps_context(staleness=n)`` every update
    of a worker is a step of its own, and a worker that is more than `n` updates ahead of the slowest waits for it.

    Parameters
    ----------
    net : Cell
        Its parameters with `is_param_ps` are divided over the servers along axis 0. Tables of its `EmbeddingLookup`
        cells, whose `embedding_table` has it, are divided by key; these cells work as before on every worker, and ask
        the servers for what is not in their cache. Parameters without it stay with the workers.
    optimizer : callable, optional
        Makes the optimizer of the dense parameters from a list, as ``lambda parameters: SGD(parameters, 0.1)``.
    path : str or path, optional
        The folder where servers keep tables and parameters, with a log: a job that is started again goes on from there.
    sync : bool
        Whether updates of dense parameters are on the disk when they are acknowledged, and not only with the system.

    Attributes
    ----------
    role : {"worker", "server", "scheduler"}
    counters : Counters
        ``requests``, ``bytes_sent`` and ``bytes_received``; of a worker ``ids`` and ``distinct_ids`` too. In
        asynchronous mode ``staleness``, the most updates that a worker was ahead of the slowest one, and ``waits``, how
        often one had to wait for that.

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
        sync: bool = False,
    ) -> None:
        if not isinstance(net, Cell):
            raise ArgumentTypeError(f"expected a Cell, found {type(net).__name__}")
        self.workers, self.servers = roles()
        rank, folder = get_rank(), None if path is None else Path(path)
        self.role = "server" if rank in self.servers else "worker" if rank in self.workers else "scheduler"
        self.counters = Counters()
        layers = [
            cell
            for _, cell in net.cells_and_names()
            if isinstance(cell, EmbeddingLookup) and cell.sparse and cell.embedding_table.is_param_ps
        ]
        held = {id(layer.embedding_table) for layer in layers}
        self.parameters = [
            parameter for parameter in net.get_parameters() if parameter.is_param_ps and id(parameter) not in held
        ]
        if self.parameters and optimizer is None:
            raise ArgumentValueError(
                f"parameter {self.parameters[0].name!r} is updated on servers, but there is no optimizer; give one"
            )
        if scalars := [parameter.name for parameter in self.parameters if not parameter.shape]:
            raise ArgumentValueError(f"Parameter {scalars[0]!r}: servers hold parameters with axes, found a scalar")
        self._done = 0
        if self.role == "server":
            place, count = self.servers.index(rank), len(self.servers)
            own = None if folder is None else folder / f"server-{place}-of-{count}"
            dense = Dense(
                self.parameters, count, place, optimizer, None if own is None else own / "parameters",
                as_bool("sync", sync),
            )  # fmt: skip
            for layer in layers:
                layer.keep_at(None if own is None else own / layer.embedding_table.name)
            staleness = get_ps_context("staleness")
            self._service = Service(self.workers, count, place, dense, layers, folder, staleness, self.counters)
            return
        if self.role == "scheduler":
            return
        self._client = Client(self.servers, self.counters)
        for number, layer in enumerate(layers):
            table = RemoteTable(self._client, number, layer.schema, layer.unseen, layer.embedding_table)
            layer.serve_from(table, SharedCache)
        self._send_values()

    # ------------------------------------------------------------------ workers

    def step(self, table: int | None = 0) -> int:
        """Return how many updates every server has done: of a table, by its place among the layers, or of `parameters`.

        In asynchronous mode, of the updates of this worker. A job that is started again goes on from there.

        Parameters
        ----------
        table : int or None
            None for the dense parameters.
        """
        return self._asked("step").step(DENSE if table is None else table)

    def push(self, gradients: Iterable[SupportsDLPack]) -> None:
        """Sum the gradients of all workers, and step the optimizer on the servers.

        Parameters
        ----------
        gradients : iterable of Tensor or array
            One for each of `parameters`, of its shape and dtype, from NumPy, torch or JAX.

        Raises
        ------
        TypeError, ValueError
            If one does not suit; nothing is sent then.
        """
        given = list(gradients)
        if len(given) != len(self.parameters):
            raise ArgumentValueError(
                f"expected a gradient for each of {len(self.parameters)} parameters, found {len(given)}"
            )
        arrays = []
        for parameter, gradient in zip(self.parameters, given, strict=True):
            memory = as_array(parameter, gradient, parameter.shape)
            if memory.dtype != parameter.dtype:
                raise DtypeError(
                    f"Parameter {parameter.name!r}: expected a gradient of {parameter.dtype}, found {memory.dtype}"
                )
            arrays.append(memory if isinstance(memory, np.ndarray) else memory.to_host())
        client = self._asked("push")
        self._done += 1
        client.acknowledged("push", DENSE, self._done, payloads=self._parts(arrays))

    def pull(self) -> None:
        """Replace the values of `parameters` by what the servers hold."""
        for number, parameter in enumerate(self.parameters):
            out = np.empty(parameter.shape, parameter.dtype)
            self._asked("pull").request("pull", [part for (part,) in self._parts([out])], number)
            parameter.set_data(out)

    def save(self) -> None:
        """Let server `I` write all that it holds to ``snapshot-I-of-N.safetensors`` in the path, for `load`."""
        self._asked("save").acknowledged("save", number=secrets.randbits(62))

    def end(self) -> None:
        """Leave the servers; once all workers have, they leave `run`."""
        self._asked("end").end()

    def _send_values(self) -> None:
        """Send what servers do not generate, by worker 0 alone, unless they have it from an earlier run."""
        if not self.parameters:
            return
        self._done = max(0, step := self.step(None))
        for number, parameter in enumerate(self.parameters if step < 0 else []):
            if not parameter.init_in_server:
                is_first = get_rank() == self.workers[0]
                payloads = self._parts([np.ascontiguousarray(parameter.asnumpy())]) if is_first else None
                self._asked("send").acknowledged("send", number, payloads=payloads)

    def _parts(self, arrays: list[Array]) -> list[list[Array]]:
        """Return the parts of every server."""
        return [[part(array, len(self.servers), place) for array in arrays] for place in range(len(self.servers))]

    def _asked(self, operation: str) -> Client:
        if self.role != "worker":
            raise StateError(f"{operation}() is for workers; rank {get_rank()} is a {self.role} and calls run()")
        return self._client

    # ------------------------------------------------------------------ servers

    def load(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Load the snapshots of all servers of a job, however many there were, before `run`; the path is new.

        Raises
        ------
        ValueError
            If they hold other tables or parameters, one is missing, or they are of two saves.
        """
        self._served("load").load(paths)

    def run(self) -> None:
        """Answer the workers until they end the job; a scheduler has nothing to do."""
        if self.role != "scheduler":
            self._served("run").run()

    def _served(self, operation: str) -> Service:
        if self.role != "server":
            raise StateError(f"{operation}() is for servers; rank {get_rank()} is a {self.role}")
        return self._service
