"""Checkpoints on disk: safetensors files, and folders of them joined by an index.

An index has the format of Hugging Face, whose ``weight_map`` gives the file of every parameter; or, where files hold
pieces of parameters, one of numparam. Its ``files`` are file names, and its ``parameters`` map each name to ``dtype``,
``shape``, ``cuts``, for each axis the first index of every part, and ``files``, the number of the file of each piece in
row-major order: the pieces can have no gap and no overlap.

Reading never loads more than is needed: a header is read on opening, values are mapped or streamed parameter by
parameter. Writing streams block by block, so the memory needed does not grow with the file.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from numparam.checkpoint import header
from numparam.checkpoint.attempt import ATTEMPT, check_attempt
from numparam.checkpoint.grid import Grid
from numparam.checkpoint.limits import Work
from numparam.checkpoint.mapped_file import MappedFile
from numparam.checkpoint.names import INDEX_SUFFIX, is_plain
from numparam.checkpoint.stored import Files, Stored
from numparam.entry import Entry
from numparam.errors import CheckpointError
from numparam.tensor import Recipe, Tensor
from numparam.text import shown

_TRIES = 100  # each finds a complete checkpoint, unless a save ends just then


@dataclass(frozen=True)
class Checkpoint:
    """Give access to the parameters of one safetensors file, or of the files of one index.

    `entries` has every parameter, in file order; `places` the open file that holds it and the byte at which its values
    begin, `stored` those in pieces, and `recipes` those that are generated, if the recipes of `metadata` are followed.
    `shards` are the files of an index, by name.
    """

    path: Path
    entries: dict[str, Entry]
    metadata: dict[str, str]
    places: dict[str, tuple[MappedFile, int]]
    stored: dict[str, Stored] = field(default_factory=dict)
    shards: tuple["Checkpoint", ...] = ()
    recipes: dict[str, Recipe] = field(default_factory=dict)
    work: Work = field(default_factory=Work, compare=False)

    @property
    def is_index(self) -> bool:
        """Return whether it is an index, whose values are in other files."""
        return self.path.name.endswith(INDEX_SUFFIX)

    @property
    def files(self) -> set[Path]:
        """Return the files that hold values."""
        return {file.path for file, _ in self.places.values()}.union(*(stored.paths for stored in self.stored.values()))

    @property
    def nbytes(self) -> int:
        """Count the bytes of all values, also of those to be generated."""
        return sum(entry.nbytes for entry in self.entries.values())

    def __getitem__(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """Map the values of a parameter into memory, read-only: pages are read when touched. Pieces are read now.

        The file must not shrink as long as the array lives: the system ends a process that touches a page that is gone.
        """
        entry = self._entry(name)
        if not entry.size:
            return np.empty(entry.shape, entry.dtype)
        if generated := self._generated(name):
            return Tensor._of(generated).asnumpy()
        file, begin = self.places[name]
        values = file.array(begin, entry.dtype, entry.shape, entry.nbytes)
        values.flags.writeable = False
        return values

    @contextmanager
    def reading(self, name: str) -> Iterator[Callable[[np.ndarray[Any, np.dtype[Any]]], None]]:
        """Give a function that fills one array after the other with the next values of a parameter.

        The values are copied, not mapped, so that memory stays bounded and a file that shrinks meanwhile gives an
        error instead of a crash.
        """
        entry = self._entry(name)
        if generated := self._generated(name):
            blocks, rest = generated.blocks(), np.empty(0, entry.dtype)

            def take(out: np.ndarray[Any, np.dtype[Any]]) -> None:
                nonlocal rest
                room = out.reshape(-1)
                while room.size:
                    if not rest.size:
                        block = next(blocks)
                        rest = np.empty(block.shape, entry.dtype)
                        block.fill(rest)
                        rest = rest.reshape(-1)
                    count = min(room.size, rest.size)
                    room[:count], rest = rest[:count], rest[count:]
                    room = room[count:]

            yield take
            return
        file, place = self.places[name]

        def fill(out: np.ndarray[Any, np.dtype[Any]]) -> None:
            nonlocal place
            if file.read_into(out.reshape(-1).view(np.uint8).data, place) < out.nbytes:
                raise CheckpointError(f"{file.path}: truncated while parameter {shown(name)} was read")
            place += out.nbytes

        yield fill

    def _generated(self, name: str) -> Stored | Recipe | None:
        """Return what reads or generates the values of a parameter that are not in one place."""
        if recipe := self.recipes.get(name):
            self.work.add(recipe.init, recipe.region, recipe.dtype.itemsize, f"{self.path}: parameter {shown(name)}")
        return recipe or self.stored.get(name)

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise CheckpointError(f"{self.path}: no parameter is called {name!r}")
        return self.entries[name]


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a safetensors file, or a Hugging Face index (``*.safetensors.index.json``) and the files it names."""
    if path.name.endswith(INDEX_SUFFIX):
        return _open_index(path)
    return _from(header.read(path))


