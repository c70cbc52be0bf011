"""Initialise a whole module."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, SupportsIndex

import torch

from numparam.errors import ArgumentTypeError, StateError
from numparam.initializer import Initializer, Unset
from numparam.rules import RuleError, Rules
from numparam.torch import layers
from numparam.torch.filling import Fill, common_seed, fill_all, plan
from numparam.torch.report import Filled, Report
from numparam.torch.rules import Choice, OwnRules
from numparam.torch.walk import Place, is_of_torch, places


def init_(
    module: torch.nn.Module,
    rules: Mapping[str, Initializer | str | float] | Choice | Rules | str | PathLike[str] | None = None,
    seed: SupportsIndex | None = None,
    *,
    device: Any = None,
    prefix: str = "",
) -> Report:
    """Fill all parameters of a module in place, as `Parameter` makes them from the same seed, names and initializers.

    A ``DTensor``, as FSDP2's ``fully_shard`` and tensor parallelism make them, is filled by each rank in its own part,
    without communication and with the values of the whole, whatever the mesh. Tensors on an NVIDIA GPU are filled there
    if the extra ``cuda12`` or ``cuda13`` is installed; those on other devices, of other strides than row-major, or with
    initializers that compute on the host are made in scratch memory, one at a time, and copied. Integer
    buffers stay as they are, but for the ``num_batches_tracked`` of batch norms. Nothing is written if there is an
    error.

    Parameters
    ----------
    module : torch.nn.Module
        Methods of it, such as ``reset_parameters``, are not called. The names of parameters are those of
        ``named_parameters`` without what wrappers of torch add, ``module.`` and ``_orig_mod.`` among them. A parameter
        that several modules share is filled once, under its first name.
    rules : mapping, callable, Rules or path, optional
        What the layers of ``torch.nn`` shall not decide; see `numparam.torch.layers` for what they do. The first rule
        that matches decides. One of

        * a mapping from globs for whole names to initializers, names of initializers or numbers;
        * a callable that is given a name, the module that has the parameter, and the parameter, and returns any of
          these, or None;
        * `numparam.rules.Rules`, or the path of a TOML file of them. The general rules at their end give way to the
          layers; with ``defaults = false`` the layers decide nothing either.

        ``"unset"`` leaves a parameter as it is. Rules are for parameters, never for buffers.
    seed : int, optional
        From 0 to 2**64 - 1, the same on all ranks; by default that of `numparam.set_seed`.
    device : torch.device or str, optional
        Where to make memory for what is on the ``meta`` device; shared parameters stay shared. Without it, call
        ``module.to_empty(device=...)`` before, which separates them.
    prefix : str
        The name of the module inside a larger one, such as ``"layers.3"``.

    Returns
    -------
    Report
        What was filled, with what and why, and what was not.

    Raises
    ------
    TypeError
        If an argument is of another kind, or an initializer cannot fill the dtype of a parameter.
    ValueError
        If neither a rule nor a layer says how a parameter starts, or an initializer does not fit its shape.
    RuntimeError
        If something is on the ``meta`` device and has no place to go to, FSDP1 has flattened the parameters, or each
        of several ranks would draw a seed of its own.

    Examples
    --------
    >>> from torch import nn
    >>> from numparam.initializer import Normal
    >>> model = nn.Sequential(nn.Embedding(100, 16), nn.Linear(16, 16), nn.LayerNorm(16))
    >>> print(init_(model, {"0.weight": Normal(0.02)}, seed=7))
    parameter  shape      here       dtype    device  values                        rule
    0.weight   (100, 16)  (100, 16)  float32  cpu     Normal(sigma=0.02, mean=0.0)  0.weight
    1.weight   (16, 16)   (16, 16)   float32  cpu     Uniform(scale=0.25)           torch.nn.Linear
    1.bias     (16,)      (16,)      float32  cpu     Uniform(scale=0.25)           torch.nn.Linear
    2.weight   (16,)      (16,)      float32  cpu     One()                         torch.nn.LayerNorm
    2.bias     (16,)      (16,)      float32  cpu     Zero()                        torch.nn.LayerNorm
    5 tensors, 7.6 kB here; seed 7
    """
    if not isinstance(module, torch.nn.Module):
        raise ArgumentTypeError(f"a torch.nn.Module is initialised, found {type(module).__name__}")
    number, own = common_seed(seed), OwnRules(rules)
    for part in module.modules():
        if is_of_torch(part, "FSDPModule"):  # FSDP2 may still show the gathered parameters of the last forward pass
            part.reshard()
    found = list(places(module, f"{prefix}." if prefix and not prefix.endswith(".") else prefix))
    chosen, left = _choose(found, own)
    _check_meta(chosen, left, device)
    fills = _plan(chosen, number)
    if device is not None:
        _give_memory(module, device)
        fills = _plan(chosen, number)
    fill_all(fills)
    filled = [_row(fill, rule) for fill, (_, _, rule) in zip(fills, chosen, strict=True)]
    return Report(number, filled, [place.name for place in left], own.unused)


Chosen = list[tuple[Place, Initializer, str]]


def _choose(found: list[Place], own: OwnRules) -> tuple[Chosen, list[Place]]:
    """Give every parameter its initializer and every buffer that of its layer; return them, and what stays as it is."""
    chosen: Chosen = []
    left: list[Place] = []
    unknown: list[Place] = []
    for place in found:
        choice = own.find(place) if place.is_parameter else None
        if choice is None and (own.layers or not place.is_parameter):
            choice = layers.default(place)
        if choice is None:
            (unknown if place.is_parameter else left).append(place)
        elif isinstance(choice[0], Unset):
            left.append(place)
        else:
            chosen.append((place, *choice))
    if unknown:
        place = unknown[0]
        more = f" (and {len(unknown) - 1} more, {unknown[1].name!r} next)" if unknown[1:] else ""
        raise RuleError(
            f"no rule says how parameter {place.name!r} of shape {tuple(place.tensor.shape)}{more} starts, and its "
            f"module, {type(place.owner).__qualname__}, is none whose start numparam knows; give a rule, such as "
            f'rules={{"{place.name}": Normal(0.02)}}'
        )
    return chosen, left


def _check_meta(chosen: Chosen, left: list[Place], device: Any) -> None:
    """Raise if something would get no memory, or a buffer memory that holds anything."""
    if device is None:
        for place, _, _ in chosen:
            if place.tensor.is_meta:
                raise StateError(
                    f"{_what(place)} is on the meta device and has no memory: call to_empty(device=...) of the module "
                    "before, or give init_ a device"
                )
        return
    for place in left:
        if place.tensor.is_meta and not place.is_parameter:
            raise StateError(
                f"{_what(place)} is on the meta device, and no layer of torch says its values: "
                "give it values on a device before"
            )


def _what(place: Place) -> str:
    return f"{'parameter' if place.is_parameter else 'buffer'} {place.name!r}"


def _plan(chosen: Chosen, seed: int) -> list[Fill]:
    return [plan(place.name, getattr(place.owner, place.key), init, seed) for place, init, _ in chosen]


def _give_memory(module: torch.nn.Module, device: Any) -> None:
    """Move what is on the meta device to another one, and keep shared what is shared."""
    before = [
        (part, key, parameter)
        for part in module.modules()
        for key, parameter in part._parameters.items()
        if parameter is not None
    ]
    module._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor)
    first: dict[int, Any] = {}
    for part, key, parameter in before:
        now = part._parameters[key]
        if first.setdefault(id(parameter), now) is not now:
            setattr(part, key, first[id(parameter)])


def _row(fill: Fill, rule: str) -> Filled:
    tensor, local = fill.tensor, fill.local
    dtype = str(tensor.dtype).removeprefix("torch.")
    place, nbytes = str(local.device), local.numel() * local.element_size()
    return Filled(fill.name, tuple(tensor.shape), tuple(local.shape), dtype, place, nbytes, fill.init, rule)
