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

from numparam.communication.collectives import gather_small
from numparam.communication.exchange import arrive, enter, leave, started_by_mpiexec, world
from numparam.communication.failure import StopJob, stop_job
from numparam.communication.group import (
    DEFAULT_TIMEOUT,
    WORLD_COMM_GROUP,
    Group,
    World,
    alone,
    checked_ranks,
    named,
)
from numparam.context import stand_at
from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.stream.seed import current_seed, share_seed

_LONGEST_START = 30 * 24 * 3600.0


def init(backend_name: str | None = None, timeout: float | None = None) -> None:
    """Start the communication with the other ranks of the job, those of ``mpiexec -n 4 python ...``.

    Sets ``device_num`` and ``global_rank`` of the parallel context, which a reset of the context leaves alone. Where no
    seed was set, ranks take the seed of rank 0. From here on, an exception that nothing catches ends the whole job,
    with the traceback and a sentence that names the rank. A process that mpiexec did not start is a job of one rank.
    Without effect, but for `timeout`, the second time.

    MPI itself waits for all ranks to start. One that never does ends the job after `timeout` too, but MPI does not tell
    which it is: the others print where they wait.

    Parameters
    ----------
    backend_name : str, optional
        ``"mpi"``, which is all there is.
    timeout : float, optional
        Seconds that an operation waits for a rank that does not come, or from which nothing comes, before it raises
        `numparam.errors.LateRankError`. Else that of the environment variable ``NUMPARAM_COMM_TIMEOUT``, else 300.

    Raises
    ------
    RuntimeError
        If mpi4py or an MPI library is missing, or mpiexec is that of another MPI, or a rank other than 0 already drew a
        seed of its own, so that its lazy tensors differ from those of the others.
    TimeoutError
        If a rank does not come.
    TypeError
        If `timeout` is no number.
    ValueError
        If there is no such backend, or `timeout` is not positive.

    Examples
    --------
    >>> from numparam.communication import get_group_size, get_rank
    >>> get_rank(), get_group_size()  # before init(), or without mpiexec
    (0, 1)
    """
    if backend_name not in (None, "mpi"):
        raise ArgumentValueError(f"backend_name is None or 'mpi', found {backend_name!r}")
    limit = _as_timeout(os.environ.get("NUMPARAM_COMM_TIMEOUT", DEFAULT_TIMEOUT) if timeout is None else timeout)
    if world.communicator is not None:
        world.timeout = limit if timeout is not None else world.timeout
        return
    mpi = _start_mpi_with_all_ranks(limit)
    size, rank = mpi.COMM_WORLD.Get_size(), mpi.COMM_WORLD.Get_rank()
    if size == 1 and (count := started_by_mpiexec()) > 1:
        raise StateError(
            f"mpiexec started {count} processes, but mpi4py's MPI sees one: they are of different MPIs; use the "
            "mpiexec that stands beside python"
        )
    everyone = Group(WORLD_COMM_GROUP, tuple(range(size)), rank)
    enter(World(mpi.COMM_WORLD, limit, {WORLD_COMM_GROUP: everyone}))
    if size > 1:
        sys.excepthook = StopJob(rank, size, mpi.COMM_WORLD)
        arrive(everyone, "numparam.communication.init")
        # All are there, so this does not wait; from here on no message can meet one of the user's own.
        world.communicator = mpi.COMM_WORLD.Dup()
        _share_seed(everyone)
    stand_at(rank, size)
    atexit.register(release)


def release() -> None:
    """End the communication; a process that ends does so by itself.

    Ranks that wait for this one learn that it will not come. It waits until all others are at their end, without a
    deadline, for they may still work. If an operation failed before, the job is stopped instead. Does nothing before
    `init`.

    Examples
    --------
    >>> release()
    """
    atexit.unregister(release)
    if world.communicator is None:
        return
    if failure := next((group.failure for group in world.groups.values() if group.failure), None):
        stop_job(world.communicator, f"the job cannot end well, for before this: {failure}")
    if world.groups[WORLD_COMM_GROUP].size > 1:
        leave()
        world.communicator.Free()
        if isinstance(sys.excepthook, StopJob):
            sys.excepthook = sys.excepthook.previous
    enter(alone())
    stand_at(0, 1)


def get_rank(group: str = WORLD_COMM_GROUP) -> int:
    """Return the rank of this process in a group, 0 before `init`.

    Raises
    ------
    ValueError
        If this rank knows no such group.

    Examples
    --------
    >>> get_rank()
    0
    """
    return get_group(group).rank


def get_group_size(group: str = WORLD_COMM_GROUP) -> int:
    """Return how many ranks a group has, 1 before `init`.

    Raises
    ------
    ValueError
        If this rank knows no such group.

    Examples
    --------
    >>> get_group_size()
    1
    """
    return get_group(group).size


