"""A hash index from int64 keys to int64 numbers: open addressing, linear probing, deletion by shifting back.

An entry is a pair (key, number) in one cache line; the number -1 marks a free one. Above the 32 bits of a number is a
mark, by which `Index.distinct` knows the keys that it has seen in one call. Lookups ask for lines some keys ahead: in
an index beyond the caches they take a third of the time.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.memory import prefetch

Array = np.ndarray[Any, np.dtype[Any]]

_AHEAD = 32  # 65,536 keys that are in no cache take 0.7 ms, and 1.0 with 12
_LEAST = 64
_MOST_NUMBERS = 2**31 - 1
_BYTES_PER_LOOKUP = 64  # a line of memory, for the division of work among threads


@formula
def home(key: Any, mask: Any) -> Any:
    """Return where the probes for a key begin, by the finaliser of MurmurHash3 (Appleby)."""
    x = np.uint64(key)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return np.int64((x ^ (x >> np.uint64(33))) & np.uint64(mask))


@formula
def probe(entries: Any, key: Any, mask: Any) -> Any:
    """Return the place of a key, or the free one where it would be."""
    at = home(key, mask)
    while entries[at, 1] >= 0 and entries[at, 0] != key:
        at = (at + 1) & mask
    return at


@formula
def unmarked(number: Any) -> Any:
    """Return a number without its mark; -1 stays."""
    return np.int64(np.int32(number))


@formula
def remove(entries: Any, key: Any, mask: Any) -> Any:
    """Remove a key and return its number, -1 if it is not there; the entries behind it move up."""
    at = probe(entries, key, mask)
    number = entries[at, 1]
    if number >= 0:
        following = (at + 1) & mask
        while entries[following, 1] >= 0:
            start = home(entries[following, 0], mask)
            if ((following - start) & mask) >= ((following - at) & mask):
                entries[at, 0], entries[at, 1] = entries[following, 0], entries[following, 1]
                at = following
            following = (following + 1) & mask
        entries[at, 1] = -1
    return number


@formula
def look_ahead(entries: Any, keys: Any, which: Any, stop: Any, mask: Any) -> None:
    """Ask for the line of a key that comes later."""
    prefetch(entries.ctypes.data + 16 * home(keys[min(which + _AHEAD, stop - 1)], mask))


@kernel("find keys")
def _find(entries: Any, keys: Any, numbers: Any, start: Any, stop: Any) -> None:
    mask = entries.shape[0] - 1
    for which in range(start, stop):
        look_ahead(entries, keys, which, stop, mask)
        numbers[which] = unmarked(entries[probe(entries, keys[which], mask), 1])


@kernel("insert keys")
def _insert(entries: Any, keys: Any, given: Any, numbers: Any, fresh: Any) -> Any:
    """Return how many keys were new; ``given[i]`` becomes the number of the i-th of them."""
    mask, count = entries.shape[0] - 1, 0
    for which in range(keys.size):
        look_ahead(entries, keys, which, keys.size, mask)
        at = probe(entries, keys[which], mask)
        if entries[at, 1] < 0:
            entries[at, 0], entries[at, 1] = keys[which], given[count]
            fresh[count] = which
            count += 1
        numbers[which] = unmarked(entries[at, 1])
    return count


@kernel("distinct keys")
def _distinct(numbers: Any, keys: Any, base: Any, mask: Any, which: Any, first: Any) -> Any:
    """Return how many keys are distinct; numbers below `base` are of earlier calls."""
    count = 0
    for place in range(keys.size):
        later = keys[min(place + _AHEAD, keys.size - 1)]
        prefetch(numbers.ctypes.data + numbers.itemsize * home(later, mask))
        key = keys[place]
        at = home(key, mask)
        number = np.int64(numbers[at]) - base
        while number >= 0 and keys[first[number]] != key:
            at = (at + 1) & mask
            number = np.int64(numbers[at]) - base
        if number < 0:
            numbers[at], first[count], number = base + count, place, count
            count += 1
        which[place] = number
    return count


@kernel("find distinct keys")
def _find_distinct(entries: Any, keys: Any, base: Any, first: Any, which: Any, numbers: Any) -> Any:
    """Return how many keys are distinct, -1 as soon as one is not there; marks below `base` are of earlier calls."""
    mask, count = entries.shape[0] - 1, 0
    for place in range(keys.size):
        look_ahead(entries, keys, place, keys.size, mask)
        at = probe(entries, keys[place], mask)
        entry = entries[at, 1]
        if entry < 0:
            return -1
        seen = (entry >> 32) - base
        if seen < 0:
            entries[at, 1] = ((base + count) << 32) | (entry & 0xFFFFFFFF)
            first[count], numbers[count], seen = place, unmarked(entry), count
            count += 1
        which[place] = seen
    return count


@kernel("remove keys")
def _remove(entries: Any, keys: Any, numbers: Any) -> None:
    for which in range(keys.size):
        numbers[which] = unmarked(remove(entries, keys[which], entries.shape[0] - 1))


@kernel("remove marks of keys")
def _unmark(entries: Any) -> None:
    for at in range(entries.shape[0]):
        entries[at, 1] = unmarked(entries[at, 1])


@kernel("rehash keys")
def _rehash(old: Any, new: Any) -> None:
    for which in range(old.shape[0]):
        if old[which, 1] >= 0:
            at = probe(new, old[which, 0], new.shape[0] - 1)
            new[at, 0], new[at, 1] = old[which, 0], old[which, 1]


def free_entries(room: int) -> Array:
    """Return free entries for `room` keys, at most half of which are ever taken."""
    entries = np.empty((1 << max(_LEAST, 2 * room - 1).bit_length(), 2), np.int64)
    entries[:, 1] = -1
    return entries


class Index:
    """Map distinct keys to numbers from 0 to 2**31 - 1.

    Examples
    --------
    >>> index = Index()
    >>> index.insert(np.array([7, -3, 7]), np.arange(3))
    (array([0, 1, 0]), array([0, 1]))
    >>> index.find(np.array([-3, 8])), len(index)
    (array([ 1, -1]), 2)
    """

    def __init__(self, room: int = 0) -> None:
        self.entries, self._size, self._base = free_entries(room), 0, 1

    def __len__(self) -> int:
        return self._size

    def find(self, keys: Array) -> Array:
        """Return the numbers of keys, -1 where there is none."""
        numbers, entries = np.empty(keys.size, np.int64), self.entries
        pool.run(lambda start, stop: _find(entries, keys, numbers, start, stop), keys.size, _BYTES_PER_LOOKUP, 1)
        return numbers

    def distinct(self, keys: Array) -> tuple[Array, Array, Array]:
        """Return what `distinct` does and the numbers of the distinct keys, by one probe for each if all are there."""
        first, which, numbers = (np.empty(keys.size, np.int64) for _ in range(3))
        if self._base + keys.size > _MOST_NUMBERS:
            _unmark(self.entries)
            self._base = 1
        base, self._base = self._base, self._base + keys.size  # first: an interrupted call may leave any of its marks
        count = _find_distinct(self.entries, keys, base, first, which, numbers)
        if count < 0:
            first, which = distinct(keys)
            return first, which, self.find(keys[first])
        return first[:count], which, numbers[:count]

    def insert(self, keys: Array, given: Array) -> tuple[Array, Array]:
        """Give the keys that are new the next of the `given` numbers.

        Returns
        -------
        numbers : ndarray of int64
            Of all keys.
        fresh : ndarray of int64
            Where the new keys are among all, each once.
        """
        if 2 * (self._size + keys.size) > len(self.entries):
            larger = free_entries(2 * (self._size + keys.size))
            _rehash(self.entries, larger)
            self.entries = larger
        numbers, fresh = np.empty(keys.size, np.int64), np.empty(keys.size, np.int64)
        count = _insert(self.entries, keys, given, numbers, fresh)
        self._size += count
        return numbers, fresh[:count]

    def remove(self, keys: Array) -> Array:
        """Remove keys and return the numbers that they had, -1 where there was none."""
        numbers = np.empty(keys.size, np.int64)
        _remove(self.entries, keys, numbers)
        self._size -= int((numbers >= 0).sum())
        return numbers

    def items(self) -> tuple[Array, Array]:
        """Return all keys and their numbers, in no order."""
        taken = self.entries[self.entries[:, 1] >= 0]
        return taken[:, 0], taken[:, 1].astype(np.int32).astype(np.int64)


class _Scratch(threading.local):
    """Numbers that the calls of a thread share: they rise from call to call, so nothing is cleared between them."""

    numbers, base = np.empty(0, np.int32), 0


_scratch = _Scratch()
_MOST_KEPT = 1 << 23


def distinct(keys: Array) -> tuple[Array, Array]:
    """Return where distinct keys appear first, and for each key which of them it is.

    Examples
    --------
    >>> distinct(np.array([5, 9, 5, 2]))
    (array([0, 1, 3]), array([0, 1, 0, 2]))
    """
    first, which = np.empty(keys.size, np.int64), np.empty(keys.size, np.int64)
    room = 1 << (_LEAST + 4 * keys.size).bit_length()  # an eighth or a quarter is taken: half takes twice as long
    numbers, base = _scratch.numbers, _scratch.base
    if len(numbers) < room or base + keys.size > _MOST_NUMBERS:
        numbers, base = np.full(room, -1, np.int32 if keys.size < _MOST_NUMBERS else np.int64), 0
        if room <= _MOST_KEPT:
            _scratch.numbers = numbers
    if room <= _MOST_KEPT:  # first: an interrupted call may leave any of its numbers
        _scratch.base = base + keys.size
    return first[: _distinct(numbers, keys, base, room - 1, which, first)], which
