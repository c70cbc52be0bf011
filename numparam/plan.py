"""Plan a sharded model: the slices and bytes of every rank of a mesh, by arithmetic alone."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from numparam.errors import ArgumentValueError
from numparam.header import Entry
from numparam.sharding import Shard, cut, split_axes

MAX_RANKS = 2**20


@dataclass(frozen=True)
class Plan:
    """Say what each rank of a mesh holds of a model.

    Parameters
    ----------
    entries : tuple of Entry
        The parameters, whole.
    mesh : tuple of int
        The grid of ranks.
    axes : tuple of int, optional
        The axis each dimension of the mesh splits; chosen for each parameter if not given (see `numparam.sharding`).

    Raises
    ------
    ArgumentValueError
        If the mesh has more than 2**20 ranks.

    Examples
    --------
    >>> plan = Plan((Entry("weight", (10, 6), np.dtype("float32")),), (4, 2))
    >>> plan.nbytes().tolist()
    [[36, 36], [36, 36], [36, 36], [12, 12]]
    >>> plan.shard(7).slices((10, 6))
    (slice(9, 10, 1), slice(3, 6, 1))
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

    def split_axes(self, entry: Entry) -> tuple[int | None, ...]:
        """Say which axis of a parameter each dimension of the mesh splits; None where it stays whole."""
        return split_axes(entry.shape, self.mesh, self.axes)

    def nbytes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Count the bytes of every rank, as an array of the shape of the mesh."""
        total = np.zeros(self.mesh, np.int64)
        for (shape, dtype), count in Counter((entry.shape, entry.dtype) for entry in self.entries).items():
            total += count * dtype.itemsize * self._sizes(shape)
        return total

    def _sizes(self, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Count the values of a parameter on every rank: a product of one factor for each dimension of the mesh."""
        axes = split_axes(shape, self.mesh, self.axes)
        whole = math.prod(length for axis, length in enumerate(shape) if axis not in axes)
        sizes = np.full((1,) * len(self.mesh), whole, np.int64)
        for dimension, (parts, axis) in enumerate(zip(self.mesh, axes, strict=True)):
            if axis is not None:
                bounds = [cut(shape[axis], parts, part) for part in range(parts)]
                lengths = np.array([stop - start for start, stop in bounds], np.int64)
                sizes = sizes * np.expand_dims(lengths, tuple(d for d in range(len(self.mesh)) if d != dimension))
        return sizes


def runs(values: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """Yield the first position, the last position and the value of every run of equal values.

    Examples
    --------
    >>> list(runs([5, 5, 5, 2]))
    [(0, 2, 5), (3, 3, 2)]
    """
    for value, group in groupby(enumerate(values), key=lambda pair: pair[1]):
        positions = [position for position, _ in group]
        yield positions[0], positions[-1], value
