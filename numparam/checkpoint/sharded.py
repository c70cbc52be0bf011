"""Write a checkpoint of several files, each of at most so many bytes, and the index that joins them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from numparam.checkpoint import header
from numparam.checkpoint.atomic_file import replacing
from numparam.checkpoint.attempt import (
    ATTEMPT,
    CHECKPOINT,
    SAVE,
    is_index_of,
    new_attempt,
    remove,
    remove_former,
    save_number,
    write_content,
)
from numparam.checkpoint.names import INDEX_SUFFIX, SUFFIX, check_stem, stem_of
from numparam.checkpoint.writing import check_space, write_checkpoint
from numparam.checks import as_int
from numparam.entry import Block, Entry


def groups_of(entries: list[Entry], max_bytes: int | None) -> list[list[Entry]]:
    """Share the parameters out over files, in their order."""
    if max_bytes is None:
        return [entries]
    limit = as_int("max_shard_bytes", max_bytes, 1)
    groups: list[list[Entry]] = [[]]
    used = 0
    for entry in entries:
        if groups[-1] and used + entry.nbytes > limit:
            groups.append([])
            used = 0
        groups[-1].append(entry)
        used += entry.nbytes
    return groups


def write_sharded(
    path: Path,
    groups: list[list[Entry]],
    metadata: dict[str, str],
    blocks: Callable[[Entry], Iterable[Block]],
    tell: Callable[[int], None] | None = None,
) -> int:
    """Write the files of a checkpoint and its index, in the format of Hugging Face; return the bytes of the files.

    They lie next to `path` and begin with its name. `metadata` is of the index; `blocks` and `tell` are as for
    `write_checkpoint`.
    """
    stem, attempt = stem_of(path), new_attempt()
    index = path.with_name(stem + INDEX_SUFFIX)
    check_stem(index)
    marks = {"format": "pt", ATTEMPT: attempt, CHECKPOINT: stem}
    total = sum(entry.nbytes for group in groups for entry in group)
    shards: list[Path] = []
    with header.file_errors(f"cannot write {index}"):
        check_space(index, total)
        try:
            with replacing(index) as file:
                number = save_number(index)
                # Files of the same names may belong to a checkpoint that must stay complete until the index is there.
                taken = any(file.name.startswith(f"{stem}-") and "-of-" in file.name for file in path.parent.iterdir())
                token = f"-{attempt[:8]}" if taken else ""
                names = [f"{stem}{token}-{place:05}-of-{len(groups):05}{SUFFIX}" for place in range(1, len(groups) + 1)]
                shards += [path.with_name(name) for name in names]
                nbytes = sum(
                    write_checkpoint(shard, group, marks, blocks, tell, stem, "shard")
                    for shard, group in zip(shards, groups, strict=True)
                )
                weight_map = {entry.name: name for name, group in zip(names, groups, strict=True) for entry in group}
                if number:
                    metadata = {**metadata, SAVE: str(number)}
                texts = {**metadata, ATTEMPT: attempt, "total_size": total}
                write_content(file, {"metadata": texts, "weight_map": weight_map})
        except BaseException:
            if not is_index_of(index, attempt):
                remove(shards, stem, attempt)
            raise
        remove_former(index, number)
    return nbytes
