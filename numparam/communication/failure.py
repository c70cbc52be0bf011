"""What happens to the job when one of its ranks fails: it ends, and the output names the rank."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import NoReturn

from numparam.communication.exchange import world

_READING_SECONDS = 0.5  # mpiexec loses what it has not read when it has to stop: half of a traceback in 1 of 10 jobs


class StopJob:
    """End all ranks after an uncaught exception, with its traceback and a line that names this rank.

    The traceback is shown through the hooks of `sys` and `threading` that were set before.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.previous = sys.excepthook, threading.excepthook
        sys.excepthook, threading.excepthook = self.in_main_thread, self.in_thread

    def remove(self) -> None:
        """Set the earlier hooks again, unless others were set since."""
        if sys.excepthook == self.in_main_thread:
            sys.excepthook = self.previous[0]
        if threading.excepthook == self.in_thread:
            threading.excepthook = self.previous[1]

    def in_main_thread(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Show the traceback and end the job."""
        self.previous[0](kind, error, trace)
        self._stop(f"{kind.__name__}: {error}")

    def in_thread(self, failed: threading.ExceptHookArgs) -> None:
        """Show the traceback and end the job, but for `sys.exit`, which ends only its thread."""
        self.previous[1](failed)
        if not issubclass(failed.exc_type, SystemExit):
            name = failed.thread.name if failed.thread else "unknown"
            self._stop(f"{failed.exc_type.__name__} in thread {name!r}: {failed.exc_value}")

    def _stop(self, how: str) -> NoReturn:
        stop_job(f"rank {self.rank} of {self.size} ended with {how}; this ends the whole job")


def stop_job(why: str) -> NoReturn:
    """Print a reason and end all ranks."""
    print(f"numparam: {why}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    if world.watched:
        world.watched.send(b"stop")
    time.sleep(_READING_SECONDS)
    world.communicator.Abort(1)
    os._exit(1)  # unless Abort did
