"""The index of a checkpoint that many ranks wrote: which files belong together, and what of which parameter they hold.

A save has a number, one more than the save that the index describes, and its files are called
``model-3-rank-00002-of-00008.safetensors``. They lie next to the files of the previous save, and do not count until the
index is replaced: at that moment the new checkpoint takes the place of the old one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from numparam import dtypes
from numparam.checkpoint import header
from numparam.checkpoint.atomic_file import replacing
from numparam.checkpoint.attempt import ATTEMPT, SAVE, rank_files, remove_former, save_number, write_content
from numparam.checkpoint.grid import Grid
from numparam.checkpoint.names import SUFFIX, as_path, check_stem, index_path, refuse_twin, stem_of
from numparam.checkpoint.piece import Piece, read_record
from numparam.checkpoint.recipes import RECIPES, STREAM
from numparam.checkpoint.saving import FLAGS, TEXTS, as_json
from numparam.checks import as_int
from numparam.entry import Entry
from numparam.errors import ArgumentValueError, CheckpointError
from numparam.kernels.machine.pool import for_each

NAMES = "numparam.names"
_AT_ONCE = 16  # headers read at the same time: a network file system answers many as fast as one


def write_index(
    ckpt_file_name: str | os.PathLike[str],
    ranks: int | None = None,
    files: Iterable[str | os.PathLike[str]] | None = None,
) -> Path:
    """Join the files that the ranks wrote: the save becomes the checkpoint, and the files of the one before go.

    It reads the headers of the files alone, so an index that was lost can be written anew; one that is up to date stays
    as it is. If each parameter is complete in one file, the index has the format of Hugging Face, which other libraries
    read too.

    Parameters
    ----------
    ckpt_file_name : str or path
        As it was given to `save_distributed_checkpoint`.
    ranks : int, optional
        How many ranks wrote; needed only if files of several saves lie there.
    files : iterable of path, optional
        The files to join, in the folder of the index, such as the ones that ``numparam init --shard`` wrote. By default
        those that `save_distributed_checkpoint` wrote for this checkpoint.

    Returns
    -------
    Path
        The index.

    Raises
    ------
    ValueError
        If the file of a rank is missing or damaged, part of a parameter is in no file, pieces overlap, or the files
        disagree about a parameter. The index in place then stays as it is.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from numparam import save_distributed_checkpoint
    >>> path = Path(tempfile.mkdtemp()) / "model"
    >>> for rank in range(2):
    ...     _ = save_distributed_checkpoint({"w": np.ones(3), "b": np.ones(2)}, path, rank=rank, ranks=2)
    >>> write_index(path).name
    'model.safetensors.index.json'
    """
    index = index_path(ckpt_file_name)
    count = None if ranks is None else as_int("ranks", ranks, 1)
    if files is not None:
        return _join(index, list(map(as_path, files)))
    with header.file_errors(f"cannot write {index}"):
        if _new_save(index, count) is None:
            return index
        with replacing(index) as file:
            save = _new_save(index, count)  # another process may have joined it before this one could
            if save is None:
                raise CheckpointError(f"{index}: another process has written it")
            number, paths = save
            content = _content(_read_all(paths))
            content["metadata"][SAVE] = str(number)
            write_content(file, content)
        remove_former(index, number, paths)
    return index


def _join(index: Path, paths: list[Path]) -> Path:
    """Join files of any names."""
    if not paths:
        raise ArgumentValueError("files to join are needed, found an empty list")
    for path in paths:
        if path.absolute().parent != index.absolute().parent:
            raise ArgumentValueError(f"files to join lie in the folder of the index {index}, found {path}")
    refuse_twin(index)
    with header.file_errors(f"cannot write {index}"), replacing(index) as file:
        content = _content(_read_all(paths))
        names = {path.name for path in paths}
        if numbers := [number for number, *_, path in rank_files(index) if path.name in names]:
            content["metadata"][SAVE] = str(max(numbers))
        write_content(file, content)
    return index


def _read_all(paths: Sequence[Path]) -> list[_Found]:
    found: dict[int, _Found] = {}
    for_each(
        lambda number: found.__setitem__(number, _Found(paths[number])), range(len(paths)), min(len(paths), _AT_ONCE)
    )
    return [found[number] for number in range(len(paths))]


class _Found:
    """Hold the content of the header of a rank's file."""

    def __init__(self, path: Path) -> None:
        head = header.read(path)
        self.path, self.metadata = path, head.metadata
        self.entries = {entry.name: entry for entry in head.entries}
        self.pieces = read_record(head.metadata, self.entries, str(path))
        if NAMES not in head.metadata:
            raise CheckpointError(
                f"{path}: it has no {NAMES}: neither save_distributed_checkpoint nor numparam init --shard wrote it"
            )
        self.names = header.parse_object(f'{{"names": {head.metadata[NAMES]}}}'.encode(), f"{path}: {NAMES}")["names"]
        if not isinstance(self.names, list) or not all(isinstance(name, str) for name in self.names):
            raise CheckpointError(f"{path}: {NAMES} is a list of names, found {self.names!r:.80}")

    def texts(self, key: str) -> dict[str, Any]:
        """Return the record in the metadata under a key, by name."""
        text = self.metadata.get(key)
        return {} if text is None else header.parse_object(text.encode(), f"{self.path}: {key}")


