"""Pieces of parameters: which block of the full parameter a tensor in a file holds.

The metadata of the file records it. ``numparam.pieces`` is a JSON object from the names of the tensors that are not
full parameters to ``{"shape": [8, 6], "start": [4, 0]}``: the shape of the full parameter, and the index of the first
value of the block along every axis. The block is as long as the tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from numparam.checkpoint import header
from numparam.entry import Entry
from numparam.errors import CheckpointError
from numparam.indexing.region import Region
from numparam.text import shown

PIECES = "numparam.pieces"
OFFSETS = "DCP_SHARDING_INFO"
"""The same for the reader of safetensors files of ``torch.distributed.checkpoint``, which wants all tensors."""


class Piece(NamedTuple):
    """Describe a block of a parameter by the index of its first value along every axis, and its shape."""

    full_shape: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, region: Region) -> Piece | None:
        """Describe a region; None if it is not a block, because it has steps or other axes."""
        ranges = region.ranges
        if region.shape != tuple(map(len, ranges)) or any(part.step != 1 and len(part) > 1 for part in ranges):
            return None
        return cls(region.full_shape, tuple(part.start if part else 0 for part in ranges), region.shape)

    @property
    def stop(self) -> tuple[int, ...]:
        """Return the index behind the last value along every axis."""
        return tuple(start + length for start, length in zip(self.start, self.shape, strict=True))

    @property
    def region(self) -> Region:
        """Return the same as a region."""
        return Region.full(self.full_shape)[tuple(map(slice, self.start, self.stop))]

    def __str__(self) -> str:
        bounds = ", ".join(f"{start}:{stop}" for start, stop in zip(self.start, self.stop, strict=True))
        return f"[{bounds}] of shape {self.full_shape}"


def write_record(pieces: Mapping[str, Piece]) -> dict[str, str]:
    """Return the metadata that describes which tensors are pieces."""
    parts = {
        name: {"shape": piece.full_shape, "start": piece.start}
        for name, piece in pieces.items()
        if piece.full_shape != piece.shape
    }
    if not parts:
        return {}
    offsets = {name: {"saved_offsets": piece.start} for name, piece in pieces.items()}
    return {
        key: json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        for key, content in ((PIECES, parts), (OFFSETS, offsets))
    }


def read_record(metadata: Mapping[str, str], entries: Mapping[str, Entry], path: str) -> dict[str, Piece]:
    """Read what `write_record` wrote, for all tensors of a file."""
    found = {name: Piece(entry.shape, (0,) * len(entry.shape), entry.shape) for name, entry in entries.items()}
    if PIECES not in metadata:
        return found
    for name, content in header.parse_object(metadata[PIECES].encode(), f"{path}: {PIECES}").items():
        where = f"{path}: parameter {name!r:.80}"
        if name not in entries or not isinstance(content, dict) or content.keys() != {"shape", "start"}:
            raise CheckpointError(
                f"{where}: {PIECES} gives the shape and the start of a tensor, found {shown(content)}"
            )
        shape = entries[name].shape
        full_shape, start = (_naturals(content[key], len(shape), f"{where}: {key}") for key in ("shape", "start"))
        found[name] = piece = Piece(full_shape, start, shape)
        if any(stop > length for stop, length in zip(piece.stop, full_shape, strict=True)):
            raise CheckpointError(f"{where}: the piece {piece} reaches beyond the parameter")
    return found


def _naturals(value: Any, count: int, where: str) -> tuple[int, ...]:
    if not header.is_naturals(value) or len(value) != count:
        raise CheckpointError(f"{where} has a natural number for each of {count} axes, found {shown(value)}")
    return tuple(value)
