"""Files mapped into memory: read page by page when touched, and never changed by what is written to the mapping."""

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from numparam.errors import CheckpointError


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
            # Without a reservation, a file larger than the memory can be mapped for writing.
            if hasattr(mmap, "MAP_NORESERVE"):
                flags = mmap.MAP_PRIVATE | mmap.MAP_NORESERVE
                bytes_ = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE) if self.nbytes else b""
            else:
                bytes_ = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if self.nbytes else b""
        self.bytes = np.frombuffer(bytes_, np.uint8)

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
