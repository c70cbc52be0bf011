"""The parameters and buffers of a module, under names that do not depend on wrappers."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from numparam.errors import StateError

# The attribute under which a wrapper, by its package and class, holds the module it wraps. It is left out of names, but
# only there: a module of a user may have a part that is called "module".
_WRAPPED = {
    ("torch", "AveragedModel"): ("module",),
    ("torch", "CheckpointWrapper"): ("_checkpoint_wrapped_module",),
    ("torch", "DataParallel"): ("module",),
    ("torch", "DistributedDataParallel"): ("module",),
    ("torch", "OffloadWrapper"): ("_checkpoint_wrapped_module",),
    ("torch", "OptimizedModule"): ("_orig_mod",),
    ("deepspeed", "DeepSpeedEngine"): ("module",),
    ("lightning", "_FabricModule"): ("_forward_module", "_original_module"),
    ("lightning_fabric", "_FabricModule"): ("_forward_module", "_original_module"),
    ("peft", "PeftModel"): ("base_model",),
    ("peft", "BaseTuner"): ("model",),
    ("peft", "BaseTunerLayer"): ("base_layer",),
    ("peft", "AuxiliaryTrainingWrapper"): ("original_module", "modules_to_save"),
}


Around = tuple[tuple[str, Any], ...]
Visit = tuple[str, torch.nn.Module, Around]


class Place(NamedTuple):
    """A parameter or buffer, and its place in the module."""

    name: str
    """The dotted name in the full module, without wrappers."""
    owner: torch.nn.Module
    """The module whose attribute it is."""
    key: str
    """The name of that attribute."""
    tensor: torch.Tensor
    around: Around
    """The modules around it, the outermost first, each with the prefix of the names in it."""
    path: str
    """The dotted name in the full module, without wrappers."""

    @property
    def current(self) -> torch.Tensor:
        """Return the tensor that is there now; it does not compute a parametrized one."""
        found: Any = self.owner._parameters.get(self.key)
        if found is None:
            found = self.owner._buffers.get(self.key)
        tensor: torch.Tensor = self.tensor if found is None else found
        return tensor

    @property
    def is_parameter(self) -> bool:
        """Whether it is a parameter, not a buffer."""
        return isinstance(self.tensor, torch.nn.Parameter)


def places(module: torch.nn.Module, prefix: str = "", visits: Iterable[Visit] | None = None) -> Iterator[Place]:
    """Walk through the parameters and buffers in the order of ``named_parameters``.

    A shared one is visited once, at its first place. What ``DistributedDataParallel``, ``DataParallel``,
    ``torch.compile``, activation checkpoints and ``AveragedModel`` put around a module leaves no trace in the names.

    Examples
    --------
    >>> from torch import nn
    >>> wrapped = nn.DataParallel(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4)))
    >>> [place.name for place in places(wrapped)]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """
    seen: set[int] = set()
    for inside, part, around in modules(module, prefix) if visits is None else visits:
        for state in (part._parameters, part._buffers) if part._buffers else (part._parameters,):
            for key, tensor in state.items():
                if tensor is None or id(tensor) in seen:
                    continue
                seen.add(id(tensor))
                name = inside + key
                if type(tensor) is not torch.nn.Parameter and torch.nn.parameter.is_lazy(tensor):
                    raise StateError(f"parameter {name!r} has no shape yet: call the module once")
                yield Place(name, part, key, tensor, around, name)


def modules(module: torch.nn.Module, prefix: str = "") -> list[Visit]:
    """List the modules, the outer ones first; each with the prefix of the names in it, and what is around it.

    Examples
    --------
    >>> [prefix for prefix, _, _ in modules(torch.nn.Sequential(torch.nn.ReLU()))]
    ['', '0.']
    """
    found: list[Visit] = []
    _walk(module, prefix, (), set(), found)
    return found


def _walk(module: torch.nn.Module, prefix: str, around: Around, seen: set[int], found: list[Visit]) -> None:
    seen.add(id(module))
    kind: Any = type(module)
    is_flattened, wrapped = _kept(kind)
    if is_flattened:
        raise StateError(
            f"module {prefix.rstrip('.')!r} is wrapped by FullyShardedDataParallel, which flattens parameters: "
            "initialise before wrapping, or use torch.distributed.fsdp.fully_shard"
        )
    around = *around, (prefix, module)
    found.append((prefix, module, around))
    for name, child in module._modules.items():
        if child is None or id(child) in seen:
            continue
        if name in wrapped and name == "modules_to_save":  # copies of the original module, one for each adapter
            seen.add(id(child))
            for copy in child.children():
                if id(copy) not in seen:
                    _walk(copy, prefix, around, seen, found)
        else:
            _walk(child, prefix if name in wrapped else f"{prefix}{name}.", around, seen, found)


def resharded(visits: Iterable[Visit]) -> None:
    """Let FSDP2, which may show the gathered parameters of the last forward pass, show the shards."""
    for _, part, _ in visits:
        if is_of(part, "FSDPModule"):
            part.reshard()


def refresh_copies(visits: Iterable[Visit]) -> None:
    """Let DeepSpeed's optimizers, whose steps overwrite parameters from their own copies, copy the new values."""
    for _, part, _ in visits:
        if is_of(part, "DeepSpeedEngine", "deepspeed") and hasattr(part.optimizer, "refresh_fp32_params"):
            part.optimizer.refresh_fp32_params()


def is_of(module: Any, name: str, package: str = "torch") -> bool:
    """Tell whether an object is an instance of a class of a package, without importing it."""
    kind: Any = type(module)
    return (package, name) in _classes(kind)


@lru_cache(maxsize=1024)  # models have thousands of modules of a few classes
def _classes(kind: Hashable) -> set[tuple[str, str]]:
    return {(base.__module__.split(".")[0], base.__name__) for base in getattr(kind, "__mro__", ())}


@lru_cache(maxsize=1024)
def _kept(kind: Hashable) -> tuple[bool, frozenset[str]]:
    """Return whether a class is FSDP1's, and under which attributes it keeps the module that it wraps."""
    found = _classes(kind)
    is_flattened = ("torch", "FullyShardedDataParallel") in found
    return is_flattened, frozenset([name for wrapper in _WRAPPED.keys() & found for name in _WRAPPED[wrapper]])


@contextmanager
def collecting_later() -> Iterator[None]:
    """Put off garbage collections: a model has a million objects, and each new record of it may have all visited."""
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_enabled:
            gc.enable()
