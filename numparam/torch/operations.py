"""What a call of an operation of torch is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def replicating(is_sharded: bool) -> Iterator[None]:
    """Let sharded tensors meet ordinary ones, which all ranks have alike."""
    if not is_sharded:
        yield
        return
    from torch.distributed.tensor.experimental import implicit_replication

    with implicit_replication():
        yield


def flat(args: Iterable[Any]) -> Iterator[Any]:
    """Iterate over arguments, and over the items of lists and tuples among them."""
    for arg in args:
        if isinstance(arg, list | tuple):
            yield from arg
        else:
            yield arg


def first(args: Any) -> Any:
    """Return the first argument, or the first item of it."""
    return args[0][0] if isinstance(args[0], list | tuple) and args[0] else args[0]


def is_augmented(name: str) -> bool:
    """Return whether a method implements an operator such as ``*=``."""
    return name in {f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "div", "floordiv", "mod", "pow")}


def plain(index: Any) -> Any:
    """Turn tensors of one integer in an index into integers."""
    items = index if isinstance(index, tuple) else (index,)
    return tuple([int(item) if isinstance(item, torch.Tensor) and item.ndim == 0 else item for item in items])


def returned(tensor: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """Return a tensor, or `out` with its values."""
    return tensor if out is None else out.copy_(tensor)
