"""The context of a job with parameter servers: whether there are any, and which ranks they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from numparam.checks import as_bool, as_int
from numparam.communication import comm_func, get_group_size
from numparam.communication.group import named
from numparam.errors import ArgumentValueError, StateError

_DEFAULTS: dict[str, Any] = {"enable_ps": False, "server_num": None, "staleness": None}
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "enable_ps": as_bool,
    "server_num": partial(as_int, low=1),
    "staleness": partial(as_int, low=0),
}
_context = dict(_DEFAULTS)
_ROLES = ("", "MS_WORKER", "MS_PSERVER", "MS_SCHED")


def set_ps_context(**options: Any) -> None:
    """Set options of the parameter-server context, before `numparam.communication.init`; all of them or none.

    Parameters
    ----------
    **options
        ``enable_ps``, whether the job has servers (False); ``server_num``, how many of its last ranks are servers; by
        default the environment variable ``MS_SERVER_NUM``, or 1. ``MS_WORKER_NUM`` must agree, if it is set.
        ``staleness``, how many updates a worker may be ahead of the slowest one; by default updates are synchronous.

        As in MindSpore, the environment variable ``MS_ROLE`` of every rank may be ``MS_WORKER``, ``MS_PSERVER`` or
        ``MS_SCHED`` instead; the numbers must agree with it. A scheduler is not needed, and has nothing to do.

    Raises
    ------
    TypeError
        If a value is of the wrong kind.
    ValueError
        If the option does not exist, or its value is out of range.

    Examples
    --------
    >>> set_ps_context(enable_ps=True, server_num=2)
    >>> get_ps_context("server_num")
    2
    >>> reset_ps_context()
    """
    draft = dict(_context)
    for name, value in options.items():
        if name not in _DEFAULTS:
            raise ArgumentValueError(f"the server context has no option {name!r}; known: {', '.join(_DEFAULTS)}")
        draft[name] = None if value is None and name != "enable_ps" else _CHECKS[name](name, value)
    _context.update(draft)


def get_ps_context(name: str) -> Any:
    """Return an option of the parameter-server context; a ValueError if it does not exist."""
    if name not in _DEFAULTS:
        raise ArgumentValueError(f"the server context has no option {name!r}; known: {', '.join(_DEFAULTS)}")
    return _context[name]


def reset_ps_context() -> None:
    """Set every option of the parameter-server context to its default."""
    _context.update(_DEFAULTS)


def roles() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ranks of the workers and of the servers, by ``MS_ROLE`` or else the last ranks; all ranks call this.

    Raises
    ------
    StateError
        If servers are not enabled, or there is no worker or no server.
    ArgumentValueError
        If roles or numbers in the environment do not suit or agree.
    """
    if not _context["enable_ps"]:
        raise StateError("this job has no parameter servers; call set_ps_context(enable_ps=True) before init()")
    role = os.environ.get("MS_ROLE", "")
    if role not in _ROLES:
        raise ArgumentValueError(f"MS_ROLE must be one of {', '.join(_ROLES[1:])}, found {role!r}")
    given, size = _gathered(_ROLES.index(role)), get_group_size()
    if any(given) and not all(given):
        ranks = [rank for rank, place in enumerate(given) if not place]
        raise ArgumentValueError(f"MS_ROLE is not set for {named(ranks)} of {size}; set it for every rank or for none")
    count = _context["server_num"] or _from_environment("MS_SERVER_NUM")
    if not any(given):
        count = count or 1
        given = [1] * (size - count) + [2] * count
    workers, servers = (tuple(rank for rank, place in enumerate(given) if place == wanted) for wanted in (1, 2))
    if not workers or not servers:
        raise StateError(
            f"a job with servers needs a worker and a server, found {len(workers)} and {len(servers)} among {size} "
            f"ranks; start it by mpiexec -n {(count or 1) + 1} or more"
        )
    if count not in (None, len(servers)):
        raise ArgumentValueError(f"server_num is {count}, but {size} ranks have {len(servers)} servers by MS_ROLE")
    if (wanted := _from_environment("MS_WORKER_NUM")) not in (None, len(workers)):
        raise ArgumentValueError(f"MS_WORKER_NUM is {wanted}, but {size} ranks have {len(workers)} workers")
    return workers, servers


def _gathered(role: int) -> list[int]:
    """Return the roles of all ranks, by their places in `_ROLES`."""
    return [int(place) for place in np.asarray(comm_func.all_gather_into_tensor(np.array([role])))]


def _from_environment(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentValueError(f"{name} must be a positive integer, found {text!r}")
    return int(text)
