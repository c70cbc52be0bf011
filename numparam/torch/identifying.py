"""Name what has gone to a wrong place in a module, on any mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from numparam.dtypes import as_dtype
from numparam.fingerprints.identification import Identification, identify_all, rows_and_columns
from numparam.fingerprints.verifying import by_name
from numparam.indexing.region import Region
from numparam.stream.seed import choose_seed
from numparam.tensor import Recipe, Tensor
from numparam.torch.draws import is_random
from numparam.torch.modules import Where
from numparam.torch.report import Report
from numparam.torch.verify import array_of, check, held_by
from numparam.torch.walk import places

_SMALL = 1 << 12  # bytes


class Misplaced(NamedTuple):
    """Describe what a parameter holds in place of its own values; printed, it is one line."""

    name: str
    expected: Region
    """What this rank should hold of the parameter."""
    found: Identification
    rank: int = 0
    ranks: int = 1
    """How many ranks took part."""
    duplicate_of: int | None = None
    """Another rank, which should hold these values, and does."""

    def __str__(self) -> str:
        who = f"rank {self.rank}: " if self.ranks > 1 else ""
        copy = "" if self.duplicate_of is None else f"; duplicate of rank {self.duplicate_of}"
        return f"{who}parameter {self.name!r}: {self.found.against(self.name, self.expected)}{copy}"


def identify(
    module: torch.nn.Module,
    expected: Mapping[str, Tensor] | Report,
    *,
    where: Where | None = None,
    group: torch.distributed.ProcessGroup | None = None,
    local: bool = False,
) -> list[Misplaced]:
    """Name the parameters that do not hold the rows and columns they should, and what they hold instead.

    Only the first values of each row and column are compared, and a few full ones; `verify` compares all.

    Parameters
    ----------
    module : torch.nn.Module
        As `fingerprint` takes it.
    expected : mapping of str to Tensor, or Report
        The lazy parameters that `pattern_` returned, or what `init_` returned.
    where, group, local
        As for `fingerprint`; of several ranks each identifies what it holds, and the lines are exchanged.

    Returns
    -------
    list of Misplaced
        Equal on all ranks; empty if all is in its place. Parameters that nothing random was drawn for are left out.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    StateError
        If the placements do not tell what a rank holds.

    Examples
    --------
    >>> from numparam.torch import pattern_
    >>> model = torch.nn.ModuleDict({name: torch.nn.Linear(48, 64, bias=False) for name in ("q", "k")})
    >>> pattern = pattern_(model)
    >>> with torch.no_grad():
    ...     _ = model["q"].weight.copy_(model["k"].weight)
    >>> print(*identify(model, pattern))
    parameter 'q.weight': rows 0:64 of k.weight, where rows 0:64 of q.weight were expected
    """
    check(module)
    lazy = _lazy(expected) if isinstance(expected, Report) else by_name(expected)
    regions: dict[str, Region] = {}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for place in places(module):
        if place.is_parameter and place.name in lazy and place.current.ndim:
            part, region = held_by(place.name, place.current, where)
            if region.size:
                regions[place.name] = region
                arrays[place.name] = array_of(part.cpu())
    wrong = {
        name: each
        for name, each in identify_all(arrays, lazy).items()
        if each.against(name, regions[name]) and not _is_in_place(arrays[name], lazy[name], regions[name])
    }
    dist = torch.distributed
    if local or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return _misplaced({0: wrong}, {0: regions})
    ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
    gathered: list[Any] = [None] * len(ranks)
    dist.all_gather_object(gathered, wrong, group=group)
    names = {name for each in gathered for name in each}
    held: list[Any] = [None] * len(ranks)
    dist.all_gather_object(held, {name: region for name, region in regions.items() if name in names}, group=group)
    return _misplaced(dict(zip(ranks, gathered, strict=True)), dict(zip(ranks, held, strict=True)))


def _is_in_place(array: np.ndarray[Any, Any], expected: Tensor, region: Region) -> bool:
    """Return whether a small array, whose few values may be elsewhere too, holds what it should."""
    if array.nbytes > _SMALL or array.dtype != expected.dtype:
        return False
    values = np.empty(region.shape, expected.dtype)
    expected.fill_into(values, region)
    return array.tobytes() == values.tobytes()


def _misplaced(
    found: Mapping[int, Mapping[str, Identification]], regions: Mapping[int, Mapping[str, Region]]
) -> list[Misplaced]:
    owners: dict[Any, list[int]] = {}
    for rank, held in regions.items():
        for name, region in held.items():
            owners.setdefault((name, *rows_and_columns(region)), []).append(rank)
    wrong = []
    for rank, each in found.items():
        for name, identification in each.items():
            region = regions[rank][name]
            if identification.against(name, region):
                others = owners.get(identification.region(), ())
                right = [it for it in others if it != rank and name not in found[it]]
                wrong.append(Misplaced(name, region, identification, rank, len(found), next(iter(right), None)))
    return wrong


def _lazy(report: Report) -> dict[str, Tensor]:
    """Return the parameters of a report whose values one random initializer draws."""
    return {
        row.name: Tensor._of(
            Recipe(
                row.init, choose_seed(row.init.seed, report.seed), row.name, Region.full(row.shape), as_dtype(row.dtype)
            )
        )
        for row in report.filled
        if not isinstance(row.init, str) and is_random(row.init)
    }
