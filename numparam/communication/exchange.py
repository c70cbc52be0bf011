"""Messages between the ranks of a group, each with a deadline: all that numparam uses of MPI.

An operation begins with an arrival, which completes once every member has reached the same operation. It is a
dissemination barrier: in round k a rank sends 16 bytes to the rank 2**k further on, ceil(log2 p) messages in all. The
bytes are the fingerprint of the operation, or zeros once ranks are known to disagree. A rank that waits for long, or
learns of a disagreement, reports its operation to all others, so that errors name ranks. Data then go directly from
rank to rank.

Nothing blocks inside MPI: requests are tested until they complete or the deadline has passed, first yielding to other
processes and then sleeping, so ranks may outnumber cores. `asv_bench/ranks.py` compares this with MPI's own operations.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

import numpy as np

from numparam.communication.group import Group, Round, World, alone, named
from numparam.errors import CommunicationError, DisagreementError, LateRankError, StateError

if TYPE_CHECKING:
    from numparam.kernels.array import DeviceArray

    Buffer = np.ndarray[Any, np.dtype[Any]] | DeviceArray | bytes | bytearray

Array = np.ndarray[Any, np.dtype[Any]]
Result = TypeVar("Result")
Messages = Sequence[tuple[int, "Buffer"]]
Batch = TypeVar("Batch", bound=Messages)

_FINGERPRINT_BYTES = 16
_REPORT_BYTES = 256
_PLACE_BYTES = 8  # of the number of an operation
_LAST = 2 ** (8 * _PLACE_BYTES) - 1  # the number of the end of a program
_END = "the end of its program"
# Seconds in which a message of this machine comes, if its sender is there. A rank that sleeps wakes late, so that the
# others wait and sleep: after 0.1 ms, all_reduce of 4 KiB took 35 to 135 us on two ranks and 0.7 ms on four, instead of
# 20 to 30 us and 0.3 ms.
_SPIN = 1e-3
_PATIENCE = 1.0  # seconds after which a rank reports to the others where it waits
_LONGEST_SLEEP = 0.01
_SHORT_SLEEP, _SOON = 3e-4, 0.05  # seconds: how long it sleeps at a time while it has waited for less
_DRAINED_EVERY = 64  # operations; a rank that never waits would else never take the reports of those who do
_MOST_GATHERINGS = 64  # of a group; each holds as many bytes as it gathers
_TAGS = 32768  # that every MPI has
_let_others_run: Callable[[], None] = getattr(os, "sched_yield", partial(time.sleep, 0))
_COUNTS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")  # set by mpiexec of MPICH and of Open MPI

world = alone()
_REPORT = 1  # added to the tag of a group
_abandoned: list[Any] = []  # MPI may still write to the buffers of requests that were given up


def enter(state: World) -> None:
    """Make this process one of a world."""
    vars(world).update(vars(state))


def started_by_mpiexec() -> int:
    """Return how many processes the mpiexec that started this one runs, 1 without it."""
    return max(int(os.environ.get(name, "1")) for name in _COUNTS)


def arrive(group: Group, operation: str, rounds: list[Round] | None = None) -> None:
    """Wait until every member of a group has reached the same operation."""
    if group.failure is not None:
        raise StateError(
            f"{operation}: {named(group.ranks)} cannot communicate after an earlier failure: {group.failure}"
        )
    if group.size == 1:
        if world.communicator is None and (count := started_by_mpiexec()) > 1:
            raise StateError(f"{operation}: this process is one of {count}; call numparam.communication.init() first")
        return
    group.operations += 1
    if rounds is None:
        rounds = group.rounds = group.rounds or _new_rounds(group)
    arrival = _Arrival(group, operation, group.operations, world.timeout, rounds)
    if error := _guarded(group, operation, arrival.error):
        raise _failed(group, error)
    if not group.operations % _DRAINED_EVERY:
        _listen(group)


def exchange(group: Group, operation: str, sends: Messages, receives: Messages, grace: float = 0) -> None:
    """Send to some members of a group and receive from some; members are named by their ranks in the group.

    Buffers are contiguous; a rank knows the sizes of those that come, and their order. Empty ones are not sent. A rank
    that waits for one that waits itself gives it some seconds more, so that the latter names who is silent.
    """
    _Transfer(group, operation, sends, receives).finish(world.timeout + grace)


def arriving(group: Group, operation: str, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Receive batches of messages and yield each when it is there; while it is used, the next one is on its way.

    The buffers of a batch may be used again two batches later.
    """
    ahead: list[tuple[Batch, _Transfer]] = []
    try:
        for batch in batches:
            ahead.append((batch, _Transfer(group, operation, [], batch)))
            if len(ahead) > 1:
                ahead[0][1].finish(world.timeout)
                yield ahead.pop(0)[0]
        for batch, transfer in ahead:
            transfer.finish(world.timeout)
            yield batch
    finally:
        for _, transfer in ahead:
            transfer.give_up()


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
            self._posted[peer] = buffer, _posted(self.group, [], [(peer, buffer)])[0], time.monotonic()
        came, late = _guarded(self.group, self.operation, self._first, lambda: [*self._posted])
        if late:
            _abandoned.append([*self._posted.values()])
            raise _silent(self.group, self.operation, late, "for which others wait")
        return {peer: self._posted.pop(peer)[0] for peer in came}

    def send(self, messages: Messages) -> None:
        """Begin to send contiguous buffers that nobody changes any more."""
        messages = [(peer, buffer) for peer, buffer in messages if len(buffer)]
        self._sent.append((messages, _posted(self.group, messages, [])))

    def finish(self) -> None:
        """Wait until all that was sent has left."""
        requests = [request for _, sent in self._sent for request in sent]
        if not _finishes(requests, world.timeout):
            _abandoned.append(self._sent)
            late = sorted({peer for messages, _ in self._sent for peer, _ in messages})
            raise _silent(self.group, self.operation, late, "and did not receive")

    def _first(self) -> tuple[list[int], list[int]]:
        """Return the ranks that sent something, or else the ranks that sent nothing for too long."""
        start = time.monotonic()
        while True:
            now = time.monotonic()
            if came := [peer for peer, (_, request, _) in self._posted.items() if request.Test()]:
                return came, []
            if late := [peer for peer, (_, _, since) in self._posted.items() if now - since > world.timeout]:
                return [], late
            _pause(now - start)


