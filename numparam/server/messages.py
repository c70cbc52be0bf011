"""The requests of workers to servers: every request goes to all servers, with its payload, and each replies.

A request is four int64. A server takes what several workers bring in the order of their ranks. Payloads of a worker on
its machine, and rows and values for it, go through rings, which the worker makes; all else are messages. Both move by
`numparam.communication.exchange`, which names the rank that is silent for longer than the deadline of
`numparam.communication.init`: a worker gives a server some time more, as the server knows who is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from numparam.communication import WORLD_COMM_GROUP
from numparam.communication.exchange import Batch, Mailbox, arriving, exchange, process_of
from numparam.communication.group import named
from numparam.communication.management import get_group
from numparam.communication.ring import SLOT_BYTES, Ring, Rings, new_rings, rings_of
from numparam.errors import DisagreementError

Array = np.ndarray[Any, np.dtype[Any]]
Messages = list[tuple[int | Ring, Array]]

OPERATIONS = ("end", "step", "find", "update", "pull", "push", "send", "save", "ring")
READING = ("step", "find", "pull", "ring")
REPLIED_BY_RING = ("find", "pull")
"""What a server answers at once, whatever the other workers do: the next update waits for all of them."""

DENSE = -1
"""The target of a request that is about the dense parameters, and not about a table."""
_GRACE = 1.0  # seconds
_PIECE_BYTES = SLOT_BYTES  # a server steps a piece while it is in its cache


class Request(NamedTuple):
    """Hold what a worker asks: an operation by its place in `OPERATIONS`, of which table, and two numbers."""

    operation: int
    target: int
    length: int
    number: int

    @property
    def name(self) -> str:
        """Return the name of the operation."""
        return OPERATIONS[self.operation]


class Acknowledgement(NamedTuple):
    """Hold what a server replies to an update, besides the keys that a cache must forget.

    Attributes
    ----------
    step : int
        The number of the update on this server.
    ahead : int
        How many updates the worker is ahead of the slowest one.
    waited : int
        Whether it had to wait for that one.
    forgotten : int
        The number of keys that follow.
    """

    step: int = 0
    ahead: int = 0
    waited: int = 0
    forgotten: int = 0


def pieces(count: int, row_bytes: int) -> list[slice]:
    """Return which rows of so many travel in one message each."""
    rows = max(1, _PIECE_BYTES // max(1, row_bytes))
    return [slice(start, min(start + rows, count)) for start in range(0, count, rows)]


class Ways(dict[int, Rings]):
    """Hold the rings to and from other ranks of this machine. A rank without them is sent messages."""

    def to(self, rank: int) -> int | Ring:
        """Return the ring to a rank, or the rank."""
        return self[rank][0] if rank in self else rank

    def of(self, rank: int) -> int | Ring:
        """Return the ring from a rank, or the rank."""
        return self[rank][1] if rank in self else rank


def messages_of(peer: int | Ring, array: Array) -> Messages:
    """Return the messages that an array travels in."""
    return [(peer, array[rows]) for rows in pieces(len(array), array.nbytes // max(1, len(array)))]


def ask(servers: Iterable[int], request: Request, payloads: list[list[Array]], ways: Ways) -> Messages:
    """Return a request to every server, with its payload; its length is the one of what comes first."""
    messages: Messages = []
    for server, payload in zip(servers, payloads, strict=True):
        head = np.array(request._replace(length=len(payload[0]) if payload else 0), np.int64)
        messages += chain([(server, head)], *(messages_of(ways.to(server), part) for part in payload))
    return messages


def talk(what: str, sends: Messages, receives: Messages) -> None:
    """Send to servers and receive from them."""
    exchange(get_group(WORLD_COMM_GROUP), what, sends, receives, _GRACE)


def connected(servers: Iterable[int]) -> Ways:
    """Make rings to the servers on this machine."""
    made = {server: rings for server in servers if process_of(server) and (rings := new_rings(server))}
    replies = {server: np.zeros(len(Acknowledgement._fields), np.int64) for server in made}
    asked = [(server, Request(OPERATIONS.index("ring"), 0, 0, file)) for server, (_, file) in made.items()]
    try:
        talk(
            "ring of a server", [(server, np.array(request, np.int64)) for server, request in asked], [*replies.items()]
        )
    finally:
        for _, file in made.values():
            os.close(file)
    return Ways({server: rings for server, (rings, _) in made.items() if replies[server][0]})


def accepted(worker: int, file: int) -> Rings | None:
    """Open the rings that a worker has made; None if that cannot be."""
    return rings_of(worker, process_of(worker), file)


def receive(what: str, buffers: Iterable[tuple[int | Ring, Array]]) -> None:
    """Receive the payloads of workers."""
    exchange(get_group(WORLD_COMM_GROUP), what, [], [*chain(*(messages_of(*buffer) for buffer in buffers))])


def send(what: str, ring: Ring, array: Array) -> None:
    """Send an array to a worker, and wait until it is in the ring."""
    exchange(get_group(WORLD_COMM_GROUP), what, messages_of(ring, array), [])


def each_piece(what: str, batches: Iterable[Batch], room: Callable[..., Array]) -> Iterator[list[Array]]:
    """Yield what comes of workers, or where to write what goes to them; see `exchange.arriving`."""
    return arriving(get_group(WORLD_COMM_GROUP), what, batches, room)


def inbox() -> Mailbox:
    """Return where the requests of workers come."""
    return Mailbox(get_group(WORLD_COMM_GROUP), "the next request", len(Request._fields))


def check_same(requests: Mapping[int, Request]) -> None:
    """Check that workers ask for the same.

    Raises
    ------
    DisagreementError
        If they do not.
    """
    asked: dict[str, list[int]] = {}
    for worker, request in sorted(requests.items()):
        asked.setdefault(f"{request.name} of {_NAMES.get(request.target, request.target)}", []).append(worker)
    if len(asked) > 1:
        found = "; ".join(f"{named(ranks)} asked for {what}" for what, ranks in asked.items())
        raise DisagreementError(f"workers disagree: {found}; all workers must call the same in the same order")


_NAMES = {DENSE: "parameters"}
