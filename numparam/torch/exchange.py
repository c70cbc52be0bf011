"""Add up the fingerprints of all ranks of a process group by one reduction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from numparam.fingerprints import Fingerprint, Fingerprints
from numparam.fingerprints.boxes import merged
from numparam.fingerprints.joining import Covered, check_facts, holders
from numparam.fingerprints.value import MODULUS

_LOW = 2**32 - 1


class Layout(NamedTuple):
    """What is known of a parameter without its values."""

    shape: tuple[int, ...]
    dtype: str
    key: str
    held: dict[int, Covered]
    """The regions, by rank; one mapping for all parameters that are sharded alike."""


def add_up(
    parts: Mapping[str, Fingerprint], layouts: Mapping[str, Layout | None], ranks: Sequence[int], group: Any
) -> Fingerprints:
    """Return the fingerprints of full parameters, equal on all ranks.

    A reduction of 32 bytes finds whether all ranks know the same layout; if not, the regions are gathered. Then one
    reduction of 64 bytes for each parameter adds up its sums, and a second pair that is 0 if all replicas are equal:
    each replica counts with a factor of its rank, and the first with minus the sum of the others' factors.

    Parameters
    ----------
    parts : mapping of str to Fingerprint
        What this rank holds.
    layouts : mapping of str to Layout
        What all ranks hold, None where this rank does not know it.
    ranks : sequence of int
        The ranks of the group, in their order.
    group : ProcessGroup or None
    """
    dist = torch.distributed
    known = {name: layout for name, layout in layouts.items() if layout is not None}
    if len(known) < len(layouts) or not _agree(known, group):
        facts = {name: (each.shape, each.dtype, each.key, each.boxes) for name, each in parts.items()}
        gathered: list[Any] = [None] * len(ranks)
        dist.all_gather_object(gathered, facts, group=group)
        known = _known(dict(zip(ranks, gathered, strict=True)))
    me = dist.get_rank()
    alike: dict[int, tuple[dict[Covered, list[int]], Covered]] = {}
    rows = []
    for name, layout in known.items():
        if id(layout.held) not in alike:
            regions = holders(name, layout.held.items())
            alike[id(layout.held)] = regions, merged([box for each in regions for box in each], layout.shape)
        members = alike[id(layout.held)][0].get(parts[name].boxes) if name in parts else None
        rows.append(_words(parts[name].sums, members, me) if members else [0] * 8)
    words = torch.tensor(rows, dtype=torch.int64, device=_device(group))
    dist.all_reduce(words, group=group)
    joined, differing = {}, []
    for (name, layout), row in zip(known.items(), words.tolist(), strict=True):
        first, second, *checks = ((low + (high << 32)) % MODULUS for low, high in zip(row[::2], row[1::2], strict=True))
        covered = alike[id(layout.held)][1]
        joined[name] = Fingerprint(layout.shape, layout.dtype, (first, second), covered, layout.key, name)
        differing += [name] if any(checks) else []
    if differing:
        tables: list[Any] = [None] * len(ranks)
        dist.all_gather_object(tables, {name: parts[name] for name in differing if name in parts}, group=group)
        Fingerprints.join(dict(zip(ranks, tables, strict=True)))  # raises
    return Fingerprints(joined)


def _agree(known: Mapping[str, Layout], group: Any) -> bool:
    held = {id(layout.held): hashlib.blake2b(repr(layout.held).encode()).digest() for layout in known.values()}
    facts = [(name, layout[:-1], held[id(layout.held)]) for name, layout in known.items()]
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16).digest()
    words = [int.from_bytes(digest[at : at + 4], "little") for at in range(0, 16, 4)]
    most = torch.tensor([*words, *(-word for word in words)], dtype=torch.int64, device=_device(group))
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX, group=group)
    return bool(most.tolist() == [*words, *(-word for word in words)])


def _known(gathered: Mapping[int, Mapping[str, Any]]) -> dict[str, Layout]:
    known = {}
    for name in dict.fromkeys(name for facts in gathered.values() for name in facts):
        found = {rank: facts[name] for rank, facts in gathered.items() if name in facts}
        check_facts(name, found.items())
        shape, dtype, key, _ = next(iter(found.values()))
        known[name] = Layout(shape, dtype, key, {rank: each[-1] for rank, each in found.items()})
    return known


def _words(sums: tuple[int, int], members: Sequence[int], me: int) -> list[int]:
    """Return what a rank adds to the sums of a region that `members` hold, and to the check of its replicas."""
    first, *others = members
    factor = pow(3, me + 1, MODULUS) if me != first else -sum(pow(3, rank + 1, MODULUS) for rank in others)
    counted = sums if me == first else (0, 0)
    values = [*counted, *(factor * each % MODULUS for each in sums)]
    return [half for value in values for half in (value & _LOW, value >> 32)]


def _device(group: Any) -> torch.device:
    backend = torch.distributed.get_backend(group)
    return torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
