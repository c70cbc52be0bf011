"""The folder of a table: who has it open, and what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numparam.checkpoint.atomic_file import FCNTL, replacing, sync_folder
from numparam.embedding.mapped import File, open_file
from numparam.embedding.schema import Schema
from numparam.errors import ArgumentValueError, CheckpointError, CheckpointFileError


def claim(folder: Path, name: str) -> File:
    """Lock the folder of a table."""
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for each in missing:
            sync_folder(each.parent)
        file = open_file(folder / "lock")
        if FCNTL is not None:
            FCNTL.flock(file.fileno(), FCNTL.LOCK_EX | FCNTL.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise CheckpointFileError(
            f"table {name!r} in {folder} is open in another process, or twice in this one; close it there first"
        ) from None
    except OSError as error:
        raise CheckpointFileError(f"cannot open table {name!r} in {folder}: {error}") from error
    return file


def known(folder: Path) -> dict[str, Any]:
    """Return what the folder records of its table, nothing if it is new."""
    try:
        text = (folder / "table.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        found = json.loads(text)
        return found if isinstance(found, dict) and "seed" in found else {}
    except ValueError:
        raise CheckpointError(f"{folder / 'table.json'} is damaged; restore it") from None


def agree(folder: Path, noted: Mapping[str, Any], schema: Schema, storage: str) -> None:
    """Check that the files hold this table, or note what they will hold."""
    wanted = schema.describe() | {"storage": storage}
    if not noted:
        with replacing(folder / "table.json") as file:
            file.write(json.dumps(wanted).encode())
        return
    for part, value in wanted.items():
        if noted.get(part) != value:
            raise ArgumentValueError(
                f"table {schema.name!r}: {folder} holds a table of {part} {noted.get(part)!r}, found {value!r}; open "
                "it as it was, or choose another folder"
            )
