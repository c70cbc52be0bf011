"""The parallel context: the mode and the place in it that sharded parameters are made for."""

from collections.abc import Callable
from typing import Any

import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError

STAND_ALONE = "stand_alone"
PARALLEL_MODES = (STAND_ALONE, "data_parallel", "hybrid_parallel", "semi_auto_parallel", "auto_parallel")


def _mode(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{key} is a str, found {value!r}")
    if value not in PARALLEL_MODES:
        raise ArgumentValueError(f"{key} is one of {', '.join(PARALLEL_MODES)}; found {value!r}")
    return value


def _count(low: int, high: int | None = None) -> Callable[[str, Any], int]:
    def check(key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ArgumentTypeError(f"{key} is an int, found {value!r}")
        if value < low or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"from {low} to {high}"
            raise ArgumentValueError(f"{key} is {limits}, found {value}")
        return int(value)

    return check


_OPTIONS: dict[str, tuple[Any, Callable[[str, Any], Any]]] = {
    "parallel_mode": (STAND_ALONE, _mode),
    "device_num": (1, _count(1)),
    "global_rank": (0, _count(0, 4095)),
}
_context = {key: default for key, (default, _) in _OPTIONS.items()}


def set_auto_parallel_context(**options: Any) -> None:
    """Set options of the parallel context; all of them or none.

    Parameters
    ----------
    parallel_mode : str
        ``"stand_alone"`` (the default), ``"data_parallel"``, ``"hybrid_parallel"``, ``"semi_auto_parallel"`` or
        ``"auto_parallel"``.
    device_num : int
        How many ranks there are, 1 unless told.
    global_rank : int
        Which of them this process is, from 0 to 4095; 0 unless told.

    Raises
    ------
    TypeError
        If a value is of the wrong kind.
    ValueError
        If there is no such option, or its value is out of range.

    Examples
    --------
    >>> set_auto_parallel_context(parallel_mode="semi_auto_parallel", device_num=4, global_rank=2)
    >>> get_auto_parallel_context("parallel_mode")
    'semi_auto_parallel'
    >>> reset_auto_parallel_context()
    """
    _context.update({key: _check(key)(key, value) for key, value in options.items()})


def get_auto_parallel_context(key: str) -> Any:
    """Return an option of the parallel context.

    Raises
    ------
    ValueError
        If there is no such option.

    Examples
    --------
    >>> get_auto_parallel_context("device_num")
    1
    """
    _check(key)
    return _context[key]


def parallel_mode() -> str:
    """Return the parallel mode.

    Examples
    --------
    >>> parallel_mode()
    'stand_alone'
    """
    mode: str = _context["parallel_mode"]
    return mode


def reset_auto_parallel_context() -> None:
    """Set every option of the parallel context to its default.

    Examples
    --------
    >>> reset_auto_parallel_context()
    >>> get_auto_parallel_context("parallel_mode")
    'stand_alone'
    """
    _context.update({key: default for key, (default, _) in _OPTIONS.items()})


def _check(key: str) -> Callable[[str, Any], Any]:
    if key not in _OPTIONS:
        raise ArgumentValueError(f"the parallel context has no option {key!r}; known: {', '.join(_OPTIONS)}")
    return _OPTIONS[key][1]
