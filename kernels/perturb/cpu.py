"""Perturbation on a CPU: weights are moved by noise that is still in registers."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.copy.convert import converter
from numparam.kernels.copy.runs import copy_bytes
from numparam.kernels.fill.cpu import TILE, make_run, make_write, over_elements, over_runs, scalars, spread
from numparam.kernels.formula.access import lanes_access, state_dtype
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.cuda import lane
from numparam.kernels.machine.lanes import WIDTH, first_half, second_half, select
from numparam.kernels.machine.memory import access, in_memory_order, prefetch_row, stack, store_lanes
from numparam.kernels.perturb.formulas import moved, moved_on_lattice, off_lattice
from numparam.kernels.perturb.noise import LowRank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numparam.kernels.perturb.noise import Dense

Dtype = np.dtype[Any]

CHUNK = 4096
"""Elements that several perturbations move one after another: they stay in the nearest caches."""
AHEAD = 4 * CHUNK
"""Bytes before weights that are asked for while noise is drawn: 3 to 8 % faster, 15 % where chunks are copied first."""


# --------------------------------------------------------------------------- weights and noise in registers


def _make_move(mode: str, dtype: Dtype, width: int) -> Any:
    """Make the formula that moves the weights at a place, `width` of them, by their noise."""
    (load, store, shorten), size = lanes_access(width)(dtype), dtype.itemsize
    found, note, _ = access("u32", width)

    @formula
    def plain(arrays: Any, at: Any, z: Any) -> None:
        target, source, c = arrays
        store(target + at * size, shorten(moved(load(source + at * size), z, c, c)))

    @formula
    def pair(arrays: Any, at: Any, z: Any) -> None:
        target, source, opposite, other, c = arrays
        x, y = load(source + at * size), load(other + at * size)  # both, for one may be what is written
        store(opposite + at * size, shorten(moved(y, z, -c, c)))
        store(target + at * size, shorten(moved(x, z, c, c)))

    @formula
    def lattice(arrays: Any, at: Any, z: Any) -> None:
        values, faults, c, reach = arrays
        x = load(values + at * size)
        y = moved_on_lattice(x, z, c, reach)
        store(values + at * size, y)
        # Noted, each vector of a tile at its own place: a branch would keep the next noise from being drawn meanwhile.
        place = faults + (at & (TILE - 1)) * 4
        note(place, found(place) | select(off_lattice(x, y, reach), np.uint32(1), np.uint32(0)))

    return {"plain": plain, "pair": pair, "lattice": lattice}[mode]


@cache
def _make_draw(kind: str, mode: str, dtype: Dtype) -> Any:
    """Make the formula that moves the weights from `begin` to `end` by the noise of perturbation `k`."""
    (by, _, distribution), wide = kind.partition(" "), state_dtype(dtype)
    many, single = (_make_move(mode, dtype, width) for width in (WIDTH, 1))
    size = dtype.itemsize
    one = formula(lambda arrays, at, z: single(arrays, at, lane(z)))

    @formula
    def tile(arrays: Any, at: Any, values: Any) -> None:
        lower, upper = in_memory_order(values)
        prefetch_row(arrays[source] + at * size + AHEAD, TILE * size - 1)
        many(arrays, at, first_half(lower))
        many(arrays, at + WIDTH, second_half(lower))
        many(arrays, at + 2 * WIDTH, first_half(upper))
        many(arrays, at + 3 * WIDTH, second_half(upper))

    source = 0 if mode == "lattice" else 1
    if by == "factors":
        return _make_product(wide, many, single)
    loop = formula(
        over_runs(make_write(distribution, wide, tile, one), wide)
        if by == "run"
        else over_elements(distribution, wide, store_lanes, many, one)
    )

    @formula
    def draw(arrays: Any, begin: Any, end: Any, noise: Any, k: Any) -> None:
        axes, first, keys, params = noise
        loop(arrays, begin, end, axes, first, (keys[k, 0], keys[k, 1], keys[k, 2]), params, 0)

    return draw


def _make_product(dtype: Dtype, many: Any, single: Any) -> Any:
    """Make the formula of noise that is the product of left and right factors, summed in the order of the rank."""
    size, load, load_one = dtype.itemsize, lanes_access(WIDTH)(dtype).load, lanes_access(1)(dtype).load

    @formula
    def draw(arrays: Any, begin: Any, end: Any, noise: Any, k: Any) -> None:
        lefts, rights = noise
        columns, rank, at = rights.shape[2], rights.shape[1], begin
        while at < end:
            row, column = at // columns, at % columns
            stop = min(end, at + columns - column)
            factors = rights[k].ctypes.data + column * size
            while at + WIDTH <= stop:
                total = load(factors) * lefts[k, row, 0]
                for i in range(1, rank):
                    total = total + load(factors + i * columns * size) * lefts[k, row, i]
                many(arrays, at, total)
                factors, at = factors + WIDTH * size, at + WIDTH
            while at < stop:
                last = load_one(factors) * lefts[k, row, 0]
                for i in range(1, rank):
                    last = last + load_one(factors + i * columns * size) * lefts[k, row, i]
                single(arrays, at, last)
                factors, at = factors + size, at + 1

    return draw


# --------------------------------------------------------------------------- loops


@cache
def _make_loop(kind: str, mode: str, base: Dtype, out: Dtype) -> Any:
    """Make the loop of perturbations of a chunk, one after another, whose sums are rounded to the dtype of the base."""
    draw = _make_draw(kind, mode, base)
    convert: Any = None if out == base else converter(out, base).part
    pairs, converts, size, out_size = mode == "pair", out != base, base.itemsize, out.itemsize

    @kernel(f"perturb {kind} {mode} {base} {out}")
    def loop(out: Any, opposite: Any, base: Any, coefficients: Any, start: Any, stop: Any, noise: Any) -> None:
        kept, count = np.empty((2, CHUNK * size * converts), np.uint8), len(coefficients)
        chunk = CHUNK if converts or count > 1 else max(stop - start, 1)
        for begin in range(start, stop, chunk):
            end, source, other = min(begin + chunk, stop), base, base
            to, to_other = out, opposite
            if converts:
                to, to_other = kept[0].ctypes.data - begin * size, kept[1].ctypes.data - begin * size
            for k in range(count):
                if pairs:
                    draw((to, source, to_other, other, coefficients[k]), begin, end, noise, k)
                else:
                    draw((to, source, coefficients[k]), begin, end, noise, k)
                source, other = to, to_other
            if converts:
                convert(out + begin * out_size, source + begin * size, end - begin)
                if pairs:
                    convert(opposite + begin * out_size, other + begin * size, end - begin)

    return loop


@cache
def _make_lattice(kind: str) -> Any:
    """Make the loop of a perturbation of float32 weights on a lattice, which returns where it had to end."""
    draw, reserve = _make_draw(kind, "lattice", np.dtype(np.float32)), stack(4 * CHUNK)

    @kernel(f"perturb {kind} on lattice")
    def loop(values: Any, coefficients: Any, reach: Any, backwards: Any, start: Any, stop: Any, noise: Any) -> Any:
        before, faults, count = reserve(), np.zeros(2 * TILE, np.uint32), len(coefficients)
        for begin in range(start, stop, CHUNK):
            end, here = min(begin + CHUNK, stop), values + begin * 4
            copy_bytes(before, here, (end - begin) * 4, False)
            for place in range(count):
                k = count - 1 - place if backwards else place
                draw((values, faults.ctypes.data, coefficients[k], reach), begin, end, noise, k)
            if faults.any():
                copy_bytes(here, before, (end - begin) * 4, False)
                return begin
        return stop

    return loop


# --------------------------------------------------------------------------- entries


def perturb(out: Any, base: Any, noise: Dense | LowRank, coefficients: Sequence[float], opposite: Any) -> None:
    """Write moved weights; see the entries of `perturb`."""
    (kind, source), scaled = _drawn(noise, base), np.array(coefficients, state_dtype(base.dtype))
    loop = _make_loop(kind, "plain" if opposite is None else "pair", base.dtype, out.dtype)
    addresses = out.ctypes.data, 0 if opposite is None else opposite.ctypes.data, base.ctypes.data
    nbytes = out.itemsize + base.itemsize
    pool.run(lambda start, stop: loop(*addresses, scaled, start, stop, source), out.size, nbytes, CHUNK)


def perturb_on_lattice(values: Any, noise: Dense | LowRank, coefficients: Sequence[float], reach: float) -> bool:
    """Move weights in place, all of them or none."""
    kind, source = _drawn(noise, values)
    loop, address, scaled = _make_lattice(kind), values.ctypes.data, np.array(coefficients, np.float32)
    ends = []

    def work(start: int, stop: int) -> None:
        ends.append((start, loop(address, scaled, np.float32(reach), False, start, stop, source), stop))

    pool.run(work, values.size, 8, CHUNK)
    if all(end == stop for _, end, stop in ends):
        return True
    for start, end, _ in ends:  # sums on the lattice are undone exactly
        loop(address, -scaled, np.float32(reach), True, start, end, source)
    return False


def _drawn(noise: Dense | LowRank, base: Any) -> tuple[str, Any]:
    """Return how noise is drawn, and where its numbers are."""
    if isinstance(noise, LowRank):
        return "factors", noise[:2]
    make, axes, first = spread(base.shape, noise.span)
    source = axes, first, np.array(noise.keys, np.uint64), scalars(noise.params, base.dtype == np.float64)
    return f"{'run' if make is make_run else 'elements'} {noise.distribution}", source
