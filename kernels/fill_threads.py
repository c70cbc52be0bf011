"""Random fill by CUDA threads: the same formulas as `fill`, one thread a block, the same bits.

Three kernels per distribution and dtype. `run` writes rows of consecutive elements of the tensor, in 16-byte stores;
`gather` rows with any step, one block per element; `table` many small arrays at once. Threads along the grid's first
axis walk a row, those along its second axis the rows, so a slice of a matrix takes no division.

A thread takes a group of elements: as many whole Philox blocks as fill a 16-byte store. Groups begin at whole blocks,
and where the address allows it at whole lines of 16 bytes, which may be before the row's first element; what lies
outside the row is not stored.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from numparam.kernels import fill
from numparam.kernels._compile import CudaKernel, formula
from numparam.kernels._cuda import (
    holds,
    lane,
    load_f32,
    load_f64,
    load_u32,
    load_u64,
    store_item,
    store_line,
    thread,
    threads,
)
from numparam.kernels._lanes import float16_bits, low_word, select
from numparam.kernels.random_bits import philox

MAX_OUTER_AXES = 5
"""Axes beside the last one that a launch takes; the caller splits what has more."""

DESCRIPTOR_WORDS = 13
"""Words of 64 bits that describe one array of a table: address, count, base, stream, refinement, and a word for each
parameter."""


class Draw(NamedTuple):
    """What a kernel must know of a distribution beside its formulas."""

    parameters: int
    split: bool = False
    """Whether the first parameter is a word."""


DRAWS = {
    "bits": Draw(0),
    "uniform": Draw(4),
    "normal": Draw(2),
    "normal_within": Draw(4),
    "truncated_normal": Draw(8, split=True),
    "truncated_normal_symmetric": Draw(8, split=True),
}


@cache
def _make_block(distribution: str, dtype: np.dtype[Any]) -> Any:
    """Make the formula from a block number to what is stored of its four values."""
    storage = fill._STORAGE[dtype]
    narrow, wide = fill._DRAWS[distribution]
    rounding = float16_bits if dtype == np.float16 else storage.rounding  # every GPU has the instruction

    if storage.wide:

        @formula
        def draw(block: Any, key: Any, params: Any) -> Any:
            a, b, c, d = philox(block, block >> 32, key[1], key[0])
            e, f, g, h = philox(block, block >> 32, key[2], key[0])
            x, y = wide(a, b, e, f, params)
            z, w = wide(c, d, g, h, params)
            return rounding(x), rounding(y), rounding(z), rounding(w)
    else:

        @formula
        def draw(block: Any, key: Any, params: Any) -> Any:
            a, b, c, d = philox(block, block >> 32, key[1], key[0])
            x, y = narrow(a, b, params)
            z, w = narrow(c, d, params)
            return rounding(x), rounding(y), rounding(z), rounding(w)

    return draw


@formula
def _together_1(draw: Any, block: Any, key: Any, params: Any) -> Any:
    return draw(block, key, params)


@formula
def _together_2(draw: Any, block: Any, key: Any, params: Any) -> Any:
    return draw(block, key, params) + draw(block + 1, key, params)


@formula
def _together_4(draw: Any, block: Any, key: Any, params: Any) -> Any:
    return _together_2(draw, block, key, params) + _together_2(draw, block + 2, key, params)


_TOGETHER = {1: _together_1, 2: _together_2, 4: _together_4}


@cache
def _make_row(distribution: str, dtype: np.dtype[Any]) -> Any:
    """Make the formula that writes this thread's share of one row."""
    items = fill._STORAGE[dtype].items
    item, size = items(0), np.dtype(items).itemsize
    in_line = 16 // size
    group = max(4, in_line)
    line_mask = min(in_line, 4) - 1
    draw, together = _make_block(distribution, dtype), _TOGETHER[group // 4]

    @formula
    def row(address: Any, count: Any, base: Any, first: Any, step: Any, key: Any, params: Any) -> None:
        word = base & 3  # of its block, that the row begins with
        place = (address // size) & (group - 1)  # in its line
        aligned = ((place - word) & line_mask) == 0
        shift = select(aligned, place & (group - 4), 0) + word  # what the first group has before the row
        block = (base >> 2) - (shift >> 2)
        groups = (count + shift + (group - 1)) // group
        at = first
        while holds(at < groups):
            start = at * group - shift
            values = together(draw, block + at * (group // 4), key, params)
            whole = (start < count) & (count - start >= group)
            if holds(aligned & whole):
                store_line(address + start * size, values, item)
            else:
                for k in range(group):
                    if holds(start + k < count):
                        store_item(address + (start + k) * size, values[k], item)
            at = at + step

    return row


@formula
def _locate(row: Any, axes: Any, base: Any) -> Any:
    """Return the global flat index of the first element of a row; the outermost axis takes no division."""
    index = base
    for axis in range(MAX_OUTER_AXES - 1, -1, -1):
        length, step = lane(axes[0][axis]), axes[1][axis]
        if holds(row < length):
            return index + row * step
        index = index + row % length * step
        row = row // length
    return index


@cache
def make_run(distribution: str, dtype: np.dtype[Any]) -> CudaKernel:
    """Make the kernel for rows of consecutive elements."""
    write, size = _make_row(distribution, dtype), dtype.itemsize

    def run(address: Any, rows: Any, length: Any, step: Any, axes: Any, base: Any, key: Any, params: Any) -> None:  # noqa: ARG001
        at = thread(1)
        while holds(at < rows):
            start = lane(address) + at * length * size
            write(start, lane(length), _locate(at, axes, lane(base)), thread(0), threads(0), key, params)
            at = at + threads(1)

    return CudaKernel(f"fill_run_{distribution}_{dtype}", run, _row_signature(distribution, dtype))


@cache
def make_gather(distribution: str, dtype: np.dtype[Any]) -> CudaKernel:
    """Make the kernel for rows with any step."""
    items = fill._STORAGE[dtype].items
    draw, item, size = _make_block(distribution, dtype), items(0), dtype.itemsize

    def gather(address: Any, rows: Any, length: Any, step: Any, axes: Any, base: Any, key: Any, params: Any) -> None:
        at = thread(1)
        while holds(at < rows):
            start = lane(address) + at * length * size
            first = _locate(at, axes, lane(base))
            column = thread(0)
            while holds(column < length):
                index = first + column * step
                a, b, c, d = draw(index >> 2, key, params)
                word = low_word(index) & 3
                value = select(word < 2, select(word == 0, a, b), select(word == 2, c, d))
                store_item(start + column * size, value, item)
                column = column + threads(0)
            at = at + threads(1)

    return CudaKernel(f"fill_gather_{distribution}_{dtype}", gather, _row_signature(distribution, dtype))


@cache
def make_table(distribution: str, dtype: np.dtype[Any]) -> CudaKernel:
    """Make the kernel for many arrays: row `i` is what the `i`-th descriptor says."""
    write = _make_row(distribution, dtype)
    load_params = _make_load_params(distribution, dtype)

    def table(descriptors: Any, rows: Any, seed: Any) -> None:
        at = thread(1)
        while holds(at < rows):
            start = lane(descriptors) + at * (8 * DESCRIPTOR_WORDS)
            address, count, base = load_u64(start), load_u64(start + 8), load_u64(start + 16)
            key = seed, load_u64(start + 24), load_u64(start + 32)
            write(address, count, base, thread(0), threads(0), key, load_params(start + 40))
            at = at + threads(1)

    return CudaKernel(f"fill_table_{distribution}_{dtype}", table, (types.uint64, types.uint64, types.uint64))


@cache
def _make_load_params(distribution: str, dtype: np.dtype[Any]) -> Any:
    count, split = DRAWS[distribution]
    load = load_f64 if dtype == np.float64 else load_f32

    @formula
    def none(start: Any) -> Any:  # noqa: ARG001
        return ()

    @formula
    def two(start: Any) -> Any:
        return load(start), load(start + 8)

    @formula
    def four(start: Any) -> Any:
        return load(start), load(start + 8), load(start + 16), load(start + 24)

    @formula
    def split_and_seven(start: Any) -> Any:
        upper = load(start + 32), load(start + 40), load(start + 48), load(start + 56)
        return (load_u32(start), load(start + 8), load(start + 16), load(start + 24)) + upper  # noqa: RUF005

    return split_and_seven if split else {0: none, 2: two, 4: four}[count]


def _row_signature(distribution: str, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    count, split = DRAWS[distribution]
    params = [types.float64 if dtype == np.float64 else types.float32] * count
    if split:
        params[0] = types.uint32
    outer = types.UniTuple(types.uint64, MAX_OUTER_AXES)
    word = types.uint64
    return word, word, word, word, types.UniTuple(outer, 2), word, types.UniTuple(word, 3), types.Tuple(params)
