"""Files that are opened once: the header and the values come from the same file, even if the name is reused."""

import mmap
import os
import platform
import stat
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from numparam.errors import CheckpointError, FolderError

# Python 3.11 does not name the flag; without it Linux maps no file for writing that is larger than the memory.
_NO_RESERVE = 0x4000 if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64") else 0


class MappedFile:
    """Open a file, read it or map it.

    Arrays that are mapped may be written to, which changes neither the file nor what others see. The file must not
    shrink as long as an array lives: the system ends a process that touches a page that is gone. To replace it by
    another file of the same name, as numparam does, is safe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        try:  # a pipe would wait for a writer
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except ValueError:  # a NUL, which an index may have
            raise CheckpointError(f"{path}: no file can have this name") from None
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = FolderError if path.is_dir() else CheckpointError
            raise kind(f"{path}: not a regular file")
        self.nbytes, self._changed = found.st_size, found.st_mtime_ns

    def __enter__(self) -> "MappedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.__del__()

    def __del__(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    @cached_property
    def content(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return all bytes, mapped."""
        return np.frombuffer(_map(self._descriptor) if self.nbytes else b"", np.uint8)

    def read(self, begin: int, count: int) -> bytes:
        """Read bytes; fewer if the file ends before."""
        out = bytearray(count)
        return bytes(out[: self.read_into(memoryview(out), begin)])

    def read_into(self, out: memoryview, begin: int) -> int:
        """Read bytes into a buffer; return how many, fewer than it holds only if the file ends before."""
        done = 0
        while done < len(out):
            count = _read_at(self._descriptor, out[done : done + 2**30], begin + done)
            if not count:
                break
            done += count
        return done

    def is_current(self) -> bool:
        """Return whether the path still leads to this file, as it was."""
        try:
            now, own = self.path.stat(), os.fstat(self._descriptor)
        except OSError:
            return False
        return os.path.samestat(now, own) and (now.st_size, now.st_mtime_ns) == (self.nbytes, self._changed)

    def array(
        self, begin: int, dtype: np.dtype[Any], shape: tuple[int, ...], nbytes: int
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the array that begins at a byte; a copy if it is not aligned."""
        if not nbytes:
            return np.empty(shape, dtype)
        if begin + nbytes > self.content.size:
            raise CheckpointError(f"{self.path}: truncated: byte {begin + nbytes} was asked for of {self.content.size}")
        part = self.content[begin : begin + nbytes]
        if begin % dtype.alignment:
            part = part.copy()
        return part.view(dtype).reshape(shape)


def _read_at(descriptor: int, out: memoryview, begin: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [out], begin)
    os.lseek(descriptor, begin, os.SEEK_SET)
    content = os.read(descriptor, len(out))
    out[: len(content)] = content
    return len(content)


def _map(descriptor: int) -> mmap.mmap:
    if sys.platform == "win32" or not _NO_RESERVE:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    return mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE)
