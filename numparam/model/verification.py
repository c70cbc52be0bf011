"""Compare files with the values that their own records demand, bit for bit."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from numparam.checkpoint.opening import Checkpoint, open_checkpoint
from numparam.entry import BUFFER_BYTES, Entry
from numparam.model.generation import Generation


@dataclass(frozen=True)
class Difference:
    """Name the first wrong value of a parameter: what is in the file, and what belongs there.

    `flat` and `index` locate it in the file's array; `full_index` in the full parameter, if the file holds a shard.
    They are None where all that is known of a parameter is its digest.
    """

    entry: Entry
    flat: int | None
    index: tuple[int, ...] | None
    full_index: tuple[int, ...] | None
    found: Any
    expected: Any

    def __str__(self) -> str:
        if self.index is None:
            return f"parameter {self.entry.name!r} has SHA-256 {self.found}, expected {self.expected}"
        full = "" if self.full_index == self.index else f", {self.full_index} of the full parameter"
        return (
            f"parameter {self.entry.name!r} differs first at index {self.index} (flat {self.flat}{full}): "
            f"found {_shown(self.found)}, expected {_shown(self.expected)}"
        )


def recorded(checkpoint: Checkpoint) -> list[Checkpoint]:
    """Return what has records to follow: a file, an index with a record, or else each file that an index names."""
    if not checkpoint.is_index or "numparam.seed" in checkpoint.metadata:
        return [checkpoint]
    return list(checkpoint.shards) or [open_checkpoint(path) for path in sorted(checkpoint.files)]


def verify(checkpoint: Checkpoint, progress: Callable[[int], None] | None = None) -> list[Difference]:
    """Generate every value of a checkpoint with a record again, and compare its bits with the file's.

    It returns the first difference of each parameter that has one, in file order. `progress` is called with the number
    of bytes compared since the last call.
    """
    generation = Generation.from_checkpoint(checkpoint)
    found = (_first_difference(checkpoint, generation, entry, progress) for entry in generation.entries)
    return [difference for difference in found if difference is not None]


def _first_difference(
    checkpoint: Checkpoint, generation: Generation, entry: Entry, progress: Callable[[int], None] | None
) -> Difference | None:
    if generation.is_computed(entry):
        return _other_digest(checkpoint, entry, generation.digests[entry.name], progress)
    done = 0
    size = min(BUFFER_BYTES // entry.dtype.itemsize, checkpoint.entries[entry.name].size)
    made, read = np.empty(size, entry.dtype), np.empty(size, entry.dtype)
    bits = np.dtype(f"u{entry.dtype.itemsize}")
    with checkpoint.reading(entry.name) as fill:
        for block in generation.blocks(entry):
            count = int(np.prod(block.shape, dtype=np.int64))
            expected, found = made[:count], read[:count]
            block.fill(expected.reshape(block.shape))
            fill(found)
            wrong = expected.view(bits) != found.view(bits)
            if wrong.any():
                place = int(wrong.argmax())
                return _difference(checkpoint, generation, entry, done + place, found[place], expected[place])
            done += count
            if progress:
                progress(found.nbytes)
    return None


def _other_digest(
    checkpoint: Checkpoint, entry: Entry, expected: str, progress: Callable[[int], None] | None
) -> Difference | None:
    local, digest, done = checkpoint.entries[entry.name], sha256(), 0
    size = BUFFER_BYTES // entry.dtype.itemsize
    with checkpoint.reading(entry.name) as fill:
        while done < local.size:
            fill(found := np.empty(min(size, local.size - done), entry.dtype))
            digest.update(found.tobytes())
            done += len(found)
            if progress:
                progress(found.nbytes)
    digested = digest.hexdigest()
    return None if digested == expected else Difference(local, None, None, None, digested, expected)


def _difference(
    checkpoint: Checkpoint, generation: Generation, entry: Entry, flat: int, found: Any, expected: Any
) -> Difference:
    local = checkpoint.entries[entry.name]
    index = tuple(int(i) for i in np.unravel_index(flat, local.shape)) if local.shape else ()
    starts = [part.start for part in generation.region(entry).ranges]
    full = tuple(start + i for start, i in zip(starts, index, strict=True))
    return Difference(local, flat, index, full, found, expected)


def _shown(value: Any) -> str:
    """Show a value and its bits: 0.0 and -0.0 are different values that look alike, and so are two NaN."""
    return f"{value} (0x{value.tobytes()[::-1].hex()})"
