"""Constant fill at the speed of the memory bus.

On a CPU an array that does not fit the caches is written past them, 32 bytes at a time; a plain loop would first read
every line. A CUDA thread writes lines of 16 bytes, of any dtype.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from numparam.kernels import threads
from numparam.kernels._compile import CudaKernel, formula, kernel
from numparam.kernels._cuda import holds, lane, load_u64, store_item, store_line, thread
from numparam.kernels._cuda import threads as cuda_threads
from numparam.kernels._dispatch import kind
from numparam.kernels._lanes import low_word, select, stream_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from numparam.kernels.device_array import DeviceArray

# Smaller arrays are better left in the caches, where the next operation finds them.
STREAM_FROM_BYTES = 4 << 20
_WORDS_PER_STORE = 4


@kernel("constant stream")
def _stream(out: Any, start: Any, stop: Any, word: Any) -> None:
    """Write `word` to ``out[start:stop]``; both bounds are multiples of four and the address of `out` of 32."""
    for at in range(start, stop, _WORDS_PER_STORE):
        stream_word(out, at, word)


_BYTE, _WORD = np.uint8(0), np.uint64(0)


@formula
def _write(address: Any, nbytes: Any, low: Any, high: Any, first: Any, step: Any) -> None:
    """Write this thread's share of `nbytes` bytes; memory's lines of 16 bytes hold the words `low` and `high`."""
    before = address & 15  # bytes of the first line that are not ours
    lines = (nbytes + before + 15) // 16
    at = first
    while holds(at < lines):
        start = at * 16 - before
        if holds((start < nbytes) & (nbytes - start >= 16)):
            store_line(address + start, (low, high), _WORD)
        else:
            for k in range(16):
                if holds(start + k < nbytes):
                    byte = low_word(select(lane(np.uint64(k)) < 8, low, high) >> (8 * (k % 8)))
                    store_item(address + (start + k), byte, _BYTE)
        at = at + step


def _constant(address: Any, nbytes: Any, low: Any, high: Any) -> None:
    _write(lane(address), lane(nbytes), lane(low), lane(high), thread(0), cuda_threads(0))


def _constants(descriptors: Any, rows: Any) -> None:
    at = thread(1)
    while holds(at < rows):
        start = lane(descriptors) + at * 32
        low, high = load_u64(start + 16), load_u64(start + 24)
        _write(load_u64(start), load_u64(start + 8), low, high, thread(0), cuda_threads(0))
        at = at + cuda_threads(1)


@cache
def make_constant() -> CudaKernel:
    """Make the kernel for constants of every dtype."""
    return CudaKernel("constant", _constant, (types.uint64,) * 4)


@cache
def make_table() -> CudaKernel:
    """Make the kernel for many arrays: row `i` is what the `i`-th descriptor says."""
    return CudaKernel("constant_table", _constants, (types.uint64,) * 2)


def fill(out: Any, value: Any) -> None:
    """Write one value to every element.

    Parameters
    ----------
    out : ndarray or DeviceArray
        C-contiguous and writable. On a CPU of any dtype: one whose items are not of 1, 2, 4 or 8 bytes goes at NumPy's
        speed. On a device its items have 1, 2, 4, 8 or 16 bytes.
    value : scalar
        Must be representable in the dtype of `out`.
    """
    _TWINS[kind(out)](out, value)


def _fill_cpu(out: np.ndarray[Any, Any], value: Any) -> None:
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


def _fill_cuda(out: DeviceArray, value: Any) -> None:
    from numparam.kernels import _launch
    from numparam.kernels.batch import waiting

    if not out.size:
        return
    pattern = np.tile(np.asarray(value).astype(out.dtype).reshape(1), 16 // out.itemsize).view(np.uint64)
    # The pattern lies on lines of 16 bytes, and an item of 16 bytes may begin in the middle of one.
    low, high = np.roll(pattern, out.address % 16 // 8).tolist()
    row = out.address, out.nbytes, low, high
    if batch := waiting(out):
        batch.add(make_table(), out, [row])
    else:
        _launch.launch(out.device, make_constant(), -(-out.nbytes // 16) + 1, 1, row)


_TWINS: dict[str, Callable[[Any, Any], None]] = {"cpu": _fill_cpu, "cuda": _fill_cuda}
