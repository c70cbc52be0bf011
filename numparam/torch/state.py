"""What can be known of the memory of a tensor before it is filled."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import string_at
from functools import lru_cache
from typing import Any

import torch

from numparam.torch import layers
from numparam.torch.walk import Place


def is_packed(tensor: torch.Tensor) -> bool:
    """Return whether a class of tensors does torch's operations itself, so that its memory need not be its values."""
    kind: Any = type(tensor)
    return _packs(kind)


@lru_cache(maxsize=1024)
def _packs(kind: Any) -> bool:
    own = (base for base in kind.__mro__ if base.__module__.split(".")[0] != "torch")
    return any(vars(base).keys() & {"__torch_function__", "__torch_dispatch__"} for base in own)


def is_overwritten(place: Place) -> bool:
    """Return whether a tensor on the meta device was written to more often than the constructor of its layer does."""
    tensor = place.tensor
    if not tensor.is_meta or hasattr(tensor, "device_mesh"):
        return False
    return bool(tensor._version > (1 if getattr(place.owner, "padding_idx", None) is None else 2))


def is_zeroed(place: Place) -> bool:
    """Return whether somebody has overwritten a random start with zeros, after the layer's own constructor."""
    tensor = place.tensor
    if tensor._version < 2 or tensor.is_meta or not tensor.numel() or hasattr(tensor, "device_mesh"):
        return False
    # Most are not zero, and looking at one item through torch takes a hundred times as long.
    if tensor.is_cpu and any(string_at(tensor.data_ptr(), tensor.element_size())):
        return False
    return not tensor.detach().any().item()


def is_raw(place: Place) -> bool:
    """Return whether a parameter that the constructor of its layer writes to was not written to."""
    return layers.default(place) is not None and place.tensor._version == 0


def give_memory(module: torch.nn.Module, device: Any) -> Callable[[], None]:
    """Move what is on the meta device to another one, and keep shared what is shared; return how to undo it."""
    before = [
        (part, state, key, tensor)
        for part in module.modules()
        for state in (part._parameters, part._buffers)
        for key, tensor in state.items()
        if tensor is not None
    ]
    module._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor)
    first: dict[int, Any] = {}
    for part, state, key, tensor in before:
        now = state[key]
        if first.setdefault(id(tensor), now) is not now:
            setattr(part, key, first[id(tensor)])

    def undo() -> None:
        for _, state, key, tensor in before:
            if not hasattr(tensor, "device_mesh"):  # FSDP knows its parameters by identity
                state[key] = tensor

    return undo
