"""Which part of a parameter a rank holds: from the placements of a ``DTensor`` to a region."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import torch

from numparam.errors import StateError
from numparam.indexing.region import Region
from numparam.layout.partition import split


def held_part(tensor: torch.Tensor) -> tuple[torch.Tensor, Region]:
    """Return the memory of this rank, and the region of the full tensor that it holds.

    An ordinary tensor is full; of a ``DTensor``, from FSDP2 or tensor parallelism, the rank holds its shard.
    """
    shape = tuple(tensor.shape)
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return tensor, Region.full(shape)
    held: Any = tensor
    with torch.no_grad():
        local = held.to_local()
    place = mesh.get_coordinate()
    if place is None:  # this rank is not in the mesh and holds nothing
        return local, Region.full(shape)[None][:0]
    region = cut_out(shape, tuple(mesh.shape), held.placements, place)
    if tuple(local.shape) != region.shape and (local.numel() or region.size):  # torch forgets axes of empty shards
        raise StateError(
            f"placements {held.placements} on {mesh} give this rank shape {region.shape} of {shape}, "
            f"but it holds shape {tuple(local.shape)}; shards must be split as by torch.chunk"
        )
    return local, region


def assign(target: Any, values: Any) -> None:
    """Copy the values of a tensor to one of the same full shape, however the ranks share either."""
    if getattr(target, "device_mesh", None) == getattr(values, "device_mesh", None):
        target.copy_(values)
        return
    full = values.full_tensor() if hasattr(values, "device_mesh") else values
    local, region = held_part(target)
    if region.size:
        local.copy_(full[region.slices()])


def layout(tensor: torch.Tensor, ranks: Sequence[int]) -> tuple[Region, ...] | None:
    """Return what each of some ranks holds, as far as every rank knows it without communication; else None.

    Examples
    --------
    >>> layout(torch.empty(4, 3), [0, 1])
    (Region((4, 3): range(0, 4), range(0, 3)), Region((4, 3): range(0, 4), range(0, 3)))
    """
    shape = tuple(tensor.shape)
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return (Region.full(shape),) * len(ranks)
    order = mesh.mesh.reshape(-1).tolist()
    if sorted(order) != sorted(ranks):
        return None
    held: Any = tensor
    by_rank = dict(zip(order, _layout(shape, tuple(mesh.shape), held.placements), strict=True))
    return tuple([by_rank[rank] for rank in ranks])


@lru_cache(maxsize=1024)  # the layers of a model are sharded alike
def _layout(shape: tuple[int, ...], mesh: tuple[int, ...], placements: tuple[Any, ...]) -> tuple[Region, ...]:
    return tuple([cut_out(shape, mesh, placements, place) for place in product(*map(range, mesh))])


def cut_out(shape: tuple[int, ...], mesh: tuple[int, ...], placements: Sequence[Any], place: Sequence[int]) -> Region:
    """Return the region of a tensor at a place of a mesh, of which each dimension has a placement.

    A dimension of the mesh splits an axis as ``torch.chunk`` does. Several that split the same axis do so from left to
    right, except that a ``_StridedShard`` comes after as many dimensions to its right as its ``split_factor`` counts
    shards: FSDP2 puts its own dimension before the dimension of tensor parallelism, but splits what that has split.

    Examples
    --------
    >>> from torch.distributed.tensor import Replicate, Shard
    >>> cut_out((10, 6), (4, 2), [Shard(0), Shard(1)], (3, 0))
    Region((10, 6): range(9, 10), range(0, 3))
    >>> cut_out((10, 6), (4, 2), [Replicate(), Shard(0)], (3, 0))
    Region((10, 6): range(0, 5), range(0, 6))
    """
    order: list[int] = []  # dimensions of the mesh, in the order in which they split
    for dimension, placement in reversed(list(enumerate(placements))):
        if placement.is_replicate():
            continue
        axis = getattr(placement, "dim", None)
        if axis is None or placement.is_partial():
            raise StateError(f"placement {placement} does not define the values of a rank; use Shard or Replicate")
        before, at = 1, 0
        while before < getattr(placement, "split_factor", 1) and at < len(order):
            before *= mesh[order[at]] if placements[order[at]].dim == axis else 1
            at += 1
        if before != getattr(placement, "split_factor", 1):
            raise StateError(
                f"{placement} has a split_factor that no placement to its right explains, found {placements}"
            )
        order.insert(at, dimension)
    bounds = [(0, length) for length in shape]
    for dimension in order:
        axis = placements[dimension].dim
        start, stop = bounds[axis]
        first, last = split(stop - start, mesh[dimension], place[dimension])
        bounds[axis] = start + first, start + last
    return Region.full(shape)[tuple(slice(*pair) for pair in bounds)]


def narrowed(local: torch.Tensor, held: Region, region: Region) -> tuple[torch.Tensor, Region, Region]:
    """Return the memory of this rank for a region of a tensor of which it holds another one, in steps of one.

    That is a view of `local`, and what the view is of the full tensor and of the region.

    Examples
    --------
    >>> full = Region.full((8, 3))
    >>> narrowed(torch.zeros(4, 3), full[4:], full[3:6])
    (tensor([[0., 0., 0.],
            [0., 0., 0.]]), Region((8, 3): range(4, 6), range(0, 3)), Region((3, 3): range(1, 3), range(0, 3)))
    """
    index: list[slice] = []
    inner: list[slice] = []
    for wanted, mine in zip(region.ranges, held.ranges, strict=True):
        first = max(0, -(-(mine.start - wanted.start) // wanted.step))
        last = max(first, min(len(wanted), -(-(mine.stop - wanted.start) // wanted.step)))
        begin = wanted.start + first * wanted.step - mine.start
        index.append(slice(begin, begin + (last - first) * wanted.step, wanted.step) if last > first else slice(0, 0))
        inner.append(slice(first, last))
    if any(part.start == part.stop for part in inner):
        return local.new_empty((0,)), Region.full((0,)), Region.full((0,))
    is_kept = [isinstance(pick, range) for _, pick in region._picks]
    out = local[tuple(index)]
    for axis in reversed([axis for axis, kept in enumerate(is_kept) if not kept]):
        out = out.select(axis, 0)
    kept_inner = tuple([part for part, kept in zip(inner, is_kept, strict=True) if kept])
    return out, region[kept_inner], Region.full(region.shape)[kept_inner]
