"""The rounds of a job with servers: every worker sends every server the same request, and gets a reply.

A round is a request of four int64, its payload, and the reply. A server answers when all workers have sent a request,
and takes what they bring in the order of their ranks. All messages go through `numparam.communication.exchange`, which
names the rank that is silent for longer than the deadline of `numparam.communication.init`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numparam.communication import WORLD_COMM_GROUP
from numparam.communication.exchange import exchange
from numparam.communication.group import named
from numparam.communication.management import get_group
from numparam.errors import DisagreementError

Array = np.ndarray[Any, np.dtype[Any]]

OPERATIONS = ("end", "step", "find", "update", "pull", "push", "send", "save")


class Request(NamedTuple):
    """Hold what a worker asks: an operation by its place in `OPERATIONS`, of which table or parameter, and how much."""

    operation: int
    target: int
    length: int
    number: int

    @property
    def name(self) -> str:
        """Return the name of the operation."""
        return OPERATIONS[self.operation]


def ask(servers: tuple[int, ...], requests: list[Request], payloads: list[list[Array]], replies: list[Array]) -> None:
    """Send a request and its payload to every server, and receive the replies."""
    group = get_group(WORLD_COMM_GROUP)
    heads = [np.array(request, np.int64) for request in requests]
    sends = [
        (server, part)
        for server, head, payload in zip(servers, heads, payloads, strict=True)
        for part in (head, *payload)
    ]
    exchange(group, f"{requests[0].name} of a server", sends, list(zip(servers, replies, strict=True)))


def listen(workers: tuple[int, ...]) -> list[Request]:
    """Receive the requests of a round, in the order of the workers.

    Raises
    ------
    DisagreementError
        If workers ask for different things.
    """
    heads = [np.empty(4, np.int64) for _ in workers]
    exchange(get_group(WORLD_COMM_GROUP), "the next request", [], list(zip(workers, heads, strict=True)))
    requests = [Request(*head.tolist()) for head in heads]
    asked: dict[tuple[str, int], list[int]] = {}
    for worker, request in zip(workers, requests, strict=True):
        asked.setdefault((request.name, request.target), []).append(worker)
    if len(asked) > 1:
        found = "; ".join(f"{named(ranks)} asked for {name} of {target}" for (name, target), ranks in asked.items())
        raise DisagreementError(f"workers disagree: {found}; all workers must call the same in the same order")
    return requests


def receive(workers: tuple[int, ...], buffers: list[Array], what: str) -> None:
    """Receive a payload of every worker."""
    exchange(get_group(WORLD_COMM_GROUP), what, [], list(zip(workers, buffers, strict=True)))


def reply(workers: tuple[int, ...], buffers: list[Array], what: str) -> None:
    """Answer every worker."""
    exchange(get_group(WORLD_COMM_GROUP), what, list(zip(workers, buffers, strict=True)), [])
