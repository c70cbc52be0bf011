"""What a worker sends to servers, and what it counts."""

from __future__ import annotations

from collections.abc import Iterable
from threading import RLock
from typing import Any

import numpy as np

from numparam.embedding import Counters
from numparam.errors import StateError
from numparam.server.messages import (
    OPERATIONS,
    REPLIED_BY_RING,
    Acknowledgement,
    Messages,
    Request,
    Ways,
    ask,
    connected,
    messages_of,
    talk,
)

Array = np.ndarray[Any, np.dtype[Any]]


class Client:
    """Send requests to all servers of a job, one after another: `lock` is held from a request to the last reply.

    Parameters
    ----------
    servers : tuple of int
        Their ranks.
    counters : Counters
    """

    def __init__(self, servers: tuple[int, ...], counters: Counters) -> None:
        self.servers, self.counters, self._is_ended, self.lock = servers, counters, False, RLock()
        self._ways, self._is_connected = Ways(), False

    def step(self, target: int) -> int:
        """Return how many updates of a table, or of the dense parameters, every server has done."""
        return min(reply.step for reply, _ in self.acknowledged("step", target))

    def end(self) -> None:
        """Leave the servers."""
        if not self._is_ended:
            self.acknowledged("end")
            self._is_ended = True

    def acknowledged(
        self,
        operation: str,
        target: int = 0,
        number: int = 0,
        payloads: list[list[Array]] | None = None,
    ) -> list[tuple[Acknowledgement, Array]]:
        """Send a request that every server acknowledges, with keys that a cache must forget."""
        heads = [np.empty(len(Acknowledgement._fields), np.int64) for _ in self.servers]
        with self.lock:
            self.request(operation, heads, target, number, payloads)
            replies = [Acknowledgement(*head.tolist()) for head in heads]
            keys = [np.empty(reply.forgotten, np.int64) for reply in replies]
            self.receive("keys that changed", [[part] for part in keys])
        if any(reply.ahead for reply in replies):
            self.counters["staleness"] = max(self.counters["staleness"], *(reply.ahead for reply in replies))
            self.counters["waits"] += max(reply.waited for reply in replies)
        return list(zip(replies, keys, strict=True))

    def request(
        self,
        operation: str,
        replies: list[Array],
        target: int = 0,
        number: int = 0,
        payloads: list[list[Array]] | None = None,
    ) -> None:
        """Send a request to all servers, and receive what they reply first."""
        request = Request(OPERATIONS.index(operation), target, 0, number)
        with self.lock:
            if self._is_ended:
                raise StateError(f"{operation}: the servers have ended")
            if payloads and not self._is_connected:
                self._ways, self._is_connected = connected(self.servers), True
            payloads = payloads or [[] for _ in self.servers]
            sends, pairs = ask(self.servers, request, payloads, self._ways), zip(self.servers, replies, strict=True)
            talk(f"{operation} of a server", sends, self._by_ring(pairs) if operation in REPLIED_BY_RING else [*pairs])
        self.counters["requests"] += 1
        self.counters["bytes_sent"] += sum(part.nbytes for payload in payloads for part in payload)
        self.counters["bytes_received"] += sum(part.nbytes for part in replies)

    def receive(self, what: str, replies: list[list[Array]], by_ring: bool = False) -> None:
        """Receive what servers reply besides."""
        pairs = [(server, part) for server, parts in zip(self.servers, replies, strict=True) for part in parts]
        talk(what, [], self._by_ring(pairs) if by_ring else [*pairs])
        self.counters["bytes_received"] += sum(part.nbytes for _, part in pairs)

    def _by_ring(self, pairs: Iterable[tuple[int, Array]]) -> Messages:
        ways = self._ways if len(self.servers) == 1 else Ways()
        return [message for server, part in pairs for message in messages_of(ways.of(server), part)]
