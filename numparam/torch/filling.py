"""Fill the memory of torch tensors with the values of an initializer, a seed and a name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple, SupportsIndex

import torch

from numparam.errors import ArgumentTypeError, NumparamError, ShapeError, StateError
from numparam.indexing.region import Region
from numparam.initializer import Initializer
from numparam.initializer.entry import as_initializer
from numparam.stream.seed import as_seed, choose_seed, current_seed, get_seed
from numparam.stream.source import Sources
from numparam.tensor import Recipe
from numparam.text import shown
from numparam.torch.memory import as_numpy, dtype_of, in_order, is_reachable, shared
from numparam.torch.shards import held_part, narrowed

_CPU = torch.device("cpu")
_SMALL = 1 << 18
"""Bytes of a tensor that is filled together with others."""


def fill_(
    tensor: torch.Tensor,
    init: Initializer | str | float,
    name: str,
    seed: SupportsIndex | None = None,
    *,
    region: Region | None = None,
) -> torch.Tensor:
    """Fill one tensor in place, for loops of your own.

    Parameters
    ----------
    tensor : torch.Tensor
        Of any strides, on any device but ``meta``. Of a ``DTensor`` each rank fills its part, without communication.
    init : Initializer, str or number
        As `numparam.initializer.initializer` takes it.
    name : str
        The name of the parameter, which decides the values.
    seed : int, optional
        From 0 to 2**64 - 1; by default the seed of `numparam.set_seed`.
    region : Region, optional
        What an ordinary tensor holds of a full parameter, for shards that are not a ``DTensor``; of the shape of the
        tensor. Of a ``DTensor``, the part to fill; what is not in it is left alone. By default the full tensor.

    Returns
    -------
    torch.Tensor
        The same tensor.

    Raises
    ------
    TypeError
        If an argument is of another kind, or the initializer cannot fill the dtype.
    ValueError
        If the shape does not fit the initializer or the region.
    RuntimeError
        If the tensor has no memory, or its placements do not explain its part, or each of several ranks would
        draw a different seed.

    Examples
    --------
    >>> from numparam import Parameter, set_seed
    >>> from numparam.initializer import Normal, initializer
    >>> set_seed(7)
    >>> weight = fill_(torch.empty(3, 4), Normal(0.02), "weight")
    >>> bool((weight.numpy() == Parameter(initializer(Normal(0.02), (3, 4)), name="weight").asnumpy()).all())
    True
    >>> last_rows = fill_(torch.empty(2, 4), Normal(0.02), "weight", region=Region.full((3, 4))[1:])
    >>> torch.equal(last_rows, weight[1:])
    True
    """
    if not isinstance(tensor, torch.Tensor):
        raise ArgumentTypeError(f"a torch tensor is filled, found {type(tensor).__name__}")
    if not isinstance(name, str):
        raise ArgumentTypeError(f"the name of a parameter is a str, found {shown(name)}")
    if tensor.is_meta:
        raise StateError(f"parameter {name!r} is on the meta device and has no memory to fill")
    fill_all([plan(name, tensor, as_initializer(init), common_seed(seed), region)])
    return tensor


class Fill(NamedTuple):
    """What will be written where."""

    name: str
    tensor: torch.Tensor
    local: torch.Tensor
    """The tensor, or the part of it that this rank holds."""
    region: Region
    init: Initializer
    seed: int

    @property
    def draws_on(self) -> torch.device:
        """Return the device that generates the values: the tensor's where possible, else the CPU."""
        place = self.local.device
        return place if self.init.on_device and is_reachable(place) else _CPU

    @property
    def in_place(self) -> bool:
        """Return whether the values are generated in the tensor itself, not copied there."""
        return bool(self.local.is_contiguous()) and self.draws_on == self.local.device

    @property
    def may_wait(self) -> bool:
        """Return whether it is filled on a CUDA device, by launches that others may join."""
        return self.in_place and bool(self.local.is_cuda)

    def run(self) -> None:
        """Write the values."""
        if not self.region.size:
            return
        local = self.local
        out = local if self.in_place else torch.empty(local.shape, dtype=local.dtype, device=self.draws_on)
        seed = choose_seed(self.init.seed, self.seed)
        Recipe(self.init, seed, self.name, self.region, dtype_of(out)).fill_into(shared(out))
        if out is not local:
            local.copy_(out)
        torch.autograd.graph.increment_version(self.tensor)