def leave() -> None:
    """Tell the other ranks that this process is at its end, and wait until they are too, however long they work."""
    everyone, *groups = world.groups.values()
    for group in groups:  # members may wait in one
        _report(group, _LAST, _END)
    _Arrival(
        everyone, _END, _LAST, math.inf, everyone.rounds or _new_rounds(everyone)
    ).error()  # if there is one, the others raise it


class _Arrival:
    """Wait until the members of a group have reached an operation, and find out who has not."""

    def __init__(self, group: Group, operation: str, number: int, timeout: float, rounds: list[Round]) -> None:
        self.group, self.operation, self.number, self.timeout, self.rounds = group, operation, number, timeout, rounds
        self.own, self.is_reported, self.start = _fingerprint(operation), False, time.monotonic()

    def error(self) -> CommunicationError | None:
        """Return what is wrong, if not all members reached the same operation in time."""
        group, sent = self.group, self.own
        missing = []
        for round_ in self.rounds:
            round_.sent[:] = sent
            world.mpi.Prequest.Startall(round_.requests)
            if not self.finishes(round_.requests):
                missing = [round_.source]
                break
            if round_.received != self.own:
                sent = bytes(len(sent))
        else:
            if sent == self.own:
                return None
        self.report()
        until = min(time.monotonic() + _PATIENCE, self.start + self.timeout)
        while len(self.places()) < group.size and time.monotonic() < until:
            time.sleep(_SPIN)
        return self.misfit(missing)

    def finishes(self, requests: list[Any]) -> bool:
        """Return whether a round ends before further waiting is useless."""
        since = None
        while not world.mpi.Request.Testall(requests):
            now = time.monotonic()
            since = since or now
            if now - since > _SPIN and self.is_over(now):
                return False
            _pause(now - since)
        return True

    def is_over(self, now: float) -> bool:
        """Return whether further waiting is useless, and report where this rank is if it takes long."""
        places, waited = self.places(), now - self.start
        if len(places) > 1 or waited > min(_PATIENCE, self.timeout / 2):
            self.report()
        return waited > self.timeout or len(set(places.values())) > 1

    def report(self) -> None:
        """Tell the others where this rank is, once."""
        if not self.is_reported:
            _report(self.group, self.number, self.operation)
            self.is_reported = True

    def places(self) -> dict[int, str]:
        """Return the operation that each rank of the world reached, as far as it is known and not an earlier one."""
        _listen(self.group)
        there = {self.group.ranks[self.group.rank]: self.operation}
        for rank, (number, text) in self.group.heard.items():
            if number >= self.number:
                there[rank] = text if number in (self.number, _LAST) else self.operation
        return there

    def misfit(self, missing: list[int]) -> CommunicationError:
        """Return the error that names the ranks that disagree or are late."""
        group, there, where = self.group, self.places(), f"operation {self.number}{self.group}"
        camps: dict[str, list[int]] = {}
        for rank in sorted(there):
            camps.setdefault(there[rank], []).append(rank)
        if len(camps) > 1:
            found = "; ".join(f"{named(ranks)} reached {text}" for text, ranks in camps.items())
            return DisagreementError(
                f"{where} differs: {found}; all ranks must call the same operations in the same order"
            )
        late = [rank for rank in group.ranks if rank not in there] or missing
        others = [rank for rank in group.ranks if rank not in late]
        return LateRankError(
            f"{named(late)} did not reach {where} ({self.operation}) within {self.timeout:g} s, but {named(others)} "
            "did: late, stopped or dead; init(timeout=...) sets how long to wait"
        )


