"""Write safetensors files as a stream of blocks, so that the memory needed does not grow with the file."""

import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np

from numparam.checkpoint import header
from numparam.checkpoint.atomic_file import replacing
from numparam.entry import BUFFER_BYTES, Block, Entry
from numparam.errors import CheckpointError


def write_checkpoint(
    path: Path,
    entries: Iterable[Entry],
    metadata: Mapping[str, str],
    blocks: Callable[[Entry], Iterable[Block]],
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write a safetensors file without ever holding more than a few MiB of it.

    The file appears whole or not at all, and an existing file stays until then.

    Parameters
    ----------
    path : Path
        The file to make or to replace.
    entries : iterable of Entry
        The parameters.
    metadata : mapping of str to str
        The text to keep in the header.
    blocks : callable
        Gives the values of a parameter as consecutive blocks in row-major order, none larger than `BUFFER_BYTES`.
    progress : callable, optional
        Is told the bytes of values written since the last call.

    Returns
    -------
    int
        The bytes of the file.

    Raises
    ------
    CheckpointError
        If the file cannot be written, a full disk included.
    """
    head, ordered = header.encode(entries, metadata)
    nbytes = len(head) + sum(entry.nbytes for entry in ordered)
    try:
        free = shutil.disk_usage(path.resolve().parent).free
        if free < nbytes:
            raise CheckpointError(f"cannot write {path}: it takes {nbytes} bytes and the disk has {free} left")
        with replacing(path) as file:
            file.write(head)
            _stream(file, ((entry, block) for entry in ordered for block in blocks(entry)), progress)
            if file.tell() != nbytes:
                raise AssertionError(f"{path}: the blocks gave {file.tell()} bytes, not {nbytes}")
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    return nbytes


def _stream(file: BinaryIO, blocks: Iterable[tuple[Entry, Block]], progress: Callable[[int], None] | None) -> None:
    """Fill one buffer while the other is on its way to the disk."""
    buffer, other = np.empty(BUFFER_BYTES, np.uint8), np.empty(BUFFER_BYTES, np.uint8)
    used = 0
    writing: Future[int] | None = None
    with ThreadPoolExecutor(1) as disk:
        for entry, block in blocks:
            nbytes = math.prod(block.shape) * entry.dtype.itemsize
            if used + nbytes > BUFFER_BYTES:
                if writing:
                    writing.result()
                writing = disk.submit(file.write, buffer[:used].data)
                if progress:
                    progress(used)
                buffer, other, used = other, buffer, 0
            block.fill(buffer[used : used + nbytes].view(entry.dtype).reshape(block.shape))
            used += nbytes
        if writing:
            writing.result()
    file.write(buffer[:used].data)
    if progress:
        progress(used)
