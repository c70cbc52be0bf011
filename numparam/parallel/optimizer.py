"""Share the work and the states of an optimizer out among ranks that hold the same parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from numparam.communication import collectives
from numparam.communication.exchange import arrive, world
from numparam.communication.group import WORLD_COMM_GROUP, Group
from numparam.communication.management import create_group, get_group
from numparam.communication.reduction import ReduceOp, Reduction
from numparam.context import get_auto_parallel_context
from numparam.errors import ArgumentValueError
from numparam.parallel.gradients import DistributedGradReducer
from numparam.parallel.storage import Array, check_count, gradient_array, keep_rows, parameters_of, writable
from numparam.parameter import Parameter
from numparam.parameter.tuple import check_members

Update = Callable[..., None]


@dataclass(frozen=True)
class Momentum:
    """Update values by stochastic gradient descent with momentum: ``v = momentum * v + g``, ``w = w - rate * v``.

    An update is any callable with ``states``, the names of the arrays that it keeps for a parameter, which begin with
    zeros. It is called with values, gradients and those arrays, all flat and of one size, and writes in place. What it
    writes may depend on what stands at the same place alone. A callable without ``states`` keeps nothing.

    Parameters
    ----------
    learning_rate : float
    momentum : float

    Examples
    --------
    >>> value, moments = np.ones(2, np.float32), np.zeros(2, np.float32)
    >>> Momentum(0.5, 0.9)(value, np.ones(2, np.float32), moments)
    >>> value
    array([0.5, 0.5], dtype=float32)
    """

    learning_rate: float
    momentum: float = 0.9
    states = ("moments",)

    def __call__(self, value: Array, gradient: Array, moments: Array) -> None:
        """Write the new values and moments in place."""
        moments *= moments.dtype.type(self.momentum)
        moments += gradient
        value -= value.dtype.type(self.learning_rate) * moments


class Shard:
    """Hold the rows of a parameter that this rank updates.

    Parameters
    ----------
    parameter : Parameter
    rows : slice
        Along axis 0 of what the ranks hold alike.
    """

    def __init__(self, parameter: Parameter, rows: slice) -> None:
        self.parameter, self.rows = parameter, rows
        self.shape, self.region = parameter.shape, parameter.region
        self.is_dropped = False

    def drop(self) -> None:
        """Keep the own rows alone; the rest of the memory is free."""
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
        whole = np.empty(self.shape, self.parameter.dtype) if self.is_dropped else self.parameter.asnumpy()
        collectives.all_gather(group, operation, own, whole.reshape(-1))
        if self.is_dropped:
            parameter = self.parameter
            parameter._replace(whole)
            parameter._region = None if self.region.whole else self.region
            parameter.sliced = not self.region.whole
            self.is_dropped = False


class ParallelOptimizer:
    """Update parameters that all ranks of a group hold, each rank a part of them.

    With ``enable_parallel_optimizer`` in the parallel context, a parameter is cut along axis 0, if its
    ``parallel_optimizer`` is True, it has at least ``parallel_optimizer_threshold`` KB, and its axis 0 divides. The
    ranks reduce its gradient so that each gets its rows, each updates its rows and has states for these alone, and then
    the rows of all are gathered. All other parameters are updated by every rank, with gradients that
    `DistributedGradReducer` reduces; those with ``layerwise_parallel`` with the rank's own gradients. The values are
    bit for bit those of an update that is not shared out.

    Parameters with ``parallel_optimizer_comm_recompute`` are not gathered after a step: between steps a rank holds its
    rows of them and no more, from the start, and a lazy one never makes the others. `gathered` has the whole of
    them for a time.

    ``optimizer_weight_shard_size`` of the context is the number of ranks that share a parameter out, if it divides the
    size of the group; neighbours then form such a group, and gradients are reduced over all ranks first.

    Parameters
    ----------
    parameters : Cell or iterable of Parameter
        On the CPU.
    update : callable
        See `Momentum`.
    mean : bool, optional
        Whether gradients are divided by the number of ranks; ``gradients_mean`` of the context if not given.
    group : str
        Ranks that hold the same parameters.

    Attributes
    ----------
    states : tuple of Parameter
        What the update keeps: ``moments.w`` for the ``moments`` of ``w``. Those of a parameter that is cut are slices,
        whose `Parameter.region` says where they belong.

    Raises
    ------
    TypeError
        If `parameters` holds something else.
    ValueError
        If two have the same name, one is not on the CPU, or this rank knows no such group.

    Examples
    --------
    >>> weight = Parameter([1.0, 2.0], name="w")
    >>> optimizer = ParallelOptimizer([weight], Momentum(0.5))
    >>> optimizer([np.ones(2, np.float32)])
    >>> weight.asnumpy(), optimizer.states[0].name
    (array([0.5, 1.5], dtype=float32), 'moments.w')
    """

    def __init__(
        self, parameters: Any, update: Update, *, mean: bool | None = None, group: str = WORLD_COMM_GROUP
    ) -> None:
        self.parameters, self.update = parameters_of(parameters), update
        check_members(self.parameters, "a ParallelOptimizer")
        if away := [parameter for parameter in self.parameters if parameter.device != "cpu"]:
            raise ArgumentValueError(f"Parameter {away[0].name!r} is on {away[0].device}; updates run on the CPU")
        self.group = get_group(group)
        self.shard_group = _shard_group(self.group)
        self.shards = {
            place: Shard(parameter, self._rows(parameter))
            for place, parameter in enumerate(self.parameters)
            if self._is_cut(parameter)
        }
        self._rest = [place for place in range(len(self.parameters)) if place not in self.shards]
        self._reduce_rest = DistributedGradReducer([self.parameters[place] for place in self._rest], mean, group=group)
        self._states = [self._new_states(place) for place in range(len(self.parameters))]
        self.states = tuple(state for states in self._states for state in states)
        self.release()

    def __call__(self, gradients: Sequence[Any]) -> None:
        """Update the parameters by one step.

        Parameters
        ----------
        gradients : sequence of Tensor or numpy.ndarray
            One for each parameter, writable, of the shape of its whole. They hold nothing of use afterwards.

        Raises
        ------
        TypeError
            If one is neither a tensor nor an array.
        ValueError
            If their number or a shape is another, or one is read-only.
        RuntimeError
            If another rank does not come, or comes to something else.
        """
        check_count(self.parameters, gradients)
        self.release()
        self._reduce_rest([gradients[place] for place in self._rest])
        for place in self._rest:
            parameter = self.parameters[place]
            gradient = gradient_array(parameter, gradients[place], parameter.shape)
            self._apply(place, writable(parameter), gradient.reshape(-1))
        for place, shard in self.shards.items():
            gradient = gradient_array(shard.parameter, gradients[place], shard.shape)
            self._apply(place, shard.own(), self._reduced(shard, np.asarray(gradient, order="C").reshape(-1)))
        for shard in self.shards.values():
            if not shard.is_dropped:
                shard.gather(self.shard_group)

    def gather(self) -> None:
        """Bring together the parameters of which this rank holds its rows alone; see `gathered`.

        Raises
        ------
        RuntimeError
            If another rank does not come, or comes to something else.
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
        """Have the whole of all parameters inside a ``with`` block, where a model computes.

        Examples
        --------
        >>> optimizer = ParallelOptimizer([Parameter([1.0], name="w")], Momentum(0.5))
        >>> with optimizer.gathered():
        ...     optimizer.parameters[0].shape
        (1,)
        """
        self.gather()
        try:
            yield
        finally:
            self.release()

    def _is_cut(self, parameter: Parameter) -> bool:
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

    def _new_states(self, place: int) -> list[Parameter]:
        parameter, shard = self.parameters[place], self.shards.get(place)
        made = []
        for name in getattr(self.update, "states", ()):
            state = parameter.clone("zeros")
            state.name = f"{name}.{parameter.name}"
            state.requires_grad = False
            if shard is not None:
                keep_rows(state, shard.rows)
            made.append(state)
        return made

    def _apply(self, place: int, value: Any, gradient: Array) -> None:
        with np.errstate(all="ignore"):
            self.update(value, gradient, *(writable(state) for state in self._states[place]))

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
