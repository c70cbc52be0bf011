"""A set of row numbers as bits of a large array, which may be the mapping of a file with holes."""

from __future__ import annotations

from typing import Any

import numpy as np

from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import kernel

Array = np.ndarray[Any, np.dtype[Any]]

_BYTES_PER_LOOKUP = 64


@kernel("test bits")
def _find(bits: Any, keys: Any, numbers: Any, start: Any, stop: Any) -> None:
    for which in range(start, stop):
        key = keys[which]
        numbers[which] = key if (bits[key >> 3] >> np.uint8(key & 7)) & np.uint8(1) else -1


@kernel("change bits")
def _change(bits: Any, keys: Any, value: Any, changed: Any) -> Any:
    count = 0
    for which in range(keys.size):
        at, bit = keys[which] >> 3, np.uint8(1 << (keys[which] & 7))
        if ((bits[at] & bit) != 0) != value:
            bits[at] ^= bit
            changed[count] = which
            count += 1
    return count


@kernel("list bits")
def _list(bits: Any, first: Any, out: Any) -> Any:
    count = 0
    for at in range(bits.size):
        if bits[at]:
            for bit in range(8):
                if bits[at] >> np.uint8(bit) & np.uint8(1):
                    out[count] = first + 8 * at + bit
                    count += 1
    return count


class Bitmap:
    """A set of numbers from 0 to ``8 * bits.size - 1``, kept in an array of uint8.

    Examples
    --------
    >>> members = Bitmap(np.zeros(8, np.uint8))
    >>> members.add(np.array([9, 60, 9])), members.find(np.array([60, 61]))
    (array([0, 1]), array([60, -1]))
    """

    def __init__(self, bits: Array) -> None:
        self.bits = bits

    def find(self, keys: Array) -> Array:
        """Return the keys themselves, and -1 for those that are not in the set."""
        numbers, bits = np.empty(keys.size, np.int64), self.bits
        pool.run(lambda start, stop: _find(bits, keys, numbers, start, stop), keys.size, _BYTES_PER_LOOKUP, 1)
        return numbers

    def add(self, keys: Array) -> Array:
        """Add keys, and return where the new ones are among them, each once."""
        return self._changed(keys, True)

    def remove(self, keys: Array) -> Array:
        """Remove keys, and return where the ones that were there are, each once."""
        return self._changed(keys, False)

    def _changed(self, keys: Array, value: bool) -> Array:
        changed = np.empty(keys.size, np.int64)
        return changed[: _change(self.bits, keys, value, changed)]

    def members(self, first: int, last: int) -> Array:
        """Return the keys in the bytes from `first` to `last` of the array, in ascending order."""
        part = self.bits[first:last]
        out = np.empty(int(np.bitwise_count(part).sum()), np.int64)
        _list(part, 8 * first, out)
        return out
