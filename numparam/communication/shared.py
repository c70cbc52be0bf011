"""Memory that processes of one machine share: it has no name, and the others open it as a file of its maker."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress


def shared_memory(size: int) -> tuple[mmap.mmap, int] | None:
    """Make memory and its file, to be closed when the others have opened it; None if that cannot be."""
    with suppress(OSError):
        file = os.memfd_create("numparam")
        try:
            os.ftruncate(file, size)
            return mmap.mmap(file, size), file
        except OSError:
            os.close(file)
    return None


def opened(process: int | None, file: int, size: int) -> mmap.mmap | None:
    """Open the memory that another process has made; None if that cannot be."""
    with suppress(OSError):
        own = os.open(f"/proc/{process}/fd/{file}", os.O_RDWR)
        try:
            return mmap.mmap(own, size)
        finally:
            os.close(own)
    return None
