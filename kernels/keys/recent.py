"""The directory of a cache: which keys are in which of its rows, in the order of their last use."""

from __future__ import annotations

from typing import Any

import numpy as np

from numparam.kernels.keys.index import free_entries, look_ahead, probe, remove
from numparam.kernels.machine.compile import formula, kernel

Array = np.ndarray[Any, np.dtype[Any]]


@formula
def _unlink(links: Any, row: Any) -> None:
    before, after = links[row, 0], links[row, 1]
    links[before, 1] = after
    links[after, 0] = before


@formula
def _put_first(links: Any, row: Any) -> None:
    head = links.shape[0] - 1
    after = links[head, 1]
    links[row, 0], links[row, 1] = head, after
    links[head, 1] = row
    links[after, 0] = row


@kernel("use cached rows")
def _use(
    entries: Any,
    links: Any,
    keys_of: Any,
    used: Any,
    clock: Any,
    size: Any,
    keys: Any,
    rows: Any,
    missed: Any,
    left: Any,
) -> Any:
    """Return how many rows are taken, and how many of the keys missed and how many rows were taken from other keys."""
    mask, head, misses, evicted = entries.shape[0] - 1, links.shape[0] - 1, 0, 0
    for which in range(keys.size):  # all hits first: no key of this call takes the row of another
        look_ahead(entries, keys, which, keys.size, mask)
        row = entries[probe(entries, keys[which], mask), 1]
        rows[which] = row
        if row < 0:
            missed[misses] = which
            misses += 1
        elif used[row] != clock:
            used[row] = clock
            _unlink(links, row)
            _put_first(links, row)
    found, misses = misses, 0
    for place in range(found):
        which = missed[place]
        key = keys[which]
        at = probe(entries, key, mask)
        row = entries[at, 1]
        if row < 0:
            if size < head:
                row = size
                size += 1
            else:
                row = links[head, 0]
                if used[row] >= 0:
                    remove(entries, keys_of[row], mask)
                    left[evicted, 0], left[evicted, 1] = keys_of[row], row
                    evicted += 1
                    at = probe(entries, key, mask)  # what follows a removed entry may have moved
                _unlink(links, row)
            entries[at, 0], entries[at, 1] = key, row
            keys_of[row], used[row] = key, clock
            _put_first(links, row)
            missed[misses] = which
            misses += 1
        rows[which] = row
    return size, misses, evicted


@kernel("forget cached rows")
def _forget(entries: Any, links: Any, used: Any, keys: Any) -> None:
    head = links.shape[0] - 1
    for which in range(keys.size):
        row = remove(entries, keys[which], entries.shape[0] - 1)
        if row >= 0:
            _unlink(links, row)
            used[row] = -1
            before = links[head, 0]  # the row is the next to be taken
            links[row, 0], links[row, 1] = before, head
            links[before, 1] = row
            links[head, 0] = row


@kernel("find cached rows")
def _find(entries: Any, keys: Any, rows: Any) -> None:
    for which in range(keys.size):
        look_ahead(entries, keys, which, keys.size, entries.shape[0] - 1)
        rows[which] = entries[probe(entries, keys[which], entries.shape[0] - 1), 1]


class Recent:
    """Give keys rows of a cache; when all are taken, the row whose key was used least recently.

    Parameters
    ----------
    size : int
        The number of rows.

    Examples
    --------
    >>> cache = Recent(2)
    >>> cache.use(np.array([5, 6, 5]))[1:]
    (array([0, 1]), array([], shape=(0, 2), dtype=int64))
    >>> cache.use(np.array([5, 7]))
    (array([0, 1]), array([1]), array([[6, 1]]))
    """

    def __init__(self, size: int) -> None:
        self.size, self.taken, self._clock = size, 0, 0
        self._entries = free_entries(size)
        self._links = np.full((size + 1, 2), size, np.int64)  # a ring of rows, whose head is behind the last
        self.keys, self._used = np.empty(size, np.int64), np.full(size, -1, np.int64)

    def use(self, keys: Array) -> tuple[Array, Array, Array]:
        """Return the rows of keys, of which at most `size` are different.

        Returns
        -------
        rows : ndarray of int64
        missed : ndarray of int64
            Where the keys are that had no row, each once.
        left : ndarray of int64, shape (n, 2)
            The keys that lost their rows, and these rows.
        """
        self._clock += 1
        rows, missed, left = (np.empty((keys.size, *rest), np.int64) for rest in ((), (), (2,)))
        self.taken, misses, evicted = _use(
            self._entries, self._links, self.keys, self._used, self._clock, self.taken, keys, rows, missed, left
        )
        return rows, missed[:misses], left[:evicted]

    def find(self, keys: Array) -> Array:
        """Return the rows of keys, -1 where there is none, without using them."""
        rows = np.empty(keys.size, np.int64)
        _find(self._entries, keys, rows)
        return rows

    def forget(self, keys: Array) -> None:
        """Free the rows of keys."""
        _forget(self._entries, self._links, self._used, keys)
