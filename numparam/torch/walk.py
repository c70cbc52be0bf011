"""The parameters and buffers of a module, under names that do not depend on what it is wrapped in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import torch

from numparam.errors import StateError

# The attribute under which a wrapper of torch holds the module it wraps. It is left out of names, but only there: a
# module of a user may have a part that is called "module".
_WRAPPED = {
    "AveragedModel": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OffloadWrapper": "_checkpoint_wrapped_module",
    "OptimizedModule": "_orig_mod",
}


class Place(NamedTuple):
    """A parameter or buffer, and where it stands."""

    name: str
    """The dotted name in the whole module, without wrappers."""
    owner: torch.nn.Module
    """The module whose attribute it is."""
    key: str
    """The name of that attribute."""
    tensor: torch.Tensor
    around: tuple[tuple[str, Any], ...]
    """The modules around it, the outermost first, each with the prefix of the names in it."""

    @property
    def is_parameter(self) -> bool:
        """Say whether it is a parameter, not a buffer."""
        return isinstance(self.tensor, torch.nn.Parameter)


def places(module: torch.nn.Module, prefix: str = "") -> Iterator[Place]:
    """Walk through the parameters and buffers in the order of ``named_parameters``.

    One that stands at several places is seen once, at the first. What ``DistributedDataParallel``, ``DataParallel``,
    ``torch.compile``, activation checkpoints and ``AveragedModel`` put around a module leaves no trace in the names.

    Raises
    ------
    StateError
        If FSDP1 has flattened the parameters, or a lazy layer has not given them a shape.

    Examples
    --------
    >>> from torch import nn
    >>> wrapped = nn.DataParallel(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4)))
    >>> [place.name for place in places(wrapped)]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """
    return _visit(module, prefix, (), set())


def _visit(
    module: torch.nn.Module, prefix: str, around: tuple[tuple[str, Any], ...], seen: set[int]
) -> Iterator[Place]:
    if id(module) in seen:
        return
    seen.add(id(module))
    if is_of_torch(module, "FullyShardedDataParallel"):
        raise StateError(
            f"module {prefix.rstrip('.')!r} is wrapped by FullyShardedDataParallel, which flattens parameters: "
            "initialise before wrapping, or use torch.distributed.fsdp.fully_shard"
        )
    around = *around, (prefix, module)
    for key, tensor in chain(module._parameters.items(), module._buffers.items()):
        if tensor is not None and id(tensor) not in seen:
            seen.add(id(tensor))
            if torch.nn.parameter.is_lazy(tensor):
                raise StateError(f"parameter {prefix + key!r} has no shape yet: call the module once")
            yield Place(prefix + key, module, key, tensor, around)
    for name, child in module.named_children():
        wrapped = any(is_of_torch(module, wrapper) for wrapper, attribute in _WRAPPED.items() if attribute == name)
        yield from _visit(child, prefix if wrapped else f"{prefix}{name}.", around, seen)


def is_of_torch(module: torch.nn.Module, name: str) -> bool:
    """Say whether a module is of a class of torch, which need not be imported to ask."""
    return any(kind.__name__ == name and kind.__module__.startswith("torch.") for kind in type(module).__mro__)
