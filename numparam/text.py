"""How sizes, numbers and names are written for people."""

_PREFIXES = "kMGTPEZY"
_UNITS = ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"))


def printable(text: str) -> str:
    r"""Escape what a terminal would obey rather than show: a name comes from a file of unknown origin.

    Examples
    --------
    >>> print(printable("layer\x1b[2J"))
    layer\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def size(nbytes: int) -> str:
    """Write a number of bytes in units of 1000, as disks are sold.

    Examples
    --------
    >>> size(90856960), size(640), size(10**30)
    ('90.9 MB', '640 B', '1000000.0 YB')
    """
    value, power = float(nbytes), 0
    while value >= 999.95 and power < len(_PREFIXES):
        value, power = value / 1000, power + 1
    return f"{value:.1f} {_PREFIXES[power - 1]}B" if power else f"{nbytes} B"


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it.

    Examples
    --------
    >>> duration(0.0654), duration(75), duration(7200)
    ('65 ms', '1.2 min', '2.0 h')
    """
    unit, name = next(((unit, name) for unit, name in _UNITS if seconds >= unit), _UNITS[-1])
    return f"{seconds / unit:.{0 if seconds < 1 else 1}f} {name}"


def amount(count: int, noun: str) -> str:
    """Write a number with its noun.

    Examples
    --------
    >>> amount(1, "parameter"), amount(1234, "parameter")
    ('1 parameter', '1,234 parameters')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
