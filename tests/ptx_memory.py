"""The memory of a launch in the PTX interpreter, which sees the accesses that no kernel may do.

It is made of NumPy arrays at their own addresses. A store must be aligned, lie inside one of the arrays that the
launch was given, and be the only one to its bytes. In the memory of a block no thread may meet what another one wrote,
or write what another one read, without a barrier between, and the threads of a warp must meet different banks.
"""

from __future__ import annotations

from bisect import bisect_right
from types import SimpleNamespace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class PtxError(Exception):
    """Report PTX that is not allowed, or a launch that does what no kernel may do."""


class Memory:
    """Arrays that a launch may read and write."""

    def __init__(self, *arrays: Array) -> None:
        self._arrays = [array for array in arrays if array.nbytes] or [np.zeros(1, np.uint8)]
        assert all(array.flags.c_contiguous for array in arrays)
        places = sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in self._arrays)
        self._starts, self._ends = [start for start, _ in places], [end for _, end in places]
        # All memory from the first array to the last, of which nothing but the arrays is touched, by their addresses.
        self._origin = self._starts[0] // 16 * 16
        size = -(-self._ends[-1] // 16) * 16 - self._origin
        interface = {"data": (self._origin, False), "shape": (size,), "typestr": "|u1", "version": 3}
        self._bytes: Array = np.asarray(SimpleNamespace(__array_interface__=interface))
        # Marks of the bytes that were written, the arrays side by side.
        lines = np.array([(start // 16, -(-end // 16)) for start, end in places]) * 16
        ends = np.cumsum(lines[:, 1] - lines[:, 0])
        self._shifts = ends - lines[:, 1]  # from an address to its mark
        self._written = np.zeros(ends[-1], np.uint8)

    def _find(self, addresses: Array, size: int) -> tuple[Any, Array]:
        """Return the arrays that accesses lie in, and their places in all memory in units of their size."""
        if (addresses & np.uint64(size - 1)).any():
            raise PtxError(f"an access of {size} bytes is not aligned")
        low, high = int(addresses.min()), int(addresses.max())
        found: Any = bisect_right(self._starts, low) - 1
        if found < 0 or high + size > self._ends[found]:
            found = np.searchsorted(np.array(self._starts, np.uint64), addresses, side="right") - 1
            last = np.array(self._ends, np.uint64)[found] - np.uint64(size)
            outside = np.atleast_1d((found < 0) | (addresses > last))
            if outside.any():
                address = int(np.atleast_1d(addresses)[outside][0])
                raise PtxError(f"an access of {size} bytes at {address:#x} is outside every array")
        return found, (addresses.astype(np.int64) - self._origin) // size

    def load(self, addresses: Array, kind: type[np.generic], count: int = 1) -> Any:
        """Return the values at addresses, or `count` values side by side of each."""
        _, at = self._find(addresses, np.dtype(kind).itemsize * count)
        items = self._bytes.view(kind)
        return items[at] if count == 1 else np.ascontiguousarray(items.reshape(-1, count)[at].T)

    def store(self, addresses: Array, rows: Array) -> None:
        """Write rows of values to addresses."""
        size, count = rows[0].nbytes, rows.shape[1]
        found, at = self._find(addresses, size)
        marks = self._written.view(f"u{min(size, 8)}").reshape(-1, max(size // 8, 1))
        marked = (addresses.astype(np.int64) + self._shifts[found]) // size
        alone = (at[1:] > at[:-1]).all() or np.unique(at).size == at.size
        if not alone or marks[marked].any():
            raise PtxError("a byte is written twice")
        marks[marked] = np.iinfo(marks.dtype).max
        self._bytes.view(rows.dtype).reshape(-1, count)[at] = rows


class Shared:
    """The memory that each block has for its threads, which have `places` in their blocks."""

    def __init__(self, blocks: Array, places: Array, nbytes: int) -> None:
        self.places = places
        self._threads, self._blocks, self._warps = np.arange(blocks.size), blocks, blocks * 64 + places // 32
        shape = int(blocks.max()) + 1, nbytes
        self._data, self._written = np.zeros(shape, np.uint8), np.zeros(shape, np.bool_)
        # Who wrote and read each byte since the last barrier: a thread, nobody (-1) or several (-2).
        self._writers, self._readers = np.full(shape, -1), np.full(shape, -1)

    def _find(self, active: Any, addresses: Array, size: int) -> tuple[Array, Array, Array]:
        """Return for each access its thread, and rows and columns of its bytes."""
        at = np.broadcast_to(addresses.astype(np.int64), self._threads[active].shape)
        if np.any(at % size) or np.any((at < 0) | (at + size > self._data.shape[1])):
            raise PtxError(f"an access of {size} bytes to the memory of a block is outside or not aligned")
        self._check_banks(active, at, size)
        return self._threads[active][:, None], self._blocks[active][:, None], at[:, None] + np.arange(size)

    def _check_banks(self, active: Any, at: Array, size: int) -> None:
        """Threads that are served together, a warp's or for 8 bytes half of one, meet each bank in one word."""
        together = self._warps[active] if size < 8 else self._warps[active] * 2 + self.places[active] % 32 // 16
        words = np.unique(together * (1 << 32) + at // 4)
        _, counts = np.unique((words >> 32) * 32 + words % 32, return_counts=True)
        if counts.max() > 1:
            raise PtxError(f"{counts.max()} words of one bank are met at once")

    def load(self, active: Any, addresses: Array, kind: type[np.generic]) -> Array:
        """Return the values at addresses."""
        threads, blocks, at = self._find(active, addresses, np.dtype(kind).itemsize)
        if not self._written[blocks, at].all():
            raise PtxError("the memory of a block is read before it is written")
        if np.any((self._writers[blocks, at] != -1) & (self._writers[blocks, at] != threads)):
            raise PtxError("what another thread wrote is read without a barrier")
        alone = (self._readers[blocks, at] == -1) | (self._readers[blocks, at] == threads)
        self._readers[blocks, at] = np.where(alone, threads, -2)
        return np.ascontiguousarray(self._data[blocks, at]).view(kind).reshape(-1)

    def store(self, active: Any, addresses: Array, values: Array) -> None:
        """Write values to addresses."""
        values = np.broadcast_to(values, self._threads[active].shape)
        threads, blocks, at = self._find(active, addresses, values.itemsize)
        for seen in (self._writers, self._readers):
            if np.any((seen[blocks, at] != -1) & (seen[blocks, at] != threads)):
                raise PtxError("what another thread wrote or read is written without a barrier")
        self._data[blocks, at] = np.ascontiguousarray(values)[:, None].view(np.uint8)
        self._writers[blocks, at], self._written[blocks, at] = threads, True
        if np.any(self._writers[blocks, at] != threads):
            raise PtxError("a byte of a block's memory is written by two threads at once")

    def release(self, waiting: Array, place: Array) -> None:
        """Let threads that wait at a barrier go on."""
        for block in np.unique(self._blocks[waiting]):
            own = self._blocks == block
            if not waiting[own].all() or np.unique(place[own]).size > 1:
                raise PtxError("a barrier is not met by all threads of a block")
            self._writers[block] = self._readers[block] = -1
