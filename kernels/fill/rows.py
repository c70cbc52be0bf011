"""Random fill of the rows of a table on a CPU: rows with any keys, each a tile or several."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.fill.cpu import START, TILE, _words, make_tile, scalars
from numparam.kernels.fill.draws import STORAGE
from numparam.kernels.fill.key import first_index
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.lanes import WIDTH
from numparam.kernels.machine.memory import counters

if TYPE_CHECKING:
    from numparam.kernels.fill.key import Key, Rows

_ZERO, _ONE = np.uint64(0), np.uint64(1)

_first = formula(first_index)


@cache
def _make_rows(distribution: str, dtype: np.dtype[Any]) -> Any:
    tile, items = make_tile(distribution, dtype), STORAGE[dtype].items

    @kernel(f"fill rows {distribution} {dtype}")
    def rows(out: Any, length: Any, start: Any, stop: Any, keys: Any, key: Any, params: Any) -> None:
        scratch = np.empty(TILE, items)
        for row in range(start, stop):
            low, high = _first(keys[row], np.uint64(length))
            at, end = row * length, (row + 1) * length
            while at < end:
                block, top = (low >> np.uint64(2)) | (high << np.uint64(62)), high >> np.uint64(2)
                own = key[0], key[1] + top, key[2] + top
                skip, left = np.int64(low & np.uint64(3)), _ZERO - block
                if skip == 0 and end - at >= TILE and (left == _ZERO or left >= np.uint64(WIDTH)):
                    tile(out, at, counters(block), own, params)
                    count = TILE
                else:
                    tile(scratch, START, counters(block), own, params)
                    count = min(end - at, TILE - skip)
                    if _ZERO < left < np.uint64(WIDTH):  # the next block has the next number of 128 bits
                        count = min(count, np.int64(left) * 4 - skip)
                    for i in range(count):
                        out[at + i] = scratch[skip + i]
                at += count
                before = low
                low = low + np.uint64(count)
                high = high + (_ONE if low < before else _ZERO)

    return rows


def fill_rows(distribution: str, out: np.ndarray[Any, Any], key: Key, params: tuple[Any, ...], rows: Rows) -> None:
    """Write rows of a table into an array; see `Rows`."""
    storage, loop = STORAGE[out.dtype], _make_rows(distribution, out.dtype)
    length = out.size // len(out)
    arguments = rows.keys.view(np.uint64), _words(key), scalars(params, storage.wide)
    flat = out.reshape(-1).view(storage.items)
    pool.run(lambda start, stop: loop(flat, length, start, stop, *arguments), len(out), length * out.itemsize, 1)