def _new_rounds(group: Group) -> list[Round]:
    """Set up the messages of an arrival, once: starting them again takes half as long as posting new ones."""
    rounds, byte, step = [], world.mpi.BYTE, 1
    while step < group.size:
        source, target = (group.ranks[(group.rank + place) % group.size] for place in (-step, step))
        received, sent = bytearray(_FINGERPRINT_BYTES), bytearray(_FINGERPRINT_BYTES)
        receive = world.communicator.Recv_init([received, byte], source, group.tag)
        send = world.communicator.Send_init([sent, byte], target, group.tag)
        rounds.append(Round(source, target, received, sent, [receive, send]))
        step *= 2
    return rounds


class Gathering:
    """Arrive at an operation and gather a row of `size` elements from every rank, in the same messages.

    The operation names the shape and dtype of the rows too, so that ranks that agree on it send equally many bytes.
    """

    def __init__(self, group: Group, operation: str, size: int, dtype: np.dtype[Any]) -> None:
        rows = np.empty((group.size, size), dtype)  # row i is of the rank i places before this one
        self.group, self.operation, self.own, self.rounds = group, operation, rows[0], _new_rounds(group)
        self.by_rank = [rows[(group.rank - rank) % group.size] for rank in range(group.size)]
        # Bytes of another operation carry another tag: they are never taken for these, however many they are.
        tag, byte = crc32(_fingerprint(operation), group.tag) % _TAGS, world.mpi.BYTE
        for place, round_ in enumerate(self.rounds):
            step = 1 << place
            count = min(step, group.size - step)
            sent, received = (rows[start:][:count].reshape(-1).view(np.uint8) for start in (0, step))
            round_.requests.append(world.data.Recv_init([received, byte], round_.source, tag))
            round_.requests.append(world.data.Send_init([sent, byte], round_.target, tag))

    def rows_with(self, own: Array) -> list[Array]:
        """Return the rows of all ranks, in their order, until the next call; raises what `arrive` raises."""
        np.copyto(self.own, own)
        arrive(self.group, self.operation, self.rounds)
        return self.by_rank


def gathering(group: Group, operation: str, size: int, dtype: np.dtype[Any]) -> Gathering:
    """Return the messages of an operation, the same ones when it comes again."""
    found: Gathering | None = group.gatherings.get(operation)
    if found:
        return found
    if len(group.gatherings) == _MOST_GATHERINGS:
        _free(group.gatherings.pop(next(iter(group.gatherings))).rounds)
    found = group.gatherings[operation] = Gathering(group, operation, size, dtype)
    return found


def forget_messages(group: Group) -> None:
    """Free the messages that a group sends again and again; after a failure MPI may still write to them."""
    if group.failure is None:
        for rounds in (group.rounds, *(kept.rounds for kept in group.gatherings.values())):
            _free(rounds)
        group.gatherings.clear()


def _free(rounds: list[Round]) -> None:
    for request in (request for round_ in rounds for request in round_.requests):
        request.Free()
    rounds.clear()


@lru_cache(maxsize=1024)
def _fingerprint(operation: str) -> bytes:
    return blake2b(operation.encode("utf-8", "surrogatepass"), digest_size=_FINGERPRINT_BYTES).digest()


