"""Memory that the ranks of a group share when all are on one machine: they meet there without messages.

A rank has a mark there, which tells the others how far it is, and two slots for values. What it writes for a meeting
lies in one slot, and may be read from then on until the reader comes to the next meeting; values for that lie in the
other slot. Nobody can come to the meeting after it before all have, so no slot is written while somebody reads it.

The memory has no name: the first rank makes it, and the others open it as a file of that process. It ends with them.
"""

from __future__ import annotations

import math
import mmap
import os
import time
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import numpy as np

from numparam.communication.exchange import failed, gather, guarded, silent, world
from numparam.communication.group import Group, named
from numparam.communication.shared import opened, shared_memory
from numparam.errors import DisagreementError
from numparam.kernels.meeting import HAS_MEETINGS, MET, NUMBERS, ROW_BYTES, SPARE_ROWS, WAITING, meet

Array = np.ndarray[Any, np.dtype[Any]]

SLOT_BYTES = 1 << 20
# Looks at the gate, and further ones before each of which others run, until a rank sleeps. Two ranks that come together
# meet in 3 us, but in 40 to 100 us if one sleeps. Where ranks share cores it had better do so soon: 32 ranks on 2 cores
# met in 1.5 ms if they slept at once, else in 3.7 ms (100 further looks) and 11 ms (1000).
_LOOKS, _LOOKS_ON_SHARED_CORES = (5000, 1000), (100, 100)
_MOST_ROWS = 64  # that are kept: to make them takes longer than to meet
_IN_STEP = 0, 0  # the purpose of a meeting in the middle of an operation


class Memory:
    """Hold the marks and slots of a group, of which this process is one rank."""

    def __init__(self, mapping: mmap.mmap, group: Group) -> None:
        self._marks = np.frombuffer(mapping, np.int64, ROW_BYTES // 8 * group.size).reshape(group.size, -1)
        slots = np.frombuffer(mapping, np.uint8, offset=ROW_BYTES * (group.size + SPARE_ROWS))
        self._slots = slots.reshape(2, group.size, SLOT_BYTES)
        self._rows: dict[tuple[int, tuple[int, ...], np.dtype[Any]], list[Array]] = {}
        looks = _LOOKS if world.has_cores else _LOOKS_ON_SHARED_CORES
        # Compiled for these types it is called in a half of the time; the others wait for the first rank to compile it.
        self._state = partial(meet.compile(NUMBERS), self._marks.ctypes.data, group.size, group.rank, *looks)
        self._number, self._purpose = 0, _IN_STEP

    def rows(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[Array]:
        """Return the beginnings of the next slots of all ranks as arrays, in their order."""
        key = self._number & 1, shape, dtype
        found = self._rows.get(key)
        if found is None:
            if len(self._rows) == _MOST_ROWS:
                self._rows.clear()
            rows = self._slots[key[0], :, : math.prod(shape) * dtype.itemsize].view(dtype)
            found = self._rows[key] = [row.reshape(shape) for row in rows]
        return found

    def meet(self, purpose: tuple[int, int]) -> int:
        """Come to the next meeting, and return its state as `look` does."""
        self._number, self._purpose = number, (first, second) = self._number + 1, purpose
        state: int = self._state(number, first, second, 1)
        return state

    def look(self) -> int:
        """Wait for at most a hundredth of a second; return MET, DIFFERENT purposes, or WAITING."""
        state: int = self._state(self._number, *self._purpose, 0)
        return state

    def late(self) -> list[int]:
        """Return the ranks in the group that have not come, or came for something else."""
        place = 1 + 2 * (self._number & 1)
        others = (self._marks[:, place : place + 2] != self._purpose).any(1)
        return np.flatnonzero(others | (self._marks[:, 0] < self._number)).tolist()


def of_members(group: Group, operation: str) -> Memory | Literal[False]:
    """Make or open the memory of a group whose members have arrived at an operation; False if some cannot."""
    processes = world.watched.processes
    if not HAS_MEETINGS or not {*group.ranks} <= processes.keys():
        return False
    size = ROW_BYTES * (group.size + SPARE_ROWS) + 2 * SLOT_BYTES * group.size
    number, memory, file = np.array([-1]), None, -1
    with suppress(OSError):
        if group.rank == 0 and (made := shared_memory(size)):
            mapping, file = made
            memory, number[0] = Memory(mapping, group), file
    first = int(gather(group, operation, number)[0, 0])
    with suppress(OSError):
        if group.rank and first >= 0 and (found := opened(processes[group.ranks[0]], first, size)):
            memory = Memory(found, group)
    all_have_it = gather(group, operation, np.array([memory is not None])).all()
    if file >= 0:
        os.close(file)
    return memory if memory and all_have_it else False


def meet_again(group: Group, operation: str) -> None:
    """Meet in the middle of an operation, which all members have reached."""
    memory: Memory = group.memory

    def state() -> int:
        start, found = time.monotonic(), memory.meet(_IN_STEP)
        while found == WAITING and time.monotonic() - start < world.timeout:
            found = memory.look()
        return found

    if (found := guarded(group, operation, state)) != MET:
        late = [group.ranks[rank] for rank in memory.late()]
        if found == WAITING:
            raise silent(group, operation, late, "which all ranks had reached")
        raise failed(
            group,
            DisagreementError(
                f"{named(late)} left operation {group.operations}{group} ({operation}), which all ranks had reached; "
                "after an exception in an operation, end the job"
            ),
        )
