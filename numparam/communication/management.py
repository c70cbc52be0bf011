"""Starting and ending the communication of a job, its ranks and their groups."""

from __future__ import annotations

import atexit
import faulthandler
import math
import os
import sys
import zlib
from typing import Any

import numpy as np

from numparam.communication.arrival import arrive, forget_messages, leave
from numparam.communication.exchange import enter, gather, started_by_mpiexec, world
from numparam.communication.failure import StopJob, stop_job
from numparam.communication.group import DEFAULT_TIMEOUT, WORLD_COMM_GROUP, Group, World, alone, checked_ranks, named
from numparam.communication.watcher import Watched
from numparam.context import stand_at
from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.kernels.machine import pool
from numparam.stream.seed import current_seed, share_seed
from numparam.text import shown

_LONGEST_START = 30 * 24 * 3600.0


def init(backend_name: str | None = None, timeout: float | None = None) -> None:
    """Start the communication with the other ranks of the job, as in ``mpiexec -n 4 python ...``.

    Sets ``device_num`` and ``global_rank`` of the parallel context, which a reset of the context keeps. Where no seed
    was set, ranks take the seed of rank 0. A process that mpiexec did not start is a job of one rank. A second call
    only sets `timeout`.

    From here on, a rank that fails ends the job and is named. An uncaught exception in any thread prints its traceback
    and the rank, and mpiexec returns 1. On Linux a watcher process on each machine names a rank that ends by
    ``os._exit``, a signal or a crash; mpiexec returns the number of the signal or the status, which is 0 after
    ``os._exit(0)``, or 9 if it had to kill the others.

    MPI waits for all ranks to start. If one never does, the job ends after `timeout` too, but MPI does not know which
    one: the others print where they wait.

    Parameters
    ----------
    backend_name : str, optional
        ``"mpi"``, the only one.
    timeout : float, optional
        Seconds that an operation waits for a late rank, or for the next message, before it raises
        `numparam.errors.LateRankError`. By default the environment variable ``NUMPARAM_COMM_TIMEOUT``, or 300.

    Raises
    ------
    RuntimeError
        If mpi4py or an MPI library is missing, mpiexec belongs to another MPI, or a rank other than 0 has already drawn
        a seed, so that its lazy tensors differ from the others'.
    TimeoutError
        If a rank is late.
    TypeError
        If `timeout` is not a number.
    ValueError
        If `backend_name` is unknown or `timeout` is not positive.

    Examples
    --------
    >>> from numparam.communication import get_group_size, get_rank
    >>> get_rank(), get_group_size()  # before init(), or without mpiexec
    (0, 1)
    """
    if backend_name not in (None, "mpi"):
        raise ArgumentValueError(f"backend_name must be 'mpi' or None, found {shown(backend_name)}")
    limit = _as_timeout(os.environ.get("NUMPARAM_COMM_TIMEOUT", DEFAULT_TIMEOUT) if timeout is None else timeout)
    if world.communicator is not None:
        world.timeout = limit if timeout is not None else world.timeout
        return
    mpi = _start_mpi_with_all_ranks(limit)
    size, rank = mpi.COMM_WORLD.Get_size(), mpi.COMM_WORLD.Get_rank()
    if size == 1 and (count := started_by_mpiexec()) > 1:
        raise StateError(
            f"mpiexec started {count} processes, but mpi4py's MPI sees one: they are of different MPIs; use the "
            "mpiexec next to python"
        )
    everyone = Group(WORLD_COMM_GROUP, tuple(range(size)), rank)
    enter(World(mpi.COMM_WORLD, limit, {WORLD_COMM_GROUP: everyone}, mpi))
    if size > 1:
        world.hook = StopJob(rank, size)
        arrive(everyone, "numparam.communication.init")
        # All are there, so this does not wait; from here on no message can meet one of the user's own.
        forget_messages(everyone)
        world.communicator, world.data = mpi.COMM_WORLD.Dup(), mpi.COMM_WORLD.Dup()
        _look_around(rank, size)
        _share_seed(everyone)
    stand_at(rank, size)
    atexit.register(release)


def release() -> None:
    """End the communication, which also happens when a process ends.

    Ranks that wait for this one learn that it has ended. It waits without a deadline until all others have, for they
    may still work. After a failed operation it stops the job instead. Before `init` it does nothing.
    """
    atexit.unregister(release)
    if world.communicator is None:
        return
    if failure := next((group.failure for group in world.groups.values() if group.failure), None):
        stop_job(f"the job cannot end well after an earlier failure: {failure}")
    if world.groups[WORLD_COMM_GROUP].size > 1:
        leave()
        for group in world.groups.values():
            forget_messages(group)
        world.communicator.Free()
        world.data.Free()
        if world.watched:
            world.watched.send(b"release")
        world.hook.remove()
    enter(alone())
    pool.set_share(None)
    stand_at(0, 1)


def get_rank(group: str = WORLD_COMM_GROUP) -> int:
    """Return the rank of this process in a group, 0 before `init`; a ValueError if it is not in such a group."""
    return get_group(group).rank


def get_group_size(group: str = WORLD_COMM_GROUP) -> int:
    """Return how many ranks a group has, 1 before `init`; a ValueError if this rank is not in such a group."""
    return get_group(group).size


