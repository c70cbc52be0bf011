"""The words of an array, as the loops of a digest take them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

WORD_BYTES = 4
"""Of a word; a longer element is several words, a shorter one a word by itself."""


class Words(NamedTuple):
    """Describe words in memory, and the place of each in the tensor."""

    address: int
    item_bytes: int
    base: int
    """The index of the first word."""
    axes: list[tuple[int, int, int]]
    """Length, step of the index in words, step of the address in bytes; the last axis has the least step of the index,
    which is 1 only if its words are consecutive in memory."""
    array: Any
    """What keeps the memory alive."""

    @property
    def size(self) -> int:
        """Count the words."""
        return math.prod([length for length, _, _ in self.axes])


def words_of(array: Any, base: int, steps: tuple[int, ...]) -> Words:
    """Split elements into words, and merge the axes that walk on both in memory and in the tensor."""
    count = max(1, array.dtype.itemsize // WORD_BYTES)
    axes: list[tuple[int, int, int]] = []
    for length, step, byte_step in (
        *zip(array.shape, [step * count for step in steps], array.strides, strict=True), (count, 1, WORD_BYTES)
    ):  # fmt: skip
        if length == 1:
            continue
        if axes and axes[-1][1:] == (length * step, length * byte_step):
            axes[-1] = axes[-1][0] * length, step, byte_step
        else:
            axes.append((length, step, byte_step))
    item_bytes = min(array.dtype.itemsize, WORD_BYTES)
    address = array.ctypes.data if isinstance(array, np.ndarray) else array.address
    return Words(address, item_bytes, base * count, axes or [(1, 1, item_bytes)], array)
