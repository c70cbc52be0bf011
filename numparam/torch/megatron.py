"""What a rank holds of a parameter of Megatron-Core, by the attributes that Megatron-Core gives it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from numparam.errors import ShapeError
from numparam.indexing.region import Region
from numparam.indexing.strided import Strided


def megatron_shards(rank: int, size: int) -> Callable[[str, torch.Tensor], tuple[Any, Region, torch.Tensor] | None]:
    """Return the argument `where` of `init_` for tensor-parallel layers of Megatron-Core.

    A parameter whose attribute ``tensor_model_parallel`` is true holds a part along ``partition_dim``; with a
    ``partition_stride`` above 1 it holds so many blocks, one of each of several weights that are fused, such as a gate
    and its projection. Others are full.

    Parameters
    ----------
    rank, size : int
        In the tensor-parallel group.

    Raises
    ------
    ShapeError
        In `init_`, if a length cannot be divided into so many blocks. It is also a ValueError.

    Examples
    --------
    >>> from numparam.initializer import Normal
    >>> from numparam.torch import init_
    >>> def layer(rows):  # of a gate and a projection of 4 rows each on two ranks, or all of it
    ...     linear = torch.nn.Linear(3, rows, bias=False)
    ...     linear.weight.tensor_model_parallel, linear.weight.partition_dim = rows < 8, 0
    ...     linear.weight.partition_stride = 2
    ...     return linear
    >>> full, part = layer(8), layer(4)
    >>> report = init_(full, {"weight": Normal(0.02)}, seed=7)
    >>> report = init_(part, {"weight": Normal(0.02)}, seed=7, where=megatron_shards(1, 2))
    >>> torch.equal(part.weight, full.weight[[2, 3, 6, 7]])
    True
    """

    def where(name: str, tensor: torch.Tensor) -> tuple[Any, Region, torch.Tensor] | None:
        if size == 1 or not getattr(tensor, "tensor_model_parallel", False):
            return None
        axis, blocks = int(tensor.partition_dim), int(getattr(tensor, "partition_stride", 1))
        length = tensor.shape[axis]
        if length % blocks:
            raise ShapeError(
                f"parameter {name!r}: axis {axis} of length {length} is not divisible into {blocks} blocks"
            )
        shape = (*tensor.shape[:axis], length * size, *tensor.shape[axis + 1 :])
        if blocks == 1:
            return (
                shape,
                Region.full(shape)[(slice(None),) * axis + (slice(rank * length, (rank + 1) * length),)],
                tensor,
            )
        block = length // blocks
        steps = [math.prod(shape[at + 1 :]) for at in range(len(shape))]
        base = rank * block * steps[axis]
        steps[axis : axis + 1] = [size * block * steps[axis], steps[axis]]
        view = tensor.detach().unflatten(axis, (blocks, block))
        return shape, Strided(shape, tuple(view.shape), base, tuple(steps)), view

    return where
