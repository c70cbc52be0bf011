"""Perturbation on a CPU: noise is drawn into a buffer of a cache, a chunk at a time, and added from there."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.fill.cpu import TILE, make_gather, make_run, make_write, over_runs, scalars, spread
from numparam.kernels.formula.access import lanes_access, state_dtype
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.lanes import WIDTH, select
from numparam.kernels.machine.memory import access, in_memory_order, prefetch_row
from numparam.kernels.perturb.formulas import moved, moved_on_lattice, off_lattice
from numparam.kernels.perturb.noise import LowRank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numparam.kernels.perturb.noise import Dense

Dtype = np.dtype[Any]

CHUNK = 4096
"""Elements whose noise is drawn at a time: what is read and written with it stays in the nearest caches."""
AHEAD = 2048
"""Bytes before weights that are asked for while noise is drawn: 3 to 8 % faster."""


# --------------------------------------------------------------------------- noise of a chunk


@cache
def _make_dense(distribution: str, dtype: Dtype, by_run: bool) -> Any:
    """Make the formula that draws the noise of the places from `begin` to `end`, of perturbation `k`."""
    run = (make_run if by_run else make_gather)(distribution, dtype)

    @formula
    def draw(z: Any, begin: Any, end: Any, source: Any, k: Any) -> None:
        axes, first, keys, params = source
        run(z, begin, end, axes, first, (keys[k, 0], keys[k, 1], keys[k, 2]), params, begin)

    return draw


@cache
def _make_low_rank(dtype: Dtype) -> Any:
    """Make the formula of a chunk of the products of left and right factors, summed in the order of the rank."""
    size = dtype.itemsize
    (load, store, _), (load_one, store_one, _) = (lanes_access(width)(dtype) for width in (WIDTH, 1))

    @formula
    def draw(z: Any, begin: Any, end: Any, source: Any, k: Any) -> None:
        lefts, rights = source
        columns, rank, at = rights.shape[2], rights.shape[1], begin
        while at < end:
            row, column = at // columns, at % columns
            stop = min(end, at + columns - column)
            factors = rights[k].ctypes.data + column * size
            target = z.ctypes.data + (at - begin) * size
            while at + WIDTH <= stop:
                total = load(factors) * lefts[k, row, 0]
                for i in range(1, rank):
                    total = total + load(factors + i * columns * size) * lefts[k, row, i]
                store(target, total)
                factors, target, at = factors + WIDTH * size, target + WIDTH * size, at + WIDTH
            while at < stop:
                last = load_one(factors) * lefts[k, row, 0]
                for i in range(1, rank):
                    last = last + load_one(factors + i * columns * size) * lefts[k, row, i]
                store_one(target, last)
                factors, target, at = factors + size, target + size, at + 1

    return draw


def _make_add(dtype: Dtype) -> Any:
    """Make the formula that moves the weights of a chunk by its noise."""
    size, state_size = dtype.itemsize, state_dtype(dtype).itemsize
    many, one = (lanes_access(width)(dtype) for width in (WIDTH, 1))
    load, store, shorten = many
    load_one, store_one, _ = one
    load_z, load_z_one = (lanes_access(width)(state_dtype(dtype)).load for width in (WIDTH, 1))

    @formula
    def add(target: Any, source: Any, z: Any, count: Any, c: Any) -> None:
        at = 0
        while at + WIDTH <= count:
            store(target + at * size, shorten(moved(load(source + at * size), load_z(z + at * state_size), c, c)))
            at += WIDTH
        while at < count:
            x_one, z_one = load_one(source + at * size), load_z_one(z + at * state_size)
            store_one(target + at * size, shorten(moved(x_one, z_one, c, c)))
            at += 1

    return add


@cache
def _make_loop(draw: Any, name: str, base: Dtype, out: Dtype) -> Any:
    add, kind, items = _make_add(base), state_dtype(base).type, np.dtype(f"u{base.itemsize}").type
    size, out_size, converts = base.itemsize, out.itemsize, base != out
    load, shorten = (lanes_access(width)(base).load for width in (WIDTH, 1)), lanes_access(1)(out).shorten
    load_many, load_one = load
    store_many, store_one = (lanes_access(width)(out).store for width in (WIDTH, 1))

    @formula
    def convert(target: Any, source: Any, count: Any) -> None:
        at = 0
        while at + WIDTH <= count:
            store_many(target + at * out_size, shorten(load_many(source + at * size)))
            at += WIDTH
        while at < count:
            store_one(target + at * out_size, shorten(load_one(source + at * size)))
            at += 1

    @kernel(f"perturb {name} {base} {out}")
    def loop(out: Any, opposite: Any, base: Any, coefficients: Any, start: Any, stop: Any, noise: Any) -> None:
        z, kept, other = np.empty(CHUNK, kind), np.empty(CHUNK, items), np.empty(CHUNK, items)
        for begin in range(start, stop, CHUNK):
            end = min(begin + CHUNK, stop)
            source = source_other = base + begin * size
            target = kept.ctypes.data if converts else out + begin * size
            target_other = other.ctypes.data if converts else opposite + begin * size
            for k in range(len(coefficients)):
                draw(z, begin, end, noise, k)
                if opposite:
                    add(target_other, source_other, z.ctypes.data, end - begin, -coefficients[k])
                    source_other = target_other
                add(target, source, z.ctypes.data, end - begin, coefficients[k])
                source = target
            if converts:
                convert(out + begin * out_size, source, end - begin)
                if opposite:
                    convert(opposite + begin * out_size, source_other, end - begin)

    return loop


@cache
def _make_single(distribution: str, dtype: Dtype) -> Any:
    """Make the loop of one perturbation of a run, which moves weights by values that are still in registers."""
    size, state = dtype.itemsize, state_dtype(dtype)
    (load, keep, shorten), (load_one, keep_one, _) = (lanes_access(width)(dtype) for width in (2 * WIDTH, 1))

    @formula
    def store(arrays: Any, at: Any, values: Any) -> None:
        target, source, c = arrays
        lower, upper = in_memory_order(values)
        prefetch_row(source + at * size + AHEAD, TILE * size - 1)
        here, further = source + at * size, source + (at + 2 * WIDTH) * size
        first, second = moved(load(here), lower, c, c), moved(load(further), upper, c, c)
        keep(target + at * size, shorten(first))
        keep(target + (at + 2 * WIDTH) * size, shorten(second))

    @formula
    def put(arrays: Any, at: Any, z: Any) -> None:
        target, source, c = arrays
        keep_one(target + at * size, shorten(moved(load_one(source + at * size), z, c, c)))

    loop = over_runs(make_write(distribution, state, store, put), state)
    return kernel(f"perturb single {distribution} {dtype}")(loop)


@cache
def _make_lattice(draw: Any, name: str) -> Any:
    """Make the loop of float32 weights on a lattice, which leaves a chunk as it is where one of them is not."""
    (load, store, _), (load_one, store_one, _) = (lanes_access(width)(np.dtype(np.float32)) for width in (WIDTH, 1))
    load_words, store_words, _ = access("u32", WIDTH)
    _, store_word, _ = access("u32", 1)

    @formula
    def add(target: Any, source: Any, z: Any, count: Any, c: Any, reach: Any, faults: Any) -> Any:
        """Move a chunk, and return whether all of it is on the lattice."""
        flags = faults.ctypes.data
        for place in range(WIDTH + 1):
            faults[place] = 0
        found, at = load_words(flags), 0
        while at + WIDTH <= count:
            x = load(source + at * 4)
            y = moved_on_lattice(x, load(z + at * 4), c, reach)
            store(target + at * 4, y)
            found = found | select(off_lattice(x, y, reach), np.uint32(1), np.uint32(0))
            at += WIDTH
        store_words(flags, found)
        while at < count:
            x_one = load_one(source + at * 4)
            y_one = moved_on_lattice(x_one, load_one(z + at * 4), c, reach)
            store_one(target + at * 4, y_one)
            store_word(flags + 4 * WIDTH, select(off_lattice(x_one, y_one, reach), np.uint32(1), np.uint32(0)))
            faults[0] |= faults[WIDTH]
            at += 1
        return not faults.any()

    @kernel(f"perturb on lattice {name}")
    def loop(
        values: Any, coefficients: Any, reach: Any, done: Any, backwards: Any, start: Any, stop: Any, noise: Any
    ) -> None:
        z, kept, faults = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32), np.zeros(WIDTH + 1, np.uint32)
        for begin in range(start, stop, CHUNK):
            end = min(begin + CHUNK, stop)
            source, is_good = values.ctypes.data + begin * 4, True
            for place in range(len(coefficients)):
                k = len(coefficients) - 1 - place if backwards else place
                draw(z, begin, end, noise, k)
                good = add(kept.ctypes.data, source, z.ctypes.data, end - begin, coefficients[k], reach, faults)
                is_good = is_good and good
                source = kept.ctypes.data
            if is_good:
                for i in range(end - begin):
                    values[begin + i] = kept[i]
            done[begin // CHUNK] = is_good

    return loop


# --------------------------------------------------------------------------- entries


def perturb(out: Any, base: Any, noise: Dense | LowRank, coefficients: Sequence[float], opposite: Any) -> None:
    """Write moved weights; see the entries of `perturb`."""
    draw, name, by_run, source = _drawn(noise, base)
    scaled = np.array(coefficients, state_dtype(base.dtype))
    if by_run is not None and scaled.size == 1 and opposite is None and out.dtype == base.dtype:
        single, (axes, first, keys, params) = _make_single(by_run, base.dtype), source
        arrays, key = (out.ctypes.data, base.ctypes.data, scaled[0]), tuple(keys[0])

        def work(start: int, stop: int) -> None:
            single(arrays, start, stop, axes, first, key, params, 0)
    else:
        loop = _make_loop(draw, name, base.dtype, out.dtype)
        addresses = out.ctypes.data, 0 if opposite is None else opposite.ctypes.data, base.ctypes.data

        def work(start: int, stop: int) -> None:
            loop(*addresses, scaled, start, stop, source)

    pool.run(work, out.size, out.itemsize + base.itemsize, CHUNK)


def perturb_on_lattice(values: Any, noise: Dense | LowRank, coefficients: Sequence[float], reach: float) -> bool:
    """Move weights in place, all of them or none."""
    draw, name, _, source = _drawn(noise, values)
    loop, flat = _make_lattice(draw, name), values.reshape(-1)
    done, scaled = np.zeros(-(-flat.size // CHUNK), np.bool_), np.array(coefficients, np.float32)

    def run(scaled: Any, done: Any, backwards: bool, first: int, last: int) -> None:
        arguments = flat, scaled, np.float32(reach), done, backwards
        pool.run(lambda start, stop: loop(*arguments, first + start, first + stop, source), last - first, 8, CHUNK)

    run(scaled, done, False, 0, flat.size)
    if done.all():
        return True
    for place in np.flatnonzero(done).tolist():  # a sum on the lattice is undone exactly
        run(-scaled, np.zeros_like(done), True, place * CHUNK, min(place * CHUNK + CHUNK, flat.size))
    return False


def _drawn(noise: Dense | LowRank, base: Any) -> tuple[Any, str, str | None, Any]:
    """Return the formula of the noise, its name, the distribution if it is drawn in runs, and where its numbers are."""
    dtype = state_dtype(base.dtype)
    if isinstance(noise, LowRank):
        return _make_low_rank(dtype), "low rank", None, noise[:2]
    make, axes, first = spread(base.shape, noise.span)
    by_run = make is make_run
    name = f"{noise.distribution} {'run' if by_run else 'gather'}"
    source = axes, first, np.array(noise.keys, np.uint64), scalars(noise.params, dtype == np.float64)
    return _make_dense(noise.distribution, dtype, by_run), name, noise.distribution if by_run else None, source
