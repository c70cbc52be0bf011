"""The names of checkpoints: files, indexes, and what belongs to which."""

import hashlib
import os
from pathlib import Path
from typing import Any

from numparam.errors import ArgumentTypeError, ArgumentValueError, CheckpointError, FolderError
from numparam.text import shown

SUFFIX, INDEX_SUFFIX, MINDSPORE_SUFFIX = ".safetensors", ".safetensors.index.json", ".ckpt"
_SUFFIXES = {None: SUFFIX, "safetensors": SUFFIX, "ckpt": MINDSPORE_SUFFIX}
_SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))


def as_path(name: Any) -> Path:
    """Return the path that a user gave for a checkpoint."""
    if not isinstance(name, str | os.PathLike) or isinstance(text := os.fspath(name), bytes):
        raise ArgumentTypeError(f"the name of a checkpoint is a str or a path, found {shown(name)}")
    if not text or "\0" in text:
        raise ArgumentValueError(f"the name of a checkpoint is not empty and has no NUL, found {shown(text)}")
    return Path(text)


def file_path(name: Any, format: str | None = None) -> Path:  # noqa: A002
    """Return the path of the single file that a user means, whose suffix is optional."""
    if format not in _SUFFIXES:
        raise ArgumentValueError(f"the format of a checkpoint is 'ckpt' or 'safetensors', found {shown(format)}")
    path, suffix = as_path(name), _SUFFIXES[format]
    if path.name in ("", "..") or os.fspath(name).endswith(_SEPARATORS):
        raise FolderError(
            f"a checkpoint is a file, found the folder {os.fspath(name)!r:.200}; add the name of the file"
        )
    known = (suffix, MINDSPORE_SUFFIX) if format is None else suffix
    return path if path.name.endswith(known) else path.with_name(path.name + suffix)


def index_path(name: Any) -> Path:
    """Return the path of the index that a user means; the suffix is optional."""
    path = as_path(name)
    return path.with_name(stem_of(path) + INDEX_SUFFIX)


def stem_of(path: Path) -> str:
    """Return the name that a file and an index of one checkpoint share."""
    return path.name.removesuffix(INDEX_SUFFIX).removesuffix(SUFFIX)


def is_plain(name: str) -> bool:
    """Return whether an index may name a file so: a printable name in its own folder, on every system."""
    # A name such as ../../x or C:x would let an index from elsewhere read files outside its folder.
    return name not in ("", ".", "..") and name.isprintable() and not any(mark in name for mark in "/\\:")


def check_stem(index: Path) -> None:
    """Refuse an index that could not name its files, which begin with its own name."""
    if not is_plain(stem_of(index)):
        what = "the files that an index names have printable names without \\ and :"
        raise ArgumentValueError(f"cannot write {index}: {what}; choose another name")


def digest_of(stem: str) -> str:
    """Return a short text that names the hidden files of a checkpoint, whose own name may be as long as any."""
    return hashlib.blake2b(os.fsencode(stem), digest_size=8).hexdigest()


def refuse_twin(path: Path) -> None:
    """Refuse to write a file next to an index of the same name, or an index next to a file."""
    twin = path.with_name(stem_of(path) + (SUFFIX if path.name.endswith(INDEX_SUFFIX) else INDEX_SUFFIX))
    if os.path.lexists(twin):
        raise CheckpointError(
            f"cannot write {path}: {twin.name} is a checkpoint of the same name; remove it or choose another name"
        )
