"""Write safetensors files as a stream of blocks, so that the memory needed does not grow with the file."""

import errno
import io
import math
import mmap
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from numparam.checkpoint import header
from numparam.checkpoint.atomic_file import FCNTL, replacing
from numparam.checkpoint.names import INDEX_SUFFIX, MINDSPORE_SUFFIX, as_path
from numparam.entry import BUFFER_BYTES, Block, Entry
from numparam.errors import ArgumentValueError, CheckpointError

CHUNK_BYTES = 16 * 2**20  # 2 GiB on a virtual disk: 8 MiB 0.7 GB/s, 32 MiB 1.3; through the cache of the system 0.2
Part = bytes | tuple[np.dtype[Any], Iterable[Block]]
"""Of a file: text, or values."""
_DIRECT = getattr(os, "O_DIRECT", 0) if FCNTL is not None else 0


def write_checkpoint(
    path: Path,
    entries: Iterable[Entry],
    metadata: Mapping[str, str],
    blocks: Callable[[Entry], Iterable[Block]],
    progress: Callable[[int], None] | None = None,
    stem: str | None = None,
    part: str = "all",
) -> int:
    """Write a safetensors file without ever holding more than a few blocks of it, and return its bytes.

    The file appears complete or not at all, and an existing file stays until then. `blocks` gives the values of a
    parameter as consecutive blocks in row-major order of at most `BUFFER_BYTES`; `progress` receives the bytes written
    since the last call. `stem` and `part` name the checkpoint that the file is a part of, see `replacing`.
    """
    if as_path(path).name.endswith((INDEX_SUFFIX, MINDSPORE_SUFFIX)):
        raise ArgumentValueError(f"cannot write {path}: this is not the name of a safetensors file; use .safetensors")
    head, ordered = header.encode(entries, metadata)
    parts: Iterable[Part] = chain[Part]([head], ((entry.dtype, blocks(entry)) for entry in ordered))
    return write_parts(path, sum(entry.nbytes for entry in ordered), parts, progress, stem, part)


def write_parts(
    path: Path,
    nbytes: int,
    parts: Iterable[Part],
    progress: Callable[[int], None] | None = None,
    stem: str | None = None,
    part: str = "all",
    tail: Callable[[int], bytes] | None = None,
) -> int:
    """Write a file that is a run of texts and of values, as `write_checkpoint` does.

    `nbytes` counts the values; `tail` gives the end of the file from the CRC-32 of all before it.
    """
    with header.file_errors(f"cannot write {path}"):
        check_space(path, nbytes)
        with replacing(path, stem, part) as file, _Stream(file, progress, tail is not None) as stream:
            for piece in parts:
                if isinstance(piece, bytes):
                    stream.write(piece)
                else:
                    for block in piece[1]:
                        stream.fill(piece[0], block)
            if tail is not None:
                stream.write(tail(stream.checksum))
            stream.finish()
            if stream.nbytes - stream.heads != nbytes:
                raise AssertionError(f"{path}: the blocks gave {stream.nbytes - stream.heads} bytes, not {nbytes}")
    return stream.nbytes


def check_space(path: Path, nbytes: int) -> None:
    """Refuse to write more bytes than the disk of a path has left."""
    try:
        folder = Path(os.path.realpath(path)).parent
    except ValueError as error:  # half a surrogate pair
        raise CheckpointError(f"cannot write {path}: {error}") from None
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise CheckpointError(f"cannot write {path}: it takes {nbytes} bytes and the disk has {free} left")


class _Stream:
    """Write a file in chunks of one size, one on its way to the disk while the next is filled.

    The chunks begin at multiples of their size in the file and at pages in memory, so that they can go to the disk
    without a copy in the cache of the system, which costs more time than the disk itself.
    """

    def __init__(self, file: io.FileIO, progress: Callable[[int], None] | None, checked: bool) -> None:
        self.nbytes = self.heads = self.checksum = 0
        self._checked = checked
        self._file, self._progress = file, progress
        self._buffer, self._spare = _aligned(), np.empty(0, np.uint8)
        self._used = self._told = 0
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.join()  # it holds the file

    def write(self, content: bytes) -> None:
        """Write the bytes of a header, which progress does not count."""
        for start in range(0, len(content), BUFFER_BYTES):
            part = np.frombuffer(content[start : start + BUFFER_BYTES], np.uint8)
            self._told += len(part)
            self.fill(part.dtype, Block(part.shape, partial(np.copyto, src=part)))
        self.heads += len(content)

    def fill(self, dtype: np.dtype[Any], block: Block) -> None:
        """Write the values of a block."""
        count = math.prod(block.shape) * dtype.itemsize
        room = self._buffer[self._used : self._used + count]
        block.fill(room.view(dtype).reshape(block.shape))
        if self._checked:
            self.checksum = zlib.crc32(room.data, self.checksum)
        self._used += count
        self.nbytes += count
        if self._used < CHUNK_BYTES:
            return
        self._wait()
        full, rest = self._buffer, self._used - CHUNK_BYTES
        self._buffer, self._spare = self._spare if self._spare.size else _aligned(), full
        self._buffer[:rest] = full[CHUNK_BYTES : self._used]
        self._used = rest
        if self.nbytes - rest == CHUNK_BYTES:
            _set_direct(self._file, True)
        chunk = full[:CHUNK_BYTES].data
        self._writer = threading.Thread(target=self._write, args=(chunk,))
        try:
            self._writer.start()
        except RuntimeError:  # the interpreter is ending
            self._writer = None
            self._write(chunk)
        self._tell(rest)

    def finish(self) -> None:
        """Write what is left, which need not be a chunk."""
        self._wait()
        _set_direct(self._file, False)
        self._write(self._buffer[: self._used].data)
        self._wait()
        self._tell(0)

    def _wait(self) -> None:
        if self._writer:
            self._writer.join()
            self._writer = None
        if self._failure:
            raise self._failure

    def _write(self, content: memoryview) -> None:
        try:
            while content:
                try:
                    count = self._file.write(content) or 0
                except OSError as error:
                    if error.errno != errno.EINVAL or not _set_direct(self._file, False):
                        raise
                    count = 0
                content = content[count:]
        except BaseException as error:
            self._failure = error

    def _tell(self, waiting: int) -> None:
        done, self._told = self.nbytes - waiting - self._told, max(self._told, self.nbytes - waiting)
        if self._progress and done > 0:
            self._progress(done)


def _aligned() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return room for a chunk and the end of the block that completes it; the pages are taken when touched."""
    return np.frombuffer(mmap.mmap(-1, CHUNK_BYTES + BUFFER_BYTES), np.uint8)


def _set_direct(file: io.FileIO, direct: bool) -> bool:
    """Write past the cache of the system or through it, where there is a choice; return whether that is a change."""
    if not _DIRECT:
        return False
    flags = FCNTL.fcntl(file.fileno(), FCNTL.F_GETFL)
    wanted = flags | _DIRECT if direct else flags & ~_DIRECT
    if wanted != flags:
        try:
            FCNTL.fcntl(file.fileno(), FCNTL.F_SETFL, wanted)
        except OSError:  # a file system in memory
            return False
    return bool(wanted != flags)
