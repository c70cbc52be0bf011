"""The dense parameters of a server: its rows of each, updated by one optimizer, with a log."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from numparam.checkpoint.loading import load_checkpoint
from numparam.checkpoint.saving import save_checkpoint
from numparam.embedding.folder import claim
from numparam.embedding.log import Log, Record
from numparam.embedding.schema import Column
from numparam.errors import ArgumentValueError, CheckpointError
from numparam.optim import Lamb, Optimizer
from numparam.parameter import Parameter
from numparam.server.division import part
from numparam.server.messages import pieces
from numparam.tensor import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

_LOG_BYTES, LINE = 256 << 20, 64
_STEPS, _SOURCES, _PLACE = "dense parameters.steps", "dense parameters.sources", "dense parameters.place"


class _Gradients(NamedTuple):
    """Describe what a record of the log holds: one row, the gradients of all parameters."""

    name: str
    columns: tuple[Column, ...]


class Dense:
    """Keep a server's rows of dense parameters. The log holds the gradients, which are applied again after a restart.

    Parameters
    ----------
    parameters : list of Parameter
        In full; only the rows of this server are generated, if they are `init_in_server`.
    servers, place : int
    make : callable or None
        Makes the optimizer.
    folder : Path or None
        Of the log and its checkpoint.
    sync : bool

    Attributes
    ----------
    parts : list of Parameter
    step : int
        The number of updates; -1 until all values are there.
    sources : dict of int to int
        The number of the last update of each worker.
    """

    def __init__(
        self,
        parameters: list[Parameter],
        servers: int,
        place: int,
        make: Callable[[list[Parameter]], Optimizer] | None,
        folder: Path | None,
        sync: bool,
    ) -> None:
        self._servers, self._place = servers, place
        self.parts = []
        for parameter in parameters:
            rows = part(parameter, servers, place)
            values = rows if parameter.init_in_server else np.zeros(rows.shape, rows.dtype)
            self.parts.append(Parameter(values, name=parameter.name).init_data())
        self._missing = {number for number, parameter in enumerate(parameters) if not parameter.init_in_server}
        self.step, self.sources = -1 if self._missing else 0, dict[int, int]()
        self._log: Log | None = None
        if not parameters:
            return
        assert make is not None
        self._optimizer = make(self.parts)
        if isinstance(self._optimizer, Lamb) or self._optimizer.clip_norm is not None:
            raise ArgumentValueError(
                f"{type(self._optimizer).__name__} looks at more than one row; use SGD, Momentum, Adam, AdamW, "
                "Adagrad, RowwiseAdagrad or FTRL without clip_norm on servers"
            )
        self._is_kept = folder is not None or self._optimizer.check_finite  # the log holds all gradients
        if self._is_kept:
            ends = np.cumsum([0, *(-(-part.nbytes // LINE) * LINE for part in self.parts)])
            self._row = np.zeros(ends[-1], np.uint8)
            self._gradients = [
                self._row[start : start + part.nbytes].view(part.dtype).reshape(part.shape)
                for start, part in zip(ends, self.parts, strict=False)
            ]
        if folder is not None:
            self._guard, self._values = claim(folder, "dense parameters"), folder / "values.safetensors"
            column = Column("gradients", self._row.size, np.dtype(np.uint8), 0)
            self._log = Log(folder / "log", _Gradients("dense parameters", (column,)), sync)
            self._recover()

    def done(self, source: int) -> int:
        """Return the number of the last update of a worker, 0 before the first."""
        return self.sources.get(source, 0)

    def pieces(self) -> Iterator[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Yield the shapes and dtypes of gradients of some rows after the other, which travel in one message each."""
        for place, rows in self._places():
            part = self.parts[place]
            yield (rows.stop - rows.start, *part.shape[1:]), part.dtype

    def update(self, gradients: Iterable[Array], sources: Mapping[int, int]) -> None:
        """Step the optimizer by gradients that come as `pieces`, and log them, unless that was done before.

        Each of them is valid until the next.
        """
        if all(self.done(source) >= number for source, number in sources.items()):
            deque(gradients, 0)
            return
        # The optimizer may refuse them, so it is first; nobody is told before they are in the log.
        if self._optimizer.check_finite:
            deque(self._placed(gradients), 0)
            self._optimizer(self._gradients)
        else:
            self._optimizer.step_by_rows(self._placed(gradients))
        self.step += 1
        self.sources |= sources
        if self._log is not None:
            self._log.append(Record(self.step, 0, self.sources, np.zeros(1, np.int64), {0: self._row}))
            if self._log.nbytes > _LOG_BYTES:
                self.checkpoint()

    def receive(self, number: int, values: Array) -> None:
        """Take the values of a parameter that servers do not generate, once."""
        if self.step >= 0:
            return
        self.parts[number].set_data(values)
        self._missing.discard(number)
        if not self._missing:
            self.step = 0
            self.checkpoint()

    def content(self) -> dict[str, Any]:
        """Return all that a snapshot holds, by name."""
        if not self.parts:
            return {}
        named = [*self.parts, *self._optimizer.states]
        pairs = np.array([*self.sources.items()], np.int64).reshape(-1, 2)
        place = np.array([self._place, self._servers])
        return {tensor.name: tensor for tensor in named} | {
            _STEPS: np.array(self.step), _SOURCES: pairs, _PLACE: place,
        }  # fmt: skip

    def checkpoint(self) -> None:
        """Write the values and states to the disk, and begin a new log."""
        if self._log is not None and self.step >= 0:
            save_checkpoint(self.content(), self._values)
            self._log.restart(Record(self.step, 0, self.sources))

    def load(self, contents: list[dict[str, Any]]) -> None:
        """Take the rows of this server from snapshots of all servers of a job, however many there were.

        Raises
        ------
        CheckpointError
            If they are not all there.
        """
        if not self.parts:
            return
        found = {tuple(content[_PLACE].tolist()): content for content in contents if _PLACE in content}
        count = max((servers for _, servers in found), default=0)
        if sorted(found) != [(place, count) for place in range(count)] or not count:
            raise CheckpointError(
                f"expected the snapshots of all servers of one job, found {sorted(found) or 'no dense parameters'}"
            )
        ordered = [found[place, count] for place in range(count)]
        taken = {}
        for tensor in (*self.parts, *self._optimizer.states):
            if any(tensor.name not in content for content in ordered):
                raise CheckpointError(f"the snapshots hold no {tensor.name!r}; load them with the same optimizer")
            arrays = [content[tensor.name].asnumpy() for content in ordered]
            rows = part(np.concatenate(arrays), self._servers, self._place) if tensor.shape else arrays[0]
            taken[tensor.name] = Tensor.from_numpy(rows)
        self._take(taken, max(int(content[_STEPS].asnumpy()) for content in ordered))
        self.checkpoint()

    def close(self) -> None:
        """Write what is in memory, and leave the files to others."""
        if self._log is not None:
            self.checkpoint()
            self._log.close()
            self._guard.close()

    def _places(self) -> list[tuple[int, slice]]:
        """Return which rows of which parameter travel in one message each."""
        return [
            (place, rows)
            for place, part in enumerate(self.parts)
            for rows in pieces(len(part), part.nbytes // max(1, len(part)))
        ]

    def _placed(self, gradients: Iterable[Array]) -> Iterator[tuple[int, slice, Array]]:
        """Yield gradients with their places, and keep them if the log or a check needs all of them."""
        for (place, rows), gradient in zip(self._places(), gradients, strict=True):
            if self._is_kept:
                self._gradients[place][rows] = gradient
            yield place, rows, gradient

    def _take(self, values: Mapping[str, Any], step: int) -> None:
        for tensor in self.parts:
            if values[tensor.name].shape != tensor.shape:
                raise CheckpointError(
                    f"Parameter {tensor.name!r}: expected rows of shape {tensor.shape}, found "
                    f"{values[tensor.name].shape}"
                )
        self._optimizer.load_states(values)
        for tensor in self.parts:
            tensor.set_data(values[tensor.name])
        self.step, self._missing = step, set()

    def _recover(self) -> None:
        assert self._log is not None
        if self._values.exists():
            content: dict[str, Any] = load_checkpoint(self._values)
            self._take(content, int(content[_STEPS].asnumpy()))
            self.sources = dict(content[_SOURCES].asnumpy().tolist())
        is_new = True
        for record in self._log.replay():
            is_new = False
            if record.keys.size and record.step > self.step:
                np.copyto(self._row, record.rows[0][0])
                self._optimizer(self._gradients)
                self.step, self.sources = record.step, record.sources
        if is_new:
            self._log.restart(Record(self.step, 0, self.sources))
