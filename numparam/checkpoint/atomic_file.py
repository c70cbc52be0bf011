"""Files that appear complete or not at all, each written by one process at a time.

The order of a replacement, which makes what is reported as written survive a loss of power:

1. A hidden file is created in the folder of the target and locked, so that a second writer is refused, and hidden
   files of processes that have ended are removed.
2. The bytes are written and the file is synced (``fsync``).
3. It is renamed to the target: this is the commit. Readers have the old file before and the new file after it.
4. The folder is synced.

Only after that are files of the previous checkpoint removed, again with other writers kept out. What happened is read
from the disk, not remembered: an exception at any instant removes the hidden file if it is still there, and nothing
once it is in place.
"""

import errno
import importlib
import io
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from numparam.checkpoint.names import digest_of, refuse_twin, stem_of
from numparam.errors import CheckpointError
from numparam.text import printable

# On Windows an open file cannot be removed, which separates the living from the dead as well as a lock does.
FCNTL: Any = None if os.name == "nt" else importlib.import_module("fcntl")

_LOGGER = logging.getLogger("numparam")
# By path, process and thread: one that comes back was interrupted; a traceback may still hold the file and its lock.
_CLAIMED: WeakValueDictionary[tuple[Path, int, int], io.FileIO] = WeakValueDictionary()
_TRIES = 100  # of two writers that start at once, each looks at what the other has just made
_LOOKS = 10


class BusyError(CheckpointError):
    """Another process writes the checkpoint."""


@contextmanager
def replacing(path: Path, stem: str | None = None, part: str = "all") -> Iterator[io.FileIO]:
    """Open a file that takes the place of `path` when the block ends normally, and vanishes when it does not.

    As with ``cp``, a link is followed, an existing file passes on its owner and permissions, and one that may not be
    written is refused. Until the block ends no other process can write the checkpoint `stem`, by default the name of
    the file. A caller that names it holds the checkpoint, see `holding`, and writes the file `part` of it.
    """
    target = Path(os.path.realpath(path))
    before = _replaceable(target, path)
    with holding(path, part, stem) as file:
        if stem is None:
            refuse_twin(target)
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode if before is None else before.st_mode)
        if os.name != "nt":
            os.fchmod(file.fileno(), 0o600)  # not readable while half written, nor writable afterwards
            if before is not None:
                _keep_owner(file, before, path)
        yield file
        if os.name != "nt":
            os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
        if os.name == "nt":
            file.close()  # Windows renames no open file
        Path(file.name).replace(target)
        sync_folder(target.parent)


@contextmanager
def holding(path: Path, part: str = "all", stem: str | None = None) -> Iterator[io.FileIO]:
    """Refuse other writers of a checkpoint during the block, which gets the hidden file that keeps them out.

    Writers of different parts work at the same time, but not together with one of all parts: each creates its own file
    before it looks for the file of the other, so at least one of them is refused.
    """
    target = Path(os.path.realpath(path))
    prefix = f".numparam-{digest_of(stem or stem_of(target))}-"
    hidden = target.with_name(f"{prefix}{part}.partial")
    file = _claim(hidden)
    try:
        if file is None:
            raise _busy(path, hidden)
        if stem is None:
            others = target.parent.iterdir() if part == "all" else [target.with_name(f"{prefix}all.partial")]
            for other in others:
                if other.name.startswith(prefix) and other != hidden and not _is_dead(other):
                    raise _busy(path, other)
        yield file
    finally:
        if file is not None:
            _discard(file, hidden)


def _busy(path: Path, hidden: Path) -> BusyError:
    return BusyError(
        f"cannot write {path}: another process is writing it; wait for it or choose another name ({hidden.name})"
    )


def is_in_place(file: io.FileIO, path: Path) -> bool:
    """Return whether a path leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (OSError, ValueError):  # gone, or closed on Windows after it was renamed
        return file.closed and path.exists()


def sync_folder(folder: Path) -> None:
    """Make renamed and new names survive a loss of power."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def _replaceable(target: Path, path: Path) -> os.stat_result | None:
    """Return what is known of the file to replace; None if there is none."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        error, number = (IsADirectoryError, errno.EISDIR) if path.is_dir() else (FileExistsError, errno.EEXIST)
        raise error(number, "it exists and is not a regular file", str(path))
    if not found.st_mode & 0o222 or not os.access(target, os.W_OK):
        what = f"it exists and is read-only (mode {found.st_mode & 0o7777:04o})"
        raise PermissionError(errno.EACCES, what, str(path))
    return found


def _keep_owner(file: io.FileIO, before: os.stat_result, path: Path) -> None:
    own = os.fstat(file.fileno())
    if (own.st_uid, own.st_gid) == (before.st_uid, before.st_gid):
        return
    try:
        os.fchown(file.fileno(), before.st_uid, before.st_gid)
    except PermissionError:
        what = f"it belongs to user {before.st_uid} and group {before.st_gid}, which a new file cannot keep"
        raise PermissionError(errno.EPERM, what, str(path)) from None


def _by_this_thread(hidden: Path) -> tuple[Path, int, int]:
    return hidden, os.getpid(), threading.get_ident()


def _claim(hidden: Path) -> io.FileIO | None:
    """Create a hidden file, locked, that no other process writes; None if one does."""
    for _ in range(_TRIES):
        try:
            file = _CLAIMED[_by_this_thread(hidden)] = io.FileIO(hidden, "xb")
        except FileExistsError:
            if not _is_dead(hidden):
                break
            continue
        try:
            _lock(file, wait=True)
            if is_in_place(file, hidden):  # else another writer took it for the file of a dead process, and removed it
                return file
        except BaseException:
            _discard(file, hidden)
            raise
        _CLAIMED.pop(_by_this_thread(hidden), None)
        file.close()
    return None


def _is_dead(hidden: Path) -> bool:
    """Remove a hidden file that no living process holds; return whether it is gone."""
    if interrupted := _CLAIMED.pop(_by_this_thread(hidden), None):
        _discard(interrupted, hidden)
    try:
        if not stat.S_ISREG(hidden.lstat().st_mode):
            return False
        with io.FileIO(hidden, "r+b") as file:
            for _ in range(_LOOKS):
                if _lock(file, wait=False):
                    break
                time.sleep(0.002)  # another process may only be looking, as this one does
            else:
                return False
            if FCNTL is None or is_in_place(file, hidden):
                hidden.unlink()
                _LOGGER.warning("removed %s, a partial file of a process that had ended", printable(str(hidden)))
    except FileNotFoundError:
        return True
    except PermissionError:  # another user's, or open on Windows
        return False
    return True


def _lock(file: io.FileIO, wait: bool) -> bool:
    if FCNTL is None:
        return True
    try:
        FCNTL.flock(file.fileno(), FCNTL.LOCK_EX | (0 if wait else FCNTL.LOCK_NB))
    except OSError as error:
        if wait and error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            return True  # a file system without locks, on which files of the dead stay
        if wait:
            raise
        return False
    return True


def _discard(file: io.FileIO, hidden: Path) -> None:
    """Remove a hidden file that was not renamed, and let others write."""
    try:
        if not file.closed and is_in_place(file, hidden):
            hidden.unlink()
        elif file.closed and os.name == "nt":
            hidden.unlink(missing_ok=True)
        if FCNTL is not None and not file.closed:
            with suppress(OSError):
                FCNTL.flock(file.fileno(), FCNTL.LOCK_UN)  # a child forked meanwhile holds it too
    finally:
        file.close()