def _report(group: Group, number: int, operation: str) -> None:
    text = operation.encode("utf-8", "replace")[: _REPORT_BYTES - _PLACE_BYTES].ljust(_REPORT_BYTES - _PLACE_BYTES)
    message = number.to_bytes(_PLACE_BYTES, "little") + text
    group.reports = [request for request in group.reports if not request.Test()]
    group.reports += _posted(group, [(peer, message) for peer in group.peers], [], _REPORT)


def _listen(group: Group) -> None:
    """Take the reports that came for the groups with the tag of this one."""
    status, message = world.mpi.Status(), bytearray(_REPORT_BYTES)
    while world.communicator.Iprobe(world.mpi.ANY_SOURCE, group.tag + _REPORT, status):
        source = status.Get_source()
        world.communicator.Recv([message, world.mpi.BYTE], source, group.tag + _REPORT)
        number, text = int.from_bytes(message[:_PLACE_BYTES], "little"), message[_PLACE_BYTES:].decode(errors="replace")
        for other in world.groups.values():
            if other.tag == group.tag and source in other.ranks:
                other.heard[source] = number, text.rstrip()


class _Transfer:
    """Send and receive some messages; what is given up, MPI may still write to."""

    def __init__(self, group: Group, operation: str, sends: Messages, receives: Messages) -> None:
        self.group, self.operation = group, operation
        sends, receives = [[message for message in messages if len(message[1])] for messages in (sends, receives)]
        self.messages = [*receives, *sends]
        self.requests: list[Any] = _guarded(group, operation, lambda: _posted(group, sends, receives))

    def finish(self, timeout: float) -> None:
        """Wait until all ranks did their part, each within the timeout after another."""
        try:
            if not _guarded(self.group, self.operation, lambda: _finishes(self.requests, timeout), self.unfinished):
                raise _silent(self.group, self.operation, self.unfinished(), "which all ranks had reached")
        finally:
            self.give_up()

    def unfinished(self) -> list[int]:
        """Return the ranks of the world that did not do their part yet."""
        pairs = zip(self.messages, self.requests, strict=True)
        return sorted({self.group.ranks[peer] for (peer, _), request in pairs if request})

    def give_up(self) -> None:
        """Keep the buffers of messages that are not there."""
        if any(self.requests) and self not in _abandoned:
            _abandoned.append(self)


def _guarded(
    group: Group, operation: str, work: Callable[[], Result], unfinished: Callable[[], list[int]] = list
) -> Result:
    """Return what some work with MPI returns, and note that the group is out of step if it breaks off."""
    try:
        return work()
    except world.mpi.Exception as error:
        dead = world.watched.dead() if world.watched else []
        lost = named(dead or unfinished() or group.ranks)
        raise _failed(group, CommunicationError(f"{operation}: MPI lost {lost}: {error}")) from error
    except BaseException as error:
        _failed(group, CommunicationError(f"{operation}: interrupted by {type(error).__name__}"))
        raise


def _posted(group: Group, sends: Messages, receives: Messages, kind: int = 0) -> list[Any]:
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


def _finishes(requests: list[Any], timeout: float) -> bool:
    """Return whether all requests are done, and one was whenever the timeout had passed."""
    since = time.monotonic()
    while (done := world.mpi.Request.Testsome(requests)) is not None:
        now = time.monotonic()
        if done:
            since = now
        elif now - since > timeout:
            return False
        else:
            _pause(now - since)
    return True


def _pause(waited: float) -> None:
    """Let others run, the longer the more, after some seconds of waiting."""
    if waited > _SPIN:  # a tenth of the time it has waited: little is lost, and ranks that share a core can use it
        time.sleep(min(waited / 10, _SHORT_SLEEP if waited < _SOON else _LONGEST_SLEEP))
    elif not world.has_cores:
        _let_others_run()


def _silent(group: Group, operation: str, late: list[int], state: str) -> CommunicationError:
    return _failed(
        group,
        LateRankError(
            f"{named(late)} sent nothing for {world.timeout:g} s in operation {group.operations}{group} ({operation}), "
            f"{state}; init(timeout=...) sets how long to wait"
        ),
    )


def _failed(group: Group, error: CommunicationError) -> CommunicationError:
    """Note that the members of a group are out of step from now on."""
    group.failure = str(error)
    return error
