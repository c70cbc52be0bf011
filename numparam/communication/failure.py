"""What happens to the job when one of its ranks fails: it ends, and says which rank it was."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, NoReturn

_READING_SECONDS = (
    0.5  # mpiexec loses what it has not read when it is told to stop: half of a traceback in 1 of 10 jobs
)


class StopJob:
    """End all ranks after an exception that nothing catches, with its traceback and a sentence that names this rank.

    It is a ``sys.excepthook`` and shows the traceback through the one before it.
    """

    def __init__(self, rank: int, size: int, communicator: Any) -> None:
        self.rank, self.size, self.communicator = rank, size, communicator
        self.previous = sys.excepthook

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Show the traceback and end the job."""
        self.previous(kind, error, trace)
        stop_job(
            self.communicator,
            f"rank {self.rank} of {self.size} ended with {kind.__name__}: {error}; this ends the whole job",
        )


def stop_job(communicator: Any, why: str) -> NoReturn:
    """End all ranks, for a reason that is printed."""
    print(f"numparam: {why}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(_READING_SECONDS)
    communicator.Abort(1)
    os._exit(1)  # unless Abort did
