"""Random fill on a CPU.

Element i of the logical tensor comes from word ``i % 4`` of Philox block ``i // 4``. Three loops write it: `make_run`
where consecutive elements of the output are consecutive in the tensor, a tile of consecutive blocks at a time,
`_make_blocks` where only the elements of each block are, and `make_gather`, one block per element. The bits are the
same.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numparam.kernels.fill.draws import DRAWS, STORAGE, Storage
from numparam.kernels.fill.key import Key, Span, merged
from numparam.kernels.formula.formats import unchanged
from numparam.kernels.formula.philox import MULTIPLIER_0, first_product, first_rounds, last_rounds
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.lanes import WIDTH, broadcast, first_half, joined, low_word, second_half, select
from numparam.kernels.machine.memory import (
    OFFSETS,
    POSITION,
    after,
    counters,
    in_memory_order,
    items_at,
    load_indices,
    pairs_in_memory_order,
    store_lanes,
    store_words,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numparam.kernels.batch import Arrays

TILE = 4 * WIDTH  # elements of one tile
_NEXT_TILE = np.uint64(WIDTH * MULTIPLIER_0)
_POSITION, _PLACE = np.array(POSITION, np.int64), np.argsort(OFFSETS)
# Below this run length a tile is mostly thrown away and drawing one block per element is faster.
SHORTEST_RUN = TILE // 2
START = np.int64(0)  # a plain 0 is a type, for which a formula is compiled again
FEWEST_IN_BLOCKS = 1 << 14  # elements, for which a loop more is worth its compilation


class _Formulas(NamedTuple):
    begun: Any
    """From the `first_product` of blocks, the high words of their numbers and the key to blocks half way."""
    words: Any
    """From those and the key to words."""
    values: Any
    """From words and parameters to the four values of each block."""


@cache
def _make_formulas(distribution: str, dtype: np.dtype[Any]) -> _Formulas:
    storage = STORAGE[dtype]
    narrow, wide = DRAWS[distribution]

    if storage.wide:

        @formula
        def begun(product: Any, block_high: Any, key: Any) -> Any:
            return first_rounds(product, block_high, key[1], key[0]), first_rounds(product, block_high, key[2], key[0])

        @formula
        def words(blocks: Any, key: Any) -> Any:
            return last_rounds(blocks[0], key[0]), last_rounds(blocks[1], key[0])

        @formula
        def draw(words: Any, params: Any) -> Any:
            (a, b, c, d), (e, f, g, h) = words
            return wide(joined(a, c), joined(b, d), joined(e, g), joined(f, h), params)
    else:

        @formula
        def begun(product: Any, block_high: Any, key: Any) -> Any:
            return first_rounds(product, block_high, key[1], key[0])

        @formula
        def words(blocks: Any, key: Any) -> Any:
            return last_rounds(blocks, key[0])

        @formula
        def draw(words: Any, params: Any) -> Any:
            a, b, c, d = words
            return narrow(joined(a, c), joined(b, d), params)

    # Both pairs of a block are drawn as one vector of twice the lanes: the processor overlaps what would be two waits.
    @formula
    def values(words: Any, params: Any) -> Any:
        x, y = draw(words, params)
        return first_half(x), first_half(y), second_half(x), second_half(y)

    return _Formulas(begun, words, values)


@formula
def _locate(position: Any, axes: Any, base: Any) -> Any:
    """Return the global flat index of the output's flat `position`."""
    index = base
    for axis in range(axes.shape[1] - 1, -1, -1):
        length, step = axes[0, axis], axes[1, axis]
        index += position % length * step
        position //= length
    return index


@formula
def _keep_indices(
    indices: Any, places: Any, at: Any, count: Any, axes: Any, base: Any, index: Any, left_in_row: Any
) -> Any:
    """Keep the indices of some positions from `at` on; return the index after them, and what is left of its row."""
    for lane in range(count):
        indices[places[lane]] = np.uint64(index)
        index += axes[1, -1]
        left_in_row -= 1
        if left_in_row == 0:
            index = _locate(at + lane + 1, axes, base)
            left_in_row = axes[0, -1]
    return index, left_in_row


