"""How far a long save, load or command has come."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[int], None]
Progress = bool | Tell | None


@contextmanager
def telling(progress: Progress, what: str, nbytes: int) -> Iterator[Tell | None]:
    """Yield what receives the bytes done since the last call: the caller's function, a progress bar, or None."""
    if callable(progress):
        yield progress
    elif progress:
        with progress_bar(what, nbytes) as tell:
            yield tell
    else:
        yield None


@contextmanager
def progress_bar(what: str, nbytes: int) -> Iterator[Tell]:
    """Show a bar on the standard error, if that is a terminal; yield what receives the bytes done."""
    from rich.console import Console

    console = Console(file=sys.stderr)
    if not console.is_terminal:  # a disabled bar ends with an empty line before rich 14.3
        yield lambda _: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=nbytes)
        yield lambda done: progress.advance(task, done)
