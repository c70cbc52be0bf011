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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import types

from numparam.kernels.array import DeviceArray
from numparam.kernels.batch import waiting
from numparam.kernels.fill.draws import DRAWS, STORAGE
from numparam.kernels.fill.key import first_index, merged
from numparam.kernels.formula.axes import OUTER, launches, locate
from numparam.kernels.formula.philox import philox
from numparam.kernels.launch import launch
from numparam.kernels.machine.compile import CudaKernel, formula
from numparam.kernels.machine.cuda import (
    LAUNCH_LIMIT,
    holds,
    lane,
    load_item,
    numbers_loader,
    store_item,
    store_line,
    thread,
    threads,
)
from numparam.kernels.machine.lanes import float16_bits, low_word, select, widened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numparam.kernels.fill.key import Key, Rows, Span

GROUP = {1: 16, 2: 8, 4: 4, 8: 4}
"""Elements that a thread draws at a time, by their bytes: whole blocks of four, and 16 bytes or twice that."""

CHUNK = 1 << 14
"""Elements of one row of a table: sixteen rounds of a block's threads."""

DESCRIPTOR_WORDS = 13
"""Words of 64 bits that describe one array of a table: address, count and first word of its first block, this block,
stream, refinement, and a word for each parameter."""


class Draw(NamedTuple):
    """What a kernel must know of a distribution besides its formulas."""

    parameters: int
    split: bool = False
    """Whether the first parameter is a word."""


PARAMETERS = {
    "bits": Draw(0),
    "uniform": Draw(4),
    "either": Draw(3, split=True),
    "normal": Draw(2),
    "normal_within": Draw(4),
    "truncated_normal": Draw(8, split=True),
    "truncated_normal_symmetric": Draw(8, split=True),
}


@cache
def make_block(distribution: str, dtype: np.dtype[Any]) -> Any:
    """Make the formula from a block number to what is stored of its four values."""
    storage = STORAGE[dtype]
    narrow, wide = DRAWS[distribution]
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


