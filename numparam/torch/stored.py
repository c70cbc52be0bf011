"""Weights of models of transformers that are several weights, or whose axes are in another order than torch's."""

from __future__ import annotations

from typing import Any

from numparam.initializer import Axes, Initializer
from numparam.torch.walk import Place, is_of

_CONCATENATED = ("qkv_proj", "qkv", "Wqkv", "in_proj_qkv", "c_attn")


def as_stored(init: Initializer, place: Place) -> Initializer:
    """Let an initializer of a rule read a parameter as its model of transformers stores it.

    Known are ``Conv1D``, experts that are stacked in one tensor, and fused projections to queries, keys and values of
    one size or to a gate. `Axes` of a rule are kept, and so is what does not depend on the shape.
    """
    is_known = any(is_of(part, "PreTrainedModel", "transformers") for _, part in place.around)
    if init.reads == "nothing" or not is_known or not place.is_parameter:
        return init
    shape, owner = tuple(place.tensor.shape), place.owner
    called = place.path.removesuffix(f".{place.key}").rsplit(".", 1)[-1]
    if is_of(owner, "Conv1D", "transformers") and len(shape) == 2:
        return Axes(init, in_axis=0, out_axis=1, splits=_fused(init, called, shape[1], shape[0], owner))
    if len(shape) == 3 and {"gate_up_proj", "down_proj"} <= owner._parameters.keys():
        up, down = owner._parameters["gate_up_proj"], owner._parameters["down_proj"]
        is_transposed = up.shape[1] != 2 * down.shape[2] and up.shape[2] == 2 * down.shape[1]
        inputs, outputs = (1, 2) if is_transposed else (2, 1)
        count = _fused(init, place.key, shape[outputs], shape[inputs], owner)
        return Axes(init, batch_axis=0, in_axis=inputs, out_axis=outputs, splits=count)
    if len(shape) == 2 and (count := _fused(init, called, *shape, owner)) is not None:
        return Axes(init, splits=count)
    return init


def _fused(init: Initializer, called: str, outputs: int, inputs: int, owner: Any) -> int | None:
    """Return how many weights of one size are fused in one."""
    if called == "gate_up_proj" and not outputs % 2:
        return 2 if init.reads == "fans" or getattr(owner, "is_concatenated", True) else None
    if called == "query_key_value" and init.reads == "fans" and outputs == 3 * inputs:  # which are interleaved
        return 3
    return 3 if called in _CONCATENATED and outputs == 3 * inputs else None