def _content(found: Sequence[_Found]) -> dict[str, Any]:
    """Make the index of the files of all ranks."""
    for each in found:
        if each.metadata.get(ATTEMPT) != found[0].metadata.get(ATTEMPT):
            raise CheckpointError(
                f"{found[0].path} and {each.path} are of two attempts to save; save again on all ranks"
            )
    files: dict[str, dict[Piece, Path]] = {name: {} for each in found for name in each.names}
    described: dict[str, tuple[Entry, Path]] = {}
    metadata: dict[str, dict[str, Any]] = {FLAGS: {}, RECIPES: {}, TEXTS: {}}
    for each in found:
        for name, part in each.pieces.items():
            entry = each.entries[name]._replace(shape=part.full_shape)
            first, path = described.setdefault(name, (entry, each.path))
            if first != entry:
                raise CheckpointError(
                    f"parameter {name!r}: {path} holds part of {first.dtype} {first.shape}, "
                    f"{each.path} part of {entry.dtype} {entry.shape}"
                )
            files.setdefault(name, {}).setdefault(part, each.path)
        for key, merged in metadata.items():
            merged.update({name: content for name, content in each.texts(key).items() if name not in merged})
    for each in found:
        for name in each.names:
            if not files[name] and name not in metadata[RECIPES]:
                raise CheckpointError(
                    f"parameter {name!r}: {each.path} left it to another rank, and no rank wrote it: do all ranks "
                    "save the same names in the same order, with layouts for this many ranks?"
                )
    valued = {name: parts for name, parts in files.items() if parts}
    if both := valued.keys() & metadata[RECIPES].keys():
        raise CheckpointError(f"parameter {min(both)!r}: some ranks saved its recipe and others its values")
    grids = {name: Grid.join(name, parts) for name, parts in valued.items()}
    for flags in metadata[FLAGS].values():
        if isinstance(flags, dict):  # else loading refuses them
            flags.pop("sliced", None)  # the full parameter is not
    texts = {key: as_json(merged) for key, merged in metadata.items() if merged}
    if streams := sorted({each.metadata[STREAM] for each in found if STREAM in each.metadata}):
        if len(streams) > 1:
            raise CheckpointError(f"the recipes are for random streams {' and '.join(streams)}: use one numparam")
        texts[STREAM] = streams[0]
    if ATTEMPT in found[0].metadata:
        texts[ATTEMPT] = found[0].metadata[ATTEMPT]
    total = sum(entry.nbytes for entry, _ in described.values())
    content: dict[str, Any] = {"metadata": {"format": "pt", **texts, "total_size": total}}
    if all(len(parts) == 1 for parts in valued.values()):
        return content | {"weight_map": {name: next(iter(files[name].values())).name for name in grids}}
    numbers = {each.path: number for number, each in enumerate(found)}
    return content | {
        "files": [path.name for path in numbers],
        "parameters": {
            name: {
                "dtype": dtypes.tag(described[name][0].dtype),
                "shape": grid.shape,
                "cuts": grid.cuts,
                "files": [numbers[files[name][grid.piece(cell)]] for cell in grid.cells()],
            }
            for name, grid in grids.items()
        },
    }


def file_of_rank(index: Path, number: int, rank: int, ranks: int) -> Path:
    """Return the path of the file that a rank writes."""
    check_stem(index)
    return index.with_name(f"{stem_of(index)}-{number}-rank-{rank:05}-of-{ranks:05}{SUFFIX}")


def _new_save(index: Path, ranks: int | None) -> tuple[int, list[Path]] | None:
    """Find the one save that is newer than the index: its number and its files by rank; None if there is none."""
    old = save_number(index)
    found: dict[tuple[int, int], dict[int, Path]] = {}
    for number, rank, count, path in rank_files(index):
        if number > old and ranks in (None, count):
            found.setdefault((number, count), {})[rank] = path
    if not found and index.exists():
        return None
    if len(found) != 1:
        what = " and ".join(f"save {number} of {count} ranks" for number, count in sorted(found)) or "none"
        raise CheckpointError(f"{index}: the files of one new save are needed, found {what}; remove what is not wanted")
    [((number, count), files)] = found.items()
    if missing := [rank for rank in range(count) if rank not in files]:
        shown = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise CheckpointError(
            f"{index}: save {number} is not complete: {file_of_rank(index, number, missing[0], count)} is missing; "
            f"not written by rank {shown} of {count}"
        )
    return number, [files[rank] for rank in range(count)]
