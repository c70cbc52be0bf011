"""Digests by CUDA threads: the formulas of the CPU, one part of a block of words a thread at a time.

Each thread keeps two numbers, which the host adds up.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from numparam.kernels.array import DeviceArray
from numparam.kernels.digest.formulas import added, folded, joined, weights
from numparam.kernels.digest.key import BLOCK, MODULUS, factors
from numparam.kernels.formula.axes import MAX_OUTER_AXES, OUTER, locate
from numparam.kernels.launch import geometry, launch
from numparam.kernels.machine import driver
from numparam.kernels.machine.compile import CudaKernel, formula
from numparam.kernels.machine.cuda import LAUNCH_LIMIT, holds, lane, load_item, store_item, thread, threads
from numparam.kernels.machine.lanes import select, widened

if TYPE_CHECKING:
    from numparam.kernels.digest.key import DigestKey
    from numparam.kernels.digest.words import Words

MOST_THREADS = 1 << 15
"""Of a launch, about: their numbers take 16 bytes each."""
_UNFOLDED = 64
"""Products of 32 and 25 bits that are added up before a sum is folded."""
_FACTOR = 4
_ROW = BLOCK * _FACTOR
_WORD32, _WORD64 = np.uint32(0), np.uint64(0)
_WORDS: dict[int, Any] = {1: np.uint8(0), 2: np.uint16(0), 4: _WORD32}


@cache
def _make_part(item_bytes: int) -> Any:
    """Make the formula that sums over consecutive words of one block."""
    item = _WORDS[item_bytes]

    @formula
    def part(address: Any, count: Any, keys: Any) -> Any:
        none = count ^ count
        a, b, c, d = none, none, none, none
        at = none
        while holds(at < count):
            stop = select(count - at < _UNFOLDED, count, at + _UNFOLDED)
            while holds(at < stop):
                word = widened(load_item(address + at * item_bytes, item))
                here = keys + at * _FACTOR
                a = added(a, word, widened(load_item(here, _WORD32)))
                b = added(b, word, widened(load_item(here + _ROW, _WORD32)))
                c = added(c, word, widened(load_item(here + 2 * _ROW, _WORD32)))
                d = added(d, word, widened(load_item(here + 3 * _ROW, _WORD32)))
                at = at + 1
            a, b, c, d = folded(a), folded(b), folded(c), folded(d)
        return a, b, c, d

    return part


@cache
def make_kernel(item_bytes: int) -> CudaKernel:
    """Make the kernel for rows of consecutive words: `places` locate them in memory, `indices` in the tensor."""
    part = _make_part(item_bytes)

    def digest(
        address: Any, places: Any, base: Any, indices: Any, rows: Any, length: Any, table: Any, seed: Any, stream: Any,
        out: Any,
    ) -> None:  # fmt: skip
        none = lane(_WORD64)
        found = (none, none)
        row = thread(1)
        while holds(row < rows):
            place, first = locate(row, places, lane(address)), locate(row, indices, lane(base))
            end = first + lane(length)
            block = first // BLOCK + widened(thread(0))
            while holds(block * BLOCK < end):
                start, stop = block * BLOCK, block * BLOCK + BLOCK
                start = select(start < first, first, start)
                stop = select(end < stop, end, stop)
                keys = lane(table) + (start & (BLOCK - 1)) * _FACTOR
                sums = part(place + (start - first) * item_bytes, stop - start, keys)
                found = joined(found, sums, weights(block, seed, stream))
                block = block + widened(threads(0))
            row = row + threads(1)
        number = widened(thread(1)) * widened(threads(0)) + widened(thread(0))
        store_item(lane(out) + number * 16, found[0], _WORD64)
        store_item(lane(out) + number * 16 + 8, found[1], _WORD64)

    word = types.uint64
    signature = (word, OUTER, word, OUTER, types.uint32, *[word] * 5)
    return CudaKernel(f"digest_{item_bytes}", digest, signature)


_tables: dict[tuple[DigestKey, int], DeviceArray] = {}


def digest_words(words: Words, key: DigestKey) -> tuple[int, int]:
    """Return the sums of the words; not yet reduced."""
    *outer, (length, step, byte_step) = words.axes
    if step != 1:  # each word is a row by itself
        outer, length = words.axes, 1
    rows = math.prod([count for count, _, _ in outer])
    if len(outer) > MAX_OUTER_AXES or rows > LAUNCH_LIMIT:  # rarely: several launches
        (count, step, byte_step), *rest = words.axes
        parts = [
            digest_words(
                words._replace(
                    address=words.address + at * byte_step, base=words.base + at * step, axes=rest or [(1, 1, 1)]
                ),
                key,
            )
            for at in range(count)
        ]
        return sum(first for first, _ in parts), sum(second for _, second in parts)
    device = words.array.device
    if (key, device) not in _tables:
        _tables[key, device] = DeviceArray.from_host(factors(key), device)
    padding = [(1, 0, 0)] * (MAX_OUTER_AXES - len(outer))
    counts, steps, byte_steps = zip(*padding, *outer, strict=True)
    columns = min(length // BLOCK + 2, MOST_THREADS)
    threads_down = min(rows, max(1, MOST_THREADS // columns))
    (grid_x, grid_y), (block_x, block_y) = geometry(columns, threads_down, driver.get_driver().multiprocessors(device))
    out = DeviceArray.empty((grid_x * grid_y * block_x * block_y, 2), np.dtype(np.uint64), device)
    arguments = (
        words.address, *counts, *byte_steps, words.base, *counts, *steps, rows, length, _tables[key, device].address,
        key.seed, key.weights, out.address,
    )  # fmt: skip
    launch(device, make_kernel(words.item_bytes), columns, threads_down, [word % 2**64 for word in arguments])
    found = out.to_host()
    upper, lower = (found >> np.uint64(32)).sum(0), (found & np.uint64(2**32 - 1)).sum(0)
    first, second = ((int(high) << 32) + int(low) for high, low in zip(upper, lower, strict=True))
    return first % MODULUS, second % MODULUS
