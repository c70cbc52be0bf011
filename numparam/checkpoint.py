"""Checkpoints on disk: safetensors files, and Hugging Face folders of them joined by an index.

Reading never loads more than is asked for: a header is read on opening, values are mapped or streamed parameter by
parameter. Writing streams block by block, so the memory needed does not grow with the file.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from numparam import header
from numparam.atomic_file import replacing
from numparam.errors import CheckpointError
from numparam.header import Entry

INDEX_SUFFIX = ".safetensors.index.json"
BUFFER_BYTES = 8 * 2**20  # from 4 to 32 MiB all write 1.1 GB/s to a RAM disk on 2 cores, 1 MiB 0.8


@dataclass(frozen=True)
class Checkpoint:
    """Give access to the parameters of one safetensors file, or of the files of one index.

    Parameters
    ----------
    path : Path
        The file or index that was opened.
    entries : dict of str to Entry
        Every parameter by name, in file order.
    metadata : dict of str to str
        The free text of the file or the index.
    places : dict of str to tuple of (Path, int)
        The file that holds each parameter and the byte at which its values begin.

    Examples
    --------
    >>> import tempfile
    >>> from safetensors.numpy import save_file
    >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> save_file({"bias": np.arange(3, dtype=np.float32)}, path)
    >>> checkpoint = open_checkpoint(path)
    >>> checkpoint.entries["bias"].shape
    (3,)
    >>> checkpoint["bias"]
    array([0., 1., 2.], dtype=float32)
    """

    path: Path
    entries: dict[str, Entry]
    metadata: dict[str, str]
    places: dict[str, tuple[Path, int]]

    @property
    def nbytes(self) -> int:
        """Count the bytes of all values."""
        return sum(entry.nbytes for entry in self.entries.values())

    def __getitem__(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """Map the values of a parameter into memory, read-only: pages are read when touched.

        The file must not shrink as long as the array lives: the system ends a process that touches a page that is gone.
        """
        entry = self._entry(name)
        if not entry.size:
            return np.empty(entry.shape, entry.dtype)
        path, begin = self.places[name]
        return np.asarray(np.memmap(path, entry.dtype, "r", begin, entry.shape))

    @contextmanager
    def reading(self, name: str) -> Iterator[Callable[[np.ndarray[Any, np.dtype[Any]]], None]]:
        """Give a function that fills one array after the other with the next values of a parameter.

        The values are copied, not mapped, so that memory stays bounded and a file that shrinks meanwhile gives an
        error instead of a crash.
        """
        self._entry(name)
        path, begin = self.places[name]
        with path.open("rb", buffering=0) as file:
            file.seek(begin)

            def fill(out: np.ndarray[Any, np.dtype[Any]]) -> None:
                room = out.reshape(-1).view(np.uint8).data
                while room:
                    count = file.readinto(room)
                    if not count:
                        raise CheckpointError(f"{path}: cut short while parameter {name!r} was read")
                    room = room[count:]

            yield fill

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise CheckpointError(f"{self.path}: no parameter is called {name!r}")
        return self.entries[name]


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a safetensors file, or a Hugging Face index (``*.safetensors.index.json``) and the files it names.

    Parameters
    ----------
    path : Path
        The file or the index.

    Raises
    ------
    CheckpointError
        If a file is damaged, or the index names files outside its own folder or parameters that its files lack.
    OSError
        If a file cannot be opened.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return _open_index(path)
    return _open_file(path)


def _open_file(path: Path) -> Checkpoint:
    head = header.read(path)
    return Checkpoint(
        path=path,
        entries={entry.name: entry for entry in head.entries},
        metadata=head.metadata,
        places={name: (path, begin) for name, begin in head.begins.items()},
    )


def _open_index(path: Path) -> Checkpoint:
    if not path.is_file():
        raise CheckpointError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    if path.stat().st_size > header.MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: an index of more than {header.MAX_HEADER_BYTES} bytes is refused")
    index = header.parse_object(path.read_bytes(), str(path))
    weight_map, metadata = index.get("weight_map"), index.get("metadata")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{path}: an index needs a weight_map from parameter names to file names")
    for file in set(weight_map.values()):
        # A name such as ../../x or C:x would let an index from elsewhere read files that are none of its business.
        if file in ("", ".", "..") or any(mark in file for mark in "/\\:\0"):
            raise CheckpointError(f"{path}: {file!r} is not a plain file name in the folder of the index")
    shards = {file: _open_file(path.with_name(file)) for file in sorted(set(weight_map.values()))}
    for name, file in weight_map.items():
        if name not in shards[file].entries:
            raise CheckpointError(f"{path}: {file!r} should hold parameter {name!r} and does not")
    return Checkpoint(
        path=path,
        entries={name: shards[file].entries[name] for name, file in weight_map.items()},
        metadata={key: text for key, text in metadata.items() if isinstance(text, str)}
        if isinstance(metadata, dict)
        else {},
        places={name: shards[file].places[name] for name, file in weight_map.items()},
    )


class Block(NamedTuple):
    """Describe a run of values still to be made: their shape, and the function that writes them into an array."""

    shape: tuple[int, ...]
    fill: Callable[[np.ndarray[Any, np.dtype[Any]]], None]


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
