"""How the ranks of a group arrive at an operation, which completes once every member has reached the same one.

Ranks of one machine meet in memory that they share, see `memory`. Others take part in a dissemination barrier: in round
k a rank sends 16 bytes to the rank 2**k further on, ceil(log2 p) messages in all. The bytes are the fingerprint of the
operation, or zeros once ranks are known to disagree. A rank that waits for long, or learns of a disagreement, reports
its operation to all others, so that errors name ranks. Data then go directly from rank to rank.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any
from zlib import crc32

import numpy as np

from numparam.communication.exchange import SPIN, failed, guarded, interrupted, pause, posted, started_by_mpiexec, world
from numparam.communication.group import Group, Round, named
from numparam.communication.memory import Memory, of_members
from numparam.errors import CommunicationError, DisagreementError, LateRankError, StateError
from numparam.kernels.meeting import MET, WAITING

Array = np.ndarray[Any, np.dtype[Any]]

_FINGERPRINT_BYTES = 16
_REPORT = 1  # added to the tag of a group
_REPORT_BYTES = 256
_PLACE_BYTES = 8  # of the number of an operation
_LAST = 2 ** (8 * _PLACE_BYTES) - 1  # the number of the end of a program
_END = "the end of its program"
_PATIENCE = 1.0  # seconds after which a rank reports to the others where it waits
_DRAINED_EVERY = 64  # operations; a rank that never waits would else never take the reports of those who do
_MOST_GATHERINGS = 64  # of a group; each holds as many bytes as it gathers
_TAGS = 32768  # that every MPI has


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
    memory = group.memory
    try:
        is_met = memory and memory.meet(_words(operation)) == MET
    except BaseException as interrupt:
        interrupted(group, operation, interrupt)
        raise
    if not is_met:
        arrival = _Arrival(group, operation, group.operations, world.timeout, rounds)
        if error := guarded(group, operation, arrival.error):
            raise failed(group, error)
    if memory is None and world.watched:
        group.memory = of_members(group, operation)
    if not group.operations % _DRAINED_EVERY:
        _listen(group)


def leave() -> None:
    """Tell the other ranks that this process is at its end, and wait until they are too, however long they work."""
    everyone, *groups = world.groups.values()
    for group in groups:  # members may wait in one
        _report(group, _LAST, _END)
    if everyone.memory:
        everyone.memory.meet(_words(_END))
    _Arrival(everyone, _END, _LAST, math.inf).error()  # if there is one, the others raise it


class _Arrival:
    """Wait until the members of a group have reached an operation, and find out who has not."""

    def __init__(
        self, group: Group, operation: str, number: int, timeout: float, rounds: list[Round] | None = None
    ) -> None:
        self.group, self.operation, self.number, self.timeout, self.rounds = group, operation, number, timeout, rounds
        self.is_reported, self.start = False, time.monotonic()

    def error(self) -> CommunicationError | None:
        """Return what is wrong, if not all members reached the same operation in time."""
        missing = self.missing_in_memory(self.group.memory) if self.group.memory else self.missing_in_rounds()
        if missing is None:
            return None
        self.report()
        until = min(time.monotonic() + _PATIENCE, self.start + self.timeout)
        while len(self.places()) < self.group.size and time.monotonic() < until:
            time.sleep(SPIN)
        return self.misfit(missing)

    def missing_in_memory(self, shared: Memory) -> list[int] | None:
        """Wait for the others in memory; return who is late, an empty list if they disagree, None if all is well."""
        while (state := shared.look()) == WAITING:
            if self.is_over(time.monotonic()):
                break
        if state == MET:
            return None
        return [self.group.ranks[rank] for rank in shared.late()] if state == WAITING else []

    def missing_in_rounds(self) -> list[int] | None:
        """Exchange messages with the others; return as in memory, but of those who are late only one."""
        group, own = self.group, _fingerprint(self.operation)
        sent = own
        if self.rounds is None:
            self.rounds = group.rounds = group.rounds or _new_rounds(group)
        for round_ in self.rounds:
            round_.sent[:] = sent
            world.mpi.Prequest.Startall(round_.requests)
            if not self.finishes(partial(world.mpi.Request.Testall, round_.requests)):
                return [round_.source]
            if round_.received != own:
                sent = bytes(len(sent))
        return None if sent == own else []

    def finishes(self, done: Callable[[], bool]) -> bool:
        """Return whether something is done before further waiting is useless."""
        since = None
        while not done():
            now = time.monotonic()
            since = since or now
            if now - since > SPIN and self.is_over(now):
                return False
            pause(now - since)
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
        late = (group.memory and missing) or [rank for rank in group.ranks if rank not in there] or missing
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


class _Gathering:
    """Hold the messages that arrive at an operation and gather an array from every rank.

    The operation names the shape and dtype of the arrays too, so that ranks that agree on it send equally many bytes.
    """

    def __init__(self, group: Group, operation: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        rows = np.empty((group.size, *shape), dtype)  # row i is of the rank i places before this one
        self.own, self.rounds = rows[0, ...], _new_rounds(group)
        self.by_rank = [rows[(group.rank - rank) % group.size, ...] for rank in range(group.size)]
        # Bytes of another operation carry another tag: they are never taken for these, however many they are.
        tag, byte = crc32(_fingerprint(operation), group.tag) % _TAGS, world.mpi.BYTE
        for place, round_ in enumerate(self.rounds):
            step = 1 << place
            count = min(step, group.size - step)
            sent, received = (rows[start:][:count].reshape(-1).view(np.uint8) for start in (0, step))
            round_.requests.append(world.data.Recv_init([received, byte], round_.source, tag))
            round_.requests.append(world.data.Send_init([sent, byte], round_.target, tag))


def gathered(group: Group, operation: str, own: Array) -> list[Array]:
    """Arrive at an operation and return the arrays of all ranks, of one shape and few bytes, until the next one."""
    if group.memory:
        rows: list[Array] = group.memory.rows(own.shape, own.dtype)
        rows[group.rank][...] = own
        arrive(group, operation)
        return rows
    found: _Gathering | None = group.gatherings.get(operation)
    if not found:
        if len(group.gatherings) == _MOST_GATHERINGS:
            _free(group.gatherings.pop(next(iter(group.gatherings))).rounds)
        found = group.gatherings[operation] = _Gathering(group, operation, own.shape, own.dtype)
    np.copyto(found.own, own)
    arrive(group, operation, found.rounds)
    by_rank: list[Array] = found.by_rank
    return by_rank


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


@lru_cache(maxsize=1024)
def _words(operation: str) -> tuple[int, int]:
    first, second = struct.unpack("=2q", _fingerprint(operation))
    return first, second


def _report(group: Group, number: int, operation: str) -> None:
    text = operation.encode("utf-8", "replace")[: _REPORT_BYTES - _PLACE_BYTES].ljust(_REPORT_BYTES - _PLACE_BYTES)
    message = number.to_bytes(_PLACE_BYTES, "little") + text
    group.reports = [request for request in group.reports if not request.Test()]
    group.reports += posted(group, [(peer, message) for peer in group.peers], [], _REPORT)


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
