"""Settings of a cell for training and for parallel runs: methods of `numparam.Cell`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from numparam import dtypes
from numparam.cell import assign
from numparam.cell.tree import Tree
from numparam.checks import as_bool, as_int
from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.text import shown

C = TypeVar("C", bound=Tree)

_COMPUTE_DTYPES = ("float16", "float32", "bfloat16")
_RECOMPUTE = ("mp_comm_recompute", "parallel_optimizer_comm_recompute", "recompute_slice_activation")
_RECOMPUTE_IGNORED = ("use_reentrant", "output_recompute", "early_stop", "context_fn")


def set_train(self: C, mode: bool = True) -> C:
    """Put the cell and all below it into training, or out of it: sets ``training`` and ``phase``."""
    for _, cell in self._walk():
        cell.training, cell.phase = mode, "train" if mode else "predict"
    return self


def set_grad(self: C, requires_grad: bool = True) -> C:
    """Note in ``requires_grad`` whether gradients of this cell are wanted; its parameters stay as they are."""
    self.requires_grad = requires_grad
    return self


def to_float(self: C, dst_type: np.typing.DTypeLike) -> C:
    """Ask this cell and all below it to compute in float16, float32 or bfloat16; the parameters keep their dtype.

    ``construct`` finds it in ``compute_dtype``; another dtype is a ValueError. `Cell.to` converts the parameters.
    """
    try:
        dtype = dtypes.as_dtype(dst_type)
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in _COMPUTE_DTYPES:
        raise ArgumentValueError(f"a cell computes in {', '.join(_COMPUTE_DTYPES)}; found {shown(dst_type)}")
    for _, cell in self._walk():
        if not assign.is_part(cell, "compute_dtype"):
            cell.compute_dtype = dtype
    return self


def set_comm_fusion(self: C, fusion_type: int, recurse: bool = True) -> C:
    """Set `Parameter.comm_fusion`, an int from 0, of every trainable parameter."""
    for parameter in Tree.trainable_params(self, recurse):
        parameter.comm_fusion = fusion_type
    return self


def set_param_ps(self: Tree, recurse: bool = True, init_in_server: bool = False) -> None:
    """Note that a parameter server updates every trainable parameter; see `Parameter.set_param_ps`."""
    for parameter in Tree.trainable_params(self, recurse):
        parameter.set_param_ps(init_in_server)


def recompute(self: Tree, **options: Any) -> None:
    """Ask for a second forward pass instead of kept activations.

    ``parallel_optimizer_comm_recompute``, a bool, sets that attribute of every parameter. The other options of
    MindSpore are checked and have no effect, as there are no activations to recompute.
    """
    for option, value in options.items():
        if option in _RECOMPUTE_IGNORED:
            continue
        if option not in _RECOMPUTE:
            raise ArgumentValueError(f"recompute has no option {option!r}; known: {', '.join(_RECOMPUTE)}")
        as_bool(f"recompute: {option}", value)
    if "parallel_optimizer_comm_recompute" in options:
        for _, parameter in self._walk_parameters():
            parameter.parallel_optimizer_comm_recompute = options["parallel_optimizer_comm_recompute"]


def add_flags(self: C, **flags: Any) -> C:
    """Note flags, which become attributes."""
    for name, value in flags.items():
        setattr(self, name, value)
    self._own("_flags").update(flags)
    return self


def add_flags_recursive(self: C, **flags: Any) -> C:
    """Note flags of this cell and all below it."""
    for _, cell in self._walk():
        add_flags(cell, **flags)
    return self


def get_flags(self: Tree) -> dict[str, Any]:
    """Return the flags that `add_flags` noted."""
    return dict(self._flags)


def set_broadcast_flag(self: C, mode: bool = True) -> C:
    """Set the flag ``broadcast_flag`` of this cell and all below it."""
    return add_flags_recursive(self, broadcast_flag=mode)


def update_cell_type(self: Tree, cell_type: str) -> None:
    """Set ``cell_type``."""
    self.cell_type = cell_type


def set_inputs(self: Tree, *inputs: Any, **named: Any) -> None:
    """Note what the inputs of ``construct`` are like, by position or by name, for `get_inputs`; nothing is compiled."""
    if inputs and named:
        raise ArgumentValueError(f"{type(self).__name__}.set_inputs takes inputs by position or by name, found both")
    arguments = inspect.signature(self.construct).parameters
    if unknown := [name for name in named if name not in arguments]:
        raise ArgumentValueError(
            f"{type(self).__name__}.construct has no argument {unknown[0]!r}; it has {', '.join(arguments)}"
        )
    vars(self)["_inputs"] = named or inputs


def get_inputs(self: Tree) -> tuple[Any, ...] | dict[str, Any] | None:
    """Return what `set_inputs` noted, None before."""
    return self._inputs


def set_jit_config(self: Tree, jit_config: Any) -> None:
    """Keep the options of MindSpore's compiler in ``jit_config_dict``, the first time; nothing is compiled."""
    if not isinstance(options := getattr(jit_config, "jit_config_dict", None), dict):
        raise ArgumentTypeError(f"jit_config is a JitConfig, found {shown(jit_config)}")
    vars(self).setdefault("jit_config_dict", options)


def shard(
    self: Tree,  # noqa: ARG001
    in_strategy: tuple[Any, ...],
    out_strategy: tuple[Any, ...] | None = None,
    parameter_plan: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Check strategies for operators, which have no effect: parameters are sharded by ``parameter_layout_dict``."""
    for strategy in (in_strategy, out_strategy or ()):
        if type(strategy) is not tuple:
            raise ArgumentTypeError(f"the strategy of a cell is a tuple, found {shown(strategy)}")
    plan: Any = {} if parameter_plan is None else parameter_plan
    if not isinstance(plan, dict) or not all(isinstance(k, str) and isinstance(v, tuple) for k, v in plan.items()):
        raise ArgumentTypeError(f"parameter_plan maps names to tuples, found {shown(plan)}")


def set_data_parallel(self: Tree) -> None:
    """Do nothing, as there are no operators to search strategies for."""


def offload(self: Tree, backward_prefetch: str | int = "Auto") -> None:  # noqa: ARG001
    """Check when activations would be fetched, ``"Auto"`` or an int from 0; it has no other effect."""
    if not isinstance(backward_prefetch, str):
        as_int("backward_prefetch", backward_prefetch, 0)
    elif backward_prefetch != "Auto":
        raise ArgumentValueError(f"backward_prefetch is 'Auto' or an int, found {shown(backward_prefetch)}")


def cast_inputs(self: Tree, inputs: tuple[Any, ...], dst_type: np.typing.DTypeLike) -> tuple[Any, ...]:
    """Return tensors, in nested tuples too, converted to a dtype."""
    if not all(isinstance(item, tuple) or hasattr(item, "astype") for item in inputs):
        raise ArgumentTypeError(f"inputs is a tuple of tensors, found {shown(inputs)}")
    return tuple(
        [cast_inputs(self, item, dst_type) if isinstance(item, tuple) else item.astype(dst_type) for item in inputs]
    )