def make_blocks(distribution: str, dtype: np.dtype[Any], count: int) -> Any:
    """Make the formula of so many blocks from the number of the first one; a power of two."""
    if count == 1:
        return make_block(distribution, dtype)
    half, step = make_blocks(distribution, dtype, count // 2), count // 2

    @formula
    def draw_all(block: Any, key: Any, params: Any) -> Any:
        return half(block, key, params) + half(block + step, key, params)

    return draw_all


@cache
def _make_row(distribution: str, dtype: np.dtype[Any]) -> Any:
    """Make the formula that writes this thread's share of one row, which begins with a word of its first block."""
    items = STORAGE[dtype].items
    item, size = items(0), np.dtype(items).itemsize
    in_line, group = 16 // size, GROUP[size]
    line_mask = min(in_line, 4) - 1
    draw = make_blocks(distribution, dtype, group // 4)

    @formula
    def row(address: Any, count: Any, first: Any, word: Any, key: Any, params: Any) -> None:
        place = low_word(address // size) & (group - 1)  # in its line
        aligned = ((place - word) & line_mask) == 0
        shift = select(aligned, place & (group - 4), 0) + word  # what the first group has before the row
        block, before = first - widened(shift >> 2), address - widened(shift) * size
        groups = (count + shift + (group - 1)) // group
        whole = select(aligned & (count >= group), count - (group - 1), 0)  # groups that begin there or later are not
        at = thread(0)
        while holds(at < groups):
            start = at * group - shift  # what comes before the row has a number above any in it
            values = draw(block + widened(at * (group // 4)), key, params)
            here = before + widened(at) * (group * size)
            if holds(start < whole):
                store_line(here, values, item)
            else:
                for k in range(group):
                    if holds(start + k < count):
                        store_item(here + k * size, values[k], item)
            at = at + threads(0)

    return row


@cache
def make_run(distribution: str, dtype: np.dtype[Any]) -> CudaKernel:
    """Make the kernel for rows of consecutive elements."""
    write, size = _make_row(distribution, dtype), dtype.itemsize

    def run(address: Any, rows: Any, length: Any, step: Any, axes: Any, base: Any, key: Any, params: Any) -> None:  # noqa: ARG001
        at = thread(1)
        while holds(at < rows):
            start = lane(address) + widened(at) * widened(lane(length)) * size
            index = locate(at, axes, lane(base))
            write(start, lane(length), index >> 2, low_word(index) & 3, lane(key), lane(params))
            at = at + threads(1)

    return CudaKernel(f"fill_run_{distribution}_{dtype}", run, _row_signature(distribution, dtype))


@cache
def make_gather(distribution: str, dtype: np.dtype[Any]) -> CudaKernel:
    """Make the kernel for rows with any step."""
    items = STORAGE[dtype].items
    draw, item, size = make_block(distribution, dtype), items(0), dtype.itemsize

    def gather(address: Any, rows: Any, length: Any, step: Any, axes: Any, base: Any, key: Any, params: Any) -> None:
        at = thread(1)
        while holds(at < rows):
            column = thread(0)
            here = lane(address) + (widened(at) * widened(lane(length)) + widened(column)) * size
            index = locate(at, axes, lane(base)) + widened(column) * step
            while holds(column < length):
                a, b, c, d = draw(index >> 2, lane(key), lane(params))
                word = low_word(index) & 3
                value = select(word < 2, select(word == 0, a, b), select(word == 2, c, d))
                store_item(here, value, item)
                column, further = column + threads(0), widened(threads(0))
                here, index = here + further * size, index + further * step
            at = at + threads(1)

    return CudaKernel(f"fill_gather_{distribution}_{dtype}", gather, _row_signature(distribution, dtype))


_BITS, _WORD = np.uint32(0), np.uint64(0)


@cache
def make_table(distribution: str, dtype: np.dtype[Any]) -> CudaKernel:
    """Make the kernel for many arrays: row `i` follows the `i`-th descriptor."""
    write, load = _make_row(distribution, dtype), formula(lambda start: load_item(start, _WORD))
    load_params = _make_load_params(distribution, dtype)

    def table(descriptors: Any, rows: Any, seed: Any) -> None:
        at = thread(1)
        while holds(at < rows):
            start = lane(descriptors) + widened(at) * (8 * DESCRIPTOR_WORDS)
            address, count, block = load(start), load(start + 8), load(start + 16)
            key = lane(seed), load(start + 24), load(start + 32)
            write(address, low_word(count), block, low_word(count >> 32), key, load_params(start + 40))
            at = at + threads(1)

    return CudaKernel(f"fill_table_{distribution}_{dtype}", table, (types.uint64, types.uint32, types.uint64))


@cache
def _make_load_params(distribution: str, dtype: np.dtype[Any]) -> Any:
    count, split = PARAMETERS[distribution]
    scalar = np.float64(0) if dtype == np.float64 else np.float32(0)
    return numbers_loader(*[_BITS] * split, *[scalar] * (count - split))


def _row_signature(distribution: str, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    count, split = PARAMETERS[distribution]
    params = [types.float64 if dtype == np.float64 else types.float32] * count
    if split:
        params[0] = types.uint32
    word, count = types.uint64, types.uint32
    return word, count, count, word, OUTER, word, types.UniTuple(word, 3), types.Tuple(params)


def fill_array(distribution: str, out: DeviceArray, key: Key, params: tuple[Any, ...], span: Span | None) -> None:
    """Write a slice of a logical tensor into a device array; see the entries of `fill`."""
    out, shape = out.ravel(), out.shape
    lengths, steps, base = merged(shape, span)
    if len(lengths) == 1 and (steps[0] == 1 or lengths[0] == 1) and (batch := waiting(out)):
        rows = _table_rows(distribution, out, key, params, base)
        batch.add(make_table(distribution, out.dtype), out, rows, key.seed)
        return
    consecutive = steps[-1] == 1 or lengths[-1] == 1
    kernel = (make_run if consecutive else make_gather)(distribution, out.dtype)
    for part, count, length, words in launches(lengths, steps, base):
        columns = -(-length // GROUP[out.itemsize]) + 1 if consecutive else length
        launch(out.device, kernel, columns, count, (out[part].address, count, length, *words, *key, *params))


def _table_rows(
    distribution: str, out: DeviceArray, key: Key, params: tuple[Any, ...], base: int
) -> Iterator[tuple[int, ...]]:
    words = _param_words(distribution, out.dtype, params).tolist()
    for start in range(0, out.size, CHUNK):
        address, count, index = out.address + start * out.itemsize, min(CHUNK, out.size - start), base + start
        yield address, count | (index & 3) << 32, index >> 2, key.stream, key.refinement, *words


def _param_words(distribution: str, dtype: np.dtype[Any], params: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    scalar = np.float64 if dtype == np.float64 else np.float32
    words = np.zeros(DESCRIPTOR_WORDS - 5, np.uint64)
    for place, value in enumerate(params):
        item = np.uint32(value) if PARAMETERS[distribution].split and place == 0 else scalar(value)
        words[place : place + 1].view(item.dtype)[0] = item
    return words


def fill_rows(distribution: str, out: DeviceArray, key: Key, params: tuple[Any, ...], rows: Rows) -> None:
    """Write rows of a table into a device array; see `Rows`. Each is an array for the kernel that takes many."""
    length, keys = np.uint64(out.size // len(out)), rows.keys.view(np.uint64)
    low, high = first_index(keys, length)  # of the first element
    words = np.empty((keys.size, DESCRIPTOR_WORDS), np.uint64)
    words[:, 0] = np.uint64(out.address) + np.arange(keys.size, dtype=np.uint64) * length * np.uint64(out.itemsize)
    words[:, 1] = length | (low & np.uint64(3)) << np.uint64(32)
    words[:, 2] = low >> np.uint64(2) | high << np.uint64(62)
    for place, stream in ((3, key.stream), (4, key.refinement)):
        words[:, place] = np.uint64(stream) + (high >> np.uint64(2))
    words[:, 5:] = _param_words(distribution, out.dtype, params)
    here = (np.uint64(0) - words[:, 2]) * np.uint64(4) - (low & np.uint64(3))  # elements before the block 2**64
    crossing = (words[:, 2] > np.uint64(2**63)) & (here < length)
    after = words[crossing]  # the next block has the next number of 128 bits
    words[crossing, 1] -= length - here[crossing]
    after[:, 0] += here[crossing] * np.uint64(out.itemsize)
    after[:, 1], after[:, 2], after[:, 3:5] = length - here[crossing], 0, after[:, 3:5] + np.uint64(1)
    words = np.concatenate([words, after])
    table = DeviceArray.from_host(words.view(np.int64), out.device)
    columns = -(-int(length) // GROUP[out.itemsize]) + 1
    for start in range(0, len(words), LAUNCH_LIMIT):
        place = table.address + 8 * DESCRIPTOR_WORDS * start
        count = min(len(words) - start, LAUNCH_LIMIT)
        launch(out.device, make_table(distribution, out.dtype), columns, count, (place, count, key.seed))
