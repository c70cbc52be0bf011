"""The requests of workers to servers: every request goes to all servers, with its payload, and each replies.

A request is four int64. A server takes what several workers bring in the order of their ranks. All messages go through
`numparam.communication.exchange`, which names the rank that is silent for longer than the deadline of
`numparam.communication.init`: a worker gives a server some time more, as the server knows who is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from numparam.communication import WORLD_COMM_GROUP
from numparam.communication.exchange import Mailbox, arriving, exchange
from numparam.communication.group import named
from numparam.communication.management import get_group
from numparam.errors import DisagreementError

Array = np.ndarray[Any, np.dtype[Any]]
Messages = list[tuple[int, Array]]

OPERATIONS = ("end", "step", "find", "update", "pull", "push", "send", "save")
READING = ("step", "find", "pull")
"""What a server answers at once, whatever the other workers do: the next update waits for all of them."""

DENSE = -1
"""The target of a request that is about the dense parameters, and not about a table."""
_GRACE = 1.0  # seconds
# A server steps a piece while it is in its cache: 16 MiB are received and stepped in 2.6 ms, and as one message in 3.6.
_PIECE_BYTES = 1 << 21


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


def _messages(peer: int, array: Array) -> Messages:
    """Return the messages that an array travels in."""
    return [(peer, array[rows]) for rows in pieces(len(array), array.nbytes // max(1, len(array)))]


def ask(servers: Iterable[int], request: Request, payloads: list[list[Array]]) -> Messages:
    """Return a request to every server, with its payload; its length is the one of what comes first."""
    messages: Messages = []
    for server, payload in zip(servers, payloads, strict=True):
        head = np.array(request._replace(length=len(payload[0]) if payload else 0), np.int64)
        messages += chain([(server, head)], *(_messages(server, part) for part in payload))
    return messages


def talk(what: str, sends: Messages, receives: Messages) -> None:
    """Send to servers and receive from them."""
    exchange(get_group(WORLD_COMM_GROUP), what, sends, receives, _GRACE)


def receive(what: str, buffers: Mapping[int, Array]) -> None:
    """Receive the payloads of workers."""
    messages = chain(*(_messages(worker, buffer) for worker, buffer in buffers.items()))
    exchange(get_group(WORLD_COMM_GROUP), what, [], [*messages])


def receive_pieces(what: str, batches: Iterable[Messages]) -> Iterator[Messages]:
    """Receive pieces of workers, and yield each batch when it is there; its buffers may be used two batches later."""
    return arriving(get_group(WORLD_COMM_GROUP), what, batches)


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
