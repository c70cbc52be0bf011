"""How far a long save or load has come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[int], None]
Progress = bool | Tell | None


@contextmanager
def telling(progress: Progress, what: str, nbytes: int) -> Iterator[Tell | None]:
    """Give what is told the bytes done since the last time: the caller's function, a bar on the terminal, or None."""
    if callable(progress):
        yield progress
    elif progress:
        from numparam.cli.console import progress_bar

        with progress_bar(what, nbytes) as tell:
            yield tell
    else:
        yield None
