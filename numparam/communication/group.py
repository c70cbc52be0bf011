"""Groups of ranks, and the state of this process among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.text import shown

WORLD_COMM_GROUP = "mpi_world_group"
"""The name of the group of all ranks."""

DEFAULT_TIMEOUT = 300.0
"""Seconds that a rank waits for another one by default."""


class Round(NamedTuple):
    """Hold the persistent requests of one round of an arrival, from and to ranks of the world."""

    source: int
    target: int
    received: bytearray
    sent: bytearray
    requests: list[Any]


@dataclass
class Group:
    """Hold what a rank knows of a group that it belongs to; all members use the same name."""

    name: str
    ranks: tuple[int, ...]  # the members as ranks of the world, in the order of their ranks in the group
    rank: int  # of this process in the group
    tag: int = 0  # of the messages of the group; reports of where a rank is carry the next number
    operations: int = 0
    failure: str | None = field(default=None, repr=False)
    rounds: list[Round] = field(default_factory=list, repr=False)  # the messages of an arrival
    gatherings: dict[str, Any] = field(default_factory=dict, repr=False)  # by operation: messages that gather few bytes
    memory: Any = field(default=None, repr=False)  # that the members share; None before the first operation, else False
    # The last operation, by number and text, that each rank of the world reported from this group.
    heard: dict[int, tuple[int, str]] = field(default_factory=dict, repr=False)
    reports: list[Any] = field(default_factory=list, repr=False)  # that may not have been sent yet
    size: int = field(init=False, repr=False)
    peers: tuple[int, ...] = field(init=False, repr=False)  # the ranks in the group of all other members

    def __post_init__(self) -> None:
        self.size = len(self.ranks)
        self.peers = tuple(rank for rank in range(self.size) if rank != self.rank)

    def __str__(self) -> str:
        return "" if self.name == WORLD_COMM_GROUP else f" of group {self.name!r} ({named(self.ranks)})"


@dataclass
class World:
    """Hold what this process knows of its job: the full state of `numparam.communication`."""

    communicator: Any  # None as long as MPI is not started: the process is then alone
    timeout: float  # seconds to wait for another rank
    groups: dict[str, Group]  # of this process, the world among them
    mpi: Any = None  # the module mpi4py.MPI
    data: Any = None  # a communicator for the bytes that are gathered while ranks arrive
    has_cores: bool = False  # whether every rank of this machine has a core, so that waiting does not slow a rank down
    watched: Any = None  # the connection to the watcher of this machine
    hook: Any = None  # what stops the job after an uncaught exception


def alone() -> World:
    """Return the state of a process that is its own world."""
    return World(None, DEFAULT_TIMEOUT, {WORLD_COMM_GROUP: Group(WORLD_COMM_GROUP, (0,), 0)})


def checked_ranks(rank_ids: Any, size: int) -> tuple[int, ...]:
    """Check the ranks of a new group."""
    if not isinstance(rank_ids, Sequence) or not all(type(rank) is int for rank in rank_ids):
        raise ArgumentTypeError(f"rank_ids must be a list of ints, found {shown(rank_ids)}")
    if not rank_ids or len(set(rank_ids)) != len(rank_ids) or not all(0 <= rank < size for rank in rank_ids):
        raise ArgumentValueError(
            f"rank_ids must hold distinct ranks from 0 to {size - 1}, found {shown(list(rank_ids))}"
        )
    return tuple(rank_ids)


def named(ranks: Iterable[int]) -> str:
    """Name ranks in a sentence, such as ``ranks 0-2, 5``."""
    spans = [str(first) if first == last else f"{first}-{last}" for first, last in _spans(sorted(ranks))]
    return f"rank{'s' if len(spans) > 1 or '-' in spans[0] else ''} {', '.join(spans)}"


def _spans(ranks: list[int]) -> Iterator[tuple[int, int]]:
    first = last = ranks[0]
    for rank in ranks[1:]:
        if rank != last + 1:
            yield first, last
            first = rank
        last = rank
    yield first, last
