"""Random fill: write any slice of a logical tensor, each element a pure function of (key, global flat index).

Element i of the logical tensor comes from word ``i % 4`` of Philox block ``i // 4``. Two loops write it: `_make_run`
where consecutive elements of the output are consecutive in the tensor, a tile of whole blocks at a time, and
`_make_gather` where they are not, one block per element. The bits are the same.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np

from numparam.kernels.dispatch import kind
from numparam.kernels.formula import distributions, formats
from numparam.kernels.formula.distributions import Bounds
from numparam.kernels.formula.philox import philox
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.lanes import (
    POSITION,
    U32,
    WIDTH,
    broadcast,
    counters,
    first_half,
    in_memory_order,
    joined,
    load_indices,
    low_word,
    pairs_in_memory_order,
    second_half,
    select,
    store_lanes,
    store_words,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TILE = 4 * WIDTH  # elements of one tile
_POSITION = np.array(POSITION, np.int64)
FLOAT32_MAX = float(np.finfo(np.float32).max)
# Below this run length a tile is mostly thrown away and drawing one block per element is faster.
SHORTEST_RUN = TILE // 2


class Key(NamedTuple):
    """What selects a stream of random words.

    Attributes
    ----------
    seed, stream : int
        Philox key and upper half of the counter, below 2**64.
    refinement : int
        Stream of the low words that float64 needs.
    """

    seed: int
    stream: int
    refinement: int


class Span(NamedTuple):
    """Where the elements of an output lie in the logical tensor.

    Attributes
    ----------
    base : int
        Global flat index of the first element of the output.
    strides : tuple of int
        Step of the global flat index along each axis of the output.
    """

    base: int
    strides: tuple[int, ...]


# --------------------------------------------------------------------------- formulas


@formula
def raw_bits(a: U32, b: U32, params: Any) -> tuple[U32, U32]:  # noqa: ARG001
    """Return the words themselves."""
    return a, b


class _Storage(NamedTuple):
    """How one dtype is drawn and stored."""

    items: type[np.generic]
    """The dtype of its bits."""
    rounding: Any
    """Formula from a drawn value to what is stored."""
    wide: bool = False
    """Whether the words are refined to 64 bits."""
    pairing: Any = None
    """Formula that rounds two neighbours into one word, where that is faster."""


_STORAGE: dict[np.dtype[Any], _Storage] = {
    np.dtype(np.float32): _Storage(np.float32, formats.unchanged),
    np.dtype(np.float64): _Storage(np.float64, formats.unchanged, wide=True),
    np.dtype(np.float16): _Storage(np.uint16, formats.to_float16),
    np.dtype(ml_dtypes.bfloat16): _Storage(
        np.uint16, formats.finite_to_bfloat16, pairing=formats.finite_pair_to_bfloat16
    ),
    np.dtype(ml_dtypes.float8_e5m2): _Storage(np.uint8, formats.to_float8_e5m2),
    np.dtype(ml_dtypes.float8_e4m3fn): _Storage(np.uint8, formats.to_float8_e4m3fn),
    np.dtype(np.uint32): _Storage(np.uint32, formats.unchanged),
}

_DRAWS = {
    "bits": (raw_bits, None),
    "uniform": (distributions.uniform, distributions.uniform_64),
    "normal": (distributions.normal, distributions.normal_64),
    "truncated_normal": (distributions.truncated_normal, distributions.truncated_normal_64),
    "truncated_normal_symmetric": (distributions.truncated_normal_symmetric, None),
    "normal_within": (distributions.normal_within, distributions.normal_within_64),
}


@cache
def _make_formulas(distribution: str, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Make the formulas from block numbers to words, and from the words to the four values of each block."""
    storage = _STORAGE[dtype]
    narrow, wide = _DRAWS[distribution]

    if storage.wide:

        @formula
        def words(block: Any, block_high: Any, key: Any) -> Any:
            return philox(block, block_high, key[1], key[0]), philox(block, block_high, key[2], key[0])

        @formula
        def draw(words: Any, params: Any) -> Any:
            (a, b, c, d), (e, f, g, h) = words
            return wide(joined(a, c), joined(b, d), joined(e, g), joined(f, h), params)
    else:

        @formula
        def words(block: Any, block_high: Any, key: Any) -> Any:
            return philox(block, block_high, key[1], key[0])

        @formula
        def draw(words: Any, params: Any) -> Any:
            a, b, c, d = words
            return narrow(joined(a, c), joined(b, d), params)

    # Both pairs of a block are drawn as one vector of twice the lanes: the processor overlaps what would be two waits.
    @formula
    def values(words: Any, params: Any) -> Any:
        x, y = draw(words, params)
        return first_half(x), first_half(y), second_half(x), second_half(y)

    return words, values


