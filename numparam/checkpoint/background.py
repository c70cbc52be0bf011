"""Save while the program goes on."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from numparam.text import printable

_LOGGER = logging.getLogger("numparam")
_lock = threading.Lock()
_last: "Saving | None" = None


class Saving:
    """Stand for a save that is under way; see `numparam.save_checkpoint`."""

    def __init__(self, path: Path, job: Callable[[], object]) -> None:
        self._path, self._job = path, job
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="numparam-saving")
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is ending
            self._run()

    def __repr__(self) -> str:
        return f"Saving({str(self._path)!r}, {'done' if self.done else 'under way'})"

    @property
    def done(self) -> bool:
        """Return whether the save has ended, well or not."""
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait until the file is complete; raises what the save raised, once."""
        if self._thread.ident is not None:
            self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self) -> None:
        try:
            self._job()
        except BaseException as error:
            self._failure = error
            what = printable(f"saving {self._path} in the background failed: {error}")
            _LOGGER.error("%s", what)  # in case `join` is never called
        finally:
            del self._job  # the copies


def start(path: Path, job: Callable[[], object]) -> Saving:
    """Run a save in a thread, which the end of the program waits for."""
    global _last  # noqa: PLW0603
    with _lock:
        _last = saving = Saving(path, job)
    return saving


def under_way() -> bool:
    """Return whether a save that was started has not ended."""
    return _last is not None and not _last.done


def finish() -> None:
    """Wait for the last save that was started, and raise its error unless `Saving.join` has."""
    global _last
    with _lock:
        saving, _last = _last, None
    if saving is not None:
        saving.join()
