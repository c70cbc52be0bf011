"""What the commands print: tables, sizes and a progress bar."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from numparam.text import aligned, printable

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print rows under a header; the columns named in `right` are aligned to the right.

    A row is one line, for grep; a narrow terminal wraps it.
    """
    header, *lines = aligned([columns, *(list(map(printable, row)) for row in rows)], right, cell_len)
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(header, style="bold", markup=False, soft_wrap=True)
    else:
        print(header)
    if lines:
        print("\n".join(lines))


def print_layers(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print rows that begin with a name as `print_table` does, and count those alike in all but numbers."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, *cells in rows:
        alike.setdefault((without_numbers(name), *cells), []).append(name)
    counted = [
        (folded if len(names) > 1 else names[0], str(len(names)), *cells) for (folded, *cells), names in alike.items()
    ]
    print_table([columns[0], "count", *columns[1:]], counted, ["count", *right])


def print_line(line: str) -> None:
    """Print one line as it is."""
    print(printable(line))


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object, in ASCII."""
    print(json.dumps(content, indent=1, allow_nan=False))


def supports_unicode() -> bool:
    """Return whether the standard output can show block letters."""
    from rich.console import Console

    return Console().encoding.startswith("utf")


def without_numbers(name: str) -> str:
    """Write the names of layers that differ in numbers alone as one: ``layer.0.bias`` as ``layer.*.bias``."""
    return _NUMBER.sub("*", name)
