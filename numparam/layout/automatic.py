"""Layouts that are chosen from the shapes of the parameters, the mesh, and the memory that a rank has for them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from numparam.checks import as_int
from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.layout.layout import Layout
from numparam.text import shown, size


class Described(Protocol):
    """What a layout is chosen for: a `numparam.Parameter`, or an entry of a file."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102


def automatic_layouts(
    parameters: Iterable[Described],
    mesh: Mapping[str, int],
    memory_per_rank: int | None = None,
    given: Mapping[str, Layout] | None = None,
) -> dict[str, Layout]:
    """Choose layouts so that every rank has room for its shards, sharding no more than that takes.

    At first every rank holds every parameter in full. While rank 0, whose shards are the largest, has more than
    `memory_per_rank`, the parameter of which it holds the most bytes (of equal ones, the first by name) is split over
    one more axis of the mesh: the last one, whose ranks are neighbours, that does not split it yet and is not longer
    than every axis of the shard. It splits the longest axis of the shard that divides evenly, or if no axis
    does, the longest; of equal ones, the first. A parameter that no axis of the mesh can split stays as it is.

    The choice depends on the names, shapes and dtypes alone, not on their order.

    Parameters
    ----------
    parameters : iterable of Parameter
        Anything with a name, a shape and a dtype.
    mesh : mapping of str to int
        As for `Layout`.
    memory_per_rank : int, optional
        In bytes; no limit by default.
    given : mapping of str to Layout, optional
        Layouts by the name of the parameter that are settled; they count too.

    Returns
    -------
    dict of str to Layout
        For every parameter, by name.

    Raises
    ------
    TypeError
        If the memory is not an int.
    ValueError
        If two parameters have the same name, or the memory is too small; the message names the largest parameter.

    Examples
    --------
    >>> from numparam import Parameter, initializer
    >>> table = Parameter(initializer.initializer("normal", (1024, 64)), name="table")
    >>> bias = Parameter(initializer.initializer("zeros", (64,)), name="bias")
    >>> automatic_layouts([table, bias], {"dp": 2, "tp": 4}, memory_per_rank=70_000)
    {'table': Layout({'dp': 2, 'tp': 4}, ('tp', None)), 'bias': Layout({'dp': 2, 'tp': 4}, ())}
    """
    if memory_per_rank is not None:
        memory_per_rank = as_int("memory_per_rank", memory_per_rank)
    given = given or {}
    chosen: dict[str, Layout] = {}
    held: dict[str, int] = {}
    shapes = {}
    for parameter in parameters:
        if not hasattr(parameter, "name"):
            raise ArgumentTypeError(f"automatic_layouts takes parameters, found {shown(parameter)}")
        if parameter.name in chosen:
            raise ArgumentValueError(f"duplicate parameter name {parameter.name!r}; a layout is chosen by name")
        chosen[parameter.name] = given.get(parameter.name) or Layout(mesh, ())
        shapes[parameter.name] = parameter.shape, parameter.dtype.itemsize
        held[parameter.name] = _held(chosen[parameter.name], *shapes[parameter.name])
    total = sum(held.values())
    largest_first = [(-nbytes, name) for name, nbytes in held.items() if name not in given]
    heapq.heapify(largest_first)
    while memory_per_rank is not None and total > memory_per_rank:
        if not largest_first:
            most = min(held, key=lambda name: (-held[name], name))
            raise ArgumentValueError(
                f"a rank cannot hold its parameters in {size(memory_per_rank)}: split over the full mesh "
                f"{dict(mesh)} they take {size(total)}, and the largest, {most!r} of shape {shapes[most][0]}, "
                f"{size(held[most])}"
            )
        nbytes, name = heapq.heappop(largest_first)
        finer = _split_further(chosen[name], shapes[name][0])
        if finer is not None:
            chosen[name], held[name] = finer, _held(finer, *shapes[name])
            total += nbytes + held[name]
            heapq.heappush(largest_first, (-held[name], name))
    return chosen


def _held(layout: Layout, shape: tuple[int, ...], itemsize: int) -> int:
    return math.prod(layout.shape(shape, layout.ranks[0])) * itemsize


def _split_further(layout: Layout, shape: tuple[int, ...]) -> Layout | None:
    """Split one axis of a parameter over one more axis of the mesh; None if no axis is long enough."""
    shard = layout.shape(shape, layout.ranks[0])
    for axis in reversed(layout.replicated):
        parts = layout.mesh[axis]
        able = [place for place, length in enumerate(shard) if 1 < parts <= length]
        if able:
            spec = [set(item) for item in layout.spec] or [set() for _ in shape]
            spec[max(able, key=lambda place: (shard[place] % parts == 0, shard[place]))].add(axis)
            ordered = [tuple(each for each in layout.mesh if each in item) for item in spec]
            return Layout(layout.mesh, ordered, rank_list=layout.ranks)
    return None
