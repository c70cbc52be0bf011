"""Find out what a model's own code draws, by running it again on a copy without memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from numparam.errors import StateError
from numparam.torch.filling import Fill
from numparam.torch.modules import Where, _Init
from numparam.torch.rules import OwnRules
from numparam.torch.tracking import Tracked
from numparam.torch.walk import is_of, modules


def without_memory(module: torch.nn.Module, held: Container[str] = ()) -> torch.nn.Module:
    """Return a copy of a module on the meta device, which takes no memory while it is made either.

    Those in `held`, by their names, get memory on the CPU.
    """
    memo: dict[int, Any] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        bare = torch.empty_like(tensor.detach(), device="cpu" if name in held else "meta")
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = torch.nn.Parameter(bare, tensor.requires_grad) if is_parameter else bare
    sharded = [part for part in module.modules() if is_of(part, "FSDPModule")]
    for part in sharded:  # FSDP2 refuses copies: return to the class that it has replaced
        kind: Any = type(part).__bases__[1]
        memo[id(part)] = kind.__new__(kind)
    for part in sharded:
        own = {key: value for key, value in vars(part).items() if "_hooks" not in key and "composable" not in key}
        vars(memo[id(part)]).update(vars(torch.nn.Module()) | copy.deepcopy(own, memo))
    copied: torch.nn.Module = copy.deepcopy(module, memo)
    return copied


def drawn_again(
    module: torch.nn.Module,
    seed: int,
    own: OwnRules,
    moved: Callable[[str], str],
    ties: Mapping[str, str],
    where: Where | None,
    held: Container[str] = (),
) -> dict[str, Tracked]:
    """Return what the code of a model writes to each tensor, by its name, as `Tracked.writes`.

    Those in `held`, see `without_memory`, have their values in `Tracked.local`.

    Raises
    ------
    StateError
        If the module cannot be copied, or its code needs values.
    """
    try:
        bare = without_memory(module, held)
        job = _Init(bare, "", modules(bare), seed, own, moved, ties, ties, where)
        with ExitStack() as undo:
            mode = job._run_own(undo, set(map(id, job.order)), keep_writes=True)
    except Exception as error:
        raise StateError(f"it cannot run without memory ({type(error).__name__}: {error})") from None
    return {} if mode is None else {item.name: item for item in mode.tracker.all}


def expected(item: Tracked, seed: int) -> torch.Tensor:
    """Return what this rank holds of a tensor after all that was written to it."""
    out = torch.empty_strided(item.local.shape, item.local.stride(), dtype=item.local.dtype)
    for how, part, name, region in item.writes or ():
        at = part.out.storage_offset() - item.local.storage_offset()
        view = out if part.is_full else out.as_strided(part.out.shape, part.out.stride(), at)
        Fill(name, view, view, item.region if part.is_full else region, how, seed).run()
    return out