def create_group(group: str, rank_ids: list[int]) -> None:
    """Name a group of ranks that communicate among themselves.

    Only its members call this. Nothing is sent: members that disagree find out at their first operation.

    Parameters
    ----------
    group : str
    rank_ids : list of int
        The members, in the order of their ranks in the group.

    Raises
    ------
    TypeError
        If `group` is not a str, or `rank_ids` not a list of ints.
    ValueError
        If the name is taken, this process is not a member, or a rank does not exist.

    Examples
    --------
    >>> create_group("first", [0])
    >>> get_group_size("first")
    1
    >>> destroy_group("first")
    """
    if not isinstance(group, str):
        raise ArgumentTypeError(f"the name of a group must be a str, found {shown(group)}")
    everyone = world.groups[WORLD_COMM_GROUP]
    ranks = checked_ranks(rank_ids, everyone.size)
    if group in world.groups:
        raise ArgumentValueError(
            f"group {group!r} exists already, with {named(world.groups[group].ranks)}; choose another name"
        )
    if everyone.rank not in ranks:
        raise ArgumentValueError(
            f"group {group!r} of {named(ranks)} is created by its members only; this is rank {everyone.rank}"
        )
    made = Group(group, ranks, ranks.index(everyone.rank), 0 if everyone.size == 1 else _tag(group))
    for other in world.groups.values():
        if everyone.size > 1 and other.tag == made.tag and len({*other.ranks} & {*ranks}) > 1:
            raise ArgumentValueError(
                f"messages of groups {group!r} and {other.name!r} would carry the same tag: choose another name"
            )
    world.groups[group] = made


def destroy_group(group: str) -> None:
    """Forget a group; a ValueError if it is the group of all ranks, or this rank is not in it."""
    if group == WORLD_COMM_GROUP:
        raise ArgumentValueError("the group of all ranks cannot be destroyed; release() ends the communication")
    forget_messages(get_group(group))
    del world.groups[group]


def get_world_rank_from_group_rank(group: str, group_rank_id: int) -> int:
    """Return the rank in the world of a member of a group; a ValueError if it is not there."""
    found = get_group(group)
    return found.ranks[as_member(found, group_rank_id)]


def get_group_rank_from_world_rank(world_rank_id: int, group: str) -> int:
    """Return the rank in a group of a rank of the world; a ValueError if it is not there."""
    ranks = get_group(group).ranks
    if world_rank_id not in ranks:
        raise ArgumentValueError(f"group {group!r} has {named(ranks)}, found {shown(world_rank_id)}")
    return ranks.index(world_rank_id)


def get_group(name: str) -> Group:
    """Return a group by its name; an ArgumentValueError if this rank is not in such a group."""
    if (found := world.groups.get(name)) is None:
        raise ArgumentValueError(f"this rank is not in a group {name!r}; it is in {', '.join(map(repr, world.groups))}")
    return found


def as_member(group: Group, rank: int) -> int:
    """Check a rank in a group and return it; an ArgumentValueError if the group has no such member."""
    if type(rank) is not int or not 0 <= rank < group.size:
        raise ArgumentValueError(f"group {group.name!r} has ranks 0 to {group.size - 1}, found {shown(rank)}")
    return rank


def _as_timeout(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"timeout must be a number of seconds, found {shown(value)}") from None
    if math.isnan(seconds) or seconds <= 0:
        raise ArgumentValueError(f"timeout must be a positive number of seconds, found {shown(value)}")
    return seconds


def _start_mpi_with_all_ranks(limit: float) -> Any:
    """Import MPI, which waits for all processes; a process that waits too long prints the name of this function."""
    if is_job := started_by_mpiexec() > 1:
        # MPI_Init waits with the interpreter locked, and knows no deadline: nothing else could end it.
        faulthandler.dump_traceback_later(min(limit, _LONGEST_START), exit=True)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError without an MPI library
        raise StateError(
            'communication needs mpi4py and an MPI library: pip install "numparam[mpi]" brings both, and mpiexec'
        ) from error
    finally:
        if is_job:
            faulthandler.cancel_dump_traceback_later()
    return MPI


def _look_around(rank: int, size: int) -> None:
    """Share the cores of this machine among its ranks, and let these be watched."""
    local = world.communicator.Split_type(world.mpi.COMM_TYPE_SHARED)
    own, all_cores = pool.cores(), local.allgather(pool.cores())
    share = sum(1 / sum(core in others for others in all_cores) for core in own)
    pool.set_share(max(1, int(share + 1e-9)))
    world.has_cores = share > 1 - 1e-9
    if sys.platform == "linux":
        world.watched = Watched(rank, size, local)
    local.Free()


def _tag(name: str) -> int:
    highest = int(world.communicator.Get_attr(world.mpi.TAG_UB))
    return 2 * (1 + zlib.crc32(name.encode()) % (highest // 2 - 1))


def _share_seed(everyone: Group) -> None:
    """Give all ranks without a seed the seed of rank 0, which draws one if necessary."""
    own = current_seed() if everyone.rank == 0 else 0
    seeds = gather(everyone, "numparam.communication.init", np.array([own], np.uint64))
    if everyone.rank:
        share_seed(int(seeds[0, 0]))
