"""Join what several ranks have: each region once, and replicas compared with each other."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from numparam.errors import DisagreementError, MismatchError, StateError
from numparam.fingerprints import boxes
from numparam.fingerprints.boxes import Box
from numparam.fingerprints.value import Fingerprint, added

Covered = tuple[Box, ...]


def check_facts(name: str, facts: Iterable[tuple[Any, tuple[Any, ...]]]) -> None:
    """Raise if ranks differ in the shape, the dtype or the key of a parameter."""
    (first, known), *rest = facts
    for rank, found in rest:
        for what, mine, its in zip(("shape", "dtype", "key"), known, found, strict=False):
            if mine != its:
                raise MismatchError(f"parameter {name!r} has {what} {mine} on rank {first} and {its} on rank {rank}")


def holders(name: str, held: Iterable[tuple[Any, Covered]]) -> dict[Covered, list[Any]]:
    """Return the ranks that hold each region; empty regions are left out."""
    found: dict[Covered, list[Any]] = {}
    for rank, covered in held:
        if any(all(map(len, box)) for box in covered):
            found.setdefault(covered, []).append(rank)
    if (twice := _overlap(tuple(found))) is not None:
        (one, other), elements = twice
        raise StateError(
            f"parameter {name!r}: {boxes.text(elements)} is covered twice, by {_region(one)} on rank {found[one][0]} "
            f"and {_region(other)} on rank {found[other][0]}; ranks hold the same region or disjoint ones"
        )
    return found


@lru_cache(maxsize=1024)  # the layers of a model have the same regions
def _overlap(regions: tuple[Covered, ...]) -> tuple[tuple[Covered, Covered], Box] | None:
    for at, one in enumerate(regions):
        for other in regions[at + 1 :]:
            for box in one:
                for another in other:
                    if (elements := boxes.common(box, another)) is not None:
                        return (one, other), elements
    return None


def join(tables: Mapping[Any, Mapping[str, Fingerprint]]) -> dict[str, Fingerprint]:
    """Add up the fingerprints of all regions of each parameter, by the tables of all ranks."""
    joined = {}
    for name in dict.fromkeys(name for table in tables.values() for name in table):
        parts = {rank: table[name] for rank, table in tables.items() if name in table}
        check_facts(name, ((rank, (each.shape, each.dtype, each.key)) for rank, each in parts.items()))
        regions = holders(name, ((rank, each.boxes) for rank, each in parts.items()))
        sums = (0, 0)
        for covered, ranks in regions.items():
            owner = parts[ranks[0]]
            for rank in ranks[1:]:
                if parts[rank].sums != owner.sums:
                    where = "" if owner.complete else f" of {_region(covered)}"
                    raise DisagreementError(
                        f"parameter {name!r}: ranks {ranks[0]} and {rank} hold different values{where}: {owner} and "
                        f"{parts[rank]}"
                    )
            sums = added(sums, owner.sums)
        first = next(iter(parts.values()))
        covered = tuple(box for each in regions for box in each)
        joined[name] = Fingerprint(first.shape, first.dtype, sums, covered, first.key, name)
    return joined


def _region(covered: Covered) -> str:
    return " ".join(map(boxes.text, covered))
