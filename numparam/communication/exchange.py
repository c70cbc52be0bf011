"""Messages between the ranks of a group, each with a deadline: all that numparam uses of MPI.

Nothing blocks inside MPI: requests are tested until they complete or the deadline has passed, first yielding to other
processes and then sleeping, so ranks may outnumber cores. `asv_bench/ranks.py` compares this with MPI's own operations.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from numparam.communication.group import Group, World, alone, named
from numparam.communication.ring import Flow, Ring
from numparam.errors import CommunicationError, LateRankError

if TYPE_CHECKING:
    from numparam.kernels.array import DeviceArray

    Buffer = np.ndarray[Any, np.dtype[Any]] | DeviceArray | bytes | bytearray

Array = np.ndarray[Any, np.dtype[Any]]
Result = TypeVar("Result")
Messages = Sequence[tuple[int, "Buffer"]]
ByAnyWay = Sequence[tuple[int | Ring, "Buffer"]]
Batch = tuple[Sequence[int | Ring], tuple[int, ...], np.dtype[Any]]

# Seconds in which a message of this machine comes, if its sender is there. A rank that sleeps wakes late, so that the
# others wait and sleep: after 0.1 ms, all_reduce of 4 KiB took 35 to 135 us on two ranks and 0.7 ms on four, instead of
# 20 to 30 us and 0.3 ms.
SPIN = 1e-3
# A rank with a core of its own that waits for requests: if it sleeps, the answer comes 0.15 ms later.
_SPIN_FOR_ANYONE = 5e-3
_LONGEST_SLEEP = 0.01
_SHORT_SLEEP, _SOON = 3e-4, 0.05  # seconds: how long it sleeps at a time while it has waited for less
_let_others_run: Callable[[], None] = getattr(os, "sched_yield", partial(time.sleep, 0))
_COUNTS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")  # set by mpiexec of MPICH and of Open MPI

world = alone()
_abandoned: list[Any] = []  # MPI may still write to the buffers of requests that were given up


def enter(state: World) -> None:
    """Make this process one of a world."""
    vars(world).update(vars(state))


def process_of(rank: int) -> int | None:
    """Return the process of a rank of this machine that shares memory with this one."""
    processes: dict[int, int] = world.watched.processes if world.watched else {}
    return processes.get(rank)


def started_by_mpiexec() -> int:
    """Return how many processes the mpiexec that started this one runs, 1 without it."""
    return max(int(os.environ.get(name, "1")) for name in _COUNTS)


def exchange(group: Group, operation: str, sends: ByAnyWay, receives: ByAnyWay, grace: float = 0) -> None:
    """Send to some members of a group and receive from some, each named by its rank in the group, or by a ring.

    Buffers are contiguous; a rank knows the sizes of those that come, and their order. Empty ones are not sent. A rank
    that waits for one that waits itself gives it some seconds more, so that the latter names who is silent.
    """
    _Transfer(group, operation, sends, receives).finish(world.timeout + grace)


def arriving(group: Group, operation: str, batches: Iterable[Batch], room: Callable[..., Array]) -> Iterator[list[Any]]:
    """Receive batches and yield their arrays, valid until the next are asked for, which are on their way meanwhile.

    A batch is an array of a shape and dtype of each of some members or rings. One that fits into a slot of its ring is
    read there; the others are in memory that `room` gives for a name, a shape and a dtype. Of a ring that this process
    writes to, the arrays, which must fit, are to be filled.
    """
    ahead: deque[_Arrays] = deque()
    try:
        for turn, batch in enumerate(batches):
            ahead.append(_Arrays(group, operation, batch, room, turn % 2))
            if len(ahead) > 1:
                yield from ahead[0].taken()
                ahead.popleft()
        for arrays in ahead:
            yield from arrays.taken()
    finally:
        for arrays in ahead:
            if arrays.transfer:
                arrays.transfer.give_up()


def gather(group: Group, operation: str, own: Array) -> Array:
    """Return the arrays of all ranks, one row for each: of one shape and few bytes."""
    rows = np.empty((group.size, own.size), own.dtype)  # row i is of the rank i places before this one
    rows[0] = own.reshape(-1)
    step = 1
    while step < group.size:
        count = min(step, group.size - step)
        sends = [((group.rank + step) % group.size, rows[:count].reshape(-1))]
        exchange(group, operation, sends, [((group.rank - step) % group.size, rows[step:][:count].reshape(-1))])
        step *= 2
    return rows[(group.rank - np.arange(group.size)) % group.size].reshape(group.size, *own.shape)


class Mailbox:
    """Receive vectors of int64 from members of a group, whoever sends first, and send to them without waiting.

    `operation` is what they are, for errors, and `size` the elements of a vector.
    """

    def __init__(self, group: Group, operation: str, size: int) -> None:
        self.group, self.operation, self.size = group, operation, size
        self._posted: dict[int, tuple[Array, Any, float]] = {}
        self._sent: list[tuple[Messages, list[Any]]] = []

    def take(self, peers: Iterable[int]) -> dict[int, Array]:
        """Wait for the next vector of any of these ranks, and return what has come of each.

        A LateRankError if one of them sent nothing since it was first waited for, longer than the timeout.
        """
        self._sent = [sent for sent in self._sent if not world.mpi.Request.Testall(sent[1])]
        for peer in {*peers} - self._posted.keys():
            buffer = np.empty(self.size, np.int64)
            self._posted[peer] = buffer, posted(self.group, [], [(peer, buffer)])[0], time.monotonic()
        came, late = guarded(self.group, self.operation, self._first, unfinished=lambda: [*self._posted])
        if late:
            _abandoned.append([*self._posted.values()])
            raise silent(self.group, self.operation, late, "for which others wait")
        return {peer: self._posted.pop(peer)[0] for peer in came}

    def send(self, messages: Messages) -> None:
        """Begin to send contiguous buffers that nobody changes any more."""
        messages = [(peer, buffer) for peer, buffer in messages if len(buffer)]
        self._sent.append((messages, posted(self.group, messages, [])))

    def finish(self) -> None:
        """Wait until all that was sent has left."""
        requests = [request for _, sent in self._sent for request in sent]
        if not _finishes(requests, world.timeout):
            _abandoned.append(self._sent)
            late = sorted({peer for messages, _ in self._sent for peer, _ in messages})
            raise silent(self.group, self.operation, late, "and did not receive")

    def _first(self) -> tuple[list[int], list[int]]:
        """Return the ranks that sent something, or else the ranks that sent nothing for too long."""
        start = time.monotonic()
        while True:
            now = time.monotonic()
            if came := [peer for peer, (_, request, _) in self._posted.items() if request.Test()]:
                return came, []
            if late := [peer for peer, (_, _, since) in self._posted.items() if now - since > world.timeout]:
                return [], late
            pause(now - start, _SPIN_FOR_ANYONE)


class _Transfer:
    """Send and receive some messages; what is given up, MPI may still write to."""

    def __init__(self, group: Group, operation: str, sends: ByAnyWay, receives: ByAnyWay) -> None:
        self.group, self.operation = group, operation
        sent, received = [
            [(peer, buffer) for peer, buffer in messages if isinstance(peer, int) and len(buffer)]
            for messages in (sends, receives)
        ]
        self.messages, self.requests = [*received, *sent], list[Any]()
        if self.messages:  # a process without others has no MPI
            self.requests = guarded(group, operation, posted, group, sent, received)
        by_ring: dict[Ring, list[Any]] = defaultdict(list)
        for peer, buffer in (*sends, *receives):
            if isinstance(peer, Ring):
                by_ring[peer].append(buffer)
        self.flows = [Flow(ring, arrays) for ring, arrays in by_ring.items()]

    def finish(self, timeout: float) -> None:
        """Wait until all ranks did their part, each within the timeout after another."""
        if not self.requests and not self.flows:
            return
        try:
            finished = guarded(
                self.group, self.operation, _finishes, self.requests, timeout, self.flows, unfinished=self.unfinished
            )
            if not finished:
                raise silent(self.group, self.operation, self.unfinished(), "which all ranks had reached")
        finally:
            self.give_up()

    def unfinished(self) -> list[int]:
        """Return the ranks of the world that did not do their part yet."""
        pairs = zip(self.messages, self.requests, strict=True)
        late = {self.group.ranks[peer] for (peer, _), request in pairs if request}
        return sorted(late | {flow.ring.rank for flow in self.flows if flow})

    def give_up(self) -> None:
        """Keep the buffers of messages that are not there."""
        if any(self.requests) and self not in _abandoned:
            _abandoned.append(self)


class _Arrays:
    """Receive a batch of `arriving`: each part is memory, or the ring in whose slot the array lies."""

    def __init__(self, group: Group, operation: str, batch: Batch, room: Callable[..., Array], turn: int) -> None:
        self.group, self.operation, (senders, self.shape, self.dtype) = group, operation, batch
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self.parts = [
            sender
            if isinstance(sender, Ring) and sender.holds(self.nbytes)
            else room((turn, place), self.shape, self.dtype)
            for place, sender in enumerate(senders)
        ]
        messages = [
            (sender, part) for sender, part in zip(senders, self.parts, strict=True) if not isinstance(part, Ring)
        ]
        self.transfer = _Transfer(group, operation, [], messages) if messages else None

    def taken(self) -> Iterator[list[Any]]:
        """Yield the arrays when they are there, and then leave the slots."""
        if self.transfer:
            self.transfer.finish(world.timeout)
        yield [self._lying(part) if isinstance(part, Ring) else part for part in self.parts]
        for part in self.parts:
            if isinstance(part, Ring):
                part.leave()

    def _lying(self, ring: Ring) -> Any:
        if ring.slot is None and not guarded(
            self.group, self.operation, _comes, ring, world.timeout, unfinished=lambda: [ring.rank]
        ):
            raise silent(self.group, self.operation, [ring.rank], "which all ranks had reached")
        slot: Any = ring.slot
        return slot[: self.nbytes].view(self.dtype).reshape(self.shape)


def guarded(
    group: Group,
    operation: str,
    work: Callable[..., Result],
    *arguments: Any,
    unfinished: Callable[[], list[int]] = list,
) -> Result:
    """Return what some work with other ranks returns, and note that the group is out of step if it breaks off."""
    try:
        return work(*arguments)
    except world.mpi.Exception as error:
        dead = world.watched.dead() if world.watched else []
        lost = named(dead or unfinished() or group.ranks)
        raise failed(group, CommunicationError(f"{operation}: MPI lost {lost}: {error}")) from error
    except BaseException as error:
        interrupted(group, operation, error)
        raise


def interrupted(group: Group, operation: str, error: BaseException) -> None:
    """Note that the members of a group are out of step after an error that has nothing to do with them."""
    failed(group, CommunicationError(f"{operation}: interrupted by {type(error).__name__}"))


def posted(group: Group, sends: Messages, receives: Messages, kind: int = 0) -> list[Any]:
    """Begin to receive from some members of a group and to send to some, and return the requests in this order."""
    communicator, byte, tag = world.communicator, world.mpi.BYTE, group.tag + kind
    return [
        *[communicator.Irecv([_as_bytes(buffer), byte], group.ranks[peer], tag) for peer, buffer in receives],
        *[communicator.Isend([_as_bytes(buffer), byte], group.ranks[peer], tag) for peer, buffer in sends],
    ]


def _as_bytes(buffer: Buffer) -> Any:
    if isinstance(buffer, bytes | bytearray):
        return buffer
    if isinstance(buffer, np.ndarray):
        return buffer.view(np.uint8)  # MPI knows no bfloat16
    return world.mpi.buffer.fromaddress(buffer.address, buffer.nbytes)


def _finishes(requests: list[Any], timeout: float, flows: Sequence[Flow] = ()) -> bool:
    """Return whether all requests and flows are done, and something was whenever the timeout had passed."""
    since = time.monotonic()
    while True:
        done = world.mpi.Request.Testsome(requests) if requests else None
        has_moved = [flow.moves() for flow in flows]
        if done is None and not any(flows):
            return True
        now = time.monotonic()
        if done or any(has_moved):
            since = now
        elif now - since > timeout:
            return False
        else:
            pause(now - since)


def _comes(ring: Ring, timeout: float) -> bool:
    """Return whether the other end of a ring leaves a slot in time."""
    since = time.monotonic()
    while ring.slot is None:
        if (waited := time.monotonic() - since) > timeout:
            return False
        pause(waited)
    return True


def pause(waited: float, spin: float = SPIN) -> None:
    """Let others run, the longer the more, after some seconds of waiting."""
    if waited > (
        spin if world.has_cores else SPIN
    ):  # a tenth of the time it has waited: little is lost, and ranks that share a core can use it
        time.sleep(min(waited / 10, _SHORT_SLEEP if waited < _SOON else _LONGEST_SLEEP))
    elif not world.has_cores:
        _let_others_run()


def silent(group: Group, operation: str, late: list[int], state: str) -> CommunicationError:
    """Return the error that names ranks of the world that others wait for in vain."""
    return failed(
        group,
        LateRankError(
            f"{named(late)} sent nothing for {world.timeout:g} s in operation {group.operations}{group} ({operation}), "
            f"{state}; init(timeout=...) sets how long to wait"
        ),
    )


def failed(group: Group, error: CommunicationError) -> CommunicationError:
    """Note that the members of a group are out of step from now on."""
    group.failure, group.memory = str(error), False
    return error
