"""Plan a sharded model: the slices and bytes of every rank of a mesh, by arithmetic alone."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np

from numparam.entry import Entry
from numparam.errors import ArgumentValueError
from numparam.layout import Layout
from numparam.layout.sharding import Shard

Held = TypeVar("Held", bound=Hashable)
Counts = np.ndarray[Any, np.dtype[np.int64]]

MAX_RANKS = 2**20
# Measured on one core of an AMD EPYC (znver3): billions of normal bfloat16 values a second, by asv_bench/peers.py, and
# what `Parameter.init_data` takes for a shard of 896 values.
CPU_RATE = 0.957
CPU_SECONDS_PER_PARAMETER = 36e-6


@dataclass(frozen=True)
class Plan:
    """Describe what each rank of a mesh holds of a model.

    Each dimension of the mesh splits one axis of a parameter: as given, or chosen for each, see `layout.sharding`.
    """

    entries: tuple[Entry, ...]
    mesh: tuple[int, ...]
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.ranks > MAX_RANKS:
            raise ArgumentValueError(f"a plan is for at most {MAX_RANKS} ranks, found {self.ranks}")

    @property
    def ranks(self) -> int:
        """Count the ranks."""
        return math.prod(self.mesh)

    def shard(self, rank: int) -> Shard:
        """Give the shard of a rank."""
        return Shard(rank, self.mesh, self.axes)

    def entry(self, name: str) -> Entry:
        """Find a parameter by its name."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise ArgumentValueError(f"the model has no parameter {name!r}; numparam plan without --parameter lists them")

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """Give the layout of the parameters of a shape; see `Shard.layout`."""
        return self.shard(0).layout(shape)

    def sizes(self) -> Counts:
        """Count the values of every rank, as an array of the shape of the mesh."""
        return self._sum(lambda _: 1)

    def seconds(self, rate: float = CPU_RATE) -> float:
        """Estimate how long the rank with the most values needs, at a rate in billions of values a second."""
        return int(self.sizes().max()) / rate / 1e9 + len(self.entries) * CPU_SECONDS_PER_PARAMETER

    def nbytes(self, each: Callable[[np.dtype[Any]], int] = lambda dtype: dtype.itemsize) -> Counts:
        """Count the bytes of every rank in an array of the shape of the mesh; `each` gives the bytes of a value."""
        return self._sum(each)

    def _sum(self, weight: Callable[[np.dtype[Any]], int]) -> Counts:
        total = np.zeros(self.mesh, np.int64)
        for (shape, dtype), count in Counter((entry.shape, entry.dtype) for entry in self.entries).items():
            total += count * weight(dtype) * self.layout(shape).sizes(shape)
        return total


def groups(values: Iterable[Held]) -> list[tuple[Held, list[tuple[int, int]]]]:
    """Return every value that occurs, the most frequent first, and the runs of positions where it does."""
    found: dict[Held, list[tuple[int, int]]] = {}
    for first, last, value in runs(values):
        found.setdefault(value, []).append((first, last))
    return sorted(found.items(), key=lambda item: -sum(last - first + 1 for first, last in item[1]))


def runs(values: Iterable[Held]) -> Iterator[tuple[int, int, Held]]:
    """Yield the first position, the last position and the value of every run of equal values."""
    for value, group in groupby(enumerate(values), key=lambda pair: pair[1]):
        positions = [position for position, _ in group]
        yield positions[0], positions[-1], value