@cache
def _make_store(storage: Storage) -> Any:
    """Make the formula that rounds the four values of each block and stores the blocks one after another."""
    rounding, pairing = storage.rounding, storage.pairing
    if pairing is None:

        @formula
        def store(out: Any, at: Any, values: Any) -> None:
            lower, upper = in_memory_order(values)
            store_lanes(out, at, rounding(lower))
            store_lanes(out, at + 2 * WIDTH, rounding(upper))
    else:

        @formula
        def store(out: Any, at: Any, values: Any) -> None:
            a, b, c, d = values
            store_words(out, at, pairs_in_memory_order(pairing(a, b), pairing(c, d)))

    return store


@cache
def make_tile(distribution: str, dtype: np.dtype[Any]) -> Any:
    """Make the formula that writes one tile: the values of blocks with any numbers."""
    begun, words, values = _make_formulas(distribution, dtype)
    store = _make_store(STORAGE[dtype])

    @formula
    def tile(out: Any, at: Any, blocks: Any, key: Any, params: Any) -> None:
        store(out, at, values(words(begun(first_product(blocks), blocks >> 32, key), key), params))

    return tile


@formula
def _put(out: Any, at: Any, value: Any) -> None:
    """Store one element."""
    out[at] = value


@formula
def _unordered(values: Any, words: Any) -> Any:  # noqa: ARG001
    return values


