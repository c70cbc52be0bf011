"""Constant fill at the speed of the memory bus.

An array that does not fit the caches is written past them, 32 bytes at a time; a plain loop would first read every
line.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numparam.kernels import threads
from numparam.kernels._compile import kernel
from numparam.kernels._lanes import stream_word

# Smaller arrays are better left in the caches, where the next operation finds them.
STREAM_FROM_BYTES = 4 << 20
_WORDS_PER_STORE = 4


@kernel("constant stream")
def _stream(out: Any, start: Any, stop: Any, word: Any) -> None:
    """Write `word` to ``out[start:stop]``; both bounds are multiples of four and the address of `out` of 32."""
    for at in range(start, stop, _WORDS_PER_STORE):
        stream_word(out, at, word)


def fill(out: np.ndarray[Any, Any], value: Any) -> None:
    """Write one value to every element.

    Parameters
    ----------
    out : ndarray
        C-contiguous and writable, of any dtype whose items are 1, 2, 4 or 8 bytes, or of another one at NumPy's speed.
    value : scalar
        Must be representable in the dtype of `out`.
    """
    if out.nbytes < STREAM_FROM_BYTES or out.itemsize not in (1, 2, 4, 8):
        out.fill(value)
        return
    flat = out.reshape(-1)
    item = np.asarray(value).astype(out.dtype).reshape(1)
    word = np.tile(item, 8 // out.itemsize).view(np.uint64)[0]
    head = -flat.ctypes.data % 32 // out.itemsize
    if head * out.itemsize != -flat.ctypes.data % 32:  # items that straddle every 32-byte line
        out.fill(value)
        return
    count = (flat.nbytes - head * out.itemsize) // 32 * 32 // out.itemsize
    flat[:head] = item
    flat[head + count :] = item
    words = flat[head : head + count].view(np.uint64)
    threads.run(lambda start, stop: _stream(words, start, stop, word), words.size, 8, _WORDS_PER_STORE)
