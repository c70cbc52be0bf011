"""What a constructor gave to parameters, for models that are built again from their configuration."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from numparam.errors import StateError
from numparam.torch.mode import Drawing
from numparam.torch.seeing import seeing
from numparam.torch.tracking import Part, Tracked, full, tracked
from numparam.torch.walk import is_of, places

_VALUES = {
    getattr(torch, name)
    for name in (
        "tensor",
        "as_tensor",
        "ones",
        "zeros",
        "full",
        "arange",
        "linspace",
        "logspace",
        "eye",
        "rand",
        "randn",
    )
}


class _Values(TorchFunctionMode):  # type: ignore[misc]  # torch has no types here
    """Allocate memory for tensors built from values, where all others are on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func in _VALUES and named.get("device") is None:
            named["device"] = "cpu"
        return func(*args, **named)


def is_configurable(model: Any) -> bool:
    """Return whether a model can be built again: it keeps all arguments of its constructor."""
    if is_of(model, "PreTrainedModel", "transformers"):
        return getattr(model, "config", None) is not None
    return is_of(model, "ModelMixin", "diffusers") and is_of(model, "ConfigMixin", "diffusers")


def built_again(model: Any, seed: int) -> dict[str, Tracked]:
    """Build a model again on the meta device, and record what its constructor writes, by parameter and buffer.

    Those that it gave values are on a device; the others have a log of writes.
    """
    kind: Any = next(base for base in type(model).__mro__ if not base.__module__.startswith("torch."))
    mode = Drawing(seed, [], {})
    with seeing(mode, {}), torch.device("meta"), _Values():
        config = copy.deepcopy(model.config)
        twin = kind.from_config(config) if is_of(model, "ModelMixin", "diffusers") else kind(config)
    return {place.name: mode.orphan(place.tensor) or tracked(place) for place in places(twin)}


def start_as(mode: Drawing, item: Tracked, made: Tracked) -> None:
    """Write to a parameter what a constructor wrote to it."""
    if made.log is None and not made.local.is_meta:
        mode.copy(item.place.current, made.local)
    for how, part in made.log or ():
        found: Part | None = full(item)
        if not part.is_full and part.region is not None:
            base, steps = part.region.span()
            view = item.local.as_strided(part.shape, steps, base + item.local.storage_offset())
            found = None if hasattr(item.place.current, "device_mesh") else mode.tracker.find(view)
        if found is None:
            raise StateError(f"the constructor writes to a part of {item.name!r}, which is sharded: give a rule for it")
        mode.write(found, how)