@cache
def make_write(distribution: str, dtype: np.dtype[Any], store: Any = None, put: Any = _put) -> Any:
    """Make the formula that writes one run, or does something else with the values of a tile and with single ones."""
    begun, words, values = _make_formulas(distribution, dtype)
    store, tile = store or _make_store(STORAGE[dtype]), make_tile(distribution, dtype)
    # With AVX2, short values that are not paired are 6 to 10 % faster so, others up to 6 % slower. With AVX-512 paired
    # ones are 7 % faster so, and others within 2 %.
    single = STORAGE[dtype].rounding is not unchanged and STORAGE[dtype].pairing is None
    ordered = after if (WIDTH == 16) != single else _unordered

    @formula
    def write(out: Any, at: Any, end: Any, index: Any, scratch: Any, key: Any, params: Any) -> None:
        """Write ``out[at:end]``, whose first element is the one of a global flat `index` and the others follow it."""
        block = index >> np.uint64(2)
        skip = np.int64(index & np.uint64(3))
        if skip > 0 and at < end:
            tile(scratch, START, counters(block), key, params)
            count = min(end - at, TILE - skip)
            for i in range(count):
                put(out, at + i, scratch[skip + i])
            at += count
            block += np.uint64(WIDTH)
        while end - at >= TILE:
            # The upper half of the block number is constant up to the next multiple of 2**32, which takes two of the
            # twenty multiplications of Philox out of the loop.
            until_carry = np.int64((np.uint64(0x100000000) - (block & np.uint64(0xFFFFFFFF))) // np.uint64(WIDTH))
            tiles = min((end - at) // TILE, until_carry)
            high = broadcast(block >> np.uint64(32), counters(block))
            # Words are drawn one tile ahead and begun two ahead: processors overlap three short chains better than two
            # long ones. A tile of uniform values takes 71 cycles of AVX-512 so, and 82 if words are begun one ahead.
            product = first_product(counters(block))
            ready = words(begun(product, high, key), key)
            product = product + _NEXT_TILE
            half = begun(product, high, key)
            for _ in range(tiles):
                product = product + _NEXT_TILE
                beginning, following = begun(product, high, key), words(half, key)
                store(out, at, ordered(values(ready, params), following))
                ready, half = following, beginning
                at += TILE
            block += np.uint64(tiles * WIDTH)
            if tiles == 0:
                tile(scratch, START, counters(block), key, params)
                for i in range(TILE):
                    put(out, at + i, scratch[i])
                block += np.uint64(WIDTH)
                at += TILE
        if at < end:
            tile(scratch, START, counters(block), key, params)
            for i in range(end - at):
                put(out, at + i, scratch[i])

    return write


@cache
def make_run(distribution: str, dtype: np.dtype[Any]) -> Any:
    """Make the loop over runs; position `origin` of the output is the first item of `out`."""
    return kernel(f"fill run {distribution} {dtype}")(over_runs(make_write(distribution, dtype), dtype))


def over_runs(write: Any, dtype: np.dtype[Any]) -> Any:
    """Make the loop that hands the runs of an output to a formula; see `make_run`."""
    items = STORAGE[dtype].items

    def run(out: Any, start: Any, stop: Any, axes: Any, base: Any, key: Any, params: Any, origin: Any) -> None:
        scratch, words = np.empty(TILE, items), (key[0], key[1], key[2])
        run_length = axes[0, -1]
        at = start
        while at < stop:
            end = min(stop, at - at % run_length + run_length)
            index = np.uint64(_locate(at, axes, base))
            write(out, at - origin, end - origin, index, scratch, words, params)
            at = end

    return run


@cache
def _make_many(distribution: str, dtype: np.dtype[Any]) -> Any:
    """Make the loop over many small arrays, each with its own stream."""
    write, items = make_write(distribution, dtype), STORAGE[dtype].items
    array = items_at(np.dtype(items))

    @kernel(f"fill many {distribution} {dtype}")
    def many(
        addresses: Any, start: Any, stop: Any, size: Any, base: Any, seed: Any, streams: Any, lows: Any, params: Any
    ) -> None:
        scratch = np.empty(TILE, items)
        for place in range(start, stop):
            out = array(addresses[place], size)
            write(out, 0, size, np.uint64(base), scratch, (seed, streams[place], lows[place]), params)

    return many


@cache
def make_gather(distribution: str, dtype: np.dtype[Any]) -> Any:
    """Make the loop over elements in any order; see `make_run`."""
    rounding = STORAGE[dtype].rounding
    keep = formula(lambda out, at, values: store_lanes(out, at, rounding(values)))
    return kernel(f"fill gather {distribution} {dtype}")(over_elements(distribution, dtype, keep))


def over_elements(distribution: str, dtype: np.dtype[Any], keep: Any, store: Any = None, put: Any = _put) -> Any:
    """Make the loop over elements in any order, which keeps them or hands them to other formulas, as `make_write`."""
    begun, words, values = _make_formulas(distribution, dtype)
    items, store = STORAGE[dtype].items, store or keep

    @formula
    def draw(indices: Any, key: Any, params: Any) -> Any:
        index = load_indices(indices)
        block = index >> 2
        a, b, c, d = values(words(begun(first_product(block), block >> 32, key), key), params)
        word = low_word(index) & 3
        return select(word < 2, select(word == 0, a, b), select(word == 2, c, d))

    def gather(out: Any, start: Any, stop: Any, axes: Any, base: Any, key: Any, params: Any, origin: Any) -> None:
        scratch, words = np.empty(WIDTH, items), (key[0], key[1], key[2])
        indices = np.zeros(WIDTH, np.uint64)
        length = axes[0, -1]
        index = _locate(start, axes, base)
        left_in_row = length - start % length
        at = start
        while at < stop:
            count = min(WIDTH, stop - at)
            index, left_in_row = _keep_indices(indices, _POSITION, at, count, axes, base, index, left_in_row)
            drawn = draw(indices, words, params)
            if count == WIDTH:
                store(out, at - origin, drawn)
            else:
                keep(scratch, START, drawn)
                for i in range(count):
                    put(out, at - origin + i, scratch[i])
            at += count

    return gather


@cache
def _make_blocks(distribution: str, dtype: np.dtype[Any]) -> Any:
    """Make the loop over full blocks in any order, whose axes are counted in blocks; see `make_run`."""
    tile, items = make_tile(distribution, dtype), STORAGE[dtype].items

    @kernel(f"fill blocks {distribution} {dtype}")
    def blocks(out: Any, start: Any, stop: Any, axes: Any, base: Any, key: Any, params: Any, origin: Any) -> None:
        scratch, words = np.empty(TILE, items), (key[0], key[1], key[2])
        indices = np.zeros(WIDTH, np.uint64)
        length = axes[0, -1]
        index = _locate(start // 4, axes, base)
        left_in_row = length - start // 4 % length
        for at in range(start, stop, TILE):
            end = min(at + TILE, stop)
            first, count = at // 4, (end - at) // 4
            index, left_in_row = _keep_indices(indices, _PLACE, first, count, axes, base, index, left_in_row)
            numbers = load_indices(indices) >> 2
            if end - at == TILE:
                tile(out, at - origin, numbers, words, params)
            else:
                tile(scratch, START, numbers, words, params)
                for i in range(end - at):
                    out[at - origin + i] = scratch[i]

    return blocks


def fill_array(
    distribution: str, out: np.ndarray[Any, Any], key: Key, params: tuple[Any, ...], span: Span | None
) -> None:
    """Write a slice of a logical tensor into an array; see the entries of `fill`."""
    storage = STORAGE[out.dtype]
    make, axes, base = spread(out.shape, span)
    if make is make_gather and out.size >= FEWEST_IN_BLOCKS and (found := _axes_of_blocks(axes, base)) is not None:
        make, axes = _make_blocks, found
    loop, arguments = make(distribution, out.dtype), (axes, base, _words(key), scalars(params, storage.wide), 0)
    flat = out.reshape(-1)
    if out.dtype.type is not storage.items:
        flat = flat.view(storage.items)
    pool.run(lambda start, stop: loop(flat, start, stop, *arguments), flat.size, flat.itemsize, TILE)


def spread(shape: tuple[int, ...], span: Span | None) -> tuple[Callable[[str, np.dtype[Any]], Any], Any, int]:
    """Return what makes the loop for an output, its axes as the loop takes them, and the index it begins with."""
    base, strides = (0, None) if span is None else span
    axes, run_length = _axes(shape, strides)
    return make_run if run_length >= min(SHORTEST_RUN, math.prod(shape)) else make_gather, axes, base


def runs(shape: tuple[int, ...], span: Span | None) -> tuple[Any, int]:
    """Return the axes of an output and the index it begins with, as `over_runs` takes them; runs may be of one."""
    _, axes, base = spread(shape, span)
    return axes if axes[1, -1] == 1 else np.hstack([axes, np.ones((2, 1), np.int64)]), base


def _axes_of_blocks(axes: Any, base: Any) -> Any:
    """Return the axes of an output that consists of full blocks, an element for each block; None of any other."""
    (*lengths, length), (*steps, step) = axes.tolist()
    if step != 1 or any(number % 4 for number in (length, base, *steps)):
        return None
    inner = [(length // 4, 4)] if length > 4 else []
    return np.array([*zip(lengths, steps, strict=True), *inner], np.int64).T.copy()


def fill_arrays(distribution: str, out: Arrays, key: Key, params: tuple[Any, ...], span: Span | None) -> None:
    """Write full tensors, or runs of them, into small arrays: `stream` and `refinement` of the key are arrays."""
    loop, wide = _make_many(distribution, out.dtype), STORAGE[out.dtype].wide
    base = 0 if span is None else span.base
    arguments = np.int64(out.size), np.int64(base), np.uint64(key.seed), key.stream, key.refinement
    numbers = scalars(params, wide)
    pool.run(
        lambda start, stop: loop(out.addresses, start, stop, *arguments, numbers),
        len(out.addresses),
        out.size * out.dtype.itemsize,
        1,
    )


# What a fill hands to the loop is kept: making it again takes as long as drawing a thousand values.


def scalars(params: tuple[Any, ...], wide: bool) -> tuple[Any, ...]:
    """Return parameters as the loops take them."""
    return tuple(
        [_scalar(value, math.copysign(1.0, value), wide) if type(value) is float else value for value in params]
    )


@lru_cache(maxsize=1024)
def _scalar(value: float, sign: float, wide: bool) -> Any:  # noqa: ARG001 # 0.0 would find the entry of -0.0
    return np.float64(value) if wide else np.float32(value)


@lru_cache(maxsize=1024)
def _words(key: Key) -> np.ndarray[Any, Any]:
    return np.array(key, np.uint64)  # which Numba takes in a fifth of the time of a tuple of numbers


@lru_cache(maxsize=1024)
def _axes(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> tuple[Any, int]:
    """Return the lengths and steps of the axes as the loops take them, and how long their runs are."""
    lengths, steps, _ = merged(shape, None if strides is None else Span(0, strides))
    return np.array((lengths, steps), np.int64), lengths[-1] if steps[-1] == 1 else 1
