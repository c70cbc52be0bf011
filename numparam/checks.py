"""Checks of arguments that many functions share; `what` begins the message of an error."""

from typing import Any

import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError


def as_bool(what: str, value: Any) -> bool:
    """Return a value that is exactly True or False.

    Raises
    ------
    ArgumentTypeError
        If it is something else, 1 and 0 included. It is also a TypeError.

    Examples
    --------
    >>> as_bool("mean", True)
    True
    """
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{what} is True or False, found {value!r:.80}")
    return value


def as_int(what: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """Return an integer, of Python or of NumPy, as a Python int; a bool is none.

    Raises
    ------
    ArgumentTypeError
        If it is no integer. It is also a TypeError.
    ArgumentValueError
        If it is below `low` or above `high`. It is also a ValueError.

    Examples
    --------
    >>> as_int("ranks", np.int64(4), low=1)
    4
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentTypeError(f"{what} is an int, found {value!r:.80}")
    if (low is not None and value < low) or (high is not None and value > high):
        limits = f"from {low} to {high}" if high is not None else f"at least {low}"
        raise ArgumentValueError(f"{what} is {limits}, found {value}")
    return int(value)
