"""Which attempt to save a checkpoint wrote a file, and which files it may therefore remove.

Each file of a checkpoint of several has in its metadata ``numparam.checkpoint``, the name of the checkpoint, and
``numparam.attempt``, a text that only this attempt has, which is also in the index. A file is removed only if its
metadata names this very checkpoint, its name is one that this library gives, and no index in the folder names
it: never the files of another library, of another checkpoint, or of a user.
"""

import io
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from numparam.checkpoint import header
from numparam.checkpoint.atomic_file import BusyError, holding
from numparam.checkpoint.limits import MAX_HEADER_BYTES
from numparam.checkpoint.names import INDEX_SUFFIX, SUFFIX, stem_of
from numparam.errors import CheckpointError, MissingFileError
from numparam.text import shown

ATTEMPT, CHECKPOINT, SAVE = "numparam.attempt", "numparam.checkpoint", "numparam.save"


def new_attempt() -> str:
    """Draw the text that only one attempt has."""
    return secrets.token_hex(8)


def check_attempt(head: header.Header, attempt: str | None) -> None:
    """Refuse a file of an attempt that is not its index's, if the index names one."""
    if attempt is not None and head.metadata.get(ATTEMPT) != attempt:
        raise CheckpointError(
            f"{head.file.path}: it is of another save than its index; if it was just replaced, load it again"
        )


def write_content(file: io.FileIO, content: Mapping[str, Any]) -> None:
    """Write the JSON of an index."""
    # Hugging Face's indexes have lines; the lists of pieces would have too many.
    text = json.dumps(content, ensure_ascii=False, indent=2 if "weight_map" in content else None).encode()
    if len(text) > MAX_HEADER_BYTES:
        raise CheckpointError(f"the index would take {len(text)} bytes; at most {MAX_HEADER_BYTES} are read")
    rest = memoryview(text)
    while rest:
        rest = rest[file.write(rest) :]


def is_index_of(index: Path, attempt: str) -> bool:
    """Return whether the index in place may belong to an attempt: it does, or it cannot be read."""
    try:
        metadata = header.read_index(index)[0].get("metadata")
    except MissingFileError:
        return False
    except (CheckpointError, OSError):
        return True
    return isinstance(metadata, dict) and metadata.get(ATTEMPT) == attempt


def save_number(index: Path) -> int:
    """Return the number of the save that an index describes, 0 if there is none."""
    try:
        metadata = header.read_index(index)[0].get("metadata")
    except MissingFileError:
        return 0
    number = metadata.get(SAVE, "0") if isinstance(metadata, dict) else "0"
    if not isinstance(number, str) or not re.fullmatch("[0-9]{1,18}", number):
        raise CheckpointError(f"{index}: {SAVE} is the number of a save, found {shown(number)}")
    return int(number)


def rank_files(index: Path) -> Iterator[tuple[int, int, int, Path]]:
    """Yield (number of the save, rank, ranks, path) of each file next to an index that a rank wrote."""
    stem = re.escape(stem_of(index))
    pattern = re.compile(rf"{stem}-([1-9][0-9]{{0,17}})-rank-([0-9]{{5,9}})-of-([0-9]{{5,9}}){re.escape(SUFFIX)}")
    for path in index.parent.iterdir():
        if match := pattern.fullmatch(path.name):
            number, rank, ranks = map(int, match.groups())
            yield number, rank, ranks, path


def remove_former(index: Path, number: int, keep: Iterable[Path] = ()) -> None:
    """Remove the files that earlier attempts to save this checkpoint wrote and that no index names.

    The index is in place, so its own files stay. Files of ranks are of saves up to `number`; later ones may still be
    written. `keep` are files of the save with nothing that the index names.
    """
    # Files may be of a save that goes on, which removes the others at its end.
    with suppress(BusyError), holding(index):
        shards = re.compile(
            rf"{re.escape(stem_of(index))}(-[0-9a-f]{{8}})?-[0-9]{{5,}}-of-[0-9]{{5,}}{re.escape(SUFFIX)}"
        )
        former = [path for path in index.parent.iterdir() if shards.fullmatch(path.name)]
        former += [path for save, _, _, path in rank_files(index) if save <= number]
        try:
            named = names_of_indexes(index.parent)
        except (CheckpointError, OSError):
            return  # an index that cannot be read may name any of them
        remove(set(former).difference(keep, map(index.with_name, named)), stem_of(index))


def remove(paths: Iterable[Path], stem: str, attempt: str | None = None) -> None:
    """Remove the files whose metadata names a checkpoint, and an attempt if one is given."""
    for path in paths:
        try:
            metadata = header.read(path).metadata
        except (CheckpointError, OSError):
            continue
        if metadata.get(CHECKPOINT) == stem and attempt in (None, metadata.get(ATTEMPT)):
            path.unlink(missing_ok=True)


def names_of_indexes(folder: Path) -> set[str]:
    """Return the names of the files that the indexes in a folder name."""
    names = set[str]()
    for index in folder.glob(f"*{INDEX_SUFFIX}"):
        content, _ = header.read_index(index)
        weights, files = content.get("weight_map", {}), content.get("files", [])
        if not isinstance(weights, dict) or not isinstance(files, list):
            raise CheckpointError(f"{index}: not an index")
        names.update(name for name in [*weights.values(), *files] if isinstance(name, str))
    return names
