"""Rings in memory that two ranks of a machine share: arrays go through in pieces, which can be read where they lie.

One end writes, the other reads. Each counts the slots that it has left to the other, in a word that only it writes: the
writer fills slots while the reader works in those before. A slot is in the caches, where the writer has just put it.

The memory has no name: one process makes it, and the other opens it as a file of that one. It ends with them.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from numparam.communication.shared import opened, shared_memory
from numparam.kernels.meeting import HAS_MEETINGS, ROW_BYTES, read, write

Array = np.ndarray[Any, np.dtype[Any]]

# A server that steps slots of 512 KiB takes longer for what it does between them than for the step.
SLOTS, SLOT_BYTES = 2, 1 << 21


class Ring:
    """Hold one end of a ring.

    Attributes
    ----------
    rank : int
        Of the process at the other end, in the world.
    """

    def __init__(self, rank: int, memory: Array, writes: bool) -> None:
        words = memory.ctypes.data, memory.ctypes.data + ROW_BYTES
        self._own, self._other = words if writes else words[::-1]
        self._slots = memory[2 * ROW_BYTES :].reshape(SLOTS, SLOT_BYTES)
        self.rank, self._writes, self._left = rank, writes, 0

    def holds(self, nbytes: int) -> bool:
        """Return whether an array of so many bytes fits into a slot."""
        return 0 < nbytes <= SLOT_BYTES

    @property
    def slot(self) -> Array | None:
        """Return the next slot, or None as long as the other end has it."""
        is_free = read(self._other) + SLOTS * self._writes > self._left
        return self._slots[self._left % SLOTS] if is_free else None

    def leave(self) -> None:
        """Leave the slot to the other end."""
        self._left += 1
        write(self._own, self._left)

    def move(self, slot: Array, piece: Array) -> None:
        """Write a piece to its slot, or read it there, and leave the slot."""
        part = slot[: piece.size]
        np.copyto(*((part, piece) if self._writes else (piece, part)))
        self.leave()


class Flow:
    """Move arrays through a ring one after another, each in pieces of a slot or less."""

    def __init__(self, ring: Ring, arrays: Iterable[Array]) -> None:
        self.ring, self._pieces = ring, deque[Array]()
        for array in arrays:
            data = array.reshape(-1).view(np.uint8)
            self._pieces += [data[start : start + SLOT_BYTES] for start in range(0, data.size, SLOT_BYTES)]

    def __len__(self) -> int:
        return len(self._pieces)

    def moves(self) -> bool:
        """Move the next piece; return False if there is none, or the other end has its slot."""
        if not self._pieces or (slot := self.ring.slot) is None:
            return False
        self.ring.move(slot, self._pieces.popleft())
        return True


Rings = tuple[Ring, Ring]
"""A ring to another process and one from it."""


def new_rings(rank: int) -> tuple[Rings, int] | None:
    """Make rings and their file, to be closed when the other process has opened it; None if that cannot be."""
    if not HAS_MEETINGS or (made := shared_memory(2 * _size())) is None:
        return None
    memory, file = made
    return _rings(rank, memory, True), file


def rings_of(rank: int, process: int | None, file: int) -> Rings | None:
    """Open the rings that another process has made; None if that cannot be."""
    memory = opened(process, file, 2 * _size())
    return None if memory is None else _rings(rank, memory, False)


def _rings(rank: int, memory: mmap.mmap, has_made: bool) -> Rings:
    first, second = np.frombuffer(memory, np.uint8).reshape(2, -1)
    to, of = (first, second) if has_made else (second, first)
    return Ring(rank, to, True), Ring(rank, of, False)


def _size() -> int:
    return 2 * ROW_BYTES + SLOTS * SLOT_BYTES
