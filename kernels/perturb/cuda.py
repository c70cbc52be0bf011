"""Perturbation by CUDA threads: the formulas and the bits of the CPU; a thread draws a block and moves its elements."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from numparam.kernels.array import DeviceArray
from numparam.kernels.fill.cuda import PARAMETERS, make_block
from numparam.kernels.fill.key import merged
from numparam.kernels.formula.access import Access, item_of, state_dtype, thread_access
from numparam.kernels.formula.axes import OUTER, launches, locate
from numparam.kernels.formula.formats import FORMATS
from numparam.kernels.launch import launch
from numparam.kernels.machine.compile import CudaKernel, formula
from numparam.kernels.machine.cuda import (
    holds,
    lane,
    line_loader,
    load_item,
    store_item,
    store_line,
    thread,
    threads,
)
from numparam.kernels.machine.lanes import low_word, select, widened
from numparam.kernels.perturb.formulas import moved, moved_on_lattice, off_lattice
from numparam.kernels.perturb.noise import LowRank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numparam.kernels.perturb.noise import Dense

Dtype = np.dtype[Any]

TABLE_WORDS = 4
"""Words of 64 bits of a perturbation: seed, stream, refinement, coefficient."""

_WORD, _FAULT = np.uint64(0), np.uint32(0)


# --------------------------------------------------------------------------- formulas


@cache
def _make_move(base: Dtype, mode: str) -> Any:
    """Make the formula that moves one weight, and in mode "check" notes at `flag` what is not on the lattice."""
    shorten, widen = thread_access(base).shorten, FORMATS[base].widen

    @formula
    def plain(x: Any, z: Any, c: Any, reach: Any, _flag: Any) -> Any:
        return widen(shorten(moved(x, z, c, reach)))

    @formula
    def lattice(x: Any, z: Any, c: Any, reach: Any, _flag: Any) -> Any:
        return moved_on_lattice(x, z, c, reach)

    @formula
    def check(x: Any, z: Any, c: Any, reach: Any, flag: Any) -> Any:
        y = moved_on_lattice(x, z, c, reach)
        if holds(off_lattice(x, y, reach)):
            store_item(flag, lane(np.uint32(1)), _FAULT)
        return y

    return {"plain": plain, "pair": plain, "lattice": lattice, "check": check}[mode]


def _element(base: Dtype, out: Dtype) -> Access:
    """Load what one dtype holds, and store into another."""
    return thread_access(out)._replace(load=thread_access(base).load)


# --------------------------------------------------------------------------- kernels


@cache
def make_run(distribution: str, base: Dtype, out: Dtype, mode: str) -> CudaKernel:
    """Make the kernel for rows of consecutive elements: a thread takes a block of four, lines of it where they are."""
    draw, move, scalar = make_block(distribution, state_dtype(base)), _make_move(base, mode), state_dtype(base).type(0)
    (load, store, shorten), size, out_size = _element(base, out), base.itemsize, out.itemsize
    base_item, out_item, loads_line = item_of(base), item_of(out), line_loader(4)
    stores, pairs = mode != "check", mode == "pair"
    by_lines = min(size, out_size) >= 4

    @formula
    def load_inside(address: Any, place: Any, length: Any) -> Any:
        x = lane(scalar)
        if holds(place < length):
            x = load(address)
        return x

    @formula
    def store_inside(address: Any, place: Any, length: Any, x: Any) -> None:
        if holds(place < length):
            store(address, shorten(x))

    @formula
    def store_block(target: Any, at: Any, length: Any, aligned: Any, block: Any) -> None:
        a, b, c, d = block
        if by_lines and holds(aligned):
            store_line(target, (shorten(a), shorten(b), shorten(c), shorten(d)), out_item)
        else:
            store_inside(target, at, length, a)
            store_inside(target + out_size, at + 1, length, b)
            store_inside(target + 2 * out_size, at + 2, length, c)
            store_inside(target + 3 * out_size, at + 3, length, d)

    @formula
    def move_block(block: Any, drawn: Any, scale: Any, reach: Any, flag: Any) -> Any:
        (a, b, c, d), (z0, z1, z2, z3) = block, drawn
        return (
            move(a, z0, scale, reach, flag),
            move(b, z1, scale, reach, flag),
            move(c, z2, scale, reach, flag),
            move(d, z3, scale, reach, flag),
        )

    def run(
        out: Any, opposite: Any, base: Any, table: Any, count: Any, rows: Any, length: Any, step: Any,  # noqa: ARG001
        axes: Any, first: Any, params: Any, reach: Any,
    ) -> None:  # fmt: skip
        row = thread(1)
        while holds(row < rows):
            index = locate(row, axes, lane(first))
            start, word = widened(row) * widened(lane(length)), low_word(index) & 3
            groups = (lane(length) + word + 3) // 4
            group = thread(0)
            while holds(group < groups):
                at = group * 4 - word  # what comes before the row has a number above any in it
                place = start + widened(group) * 4 - widened(word)
                source, target, block = lane(base) + place * size, lane(out) + place * out_size, index >> 2
                other = lane(opposite) + place * out_size
                inside = (at < length) & (at + 3 < length)
                aligned = inside & ((source & 15) == 0) & (((target | other) & 15) == 0)
                if by_lines and holds(aligned):
                    x = loads_line(source, base_item)
                else:
                    x = (
                        load_inside(source, at, length),
                        load_inside(source + size, at + 1, length),
                        load_inside(source + 2 * size, at + 2, length),
                        load_inside(source + 3 * size, at + 3, length),
                    )
                y = x
                entry, end = lane(table), lane(table) + widened(lane(count)) * (8 * TABLE_WORDS)
                while holds(entry < end):
                    key = load_item(entry, _WORD), load_item(entry + 8, _WORD), load_item(entry + 16, _WORD)
                    scale = load_item(entry + 24, scalar)
                    drawn = draw(block + widened(group), key, lane(params))
                    x = move_block(x, drawn, scale, lane(reach), lane(out))
                    if pairs:
                        y = move_block(y, drawn, -scale, lane(reach), lane(out))
                    entry = entry + 8 * TABLE_WORDS
                if stores:
                    store_block(target, at, length, aligned, x)
                if pairs:
                    store_block(other, at, length, aligned, y)
                group = group + threads(0)
            row = row + threads(1)

    return CudaKernel(f"perturb_run_{distribution}_{base}_{out}_{mode}", run, _signature(distribution, base))


@cache
def make_gather(distribution: str, base: Dtype, out: Dtype, mode: str) -> CudaKernel:
    """Make the kernel for rows with any step, a block drawn for each element."""
    draw, move, scalar = make_block(distribution, state_dtype(base)), _make_move(base, mode), state_dtype(base).type(0)
    (load, store, shorten), size, out_size = _element(base, out), base.itemsize, out.itemsize
    stores, pairs = mode != "check", mode == "pair"

    def gather(
        out: Any, opposite: Any, base: Any, table: Any, count: Any, rows: Any, length: Any, step: Any, axes: Any,
        first: Any, params: Any, reach: Any,
    ) -> None:  # fmt: skip
        row = thread(1)
        while holds(row < rows):
            column, start = thread(0), widened(row) * widened(lane(length))
            origin = locate(row, axes, lane(first))
            while holds(column < length):
                place, index = start + widened(column), origin + widened(column) * step
                x, word = load(lane(base) + place * size), low_word(index) & 3
                y = x
                entry, end = lane(table), lane(table) + widened(lane(count)) * (8 * TABLE_WORDS)
                while holds(entry < end):
                    key = load_item(entry, _WORD), load_item(entry + 8, _WORD), load_item(entry + 16, _WORD)
                    a, b, c, d = draw(index >> 2, key, lane(params))
                    z = select(word < 2, select(word == 0, a, b), select(word == 2, c, d))
                    scale = load_item(entry + 24, scalar)
                    x = move(x, z, scale, lane(reach), lane(out))
                    if pairs:
                        y = move(y, z, -scale, lane(reach), lane(out))
                    entry = entry + 8 * TABLE_WORDS
                if stores:
                    store(lane(out) + place * out_size, shorten(x))
                if pairs:
                    store(lane(opposite) + place * out_size, shorten(y))
                column = column + threads(0)
            row = row + threads(1)

    return CudaKernel(f"perturb_gather_{distribution}_{base}_{out}_{mode}", gather, _signature(distribution, base))


@cache
def make_low_rank(base: Dtype, out: Dtype, mode: str) -> CudaKernel:
    """Make the kernel of noise that is a product of two factors, summed in the order of the CPU."""
    move, dtype = _make_move(base, mode), state_dtype(base)
    scalar, item_size = dtype.type(0), dtype.itemsize
    (load, store, shorten), size, out_size = _element(base, out), base.itemsize, out.itemsize
    stores, pairs = mode != "check", mode == "pair"

    def low_rank(
        out: Any, opposite: Any, base: Any, lefts: Any, rights: Any, table: Any, count: Any, rank: Any, rows: Any,
        columns: Any, reach: Any,
    ) -> None:  # fmt: skip
        row, ranks = thread(1), widened(lane(rank))
        wide = widened(lane(columns)) * item_size
        while holds(row < rows):
            column = thread(0)
            while holds(column < columns):
                place = widened(row) * widened(lane(columns)) + widened(column)
                x = load(lane(base) + place * size)
                y = x
                left = lane(lefts) + widened(row) * ranks * item_size
                right = lane(rights) + widened(column) * item_size
                entry, end = lane(table), lane(table) + widened(lane(count)) * 8
                while holds(entry < end):
                    z, i = load_item(right, scalar) * load_item(left, scalar), ranks - ranks + 1
                    while holds(i < ranks):
                        factor = load_item(left + i * item_size, scalar)
                        z = z + load_item(right + i * wide, scalar) * factor
                        i = i + 1
                    scale = load_item(entry, scalar)
                    x = move(x, z, scale, lane(reach), lane(out))
                    if pairs:
                        y = move(y, z, -scale, lane(reach), lane(out))
                    left = left + widened(lane(rows)) * ranks * item_size
                    right = right + ranks * wide
                    entry = entry + 8
                if stores:
                    store(lane(out) + place * out_size, shorten(x))
                if pairs:
                    store(lane(opposite) + place * out_size, shorten(y))
                column = column + threads(0)
            row = row + threads(1)

    word, short, real = types.uint64, types.uint32, _real(base)
    signature = word, word, word, word, word, word, short, short, short, short, real
    return CudaKernel(f"perturb_low_rank_{base}_{out}_{mode}", low_rank, signature)


def _real(base: Dtype) -> Any:
    return types.float64 if base == np.float64 else types.float32


def _signature(distribution: str, base: Dtype) -> tuple[Any, ...]:
    count, split = PARAMETERS[distribution]
    params = [types.uint32] * split + [_real(base)] * (count - split)
    word, short = types.uint64, types.uint32
    return word, word, word, word, short, short, short, word, OUTER, word, types.Tuple(params), _real(base)


# --------------------------------------------------------------------------- entries


def perturb(out: Any, base: Any, noise: Dense | LowRank, coefficients: Sequence[float], opposite: Any) -> None:
    """Write moved weights; see the entries of `perturb`."""
    _perturb(out, base, noise, coefficients, "plain" if opposite is None else "pair", opposite=opposite)


def perturb_on_lattice(values: Any, noise: Dense | LowRank, coefficients: Sequence[float], reach: float) -> bool:
    """Move weights in place, all of them or none: a first launch looks whether all are on the lattice."""
    flag = DeviceArray.from_host(np.zeros(1, np.uint32), values.device)
    _perturb(flag, values, noise, coefficients, "check", reach)
    if flag.to_host()[0]:
        return False
    _perturb(values, values, noise, coefficients, "lattice", reach)
    return True


def _perturb(
    out: Any, base: Any, noise: Dense | LowRank, coefficients: Sequence[float], mode: str, reach: float = 1.0,
    opposite: Any = None,
) -> None:  # fmt: skip
    dtype, table = state_dtype(base.dtype), np.zeros((len(coefficients), TABLE_WORDS), np.uint64)
    target = base.dtype if mode == "check" else out.dtype
    table[:, 3:].view(dtype)[:, 0] = coefficients
    if isinstance(noise, LowRank):
        rows, columns = base.shape
        there = DeviceArray.from_host(np.ascontiguousarray(table[:, 3]), base.device)
        addresses = out.address, _address(opposite), base.address, noise.lefts.address, noise.rights.address
        words = *addresses, there.address, len(coefficients)
        kernel = make_low_rank(base.dtype, target, mode)
        launch(base.device, kernel, columns, rows, (*words, noise.rights.shape[1], rows, columns, dtype.type(reach)))
        return
    table[:, :3] = noise.keys
    there = DeviceArray.from_host(table, base.device)
    lengths, steps, first = merged(base.shape, noise.span)
    consecutive = steps[-1] == 1 or lengths[-1] == 1
    kernel = (make_run if consecutive else make_gather)(noise.distribution, base.dtype, target, mode)
    flat = [None if array is None else array.ravel() for array in (out, opposite, base)]
    for part, rows, length, place in launches(lengths, steps, first):
        parts = [array if array is None or array.size == 1 else array[part] for array in flat]  # a flag is one item
        columns = length // 4 + 2 if consecutive else length
        launched = *map(_address, parts), there.address, len(coefficients), rows, length, *place
        launch(base.device, kernel, columns, rows, (*launched, *noise.params, reach))


def _address(array: Any) -> int:
    return 0 if array is None else array.address
