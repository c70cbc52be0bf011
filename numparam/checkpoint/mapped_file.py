"""Files mapped into memory: read page by page when touched, and never changed by what is written to the mapping."""

import mmap
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from numparam.errors import CheckpointError

# Python 3.11 does not name the flag; without it Linux maps no file for writing that is larger than the memory.
_NO_RESERVE = 0x4000 if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64") else 0


class MappedFile:
    """Map a file; arrays made of it may be written to, which changes neither the file nor what others see.

    The file must not shrink as long as an array lives: the system ends a process that touches a page that is gone. To
    replace it by another file of the same name, as numparam does, is safe.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.nbytes = os.fstat(file.fileno()).st_size
            self.bytes = np.frombuffer(_map(file.fileno()) if self.nbytes else b"", np.uint8)

    def array(
        self, begin: int, dtype: np.dtype[Any], shape: tuple[int, ...], nbytes: int
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the array that begins at a byte; a copy if it is not aligned.

        Raises
        ------
        CheckpointError
            If the file is too short.
        """
        if begin + nbytes > self.nbytes:
            raise CheckpointError(f"{self.path}: cut short: byte {begin + nbytes} was asked for of {self.nbytes}")
        if not nbytes:
            return np.empty(shape, dtype)
        part = self.bytes[begin : begin + nbytes]
        if begin % dtype.alignment:
            part = part.copy()
        return part.view(dtype).reshape(shape)


def _map(descriptor: int) -> mmap.mmap:
    if sys.platform == "win32" or not _NO_RESERVE:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    return mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE)