def create_group(group: str, rank_ids: list[int]) -> None:
    """Give some ranks a name under which they communicate among themselves.

    Each of them calls this; others need not. It sends nothing: members that disagree are found out by the first
    operation.

    Parameters
    ----------
    group : str
    rank_ids : list of int
        The members, in the order of their ranks in the group.

    Raises
    ------
    TypeError
        If `group` is no str, or `rank_ids` no list of ints.
    ValueError
        If the name is taken, this process is no member, or there is no such rank.

    Examples
    --------
    >>> create_group("first", [0])
    >>> get_group_size("first")
    1
    >>> destroy_group("first")
    """
    if not isinstance(group, str):
        raise ArgumentTypeError(f"the name of a group is a str, found {group!r}")
    everyone = world.groups[WORLD_COMM_GROUP]
    ranks = checked_ranks(rank_ids, everyone.size)
    if group in world.groups:
        raise ArgumentValueError(f"there is a group {group!r} already, of {named(world.groups[group].ranks)}")
    if everyone.rank not in ranks:
        raise ArgumentValueError(
            f"group {group!r} of {named(ranks)} is created by its members; this is not one of them"
        )
    made = Group(group, ranks, ranks.index(everyone.rank), 0 if everyone.size == 1 else _tag(group))
    for other in world.groups.values():
        if everyone.size > 1 and other.tag == made.tag and len({*other.ranks} & {*ranks}) > 1:
            raise ArgumentValueError(
                f"messages of groups {group!r} and {other.name!r} would carry the same tag: choose another name"
            )
    world.groups[group] = made


def destroy_group(group: str) -> None:
    """Forget a group.

    Raises
    ------
    ValueError
        If this rank knows no such group, or it is that of all ranks.
    """
    if group == WORLD_COMM_GROUP:
        raise ArgumentValueError("the group of all ranks cannot be destroyed; release() ends the communication")
    del world.groups[get_group(group).name]


def get_world_rank_from_group_rank(group: str, group_rank_id: int) -> int:
    """Return the rank in the world of a member of a group.

    Raises
    ------
    ValueError
        If this rank knows no such group, or it has no such member.

    Examples
    --------
    >>> get_world_rank_from_group_rank(WORLD_COMM_GROUP, 0)
    0
    """
    found = get_group(group)
    return found.ranks[as_member(found, group_rank_id)]


def get_group_rank_from_world_rank(world_rank_id: int, group: str) -> int:
    """Return the rank in a group of a rank of the world.

    Raises
    ------
    ValueError
        If this rank knows no such group, or it has no such member.

    Examples
    --------
    >>> get_group_rank_from_world_rank(0, WORLD_COMM_GROUP)
    0
    """
    ranks = get_group(group).ranks
    if world_rank_id not in ranks:
        raise ArgumentValueError(f"group {group!r} has {named(ranks)}, found {world_rank_id!r}")
    return ranks.index(world_rank_id)


def get_group(name: str) -> Group:
    """Return a group by its name.

    Raises
    ------
    ArgumentValueError
        If this rank knows no such group.
    """
    if name not in world.groups:
        raise ArgumentValueError(f"this rank is in no group {name!r}; it is in {', '.join(map(repr, world.groups))}")
    return world.groups[name]


def as_member(group: Group, rank: int) -> int:
    """Check a rank in a group and return it.

    Raises
    ------
    ArgumentValueError
        If the group has no such member.
    """
    if type(rank) is not int or not 0 <= rank < group.size:
        raise ArgumentValueError(f"the group {group} has ranks 0 to {group.size - 1}, found {rank!r}")
    return rank


def _as_timeout(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"timeout is a number of seconds, found {value!r}") from None
    if math.isnan(seconds) or seconds <= 0:
        raise ArgumentValueError(f"timeout is a positive number of seconds, found {value!r}")
    return seconds


def _start_mpi_with_all_ranks(limit: float) -> Any:
    """Import MPI, which waits for all processes to do so; its name is what a process that waits too long says."""
    if is_job := started_by_mpiexec() > 1:
        # MPI_Init waits with the interpreter locked, and knows no deadline: nothing else could end it.
        faulthandler.dump_traceback_later(min(limit, _LONGEST_START), exit=True)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter without an MPI library
        raise StateError(
            'communication needs mpi4py and an MPI library: pip install "numparam[mpi]" brings both, and mpiexec'
        ) from error
    finally:
        if is_job:
            faulthandler.cancel_dump_traceback_later()
    return MPI


def _tag(name: str) -> int:
    from mpi4py.MPI import TAG_UB

    return 1 + zlib.crc32(name.encode()) % int(world.communicator.Get_attr(TAG_UB))


def _share_seed(everyone: Group) -> None:
    """Let all ranks that have no seed take that of rank 0, drawn if need be."""
    own = current_seed() if everyone.rank == 0 else 0
    seeds = gather_small(everyone, "numparam.communication.init", np.array([own], np.uint64))
    if everyone.rank:
        share_seed(int(seeds[0, 0]))
