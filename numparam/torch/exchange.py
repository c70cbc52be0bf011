"""Add up the fingerprints of all ranks of a process group by one reduction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

from numparam.fingerprints import Fingerprint, Fingerprints
from numparam.fingerprints.boxes import merged
from numparam.fingerprints.joining import Covered, check_facts, holders
from numparam.fingerprints.measure import secret_of
from numparam.fingerprints.value import MODULUS, Sums, added


class Layout(NamedTuple):
    """What is known of a parameter without its values."""

    shape: tuple[int, ...]
    dtype: str
    key: str
    held: dict[int, Covered]
    """The regions, by rank; one mapping for all parameters that are sharded alike."""


def add_up(
    parts: Mapping[str, Fingerprint],
    layouts: Mapping[str, Layout | None],
    key: str | bytes | None,
    ranks: Sequence[int],
    group: Any,
) -> Fingerprints:
    """Return the fingerprints of full parameters, equal on all ranks.

    A reduction of 64 bytes finds whether all ranks know the same layout; if not, the regions are gathered. Then one sum
    of 16 bytes for each parameter, modulo the prime, adds up the regions, each from the first rank that holds it. Its
    last row is 0 if all replicas are equal: the sum of all replicas, each times a random number of its parameter and
    one of its rank, where the number of the first rank is minus the sum of the others.

    Parameters
    ----------
    parts : mapping of str to Fingerprint
        What this rank holds.
    layouts : mapping of str to Layout
        What all ranks hold, None where this rank does not know it.
    key : str or bytes, optional
        Of the fingerprints; it makes the random numbers of the last row secret too.
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
    me, weight = dist.get_rank(), _weights(secret_of(key))
    alike: dict[int, tuple[dict[Covered, list[int]], Covered]] = {}
    rows, check = [], (0, 0)
    for name, layout in known.items():
        if id(layout.held) not in alike:
            regions = holders(name, layout.held.items())
            alike[id(layout.held)] = regions, merged([box for each in regions for box in each], layout.shape)
        members = alike[id(layout.held)][0].get(parts[name].boxes) if name in parts else None
        owner, *others = members or [-1]
        rows.append(parts[name].sums if me == owner else (0, 0))
        if others:
            factor = weight(name) * (-sum(map(weight, others)) if me == owner else weight(me))
            first, second = parts[name].sums
            check = added(check, (factor * first, factor * second))
    *sums, check = _summed([*rows, check], len(ranks), group)
    if any(check):
        tables: list[Any] = [None] * len(ranks)
        dist.all_gather_object(tables, dict(parts), group=group)
        Fingerprints.join(dict(zip(ranks, tables, strict=True)))  # raises
    return Fingerprints(
        {
            name: Fingerprint(layout.shape, layout.dtype, pair, alike[id(layout.held)][1], layout.key, name)
            for (name, layout), pair in zip(known.items(), sums, strict=True)
        }
    )


def _summed(rows: Sequence[Sums], count: int, group: Any) -> list[Sums]:
    """Return the sums over all ranks modulo the prime, equal on all ranks.

    As in any reduction each rank adds up a part of the rows, and all get the sums. No reduction of torch does it: the
    sum of more than eight numbers below 2**61 overflows.
    """
    words = torch.zeros(-(-len(rows) // count) * count, 2, dtype=torch.int64)
    words[: len(rows)] = torch.tensor(rows, dtype=torch.int64)
    words = words.to(_device(group))
    received = torch.empty_like(words)
    torch.distributed.all_to_all_single(received, words, group=group)
    parts = received.view(count, -1, 2)
    low, high = (parts & (2**32 - 1)).sum(0), (parts >> 32).sum(0)
    mine = (low + ((high & (2**29 - 1)) << 32) + (high >> 29)) % MODULUS  # 2**61 is congruent to 1
    torch.distributed.all_gather_into_tensor(words, mine, group=group)
    return [(first, second) for first, second in words[: len(rows)].tolist()]


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


def _weights(secret: bytes) -> Callable[[str | int], int]:
    """Return the function that gives a random number below the prime for each name and each rank."""

    @cache
    def weight(of: str | int) -> int:
        digest = hashlib.blake2b(repr(of).encode(), digest_size=8, key=secret, person=b"numparam replica").digest()
        return int.from_bytes(digest, "little") % MODULUS

    return weight


def _device(group: Any) -> torch.device:
    backend = torch.distributed.get_backend(group)
    return torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
