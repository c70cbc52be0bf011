"""Write safetensors files as a stream of blocks, so that the memory needed does not grow with the file."""

import errno
import io
import math
import mmap
import os
import shutil
import threading
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
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
from numparam.kernels.machine import pool

CHUNK_BYTES = 16 * 2**20  # 1 GiB on a virtual disk: 8 MiB 1.2 GB/s, 32 MiB 1.5; through the cache of the system 0.2
Part = bytes | tuple[np.dtype[Any], Iterable[Block]]
"""Of a file: text, or values."""
Buffer = np.ndarray[Any, np.dtype[np.uint8]]
_DIRECT = getattr(os, "O_DIRECT", 0) if FCNTL is not None else 0
_DEPTH = 3 if hasattr(os, "pwrite") else 1  # chunks on their way: 1.5 GB/s; with one 1.0
_write_at: Any = getattr(os, "pwrite", lambda file, content, _: os.write(file, content))


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
        with replacing(path, stem, part) as file, _Stream(file, nbytes, progress, tail is not None) as stream:
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
    """Write a file in chunks of one size, some on their way to the disk while the next is filled.

    The chunks begin at multiples of their size in the file and at pages in memory, so that they can go to the disk
    without a copy in the cache of the system, which costs more time than the disk itself. So that several can be on
    their way, the file has its size before: a file that grows takes one write at a time.
    """

    def __init__(self, file: io.FileIO, nbytes: int, progress: Callable[[int], None] | None, checked: bool) -> None:
        self.nbytes = self.heads = self.checksum = 0
        self._checked = checked
        self._expected, self._progress = nbytes, progress
        self._descriptor = os.dup(file.fileno())  # of its own, which lasts as long as a thread that may write to it
        self._close = weakref.finalize(self, os.close, self._descriptor)
        self._buffer, self._used, self._told = _aligned(), 0, 0
        self._flying: deque[tuple[threading.Thread, Buffer]] = deque()
        self._failure: BaseException | None = None

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for thread, _room in self._flying:
            with suppress(RuntimeError):  # Ctrl-C came while it started; it keeps its file and its buffer
                thread.join()
        if kind is None:
            self._close()

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
        full, rest = self._buffer, self._used - CHUNK_BYTES
        self._buffer = self._wait(_DEPTH - 1)
        self._buffer[:rest] = full[CHUNK_BYTES : self._used]
        self._used = rest
        place = self.nbytes - rest - CHUNK_BYTES
        if place == 0 and _set_direct(self._descriptor, True):
            _allocate(self._descriptor, self._expected)
        thread = threading.Thread(target=self._write, args=(full[:CHUNK_BYTES].data, place))
        self._flying.append((thread, full))
        try:
            if not pool.can_start():
                raise RuntimeError("no memory")
            thread.start()
        except RuntimeError:  # the interpreter is ending, or there is no memory
            self._flying.pop()
            self._write(full[:CHUNK_BYTES].data, place)
        self._tell(rest)

    def finish(self) -> None:
        """Write what is left, which need not be a chunk."""
        self._wait(0)
        _set_direct(self._descriptor, False)
        self._write(self._buffer[: self._used].data, self.nbytes - self._used)
        self._wait(0)
        self._tell(0)

    def _wait(self, flying: int) -> Buffer:
        """Wait until no more than `flying` chunks are on their way; return room for another."""
        buffer = None
        while len(self._flying) > flying:
            thread, buffer = self._flying[0]
            thread.join()
            self._flying.popleft()
        if self._failure:
            raise self._failure
        return _aligned() if buffer is None else buffer

    def _write(self, content: memoryview, place: int) -> None:
        tries = 2
        try:
            while content:
                try:
                    count = _write_at(self._descriptor, content, place)
                except OSError as error:
                    tries -= 1
                    if error.errno != errno.EINVAL or not tries:
                        raise
                    _set_direct(self._descriptor, False)
                    continue
                content, place = content[count:], place + count
        except BaseException as error:
            self._failure = error

    def _tell(self, waiting: int) -> None:
        done, self._told = self.nbytes - waiting - self._told, max(self._told, self.nbytes - waiting)
        if self._progress and done > 0:
            self._progress(done)


def _aligned() -> Buffer:
    """Return room for a chunk and the end of the block that completes it; the pages are taken when touched."""
    return np.frombuffer(mmap.mmap(-1, CHUNK_BYTES + BUFFER_BYTES), np.uint8)


def _allocate(file: int, nbytes: int) -> None:
    """Take the room of a file on the disk, where the file system can do that."""
    try:
        os.posix_fallocate(file, 0, nbytes)
    except OSError as error:  # where it cannot, the C library writes single bytes, which O_DIRECT forbids
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise


def _set_direct(file: int, direct: bool) -> bool:
    """Write past the cache of the system or through it, where there is a choice; return whether that is a change."""
    if not _DIRECT:
        return False
    flags = FCNTL.fcntl(file, FCNTL.F_GETFL)
    wanted = flags | _DIRECT if direct else flags & ~_DIRECT
    if wanted != flags:
        try:
            FCNTL.fcntl(file, FCNTL.F_SETFL, wanted)
        except OSError:  # a file system in memory
            return False
    return bool(wanted != flags)
