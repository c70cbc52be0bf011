"""Compiled kernels on disk: one file each, in a directory that only this user can write.

A kernel of the CPU is unpickled, which can run any code, so neither the directory nor a file is trusted that another
user could have written. A file's name is a hash of everything its code depends on, so no file is ever out of date, and
it is written completely or not at all, so concurrent processes need no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOGGER = logging.getLogger("numparam")

_PACKAGE = Path(__file__).parent.parent

_READING = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

MOST_BYTES = 1 << 28
"""Above this size of the directory, kernels of other sources go, the least recently used first. One set has 18 MB."""
UNUSED_SECONDS = 30 * 24 * 3600
"""Kernels of other sources that were not used for this long are removed."""


def _hash_of_sources() -> str:
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


# Taken at the import: a process that runs while a source is edited must not store its kernels under the edit's hash.
_PREFIX = f"numparam-{_hash_of_sources()}-"


def name(*parts: str) -> str:
    """Return the file name of a kernel of these sources, identified by `parts`."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=12)
    return f"{_PREFIX}{digest.hexdigest()}.kernel"


@lru_cache(maxsize=1)
def directory() -> Path | None:
    """Return the directory of the cache, or None after one warning: then every process compiles its kernels again."""
    try:
        found = _location() / "numparam"
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(found.lstat(), stat.S_ISDIR):
            raise PermissionError(f"{found} must be a directory that only its owner, this user, can write")
        with tempfile.TemporaryFile(dir=found):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: without a home directory
        _LOGGER.warning(
            "compiled kernels are not kept on disk: %s; set NUMBA_CACHE_DIR to a directory of your own", error
        )
        return None
    _remove_outdated(found)
    return found


def _location() -> Path:
    for variable in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        if chosen := os.environ.get(variable):
            return Path(chosen)
    return Path.home() / ".cache"


def _is_private(status: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    """Return whether a file is of a kind and belongs to this user, and no other user can write it."""
    if not is_kind(status.st_mode):
        return False
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


def read(path: Path) -> bytes | None:
    """Return the content of a file, or None when it is missing, damaged or not this user's own."""
    try:
        with os.fdopen(os.open(path, _READING), "rb") as file:
            if not _is_private(os.fstat(file.fileno()), stat.S_ISREG):
                return None
            digest, content = file.read(16), file.read()
        os.utime(path)  # for `_remove_outdated`
    except OSError:
        return None
    return content if digest == hashlib.blake2b(content, digest_size=16).digest() else None


def write(path: Path, content: bytes) -> None:
    """Write a file; a full or read-only disk costs the next process a compilation and nothing else."""
    with contextlib.suppress(OSError):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.blake2b(content, digest_size=16).digest() + content)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _remove_outdated(found: Path) -> None:
    """Remove kernels of other sources that are unused, or too many; another installation may still use the others."""
    with contextlib.suppress(OSError):
        files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in found.glob("numparam-*"))
        surplus = sum(size for _, size, _ in files) - MOST_BYTES
        for used, size, path in files:
            if not path.name.startswith(_PREFIX) and (surplus > 0 or time.time() - used > UNUSED_SECONDS):
                path.unlink(missing_ok=True)
                surplus -= size
