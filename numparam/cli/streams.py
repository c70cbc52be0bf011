"""Standard streams that are closed, full, or have a reader that left."""

import os
import sys
from typing import Any

from numparam.text import printable


def open_closed() -> None:
    """Let what a closed standard stream gets vanish, before a file of ours takes its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def drop(stream: Any) -> None:
    """Let what a stream still holds vanish: Python would complain again when it closes it."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # a stream of a test has no number
        return


def print_error(line: str) -> None:
    """Print one line on the standard error, or nothing if it cannot be written."""
    try:
        print(printable(line, 2000), file=sys.stderr, flush=True)
    except OSError:  # the status has to do
        drop(sys.stderr)
