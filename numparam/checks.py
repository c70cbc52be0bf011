"""Checks of arguments that many functions share; `what` begins the message of an error."""

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.text import shown

Check = Callable[[str, Any], Any]


def as_bool(what: str, value: Any) -> bool:
    """Return a value that is exactly True or False.

    Anything else, 1 and 0 included, is an ArgumentTypeError.
    """
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{what} is True or False, found {shown(value)}")
    return value


def as_int(what: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """Return an integer, of Python or of NumPy, as a Python int, but not a bool.

    Anything else is an ArgumentTypeError, one below `low` or above `high` an ArgumentValueError.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentTypeError(f"{what} is an int, found {shown(value)}")
    if (low is not None and value < low) or (high is not None and value > high):
        limits = f"from {low} to {high}" if high is not None else f"at least {low}"
        raise ArgumentValueError(f"{what} is {limits}, found {shown(value)}")
    return int(value)


def int_from(low: int, high: int | None = None) -> Check:
    """Return a check for an int in a range."""
    return lambda what, value: as_int(what, value, low, high)


def of_type(kind: type) -> Check:
    """Return a check for a value of a type; another one is an ArgumentTypeError."""

    def check(what: str, value: Any) -> Any:
        if not isinstance(value, kind):
            article = "an" if kind.__name__[0] in "AEIOU" else "a"
            raise ArgumentTypeError(f"{what} is {article} {kind.__name__}, found {shown(value)}")
        return value

    return check


as_text, as_dict = of_type(str), of_type(dict)


def one_of(*choices: Any) -> Check:
    """Return a check for one of some ints or texts; another one is an ArgumentValueError."""

    def check(what: str, value: Any) -> Any:
        if (as_int if isinstance(choices[0], int) else as_text)(what, value) not in choices:
            raise ArgumentValueError(f"{what} is one of {', '.join(map(str, choices))}; found {shown(value)}")
        return value

    return check


def as_mesh(what: str, value: Any) -> dict[str, int]:
    """Return a mesh of ranks: the names of its axes and their lengths, at least 1.

    A mapping of another kind is an ArgumentTypeError, a length below 1 an ArgumentValueError.
    """
    if not isinstance(value, Mapping) or not all(isinstance(axis, str) for axis in value):
        raise ArgumentTypeError(f"{what} maps the names of axes to their lengths, found {shown(value)}")
    return {axis: as_int(f"{what}: the length of axis {axis!r}", length, 1) for axis, length in value.items()}


def read_file(path: str | PathLike[str], most: int) -> bytes:
    """Read a file that may be a pipe or a device, such as ``/dev/zero``: one of more than `most` bytes is refused.

    That is an ArgumentValueError; a file that cannot be opened is an OSError.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(most + 1)
    except ValueError as error:  # a NUL
        raise ArgumentValueError(f"{path}: no file can have this name: {error}") from None
    if len(content) > most:
        raise ArgumentValueError(f"{path}: a file of at most {most} bytes is read")
    return content
