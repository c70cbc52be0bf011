"""How far a long save, load or command has come."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[int], None]
Progress = bool | Tell | None
_EVERY = 0.1  # seconds between two states of a bar in a notebook


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
    """Show a bar in a notebook, or on a standard error that is a terminal; yield what receives the bytes done."""
    from rich.console import Console

    console = Console(file=sys.stderr)
    if console.is_jupyter:
        yield _in_notebook(what, nbytes)
        return
    if not console.is_terminal:  # a disabled bar ends with an empty line before rich 14.3
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=nbytes)
        yield lambda done: progress.advance(task, done)


def _in_notebook(what: str, nbytes: int) -> Tell:
    """Display a bar that is updated in place, without the widgets that rich's own bar needs."""
    from importlib import import_module

    from numparam import html

    ipython = import_module("IPython.display")
    done, shown = 0, time.monotonic()
    handle = ipython.display(ipython.HTML(html.progress(what, done, nbytes)), display_id=True)

    def tell(more: int) -> None:
        nonlocal done, shown
        done += more
        if done >= nbytes or time.monotonic() - shown > _EVERY:
            shown = time.monotonic()
            handle.update(ipython.HTML(html.progress(what, done, nbytes)))

    return tell
