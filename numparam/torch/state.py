"""What can be known of the memory of a tensor before it is filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import c_byte
from functools import cache, lru_cache
from typing import Any

import torch

from numparam.errors import ArgumentTypeError, DtypeError, NumparamError, StateError
from numparam.torch import layers
from numparam.torch.memory import as_numpy
from numparam.torch.walk import Place


def refuse(wrong: Sequence[Place]) -> None:
    """Raise for parameters whose memory is not their values: placeholders, packed classes and dtypes."""
    place, tensor = wrong[0], wrong[0].tensor
    more = f" (and {len(wrong) - 1} more, {wrong[1].name!r} next)" if wrong[1:] else ""
    error: type[NumparamError] = ArgumentTypeError
    if is_placeholder(tensor):
        full: Any = tensor
        error = StateError
        what = (
            f"a placeholder of DeepSpeed's ZeRO-3 for shape {tuple(full.ds_shape)}, found {tuple(tensor.shape)}: "
            "call init_ before DeepSpeed shards the model, or inside deepspeed.zero.GatheredParameters, and after this "
            "engine.optimizer.refresh_fp32_params() if there is an optimizer"
        )
    elif _is_written(tensor.dtype):
        what = f"a {type(tensor).__qualname__}, not a plain tensor"
    else:
        what = f"of {tensor.dtype}, which numparam does not write"
    raise error(f'parameter {place.name!r}{more} is {what}; the rule {{"{place.name}": "unset"}} leaves it as it is')


def unknown_start(unknown: Sequence[Place]) -> str:
    """Say that nothing initialises some parameters, and what to do."""
    place = unknown[0]
    more = f" (and {len(unknown) - 1} more, {unknown[1].name!r} next)" if unknown[1:] else ""
    classes = ", ".join(dict.fromkeys(type(place.owner).__qualname__ for place in unknown))
    return (
        f"no rule matches parameter {place.name!r} of shape {tuple(place.tensor.shape)}{more}: {classes} is "
        "neither a layer of torch nor declares an initialisation that writes it, such as init_weights or "
        f'reset_parameters; give a rule, such as rules={{"{place.name}": Normal(0.02)}}'
    )


def called(place: Place) -> str:
    """Return what a place is, and its name."""
    return f"{'parameter' if place.is_parameter else 'buffer'} {place.name!r}"


def is_plain(tensor: torch.Tensor) -> bool:
    """Return whether the memory of a tensor is its values."""
    kind: Any = type(tensor)
    is_known = kind is torch.nn.Parameter or not _packs(kind)
    return is_known and _is_written(tensor.dtype) and not (hasattr(tensor, "ds_shape") and is_placeholder(tensor))


def is_placeholder(tensor: Any) -> bool:
    """Return whether ZeRO-3 has left a parameter without the values of its shape."""
    return hasattr(tensor, "ds_shape") and tensor.shape != tensor.ds_shape


@cache
def _is_written(dtype: torch.dtype) -> bool:
    try:
        as_numpy(dtype)
    except DtypeError:
        return False
    return True


@lru_cache(maxsize=1024)
def _packs(kind: Any) -> bool:
    """Return whether a class of tensors does torch's operations itself, so that its memory need not be its values."""
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
    # Most are not zero, and looking at one item through torch takes a hundred times as long.
    if type(tensor) is torch.nn.Parameter and tensor.is_cpu:
        address = tensor.data_ptr()
        if address and c_byte.from_address(address).value:
            return False
    if tensor._version < 2 or tensor.is_meta or not tensor.numel() or hasattr(tensor, "device_mesh"):
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
