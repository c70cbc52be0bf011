"""Add rows to a table, such as an embedding whose vocabulary grows."""

from __future__ import annotations

from typing import Any, SupportsIndex

import torch

from numparam.checks import as_int
from numparam.errors import ArgumentTypeError, ArgumentValueError, MissingNameError, StateError
from numparam.indexing.region import Region
from numparam.initializer import Initializer
from numparam.initializer.entry import as_initializer
from numparam.torch import layers
from numparam.torch.filling import fill_
from numparam.torch.memory import dtype_of
from numparam.torch.shards import held_part
from numparam.torch.walk import is_of, modules, places, resharded

_SIZES = {"Embedding": "num_embeddings", "EmbeddingBag": "num_embeddings", "Linear": "out_features"}


def grow_(
    module: torch.nn.Module,
    name: str,
    rows: int,
    init: Initializer | str | float | None = None,
    seed: SupportsIndex | None = None,
) -> torch.nn.Parameter:
    """Add rows to a parameter of a module: row i has the value that it has in a parameter of any number of rows.

    The rows that are there stay as they are. A ``DTensor`` keeps its mesh and placements, and its rows move between the
    ranks, which all call this; each then fills its part of the new ones. Layers that share the parameter share the
    grown one, and ``num_embeddings`` and ``out_features`` follow.

    Parameters
    ----------
    module : torch.nn.Module
        After FSDP2's ``fully_shard`` too, on all ranks, and before an optimizer takes its parameters.
    name : str
        Of the parameter in the module, such as ``"embed_tokens.weight"``.
    rows : int
        The new length of the first axis.
    init : Initializer, str or number, optional
        One whose values do not depend on the shape, such as `Normal`; by default the layer's.
    seed : int, optional
        By default the seed of `numparam.set_seed`.

    Returns
    -------
    torch.nn.Parameter
        The new parameter.

    Raises
    ------
    KeyError
        If the module has no parameter of this name.
    TypeError
        If an argument is of another kind.
    ValueError
        If there are more rows already, or the values of the initializer depend on the shape.

    Examples
    --------
    >>> from numparam.torch import init_
    >>> small, large = (torch.nn.Sequential(torch.nn.Embedding(rows, 4)) for rows in (10, 12))
    >>> report = init_(small, seed=7), init_(large, seed=7)
    >>> torch.equal(grow_(small, "0.weight", 12, seed=7), large[0].weight)
    True
    """
    if not isinstance(module, torch.nn.Module):
        raise ArgumentTypeError(f"a parameter of a torch.nn.Module grows, found {type(module).__name__}")
    resharded(modules(module))
    place = next((found for found in places(module) if found.path == name and found.is_parameter), None)
    if place is None:
        raise MissingNameError(f"the module has no parameter {name!r}")
    old: Any = place.current
    count = as_int("rows", rows)
    if not old.ndim or count < old.shape[0]:
        raise ArgumentValueError(f"parameter {name!r} of shape {tuple(old.shape)} cannot grow to {count} rows")
    default = layers.default(place)
    if init is None and default is None:
        raise ArgumentValueError(f"the new rows of {name!r} have no initializer: give one")
    how = as_initializer(init) if init is not None else default[0]  # type: ignore[index]
    if how.reads != "nothing" or how.needs_full:
        raise ArgumentValueError(f"the values of {how!r} depend on the number of rows: give another for {name!r}")
    shape = (count, *old.shape[1:])
    how.check(shape, dtype_of(old))
    holders = [(part, key) for _, part, _ in modules(module) for key, held in part._parameters.items() if held is old]
    with torch.no_grad():
        new = _sharded_again(module, old, shape, how, name, seed)
        if new is None:
            new = torch.nn.Parameter(_grown(old, shape, how, name, seed), requires_grad=old.requires_grad)
    for part, key in holders:
        part._parameters[key] = new
        for kind, size in _SIZES.items():
            if key == "weight" and any(base.__name__ == kind for base in type(part).__mro__):
                setattr(part, size, count)
    return new


def _grown(old: Any, shape: tuple[int, ...], how: Initializer, name: str, seed: SupportsIndex | None) -> torch.Tensor:
    held = old.shape[0]
    if not hasattr(old, "device_mesh"):
        new = old.new_empty(shape)
        new[:held] = old
        fill_(new[held:], how, name, seed, region=Region.full(shape)[held:])
        return new
    from torch.distributed.tensor import empty

    sharded: Any = empty(*shape, dtype=old.dtype, device_mesh=old.device_mesh, placements=old.placements)
    fill_(sharded, how, name, seed)
    full = old.full_tensor()
    local, region = held_part(sharded)
    if region.size:
        mine = region.ranges[0]
        before = range(mine.start, min(mine.stop, held))
        if before:
            index = (slice(before.start, before.stop), *region.slices()[1:])
            local[: len(before)] = full[index]
    return sharded


def _sharded_again(
    module: torch.nn.Module, old: Any, shape: tuple[int, ...], how: Initializer, name: str, seed: SupportsIndex | None
) -> torch.nn.Parameter | None:
    """Let FSDP2 shard the grown parameter in the place of the old one; None if FSDP2 does not know it.

    What FSDP2 knows of a parameter depends on its shape, so that it is built again, as ``fully_shard`` builds it.
    """
    states = [part._get_fsdp_state() for _, part, _ in modules(module) if is_of(part, "FSDPModule")]
    groups = [group for state in states for group in getattr(state, "_fsdp_param_groups", ())]
    groups += [state._fsdp_param_group for state in states if hasattr(state, "_fsdp_param_group")]  # before torch 2.13
    for group in filter(None, groups):
        for at, known in enumerate(group.fsdp_params):
            if known.sharded_param is not old:
                continue
            if known.is_dtensor:
                raise StateError(f"parameter {name!r} is sharded by FSDP2 and tensor parallelism: grow it before")
            full = old.full_tensor()
            grown = torch.nn.Parameter(_grown(full, shape, how, name, seed), requires_grad=old.requires_grad)
            known._post_load_hook_handle.remove()
            group.fsdp_params[at] = again = type(known)(
                grown,
                known._module_info,
                known.mesh_info,
                known.post_forward_mesh_info,
                known.device,
                lambda _, placement=known.fsdp_placement: placement,
                group.mp_policy,
                group.offload_policy,
            )
            again._param_fqn = known._param_fqn
            if hasattr(known, "param_dtype"):  # the module has been called
                again.init_dtype_attrs(group.mp_policy)
            sharded: torch.nn.Parameter = again.sharded_param
            return sharded
    return None
