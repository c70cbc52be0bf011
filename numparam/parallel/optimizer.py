"""Shard the work and the states of an optimizer over ranks that hold the same parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from numparam.communication import collectives
from numparam.communication.arrival import arrive
from numparam.communication.exchange import world
from numparam.communication.group import WORLD_COMM_GROUP, Group
from numparam.communication.management import create_group, get_group
from numparam.communication.reduction import ReduceOp, Reduction
from numparam.context import get_auto_parallel_context
from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.optim.gradients import SparseRows, check_gradient
from numparam.optim.memory import Array, check_count, gradient_array, is_on_host, keep_rows, writable
from numparam.optim.optimizer import Optimizer
from numparam.parallel.gradients import DistributedGradReducer
from numparam.parameter import Parameter
from numparam.tensor import Tensor


class Shard:
    """Hold the rows, along axis 0 of what the ranks hold alike, of a parameter that this rank updates."""

    def __init__(self, parameter: Parameter, rows: slice) -> None:
        self.parameter, self.rows = parameter, rows
        self.shape, self.region = parameter.shape, parameter.region
        self.is_dropped = False

    def drop(self) -> None:
        """Keep only the own rows, and free the rest of the memory."""
        if not self.is_dropped:
            keep_rows(self.parameter, self.rows)
            self.is_dropped = True

    def own(self) -> Array:
        """Return the memory of the own rows, flat."""
        memory = writable(self.parameter)
        assert isinstance(memory, np.ndarray)
        if self.is_dropped:
            return memory
        row = math.prod(self.shape[1:])
        return memory[self.rows.start * row : self.rows.stop * row]

    def gather(self, group: Group) -> None:
        """Bring the rows of all ranks together, in the memory of the parameter."""
        operation = f"gather of {self.parameter.name!r:.120}"
        arrive(group, operation)
        own = self.own()
        full = np.empty(self.shape, self.parameter.dtype) if self.is_dropped else self.parameter.asnumpy()
        collectives.all_gather(group, operation, own, full.reshape(-1))
        if self.is_dropped:
            parameter = self.parameter
            parameter._replace(full)
            parameter._region = None if self.region.is_full else self.region
            parameter.sliced = not self.region.is_full
            self.is_dropped = False


class ParallelOptimizer:
    """Run an optimizer on parameters that all ranks of a group hold, each rank on a part of them.

    With ``enable_parallel_optimizer`` in the parallel context, a parameter is sharded along axis 0, if its
    ``parallel_optimizer`` is True, it has at least ``parallel_optimizer_threshold`` KB, and its axis 0 divides. The
    ranks reduce its gradient so that each gets its rows, each updates its rows and has states for these alone, and then
    the rows of all are gathered. All other parameters are updated by every rank, with gradients that
    `DistributedGradReducer` reduces; parameters with ``layerwise_parallel`` with the rank's own gradients. The values
    have the bits of an update that is not sharded.

    Parameters with ``parallel_optimizer_comm_recompute`` are not gathered after a step: between steps a rank holds only
    its rows of them, from the start, and a lazy one never materialises the others. `gathered` brings them together for
    a time.

    ``optimizer_weight_shard_size`` of the context is the number of ranks that share a parameter, if it divides the size
    of the group; neighbours then form such a group, and gradients are reduced over all ranks first.

    Parameters
    ----------
    optimizer : Optimizer
        Of `numparam.optim`, with parameters on the CPU.
    mean : bool, optional
        Whether gradients are divided by the number of ranks; ``gradients_mean`` of the context by default.
    group : str
        Ranks that hold the same parameters.

    Attributes
    ----------
    states : tuple of Parameter
        What must be saved to continue. The states of a sharded parameter are slices, whose `Parameter.region` tells
        where they belong.

    Raises
    ------
    TypeError
        If `optimizer` is something else.
    ValueError
        If a parameter is not on the CPU, or this rank is not in such a group.

    Examples
    --------
    >>> from numparam.optim import Momentum
    >>> weight = Parameter([1.0, 2.0], name="w")
    >>> optimizer = ParallelOptimizer(Momentum([weight], 0.5, 0.9))
    >>> optimizer([np.ones(2, np.float32)])
    >>> weight.asnumpy(), optimizer.states[0].name
    (array([0.5, 1.5], dtype=float32), 'moments.w')
    """

    def __init__(self, optimizer: Optimizer, *, mean: bool | None = None, group: str = WORLD_COMM_GROUP) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentTypeError(f"expected an optimizer of numparam.optim, found {type(optimizer).__name__}")
        self.optimizer, self.parameters = optimizer, optimizer.parameters
        if away := [parameter for parameter in self.parameters if not is_on_host(parameter)]:
            where = f"Parameter {away[0].name!r} is on {away[0].device}"
            raise ArgumentValueError(f"{where}; ParallelOptimizer needs the CPU")
        self.group = get_group(group)
        self.shard_group = _shard_group(self.group)
        self.shards = {
            place: Shard(parameter, self._rows(parameter))
            for place, parameter in enumerate(self.parameters)
            if self._is_sharded(parameter)
        }
        for place, shard in self.shards.items():
            optimizer.shard(place, shard.rows)
        self._rest = [place for place in range(len(self.parameters)) if place not in self.shards]
        self._rows_of_all: dict[int, SparseRows] = {}
        self._reduce_rest = DistributedGradReducer([self.parameters[place] for place in self._rest], mean, group=group)
        self.release()

    @property
    def states(self) -> tuple[Parameter, ...]:
        """Return what must be saved to continue."""
        return self.optimizer.states

    def __call__(self, gradients: Sequence[Tensor | Array | SparseRows]) -> None:
        """Update the parameters by one step.

        Parameters
        ----------
        gradients : sequence of Tensor, numpy.ndarray or SparseRows
            One for each parameter, writable, of its full shape. Their values are undefined afterwards. Ranks may have
            `SparseRows` of other rows: all are sent to all ranks, and each updates those that are its own.

        Raises
        ------
        TypeError
            If one is neither a tensor nor an array, or its dtype does not suit the parameter.
        ValueError
            If their number or a shape is another, or one is read-only.
        RuntimeError
            If another rank is late, or calls another operation.
        """
        check_count(self.parameters, gradients)
        self.release()
        taken: list[Any] = []
        for place, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            shape = self.shards[place].shape if place in self.shards else parameter.shape
            take = self.optimizer.taken if isinstance(gradient, SparseRows) else gradient_array
            taken.append(take(parameter, gradient, shape))
            check_gradient(parameter, taken[-1])
        for place, reduced in zip(self._rest, self._reduce_rest([taken[place] for place in self._rest]), strict=True):
            taken[place] = reduced
        self._rows_of_all = {place: self._reduce_rest.rows(self.parameters[place], taken[place])
                             for place in self.shards if isinstance(taken[place], SparseRows)}  # fmt: skip
        for place, array in enumerate(taken):
            if place in self._rows_of_all:
                taken[place] = self._rows_of_all[place].between(self.shards[place].rows)
            elif not isinstance(array, SparseRows):
                flat = np.asarray(array, order="C").reshape(-1)
                taken[place] = self._reduced(self.shards[place], flat) if place in self.shards else flat
        values = [
            self.shards[place].own() if place in self.shards else writable(parameter)
            for place, parameter in enumerate(self.parameters)
        ]
        self.optimizer.apply(values, taken, self._gather_sums)
        for shard in self.shards.values():
            if not shard.is_dropped:
                shard.gather(self.shard_group)

    def gather(self) -> None:
        """Bring together the parameters of which this rank holds only its rows; see `gathered`.

        Raises
        ------
        RuntimeError
            If another rank is late, or calls another operation.
        """
        for shard in self.shards.values():
            if shard.is_dropped:
                shard.gather(self.shard_group)

    def release(self) -> None:
        """Drop what `gather` brought together, but for the rows of this rank."""
        for shard in self.shards.values():
            if shard.parameter.parallel_optimizer_comm_recompute:
                shard.drop()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold all parameters in full inside a ``with`` block, where a model computes.

        Examples
        --------
        >>> from numparam.optim import Momentum
        >>> optimizer = ParallelOptimizer(Momentum([Parameter([1.0], name="w")], 0.5, 0.9))
        >>> with optimizer.gathered():
        ...     optimizer.parameters[0].shape
        (1,)
        """
        self.gather()
        try:
            yield
        finally:
            self.release()

    def _is_sharded(self, parameter: Parameter) -> bool:
        threshold = get_auto_parallel_context("parallel_optimizer_config")["parallel_optimizer_threshold"] << 10
        return bool(
            get_auto_parallel_context("enable_parallel_optimizer")
            and parameter.parallel_optimizer
            and not parameter.layerwise_parallel
            and parameter.nbytes >= threshold
            and parameter.size
            and parameter.ndim
            and parameter.shape[0] % self.shard_group.size == 0
        )

    def _rows(self, parameter: Parameter) -> slice:
        step = parameter.shape[0] // self.shard_group.size
        return slice(self.shard_group.rank * step, (self.shard_group.rank + 1) * step)

    def _gather_sums(self, place: int, sums: Array, of_all: bool) -> Array:
        """Return the sums of all rows of a parameter; of parameters that ranks have for themselves only for a total."""
        parameter, group = self.parameters[place], self.shard_group
        if place in self._rows_of_all:
            return self.optimizer.row_sums(place, self._rows_of_all[place].values)
        if place not in self.shards:
            if not (of_all and parameter.layerwise_parallel):
                return sums
            sums, group = np.array([sums.sum()]), self.group
        operation = f"sums of {parameter.name!r:.120}"
        arrive(group, operation)
        out = np.empty(sums.size * group.size)
        collectives.all_gather(group, operation, sums, out)
        return out

    def _reduced(self, shard: Shard, gradient: Array) -> Array:
        """Return the own rows of a gradient, reduced over all ranks."""
        name, group = shard.parameter.name, self.group
        reduction = Reduction(ReduceOp.SUM, gradient.dtype, group.size if self._reduce_rest.mean else 1)
        operation = f"gradient of {gradient.size} {gradient.dtype} of {name!r:.120}"
        arrive(group, operation)
        size = gradient.size // self.shard_group.size
        if self.shard_group.size == group.size:
            out = np.empty(size, gradient.dtype)
            collectives.reduce_scatter(group, operation, gradient, out, reduction)
            return out
        collectives.all_reduce(group, operation, [gradient], reduction)
        return gradient[self.shard_group.rank * size :][:size]


def _shard_group(group: Group) -> Group:
    """Return the ranks that this one shares parameters out with."""
    size = get_auto_parallel_context("parallel_optimizer_config")["optimizer_weight_shard_size"]
    if size == -1 or group.size % size:
        return group
    first = group.rank - group.rank % size
    name = f"{group.name}: {size} shards from {first}"
    if name not in world.groups:
        create_group(name, list(group.ranks[first : first + size]))
    return get_group(name)
