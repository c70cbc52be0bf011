"""Messages between the ranks of a group, each with a deadline: all that numparam asks of MPI.

An operation begins with an arrival: each member tells every other one what it is about to do. So a rank that does not
come is known by name, and so is one that came to do something else, before any data moves. Data then go straight from
rank to rank. Nothing waits inside MPI: requests are tested until they are done or the deadline has passed.

An arrival costs each rank one message of 256 bytes to every other one: 0.15 ms for 2 ranks and 0.7 ms for 4, on 2 cores
that had other work too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.communication.group import Group, World, alone, named
from numparam.errors import CommunicationError, DisagreementError, LateRankError, StateError

if TYPE_CHECKING:
    from numparam.kernels.array import DeviceArray

    Buffer = np.ndarray[Any, np.dtype[Any]] | DeviceArray

Array = np.ndarray[Any, np.dtype[Any]]
Messages = Sequence[tuple[int, "Buffer"]]

_HEADER_BYTES = 256
_SPIN = 1e-4  # seconds in which a message of this machine comes, if its sender is there
_LONGEST_SLEEP = 0.01
_let_others_run: Callable[[], None] = getattr(os, "sched_yield", partial(time.sleep, 0))
_COUNTS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")  # what mpiexec of MPICH and of Open MPI tell a process

world = alone()
_abandoned: list[Any] = []  # MPI may still write to the buffers of requests that were given up


def enter(state: World) -> None:
    """Make this process one of a world."""
    world.communicator, world.timeout, world.groups = state.communicator, state.timeout, state.groups


def started_by_mpiexec() -> int:
    """Return how many processes the mpiexec that started this one runs, 1 without it."""
    return max(int(os.environ.get(name, "1")) for name in _COUNTS)


def arrive(group: Group, operation: str) -> None:
    """Wait until every member of a group has come to the same operation.

    Raises
    ------
    LateRankError
        If one does not come in time. It is also a TimeoutError.
    DisagreementError
        If one came to another operation, or has ended its program.
    StateError
        If an earlier operation of the group failed, or MPI was not started.
    """
    if group.failure is not None:
        raise StateError(f"{operation}: {named(group.ranks)} cannot talk any more, for before this: {group.failure}")
    if group.size == 1:
        if world.communicator is None and (count := started_by_mpiexec()) > 1:
            raise StateError(f"{operation}: this process is one of {count}; call numparam.communication.init() first")
        return
    group.operations += 1
    place = f"operation {group.operations} {group}, {operation}"
    own, received = _header(operation), _headers(group)
    if late := _run(group, _to_all(group, own), [*received.items()], place, is_arrival=True):
        there = [rank for rank in group.ranks if rank not in late]
        raise _failed(
            group,
            LateRankError(
                f"{named(late)} did not come to {place}, within {world.timeout:g} s after {named(there)}: late, "
                "stopped or dead; init(timeout=...) sets how long to wait"
            ),
        )
    came: dict[str, list[int]] = {}
    for peer, header in {group.rank: own, **received}.items():
        came.setdefault(bytes(header).rstrip(b"\0").decode(errors="replace"), []).append(group.ranks[peer])
    if len(came) > 1:
        said = "; ".join(f"{named(ranks)}: {text}" for text, ranks in sorted(came.items(), key=lambda item: item[1]))
        raise _failed(
            group,
            DisagreementError(
                f"all ranks call the same operations in the same order, but as operation {group.operations} {group} "
                f"came {said}"
            ),
        )


def exchange(group: Group, operation: str, sends: Messages, receives: Messages) -> None:
    """Send to some members of a group and receive from some; members are named by their ranks in the group.

    Buffers are contiguous; a rank knows the sizes of those that come, and their order. Empty ones are not sent.

    Raises
    ------
    LateRankError
        If nothing came for as long as a rank waits for another one.
    """
    sends = [(peer, buffer) for peer, buffer in sends if len(buffer)]
    receives = [(peer, buffer) for peer, buffer in receives if len(buffer)]
    if not sends and not receives:
        return
    if late := _run(group, sends, receives, operation):
        raise _failed(
            group,
            LateRankError(
                f"{operation}: nothing came from {named(late)} for {world.timeout:g} s, in the middle of operation "
                f"{group.operations} {group}: late, stopped or dead"
            ),
        )


def leave() -> None:
    """Tell every rank that this process is at its end, and wait for them to be there too, however long they work."""
    farewell = _header("the end of the program")
    everyone, *groups = world.groups.values()
    for group in groups:  # for those who wait in one; nobody else takes these messages
        _abandoned.extend(_posted(group, _to_all(group, farewell), []))
    _wait(_posted(everyone, _to_all(everyone, farewell), [*_headers(everyone).items()]), float("inf"))


def _to_all(group: Group, buffer: Array) -> Messages:
    return [(peer, buffer) for peer in group.peers]


def _header(text: str) -> Array:
    return np.frombuffer(text.encode()[:_HEADER_BYTES].ljust(_HEADER_BYTES, b"\0"), np.uint8)


def _headers(group: Group) -> dict[int, Array]:
    """Return room for what the other members say."""
    return {peer: np.empty(_HEADER_BYTES, np.uint8) for peer in group.peers}


def _run(
    group: Group,
    sends: Messages,
    receives: Messages,
    operation: str,
    is_arrival: bool = False,
) -> list[int]:
    """Exchange messages; return the ranks of the world that did not do their part in time."""
    from mpi4py import MPI

    requests: list[Any] = []
    try:
        requests = _posted(group, sends, receives)
        if _wait(requests, world.timeout, is_arrival):
            return []
    except MPI.Exception as error:
        peers = _unfinished(group, requests, [*receives, *sends])
        raise _failed(
            group, CommunicationError(f"{operation}: MPI lost {named(peers or group.ranks)}: {error}")
        ) from error
    except BaseException as error:
        _failed(group, CommunicationError(f"{operation}: it was broken off by {type(error).__name__}"))
        raise
    finally:
        if any(requests):
            _abandoned.extend((requests, sends, receives))
    return _unfinished(group, requests, receives) or _unfinished(group, requests, [*receives, *sends])


def _posted(group: Group, sends: Messages, receives: Messages) -> list[Any]:
    from mpi4py.MPI import BYTE

    communicator, tag = world.communicator, group.tag
    return [
        *[communicator.Irecv([_as_bytes(buffer), BYTE], group.ranks[peer], tag) for peer, buffer in receives],
        *[communicator.Isend([_as_bytes(buffer), BYTE], group.ranks[peer], tag) for peer, buffer in sends],
    ]


def _as_bytes(buffer: Buffer) -> Any:
    if isinstance(buffer, np.ndarray):
        return buffer.view(np.uint8)  # MPI knows no bfloat16
    from mpi4py.MPI import buffer as memory

    return memory.fromaddress(buffer.address, buffer.nbytes)


def _wait(requests: list[Any], timeout: float, is_arrival: bool = False) -> bool:
    """Say whether all requests were done in time: since the last one was, or of an arrival since it began."""
    from mpi4py.MPI import Request

    start = since = time.monotonic()
    while (done := Request.Testsome(requests)) is not None:
        now = time.monotonic()
        if done:
            since = now
        elif now - (start if is_arrival else since) > timeout:
            return False
        elif now - since < _SPIN:
            _let_others_run()
        else:  # a tenth of the time it has waited: little is lost, and ranks that share a core can use it
            time.sleep(min((now - since) / 10, _LONGEST_SLEEP))
    return True


def _unfinished(group: Group, requests: list[Any], messages: Messages) -> list[int]:
    return sorted({group.ranks[peer] for (peer, _), request in zip(messages, requests, strict=False) if request})


def _failed(group: Group, error: CommunicationError) -> CommunicationError:
    """Note that the members of a group are out of step from now on."""
    group.failure = str(error)
    return error