def _from(head: header.Header) -> Checkpoint:
    return Checkpoint(
        path=head.file.path,
        entries={entry.name: entry for entry in head.entries},
        metadata=head.metadata,
        places={name: (head.file, begin) for name, begin in head.begins.items()},
    )


def _open_index(path: Path) -> Checkpoint:
    """Open an index and its files, which another process may replace meanwhile: all of one save, or an error."""
    for _ in range(_TRIES):
        index, file = header.read_index(path)
        try:
            checkpoint = _follow_index(path, index)
        except CheckpointError:
            if file.is_current():
                raise
            continue
        if file.is_current():
            return checkpoint
    raise CheckpointError(f"{path}: it was replaced {_TRIES} times while it was opened")


def _follow_index(path: Path, index: dict[str, Any]) -> Checkpoint:
    texts = index.get("metadata")
    metadata = {key: text for key, text in texts.items() if isinstance(text, str)} if isinstance(texts, dict) else {}
    if "parameters" in index:
        return _open_pieces(path, index, metadata)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{path}: an index needs a weight_map from parameter names to file names")
    shards = {}
    for file in sorted(set(weight_map.values())):
        head = header.read(_beside(path, file))
        check_attempt(head, metadata.get(ATTEMPT))
        shards[file] = _from(head)
    for name, file in weight_map.items():
        if name not in shards[file].entries:
            raise CheckpointError(f"{path}: {shown(file)} should hold parameter {shown(name)} and does not")
    return Checkpoint(
        path=path,
        entries={name: shards[file].entries[name] for name, file in weight_map.items()},
        metadata=metadata,
        places={name: shards[file].places[name] for name, file in weight_map.items()},
        shards=tuple(shards.values()),
    )


def _open_pieces(path: Path, index: dict[str, Any], metadata: dict[str, str]) -> Checkpoint:
    """Open an index of pieces; the files are opened when something in them is needed."""
    names, parameters = index.get("files"), index["parameters"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: an index of pieces needs a list of files")
    if not isinstance(parameters, dict):
        raise CheckpointError(f"{path}: an index of pieces maps parameter names to their pieces")
    files = Files([_beside(path, name) for name in names], metadata.get(ATTEMPT))
    stored = {name: _stored(path, name, content, files) for name, content in parameters.items()}
    return Checkpoint(path, {name: each.entry for name, each in stored.items()}, metadata, {}, stored)


def _stored(path: Path, name: str, content: Any, files: Files) -> Stored:
    where = f"{path}: parameter {name!r:.80}"
    if not isinstance(content, dict) or content.keys() != {"dtype", "shape", "cuts", "files"}:
        raise CheckpointError(f"{where}: expected dtype, shape, cuts and files, found {shown(content)}")
    entry = header.describe(name, content["dtype"], content["shape"], str(path))
    cuts, places = content["cuts"], content["files"]
    if not isinstance(cuts, list) or len(cuts) != len(entry.shape):
        raise CheckpointError(f"{where}: shape {entry.shape} has a list of cuts for each axis, found {shown(cuts)}")
    for starts, length in zip(cuts, entry.shape, strict=True):
        rising = header.is_naturals(starts) and starts[:1] == [0] and all(one < two for one, two in pairwise(starts))
        if not rising or starts[-1] >= max(length, 1):
            raise CheckpointError(f"{where}: the cuts of {length} entries rise from 0, found {shown(starts)}")
    count = math.prod(map(len, cuts))
    if not header.is_naturals(places) or len(places) != count or any(place >= len(files.paths) for place in places):
        raise CheckpointError(
            f"{where}: its {count} pieces are in files numbered from 0 to {len(files.paths) - 1}, found {shown(places)}"
        )
    return Stored(str(path), entry, Grid(entry.shape, tuple(map(tuple, cuts))), places, files)


def _beside(index: Path, file: str) -> Path:
    """Return the path of a file that an index names, in its own folder."""
    if not is_plain(file):
        raise CheckpointError(f"{index}: {shown(file)} is not a plain file name in the folder of the index")
    return index.with_name(file)