def plan(name: str, tensor: torch.Tensor, init: Initializer, seed: int, region: Region | None = None) -> Fill:
    """Check that an initializer can fill a tensor, and find the part of this rank."""
    try:
        if region is None and type(tensor) in _PLAIN:
            held = _full(init, tensor.shape, tensor.dtype, tensor.layout)
            return Fill(name, tensor, tensor, held, init, seed)
        _check_layout(tensor.layout)
        local, held = held_part(tensor)
        full_shape = held.full_shape
        if local is not tensor:
            _check_memory(tensor, local)
        if region is not None and local is not tensor:
            if region.full_shape != full_shape:
                raise ShapeError(f"the tensor of shape {full_shape} has no region {region}")
            local, held, _ = narrowed(local, held, region)
        elif region is not None:
            if region.shape != held.shape:
                raise ShapeError(f"an ordinary tensor of shape {region.shape} holds {region}, found {held.shape}")
            held, full_shape = region, region.full_shape
        init.check(full_shape, dtype_of(tensor))
    except NumparamError as error:
        raise type(error)(f"parameter {name!r} gets {init!r}: {error}") from None
    return Fill(name, tensor, local, held, init, seed)


_PLAIN = {torch.Tensor, torch.nn.Parameter}


@lru_cache(maxsize=1024)  # models have thousands of tensors of a few shapes
def _full(init: Initializer, shape: tuple[int, ...], dtype: torch.dtype, layout: torch.layout) -> Region:
    """Check that an initializer can fill an ordinary tensor, and return its region, one object for equal arguments."""
    _check_layout(layout)
    init.check(shape, as_numpy(dtype))
    return Region.full(tuple(shape))


def _check_layout(layout: torch.layout) -> None:
    if layout != torch.strided:
        raise ArgumentTypeError(f"a dense tensor is filled, found {layout}")


def _check_memory(tensor: torch.Tensor, local: torch.Tensor) -> None:
    """Raise if a DTensor that an operation returned does not share the memory of its input."""
    base: Any = tensor._base
    if base is not None and base.to_local().untyped_storage().data_ptr() != local.untyped_storage().data_ptr():
        raise StateError(
            f"a part of a DTensor of shape {tuple(base.shape)}, which is a copy, would be filled and lost: give the "
            "DTensor itself and region=Region.full(shape)[rows]"
        )


def fill_all(fills: Sequence[Fill]) -> None:
    """Write all values: small tensors on CUDA devices in few launches, on the CPU in few calls."""
    alike: dict[tuple[Initializer, Region, torch.dtype, int], list[Fill]] = {}
    later = []
    for fill in fills:
        _, _, local, region, init, seed = fill
        if local.is_cpu and local.is_contiguous():
            alike.setdefault((init, region, local.dtype, seed), []).append(fill)
        else:
            later.append(fill)
    devices = {fill.local.device.index for fill in later if fill.local.is_cuda}
    with torch.no_grad(), in_order(devices):
        for (init, region, _, seed), group in alike.items():
            if len(group) > 1 and init.on_device and region.is_full and group[0].local.nbytes <= _SMALL:
                _fill_many(init, region, seed, group)
            else:
                later += group
        with _batch() if devices else nullcontext():
            for fill in later:
                if fill.may_wait:
                    fill.run()
        for fill in later:
            if not fill.may_wait:
                fill.run()


def _fill_many(init: Initializer, region: Region, seed: int, fills: list[Fill]) -> None:
    """Fill tensors of one shape and dtype on the CPU; a call for each would take longer than its values."""
    from numparam.kernels.batch import Arrays

    if region.size:
        out = Arrays([fill.local.data_ptr() for fill in fills], region.shape, dtype_of(fills[0].local))
        init.fill(out, region, Sources(choose_seed(init.seed, seed), [fill.name for fill in fills]))  # type: ignore[arg-type]
    torch.autograd.graph.increment_version([fill.tensor for fill in fills])


def common_seed(seed: SupportsIndex | None) -> int:
    """Return the seed that all ranks use."""
    if seed is not None:
        return as_seed(seed)
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    if get_seed() is None and several and torch.distributed.get_world_size() > 1:
        raise StateError("each rank would draw a different seed: give the same seed to all, or call numparam.set_seed")
    return current_seed()


def _batch() -> AbstractContextManager[object]:
    from numparam.kernels.batch import Batch

    return Batch()
