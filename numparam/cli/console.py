"""What the commands print: tables, sizes and a progress bar."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from numparam.text import printable

_WIDE = 10_000  # one row is one line, for grep; a narrow terminal wraps it


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print rows under a header; the columns named in `right` are aligned to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=_WIDE).print(table)


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


def supports_unicode() -> bool:
    """Say whether the standard output can show block letters."""
    return Console().encoding.startswith("utf")


@contextmanager
def progress_bar(what: str, nbytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on the standard error, if that is a terminal; give a function to tell it the bytes done."""
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=nbytes)
        yield lambda done: progress.advance(task, done)


def without_numbers(name: str) -> str:
    """Write the names of repeated layers, which differ in numbers alone, as one.

    Examples
    --------
    >>> without_numbers("layer.0.bias")
    'layer.*.bias'
    """
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))
