"""The context of a job with parameter servers: whether there are any, and which ranks they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from numparam.checks import as_bool, as_int
from numparam.communication import get_group_size, get_rank
from numparam.errors import ArgumentValueError, StateError

_DEFAULTS: dict[str, Any] = {"enable_ps": False, "server_num": None, "staleness": None}
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "enable_ps": as_bool,
    "server_num": partial(as_int, low=1),
    "staleness": partial(as_int, low=0),
}
_context = dict(_DEFAULTS)
_ROLES = {"MS_WORKER": "worker", "MS_PSERVER": "server"}


def set_ps_context(**options: Any) -> None:
    """Set options of the parameter-server context, before `numparam.communication.init`; all of them or none.

    Parameters
    ----------
    **options
        ``enable_ps``, whether the job has servers (False); ``server_num``, how many of its last ranks are servers; by
        default the environment variable ``MS_SERVER_NUM``, or 1. ``MS_WORKER_NUM`` must agree, if it is set.
        ``staleness``, how many updates a worker may be ahead of the slowest one; by default updates are synchronous.

        Every rank may set ``MS_ROLE`` to ``MS_WORKER`` or ``MS_PSERVER``, as in MindSpore; it must agree too. A
        scheduler is not needed.

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
    """Return the ranks of the workers and of the servers.

    Raises
    ------
    StateError
        If servers are not enabled, or there are too few ranks.
    ArgumentValueError
        If the environment differs.
    """
    if not _context["enable_ps"]:
        raise StateError("this job has no parameter servers; call set_ps_context(enable_ps=True) before init()")
    size, rank = get_group_size(), get_rank()
    count = _context["server_num"] or _from_environment("MS_SERVER_NUM") or 1
    if size <= count:
        raise StateError(
            f"a job with {count} servers needs at least {count + 1} ranks, found {size}; start it by mpiexec -n "
            f"{count + 1} or more"
        )
    workers, servers = tuple(range(size - count)), tuple(range(size - count, size))
    if (wanted := _from_environment("MS_WORKER_NUM")) not in (None, len(workers)):
        raise ArgumentValueError(f"MS_WORKER_NUM is {wanted}, but {size} ranks have {len(workers)} workers")
    role = os.environ.get("MS_ROLE")
    own = "server" if rank in servers else "worker"
    if role is not None and _ROLES.get(role) != own:
        raise ArgumentValueError(
            f"rank {rank} of {size} is a {own}, as the last {count} ranks are servers, but MS_ROLE is {role!r}; "
            "start workers first, and no scheduler"
        )
    return workers, servers


def _from_environment(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentValueError(f"{name} must be a positive integer, found {text!r}")
    return int(text)
