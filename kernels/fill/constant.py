"""Constant fill at the speed of the memory bus.

On a CPU an array that does not fit the caches is written past them, 32 bytes at a time; a plain loop would first read
every line. A CUDA thread writes lines of 16 bytes, of any dtype.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from numparam.kernels.dispatch import kind
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import CudaKernel, formula, kernel
from numparam.kernels.machine.cuda import LAUNCH_LIMIT, holds, lane, load_item, store_item, store_line, thread
from numparam.kernels.machine.cuda import threads as cuda_threads
from numparam.kernels.machine.lanes import low_word, select, widened
from numparam.kernels.machine.memory import items_at, stream_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from numparam.kernels.array import DeviceArray
    from numparam.kernels.batch import Arrays

# Smaller arrays are better left in the caches, where the next operation finds them.
STREAM_FROM_BYTES = 4 << 20
_WORDS_PER_STORE = 4


@kernel("constant stream")
def _stream(out: Any, start: Any, stop: Any, word: Any) -> None:
    """Write `word` to ``out[start:stop]``; both bounds are multiples of four and the address of `out` of 32."""
    for at in range(start, stop, _WORDS_PER_STORE):
        stream_word(out, at, word)


@cache
def _make_many(item: np.dtype[Any]) -> Any:
    array = items_at(item)

    @kernel(f"constant many {item}")
    def many(addresses: Any, start: Any, stop: Any, size: Any, value: Any) -> None:
        for place in range(start, stop):
            array(addresses[place], size)[:] = value

    return many


_BYTE, _WORD = np.uint8(0), np.uint64(0)


@formula
def _write(address: Any, nbytes: Any, low: Any, high: Any) -> None:
    """Write this thread's share of `nbytes` bytes; memory's lines of 16 bytes hold the words `low` and `high`."""
    head = (0 - address) & 15  # bytes before the first whole line
    head = select(head < nbytes, head, nbytes)
    lines, step = low_word((nbytes - head) // 16), cuda_threads(0)
    at = thread(0)
    while holds(at < lines):
        store_line(address + head + widened(at) * 16, (low, high), _WORD)
        at = at + step
    place, inner = widened(thread(0)), widened(lines) * 16
    while holds(place < nbytes - inner):  # the bytes before and after the lines
        byte = address + select(place < head, place, place + inner)
        store_item(byte, low_word(select((byte & 8) == 0, low, high) >> ((byte & 7) * 8)), _BYTE)
        place = place + widened(step)


def _constant(address: Any, nbytes: Any, low: Any, high: Any) -> None:
    _write(lane(address), lane(nbytes), lane(low), lane(high))


def _constants(descriptors: Any, rows: Any) -> None:
    at = thread(1)
    while holds(at < rows):
        start = lane(descriptors) + widened(at) * 32
        low, high = load_item(start + 16, _WORD), load_item(start + 24, _WORD)
        _write(load_item(start, _WORD), load_item(start + 8, _WORD), low, high)
        at = at + cuda_threads(1)


@cache
def make_constant() -> CudaKernel:
    """Make the kernel for constants of every dtype."""
    return CudaKernel("constant", _constant, (types.uint64,) * 4)


@cache
def make_table() -> CudaKernel:
    """Make the kernel for many arrays: row `i` follows the `i`-th descriptor."""
    return CudaKernel("constant_table", _constants, (types.uint64, types.uint32))


def fill(out: Any, value: Any) -> None:
    """Write one value, representable in the dtype, to every element of a C-contiguous array.

    On a CPU the dtype is any; items of other than 1, 2, 4 or 8 bytes are written by NumPy. On a device items have 1, 2,
    4, 8 or 16 bytes.
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
    pool.run(lambda start, stop: _stream(words, start, stop, word), words.size, 8, _WORDS_PER_STORE)


def _fill_many(out: Arrays, value: Any) -> None:
    bits = np.asarray(value).astype(out.dtype).reshape(1).view(f"u{out.dtype.itemsize}")
    loop, size = _make_many(bits.dtype), np.int64(out.size)
    pool.run(
        lambda start, stop: loop(out.addresses, start, stop, size, bits[0]),
        len(out.addresses),
        out.size * out.dtype.itemsize,
        1,
    )


def _fill_cuda(out: DeviceArray, value: Any) -> None:
    from numparam.kernels.batch import waiting
    from numparam.kernels.launch import launch

    out = out.ravel()
    if not out.size:
        return
    pattern = np.asarray(value).astype(out.dtype).tobytes() * (16 // out.itemsize)
    # The pattern lies on lines of 16 bytes, and an item of 16 bytes may begin in the middle of one.
    halves = pattern[:8], pattern[8:]
    low, high = [int.from_bytes(half, sys.byteorder) for half in halves[:: 1 if out.address % 16 < 8 else -1]]
    if batch := waiting(out):
        batch.add(make_table(), out, [(out.address, out.nbytes, low, high)])
        return
    for start in range(0, out.nbytes, 16 * LAUNCH_LIMIT):
        nbytes = min(out.nbytes - start, 16 * LAUNCH_LIMIT)
        words = out.address + start, nbytes, low, high
        launch(out.device, make_constant(), -(-nbytes // 16) + 1, 1, words)


_TWINS: dict[str, Callable[[Any, Any], None]] = {"cpu": _fill_cpu, "many": _fill_many, "cuda": _fill_cuda}
