"""The start of weights that torch computes from other parameters: weight norm, spectral norm, orthogonal weights."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from numparam.errors import StateError
from numparam.initializer import Normal
from numparam.torch import layers
from numparam.torch.mode import Drawing
from numparam.torch.own import Start
from numparam.torch.walk import Place, Visit


def is_inside(visit: Visit) -> bool:
    """Return whether `start_of` may know the parameters of a module."""
    return bool(visit[1]._forward_pre_hooks) or isinstance(visit[1], ParametrizationList)


def start_of(place: Place) -> Start | None:
    """Return the start of the weight that a parameter or buffer is a part of, None if it is not such a part.

    The weight starts as its layer's does, under its own name, and the parameters are those that give it. The vectors of
    spectral norm start from a normal draw, as torch starts them.
    """
    inside = next((at for at, (_, part) in enumerate(place.around) if isinstance(part, ParametrizationList)), None)
    if inside is not None:
        parameters, (_, layer) = place.around[inside][1], place.around[inside - 2]
        key = next(name for name, found in layer.parametrizations.items() if found is parameters)
        around = place.around[: inside - 1]
        return Start(parameters, lambda mode: _parametrize(mode, layer, key, around), f"{_rule(layer)}.{key}")
    layer = place.owner
    if not layer._forward_pre_hooks:
        return None
    hooks = [hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, WeightNorm | SpectralNorm)]
    hook = next((hook for hook in hooks if place.key.startswith(f"{hook.name}_")), None)
    if hook is None:
        return None
    return Start(layer, lambda mode: _hook(mode, layer, hook, place.around), f"{_rule(layer)}.{hook.name}")


def _rule(layer: Any) -> str:
    return next(kind.__qualname__ for kind in type(layer).__mro__ if not kind.__name__.startswith("Parametrized"))


def _weight(mode: Drawing, layer: Any, key: str, like: torch.Tensor, around: Any) -> torch.Tensor:
    """Return what the weight of the layer is without the parametrization."""
    if hasattr(like, "device_mesh"):
        raise StateError(
            f"the parametrized weight {mode.names[id(layer)] + key!r} is sharded: parametrize after sharding"
        )
    path = around[-1][0] + key
    bare = Place(path, layer, key, like, around, path)
    default = layers.default(bare)
    if default is None:
        raise StateError(f"the parametrized weight {bare.name!r} has no rule: give rules for its parts")
    return mode.named(mode.names[id(layer)] + key, torch.empty_like(like.detach()), default[0])


def _parametrize(mode: Drawing, layer: Any, key: str, around: Any) -> None:
    parameters = layer.parametrizations[key]
    like = parameters.original if parameters.is_tensor else parameters.original1
    weight = _weight(mode, layer, key, like, around)
    with torch.no_grad():
        try:
            setattr(layer, key, weight)
            mode.replaced(parameters)
        except NotImplementedError:  # torch starts parametrisations without an inverse with the weight itself
            parameters.original.copy_(weight)
        for part in parameters:
            if isinstance(part, parametrizations._SpectralNorm) and weight.ndim > 1:
                _vectors(mode, mode.names[id(layer)] + key, part, "_u", "_v")
                part._power_method(part._reshape_weight_to_matrix(weight), 15)


def _hook(mode: Drawing, layer: Any, hook: Any, around: Any) -> None:
    is_spectral = isinstance(hook, SpectralNorm)
    base = getattr(layer, hook.name + ("_orig" if is_spectral else "_v"))
    weight = _weight(mode, layer, hook.name, base, around)
    with torch.no_grad():
        base.copy_(weight)
        if is_spectral:
            _vectors(mode, mode.names[id(layer)] + hook.name, layer, f"{hook.name}_u", f"{hook.name}_v")
        else:
            getattr(layer, f"{hook.name}_g").copy_(torch.norm_except_dim(weight, 2, hook.dim))


def _vectors(mode: Drawing, name: str, owner: Any, *keys: str) -> None:
    """Start the vectors of spectral norm, as torch does, from normalised draws."""
    for key in keys:
        drawn = mode.named(f"{name}.{key}", torch.empty_like(owner._buffers[key]), Normal(1.0))
        owner._buffers[key].copy_(torch.nn.functional.normalize(drawn, dim=0, eps=1e-12))