# --------------------------------------------------------------------------- loops


@formula
def _locate(position: Any, axes: Any, base: Any) -> Any:
    """Return the global flat index of the output's flat `position`."""
    index = base
    for axis in range(axes.shape[1] - 1, -1, -1):
        length, step = axes[0, axis], axes[1, axis]
        index += position % length * step
        position //= length
    return index


def _make_store(storage: _Storage) -> Any:
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
def _make_run(distribution: str, dtype: np.dtype[Any]) -> Any:
    words, values = _make_formulas(distribution, dtype)
    items = _STORAGE[dtype].items
    store = _make_store(_STORAGE[dtype])

    @formula
    def tile(out: Any, at: Any, block: Any, key: Any, params: Any) -> None:
        """Write one tile from `block` on, wherever it lies."""
        lanes = counters(block)
        store(out, at, values(words(lanes, lanes >> 32, key), params))

    @kernel(f"fill run {distribution} {dtype}")
    def run(
        out: Any,
        start: Any,
        stop: Any,
        axes: Any,
        base: Any,
        key: Any,
        params: Any,
    ) -> None:
        scratch = np.empty(TILE, items)
        run_length = axes[0, -1]
        at = start
        while at < stop:
            index = np.uint64(_locate(at, axes, base))
            end = min(stop, at - at % run_length + run_length)
            block = index >> np.uint64(2)
            skip = np.int64(index & np.uint64(3))
            if skip > 0 and at < end:
                tile(scratch, 0, block, key, params)
                count = min(end - at, TILE - skip)
                for i in range(count):
                    out[at + i] = scratch[skip + i]
                at += count
                block += np.uint64(WIDTH)
            while end - at >= TILE:
                # The upper half of the block number is constant up to the next multiple of 2**32, which takes two of
                # the twenty multiplications of Philox out of the loop.
                until_carry = np.int64((np.uint64(0x100000000) - (block & np.uint64(0xFFFFFFFF))) // np.uint64(WIDTH))
                tiles = min((end - at) // TILE, until_carry)
                high = broadcast(block >> np.uint64(32), counters(block))
                # Words are drawn one tile ahead, so that their long chains overlap those of the values: half as long
                # again.
                ready = words(counters(block), high, key)
                for _ in range(tiles):
                    block += np.uint64(WIDTH)
                    following = words(counters(block), high, key)
                    store(out, at, values(ready, params))
                    ready = following
                    at += TILE
                if tiles == 0:
                    tile(out, at, block, key, params)
                    block += np.uint64(WIDTH)
                    at += TILE
            if at < end:
                tile(scratch, 0, block, key, params)
                for i in range(end - at):
                    out[at + i] = scratch[i]
                at = end

    return run


@cache
def _make_gather(distribution: str, dtype: np.dtype[Any]) -> Any:
    words, values = _make_formulas(distribution, dtype)
    items, rounding = _STORAGE[dtype].items, _STORAGE[dtype].rounding

    @formula
    def draw(out: Any, at: Any, indices: Any, key: Any, params: Any) -> None:
        index = load_indices(indices)
        block = index >> 2
        a, b, c, d = values(words(block, block >> 32, key), params)
        word = low_word(index) & 3
        store_lanes(out, at, rounding(select(word < 2, select(word == 0, a, b), select(word == 2, c, d))))

    @kernel(f"fill gather {distribution} {dtype}")
    def gather(
        out: Any,
        start: Any,
        stop: Any,
        axes: Any,
        base: Any,
        key: Any,
        params: Any,
    ) -> None:
        scratch = np.empty(WIDTH, items)
        indices = np.zeros(WIDTH, np.uint64)
        length, step = axes[0, -1], axes[1, -1]
        index = _locate(start, axes, base)
        left_in_row = length - start % length
        at = start
        while at < stop:
            count = min(WIDTH, stop - at)
            for lane in range(count):
                indices[_POSITION[lane]] = np.uint64(index)
                index += step
                left_in_row -= 1
                if left_in_row == 0:
                    index = _locate(at + lane + 1, axes, base)
                    left_in_row = length
            if count == WIDTH:
                draw(out, at, indices, key, params)
            else:
                draw(scratch, 0, indices, key, params)
                for i in range(count):
                    out[at + i] = scratch[i]
            at += count

    return gather


# --------------------------------------------------------------------------- entries


def uniform(out: np.ndarray[Any, Any], key: Key, low: float, high: float, span: Span | None = None) -> None:
    """Write uniform values of the closed interval [low, high].

    Parameters
    ----------
    out : ndarray
        C-contiguous, writable, of a floating-point dtype.
    key : Key
        Seed and streams.
    low, high : float
        Bounds, ``low <= high``; never crossed, in any dtype.
    span : Span, optional
        Where `out` lies in the logical tensor; all of it from index 0 by default.

    Raises
    ------
    ValueError
        If no number of the dtype lies in the interval.
    """
    bounds = _inner_bounds(low + 0.0, high + 0.0, out.dtype)
    _fill("uniform", out, key, distributions.uniform_params(low, high, bounds), span)


def normal(out: np.ndarray[Any, Any], key: Key, mean: float, sigma: float, span: Span | None = None) -> None:
    """Write normal values with the given mean and standard deviation; parameters as in `uniform`."""
    _fill("normal", out, key, distributions.normal_params(mean, sigma), span)


def truncated_normal(
    out: np.ndarray[Any, Any], key: Key, mean: float, sigma: float, low: float, high: float, span: Span | None = None
) -> None:
    """Write normal values restricted to the absolute interval [low, high].

    Bounds that are ten sigmas away or more truncate nothing, and the values are those of `normal`.

    Parameters
    ----------
    out, key, span
        As in `uniform`.
    mean, sigma : float
        Of the normal distribution before truncation, ``sigma > 0``.
    low, high : float
        Bounds, possibly infinite; never crossed, in any dtype.

    Raises
    ------
    ValueError
        If less than 2**-93 of the distribution, or no number of the dtype, lies in the interval.
    """
    bounds = _inner_bounds(low + 0.0, high + 0.0, out.dtype)
    if min(mean - low, high - mean) >= distributions.BEYOND_NORMAL * sigma:
        _fill("normal_within", out, key, (*distributions.normal_params(mean, sigma), *bounds), span)
        return
    word_bits = 64 if out.dtype == np.float64 else 32
    params = distributions.truncated_normal_params(mean, sigma, low, high, bounds, word_bits=word_bits)
    distribution = "truncated_normal_symmetric" if params.symmetric and word_bits == 32 else "truncated_normal"
    _fill(distribution, out, key, params, span)


def bits(out: np.ndarray[Any, Any], key: Key, span: Span | None = None) -> None:
    """Write the raw words of the stream into an array of uint32."""
    _fill("bits", out, key, (), span)


def _fill(distribution: str, out: np.ndarray[Any, Any], key: Key, params: tuple[Any, ...], span: Span | None) -> None:
    if out.size:
        _check_params(distribution, params, out.dtype)
        _TWINS[kind(out)](distribution, out, key, params, span)


def _fill_cpu(
    distribution: str, out: np.ndarray[Any, Any], key: Key, params: tuple[Any, ...], span: Span | None
) -> None:
    storage = _STORAGE[out.dtype]
    base, strides = (0, None) if span is None else span
    axes, run_length = _axes(out.shape, strides)
    make: Callable[[str, np.dtype[Any]], Any] = _make_run if run_length >= min(SHORTEST_RUN, out.size) else _make_gather
    loop = make(distribution, out.dtype)
    arguments = axes, np.int64(base), _words(key), _scalars(params, storage.wide)
    flat = out.reshape(-1).view(storage.items)
    pool.run(lambda start, stop: loop(flat, start, stop, *arguments), flat.size, flat.itemsize, TILE)


def _fill_cuda(*arguments: Any) -> None:
    from numparam.kernels.fill import cuda as fill_cuda

    fill_cuda.fill_array(*arguments)


_TWINS: dict[str, Callable[..., None]] = {"cpu": _fill_cpu, "cuda": _fill_cuda}


# What a fill checks and hands to the loop is kept: making it again takes as long as drawing a thousand values.


@lru_cache(maxsize=1024)
def _check_params(distribution: str, params: tuple[Any, ...], dtype: np.dtype[Any]) -> None:
    if params and dtype != np.float64 and max(*params, -min(params)) > FLOAT32_MAX:
        name = distribution.split("_", maxsplit=1)[0]
        raise ValueError(
            f"{name} values of {dtype} are drawn in float32, whose numbers end at {FLOAT32_MAX:.4g}; found the "
            f"parameters {params}; use smaller ones, or float64"
        )


def _scalars(params: tuple[Any, ...], wide: bool) -> tuple[Any, ...]:
    # Not kept: 0.0 would find what was made of -0.0.
    scalar = np.float64 if wide else np.float32
    return tuple([scalar(value) if type(value) is float else value for value in params])


@lru_cache(maxsize=1024)
def _words(key: Key) -> tuple[Any, ...]:
    return tuple(map(np.uint64, key))


@lru_cache(maxsize=1024)
def _axes(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> tuple[Any, int]:
    """Return the lengths and steps of the axes as the loops take them, and how long their runs are."""
    lengths, steps, _ = _merged(shape, None if strides is None else Span(0, strides))
    return np.array((lengths, steps), np.int64), lengths[-1] if steps[-1] == 1 else 1


def _merged(shape: tuple[int, ...], span: Span | None) -> tuple[list[int], list[int], int]:
    """Return shape and strides with neighbouring axes merged where one walks on where the other ends."""
    if span is None:
        return [math.prod(shape)], [1], 0
    lengths, steps = [1], [1]
    for length, step in zip(shape, span.strides, strict=True):
        if length == 1:
            continue
        if lengths[-1] == 1:
            lengths[-1], steps[-1] = length, step
        elif steps[-1] == length * step:
            lengths[-1], steps[-1] = lengths[-1] * length, step
        else:
            lengths.append(length)
            steps.append(step)
    return lengths, steps, span.base


@lru_cache(maxsize=1024)
def _inner_bounds(low: float, high: float, dtype: np.dtype[Any]) -> Bounds:
    """Return the smallest and largest finite number of `dtype` in [low, high]: rounding cannot leave the interval.

    A bound that is zero has no sign: what is kept for one would be found for the other.
    """
    largest = np.asarray(ml_dtypes.finfo(dtype).max, dtype)  # type: ignore[no-untyped-call]
    limit = float(largest)
    inner_low, inner_high = (np.asarray(min(max(bound, -limit), limit)).astype(dtype) for bound in (low, high))
    # Towards the largest number, for float8_e4m3fn has no infinity to step towards.
    if float(inner_low) < low:
        inner_low = np.nextafter(inner_low, largest)
    if float(inner_high) > high:
        inner_high = np.nextafter(inner_high, -largest)
    if not low <= float(inner_low) <= float(inner_high) <= high:
        raise ValueError(
            f"no {dtype} number lies between {low!r} and {high!r}; widen the interval or use a longer dtype"
        )
    return Bounds(float(inner_low), float(inner_high))
