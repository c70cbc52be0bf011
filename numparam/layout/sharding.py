"""Which slice of a parameter belongs to which rank of a mesh.

A mesh is a grid of ranks such as 8x4, counted row by row from 0: rank 5 of 8x4 is at (1, 1). Each dimension of the mesh
splits one axis of a parameter, or leaves the parameter full along that dimension:

* with given axes, dimension ``d`` of the mesh splits axis ``axes[d]``, if the parameter has that axis;
* by default (``"auto"``) the dimensions choose in turn, from left to right: each takes the longest axis that is not
  taken and has at least as many entries as the dimension has ranks, the first if several are equally long.

`numparam.Layout` describes how an axis that does not divide evenly is split.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from numparam.errors import ArgumentValueError
from numparam.layout.layout import Layout

AUTO = "auto"


def parse_mesh(text: str) -> tuple[int, ...]:
    """Read a mesh such as ``8x4``; ArgumentValueError if it is not one."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8}){0,7}", text):
        raise ArgumentValueError(f"a mesh is one to eight positive numbers joined by x, such as 8x4; found {text!r}")
    return tuple(int(part) for part in text.split("x"))


def parse_axes(text: str, mesh: tuple[int, ...]) -> tuple[int, ...] | None:
    """Read the axes to split: one number for each dimension of the mesh, such as ``0,1``, or ``auto``: None."""
    if text == AUTO:
        return None
    if not re.fullmatch(r"[0-9]{1,2}(,[0-9]{1,2})*", text):
        raise ArgumentValueError(
            f"an axis is auto, or a number from 0 for each mesh dimension such as 0,1; found {text!r}"
        )
    axes = tuple(int(part) for part in text.split(","))
    if len(axes) != len(mesh) or len(set(axes)) != len(axes):
        shown = "x".join(map(str, mesh))
        raise ArgumentValueError(f"the mesh {shown} needs {len(mesh)} different axes, found {text!r}")
    return axes


def split_axes(
    shape: tuple[int, ...], mesh: tuple[int, ...], axes: tuple[int, ...] | None = None
) -> tuple[int | None, ...]:
    """Return for each dimension of the mesh which axis of a parameter it splits, or None."""
    if axes is not None:
        return tuple(axis if axis < len(shape) else None for axis in axes)
    chosen: list[int | None] = []
    for parts in mesh:
        free = [axis for axis, length in enumerate(shape) if axis not in chosen and 1 < parts <= length]
        chosen.append(max(free, key=lambda axis: shape[axis], default=None))
    return tuple(chosen)


@dataclass(frozen=True)
class Shard:
    """Name one rank of a mesh and the axis that each dimension of the mesh splits, by default chosen.

    Examples
    --------
    >>> Shard.parse("5/8x4", "auto").slices((4096, 14336))
    (slice(1024, 2048, 1), slice(1792, 3584, 1))
    """

    rank: int
    mesh: tuple[int, ...]
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        count = math.prod(self.mesh)
        if not 0 <= self.rank < count:
            raise ArgumentValueError(f"ranks count from 0: 0/{count} to {count - 1}/{count}; found rank {self.rank}")

    @classmethod
    def parse(cls, text: str, axes: str = AUTO) -> Shard:
        """Read ``RANK/MESH`` such as ``0/4`` or ``5/8x4``, and the axes as in `parse_axes`."""
        rank, slash, mesh_text = text.partition("/")
        if not slash or not re.fullmatch(r"[0-9]{1,18}", rank):
            raise ArgumentValueError(f"a shard is written RANK/RANKS, such as 0/4 or 5/8x4; found {text!r}")
        mesh = parse_mesh(mesh_text)
        return cls(int(rank), mesh, parse_axes(axes, mesh))

    def __str__(self) -> str:
        return f"{self.rank}/{'x'.join(map(str, self.mesh))}"

    @property
    def axes_text(self) -> str:
        """Write the axes as `parse_axes` reads them."""
        return AUTO if self.axes is None else ",".join(map(str, self.axes))

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """Return the layout of the parameters of a shape; the axes of its mesh are named by their numbers."""
        spec: list[str | None] = [None] * len(shape)
        for dimension, axis in enumerate(split_axes(shape, self.mesh, self.axes)):
            if axis is not None:
                spec[axis] = str(dimension)
        return Layout({str(dimension): parts for dimension, parts in enumerate(self.mesh)}, spec)

    def slices(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Return this rank's slice of a parameter: a start, a stop and step 1 for every axis."""
        return _slices(self, shape)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of this rank's slice."""
        return tuple(part.stop - part.start for part in self.slices(shape))


@lru_cache(4096)  # a model has thousands of parameters of a few shapes
def _slices(shard: Shard, shape: tuple[int, ...]) -> tuple[slice, ...]:
    ranges = shard.layout(shape).region(shape, shard.rank).ranges
    return tuple(slice(part.start, part.stop, 1) for part in ranges)
