"""How a parameter is sharded over a mesh of ranks: which region of it each rank holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from numparam.checks import as_int, as_mesh
from numparam.errors import ArgumentTypeError, ArgumentValueError, ShapeError
from numparam.indexing.region import Region
from numparam.text import shown

Axes = str | Sequence[str] | None


def split(length: int, parts: int, part: int) -> tuple[int, int]:
    """Return the first entry of a part of an axis, and the entry after its last."""
    step = -(-length // parts)  # ceil in integers: a float would be wrong beyond 2**53
    return min(part * step, length), min((part + 1) * step, length)


class Partition:
    """Hold the mesh and the axes that shard a parameter, and compute regions; the base of `numparam.Layout`."""

    __slots__ = ("mesh", "optimizer_shard", "ranks", "spec")

    mesh: dict[str, int]
    spec: tuple[tuple[str, ...], ...]
    optimizer_shard: tuple[str, ...]
    ranks: Sequence[int]
    """The rank at each place of the mesh, in row-major order."""

    def __init__(
        self,
        mesh: Mapping[str, int],
        spec: Sequence[Axes],
        optimizer_shard: Axes = None,
        rank_list: Sequence[int] | None = None,
    ) -> None:
        self.mesh = as_mesh("the mesh of a layout", mesh)
        self.ranks = _ranks(rank_list, self.mesh)
        if not isinstance(spec, list | tuple):
            raise ArgumentTypeError(f"the spec of a layout is a tuple with an item for each axis, found {shown(spec)}")
        self.spec = tuple(_names(item) for item in spec)
        self.optimizer_shard = _names(optimizer_shard)
        used = [axis for item in (*self.spec, self.optimizer_shard) for axis in item]
        for axis in used:
            if axis not in self.mesh:
                raise ArgumentValueError(f"the layout names axis {axis!r}; its mesh has {', '.join(self.mesh)}")
            if used.count(axis) > 1:
                raise ArgumentValueError(f"the layout names axis {axis!r} of the mesh more than once: {self!r}")

    @property
    def size(self) -> int:
        """Count the ranks."""
        return math.prod(self.mesh.values())

    @property
    def is_full(self) -> bool:
        """Return whether every rank holds the full parameter."""
        return not any((*self.spec, self.optimizer_shard))

    @property
    def replicated(self) -> tuple[str, ...]:
        """Return the axes of the mesh along which all ranks hold the same."""
        used = {axis for item in (*self.spec, self.optimizer_shard) for axis in item}
        return tuple(axis for axis in self.mesh if axis not in used)

    def region(self, shape: tuple[int, ...], rank: int, name: str = "") -> Region:
        """Return the region of a parameter of a full shape that a rank holds.

        Raises
        ------
        TypeError
            If the rank is not an int.
        ValueError
            If the mesh has no such rank, or the parameter has too few axes.
        """
        where = f"Parameter {name!r} of shape {shape}"
        if len(self.spec) > len(shape):
            raise ShapeError(f"{where}: the spec of {self!r} has {len(self.spec)} items, one for each axis")
        if self.optimizer_shard and not shape:
            raise ShapeError(f"{where}: a scalar has no axis 0 for {self.optimizer_shard} to split")
        place = self._place(rank, where)
        ranges = list(map(range, shape))
        for axis, split_by in enumerate(self.spec):
            ranges[axis] = range(*split(shape[axis], *self._part(split_by, place)))
        if self.optimizer_shard:
            ranges[0] = ranges[0][slice(*split(len(ranges[0]), *self._part(self.optimizer_shard, place)))]
        return Region(shape, tuple(enumerate(ranges)))

    def shape(self, shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
        """Return the shape of the region of a parameter that a rank holds; the first of `ranks` has the largest."""
        return self.region(shape, rank).shape

    def sizes(self, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Count the values of a parameter that every rank holds, as an array of the shape of the mesh.

        Examples
        --------
        >>> from numparam import Layout
        >>> Layout({"dp": 2, "tp": 4}, ("tp",)).sizes((5, 6)).tolist()
        [[12, 12, 6, 0], [12, 12, 6, 0]]
        """
        sizes = np.ones(tuple(self.mesh.values()), np.int64)
        for axis, length in enumerate(shape):
            split_by = self.spec[axis] if axis < len(self.spec) else ()
            lengths = _lengths(length, math.prod(self.mesh[each] for each in split_by))
            if axis == 0 and self.optimizer_shard:
                parts = math.prod(self.mesh[each] for each in self.optimizer_shard)
                lengths = [piece for part in lengths for piece in _lengths(part, parts)]
                split_by += self.optimizer_shard
            table = np.array(lengths, np.int64).reshape([self.mesh[each] for each in split_by])
            ordered = [each for each in self.mesh if each in split_by]
            table = table.transpose([split_by.index(each) for each in ordered])
            sizes *= table.reshape([self.mesh[each] if each in split_by else 1 for each in self.mesh])
        return sizes

    def slice_index(self, rank: int) -> int:
        """Return the number of the slice that a rank holds; ranks with the same number hold the same.

        It counts the shards of the parameter in row-major order, and in each of them the parts of the optimizer.

        Examples
        --------
        >>> from numparam import Layout
        >>> layout = Layout({"dp": 2, "tp": 2}, ("dp",))
        >>> [layout.slice_index(rank) for rank in range(4)]
        [0, 0, 1, 1]
        >>> layout = Layout({"dp": 2, "tp": 2}, ("dp",), optimizer_shard="tp")
        >>> [layout.slice_index(rank) for rank in range(4)]
        [0, 1, 2, 3]
        """
        axes = [axis for item in (*self.spec, self.optimizer_shard) for axis in item]
        return self._part(axes, self._place(rank, "slice_index"))[1]

    def groups(self, axes: Axes = None) -> list[tuple[int, ...]]:
        """Return the groups of ranks that differ only along some axes of the mesh.

        Parameters
        ----------
        axes : str or sequence of str, optional
            Axes of the mesh; by default those along which all ranks hold the same region. `optimizer_shard` gives the
            groups that split one shard among them.

        Returns
        -------
        list of tuple of int
            Every rank is in one group.

        Raises
        ------
        ValueError
            If the mesh has no such axis.

        Examples
        --------
        >>> from numparam import Layout
        >>> layout = Layout({"dp": 2, "tp": 2}, ("tp",))
        >>> layout.groups(), layout.groups("tp")
        ([(0, 2), (1, 3)], [(0, 1), (2, 3)])
        """
        chosen = self.replicated if axes is None else _names(axes)
        if unknown := [axis for axis in chosen if axis not in self.mesh]:
            raise ArgumentValueError(f"the mesh has no axis {unknown[0]!r}; it has {', '.join(self.mesh)}")
        strides = self._strides()
        steps = {axis: range(0, length * strides[axis], strides[axis]) for axis, length in self.mesh.items()}
        within = [sum(place) for place in product(*(steps[axis] for axis in self.mesh if axis in chosen))]
        starts = [sum(place) for place in product(*(steps[axis] for axis in self.mesh if axis not in chosen))]
        return [tuple(self.ranks[start + step] for step in within) for start in starts]

    def _strides(self) -> dict[str, int]:
        """Return the distance in places of neighbours along each axis of the mesh."""
        strides, stride = {}, 1
        for axis, length in reversed(self.mesh.items()):
            strides[axis], stride = stride, stride * length
        return strides

    def _place(self, rank: int, where: str) -> dict[str, int]:
        number = as_int(f"{where}: a rank", rank)
        if number not in self.ranks:
            raise ArgumentValueError(f"{where}: the mesh {self.mesh} of the layout has no rank {number}")
        number = self.ranks.index(number)
        return {axis: number // stride % self.mesh[axis] for axis, stride in self._strides().items()}

    def _part(self, axes: Iterable[str], place: Mapping[str, int]) -> tuple[int, int]:
        """Return the number of parts that axes of the mesh split into together, and which of them is at a place."""
        parts, part = 1, 0
        for axis in axes:
            parts, part = parts * self.mesh[axis], part * self.mesh[axis] + place[axis]
        return parts, part

    def _key(self) -> tuple[Any, ...]:
        return tuple(self.mesh.items()), self.spec, self.optimizer_shard, self.ranks  # the order of the mesh counts

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Partition) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        spec = tuple(_shown(item) for item in self.spec)
        optimizer = f", optimizer_shard={_shown(self.optimizer_shard)!r}" if self.optimizer_shard else ""
        ranks = f", rank_list={shown([*self.ranks])}" if isinstance(self.ranks, tuple) else ""
        return f"Layout({self.mesh}, {spec}{optimizer}{ranks})"


def _lengths(length: int, parts: int) -> list[int]:
    bounds = (split(length, parts, part) for part in range(parts))
    return [stop - start for start, stop in bounds]


def _ranks(given: Any, mesh: Mapping[str, int]) -> Sequence[int]:
    ordered = range(math.prod(mesh.values()))
    if given is None or given == ordered:
        return ordered
    if not isinstance(given, list | tuple):
        raise ArgumentTypeError(f"rank_list is a list of ints, found {shown(given)}")
    ranks = tuple([as_int("an item of rank_list", rank, 0) for rank in given])
    if len(ranks) != len(ordered) or len({*ranks}) != len(ranks):
        raise ArgumentValueError(
            f"rank_list has a different rank for each of the {len(ordered)} places of the mesh {mesh}, "
            f"found {shown(given)}"
        )
    return ordered if ranks == tuple(ordered) else ranks


def _names(axes: Any) -> tuple[str, ...]:
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ArgumentTypeError(f"a layout names an axis of its mesh, a tuple of several, or None; found {shown(axes)}")
    return tuple(names)


def _shown(axes: tuple[str, ...]) -> Axes:
    return axes if len(axes) > 1 else axes[0] if axes else None
