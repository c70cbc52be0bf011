"""How sizes, numbers and names are written for people, and made safe for a terminal, a log or an error."""

import reprlib
from collections.abc import Callable, Sequence
from typing import Any

_PREFIXES = "kMGTPEZY"
_UNITS = ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"))
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 8
_SHORT.maxlevel = 4


def printable(text: str, limit: int = 10_000, keep: str = "") -> str:
    r"""Escape what a terminal would obey rather than show, and shorten: a name comes from a file of unknown origin.

    Control characters, line breaks, bidirectional overrides and halves of surrogate pairs are escaped, except those in
    `keep`. Everything that this library prints, logs or raises passes through here.
    """
    if len(text) > limit:
        text = f"{text[: (limit - 2) // 2]}...{text[len(text) - (limit - 3) // 2 :]}"
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else repr(letter)[1:-1] for letter in text)


def shown(value: Any) -> str:
    """Return a repr of at most 80 characters, and in bounded time, of a value from a file or a user."""
    try:
        return printable(_SHORT.repr(value), 80)
    except Exception:  # a repr of a user's own class may do anything
        return f"a {type(value).__name__}"


def aligned(rows: Sequence[Sequence[str]], right: Sequence[str] = (), width: Callable[[str], int] = len) -> list[str]:
    """Write rows under the first of them, their head, as lines; columns named in `right` are aligned to the right."""
    columns = []
    for column in zip(*rows, strict=True):
        most = max(map(width, column))
        padded = [(cell, " " * (most - width(cell))) for cell in column]
        columns.append([blanks + cell if column[0] in right else cell + blanks for cell, blanks in padded])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def size(nbytes: int) -> str:
    """Write a number of bytes in units of 1000, as disks are sold."""
    value, power = float(nbytes), 0
    while value >= 999.95 and power < len(_PREFIXES):
        value, power = value / 1000, power + 1
    return f"{value:.1f} {_PREFIXES[power - 1]}B" if power else f"{nbytes} B"


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    unit, name = next(((unit, name) for unit, name in _UNITS if seconds >= unit), _UNITS[-1])
    return f"{seconds / unit:.{0 if seconds < 1 else 1}f} {name}"


def amount(count: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
