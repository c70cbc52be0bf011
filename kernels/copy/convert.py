"""Copy from one floating-point dtype to another, rounding once, to nearest even.

Every pair of float64, float32, float16, bfloat16, float8_e5m2 and float8_e4m3fn has its loop, made and compiled when it
is first needed. All short types are exact in float32. A float64 on its way to a short type becomes a float32 rounded to
odd, which keeps what decides the second rounding (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums:
proved algorithms using rounding to odd", 2008); ml_dtypes rounds twice there. NaN stays NaN and keeps its sign,
infinities stay, and what is too large becomes infinity, or NaN in float8_e4m3fn, which has no infinity. Integers and
bools convert as NumPy does.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from numparam.kernels.copy.entry import (
    STREAM_FROM_BYTES,
    Array,
    Walk,
    copy_apart,
    copy_by_numpy,
    copy_transposed,
    steps,
    table,
    transposed_axis,
    walk_of,
)
from numparam.kernels.copy.runs import Line, copy_bytes, each_run, one_run, walker
from numparam.kernels.copy.transposes import transposer
from numparam.kernels.formula import formats
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import (
    F32,
    F64,
    U32,
    bits,
    bits64,
    extended,
    float64_of_bits,
    float_of_bits,
    rounded,
    select,
)
from numparam.kernels.machine.memory import LINE, access, stack

TILE_BYTES = 1 << 18

# --------------------------------------------------------------------------- formulas


@formula
def from_bfloat16(b: U32) -> F32:
    """Read bfloat16 bits."""
    return float_of_bits(b << 16)


def _short_float(exponent_bits: int, mantissa_bits: int, *, has_infinity: bool) -> Any:
    """Make the formula that reads the bits of a type of one sign bit, `exponent_bits` and `mantissa_bits`."""
    shift = 23 - mantissa_bits
    sign_bit = 1 << (exponent_bits + mantissa_bits)
    sign_shift = 31 - exponent_bits - mantissa_bits
    scale = 2.0 ** (128 - 2 ** (exponent_bits - 1))
    # Infinity read as a number, or NaN where there is none: LLVM would compare bits in shorter lanes and widen masks.
    special = 2.0 ** (2 ** (exponent_bits - 1)) * (1 if has_infinity else 2 - 2.0**-mantissa_bits)
    one_nan = mantissa_bits < 10  # as ml_dtypes does; NumPy keeps what a float16 NaN carries

    @formula
    def convert(b: U32) -> F32:
        # The product moves the exponent to where float32 has it, for subnormal numbers too.
        x = float_of_bits((b & (sign_bit - 1)) << shift) * scale
        number = select(x >= special, bits(x) | 0x7F800000 if has_infinity else 0x7FC00000, bits(x))
        number = select(x > special, 0x7FC00000, number) if one_nan and has_infinity else number
        return float_of_bits(number | ((b & sign_bit) << sign_shift))

    return convert


from_float16 = _short_float(5, 10, has_infinity=True)
from_float8_e5m2 = _short_float(5, 2, has_infinity=True)
from_float8_e4m3fn = _short_float(4, 3, has_infinity=False)


@formula
def to_odd(x: F64) -> F32:
    """Round to float32: what lies between two numbers goes to the one with the odd last bit.

    Where float32 has fewer digits than its 24, below 2**-126, the result is what bfloat16 rounds to there.
    """
    magnitude = bits64(x) & 0x7FFFFFFFFFFFFFFF
    dropped = 0x1FFFFFFF  # the sum carries into the last bit kept, unless all dropped bits are zero
    odd = float64_of_bits((magnitude | ((magnitude & dropped) + dropped)) & 0xFFFFFFFFE0000000)
    y = float64_of_bits(magnitude)
    number = select(y < 2.0**-126, (y + 2.0**-81) - 2.0**-81, odd)
    return rounded(float64_of_bits(bits64(number) | (bits64(x) & 0x8000000000000000)))


class _Format(NamedTuple):
    """How one dtype is kept, and how it becomes float32 and is made from it."""

    element: str
    item_bytes: int
    widen: Any = formats.unchanged
    shorten: Any = formats.unchanged


_FORMATS = {
    np.dtype(np.float64): _Format("f64", 8),
    np.dtype(np.float32): _Format("f32", 4),
    np.dtype(np.float16): _Format("u32", 2, from_float16, formats.to_float16),
    np.dtype(ml_dtypes.bfloat16): _Format("u32", 2, from_bfloat16, formats.to_bfloat16),
    np.dtype(ml_dtypes.float8_e5m2): _Format("u32", 1, from_float8_e5m2, formats.to_float8_e5m2),
    np.dtype(ml_dtypes.float8_e4m3fn): _Format("u32", 1, from_float8_e4m3fn, formats.to_float8_e4m3fn),
}


def _make_formula(target: _Format, source: _Format) -> Any:
    """Make the formula from what is loaded to what is stored."""
    widen, shorten = source.widen, target.shorten
    if source.element == "f64":
        return rounded if target.element == "f32" else formula(lambda x: shorten(to_odd(x)))
    if target.element == "f64":
        return formula(lambda x: extended(widen(x)))
    return formula(lambda x: shorten(widen(x)))


# --------------------------------------------------------------------------- loops


@cache
def converting(target: np.dtype[Any], source: np.dtype[Any]) -> Any:
    """Make the loop over runs from one dtype to another."""
    to, origin = _FORMATS[target].item_bytes, _FORMATS[source].item_bytes
    return walker(f"convert {source} to {target}", to, origin, each_run(_line(target, source)))


@cache
def transposing(target: np.dtype[Any], source: np.dtype[Any]) -> Any:
    """Make the loop over blocks that are converted and transposed."""
    to, origin, convert = _FORMATS[target].item_bytes, _FORMATS[source].item_bytes, one_run(_line(target, source))

    @formula
    def fetch(target: Any, source: Any, count: Any) -> None:
        convert(target, source, count, False)

    return transposer(f"transpose {source} to {target}", to, origin, fetch)


def _line(target: np.dtype[Any], source: np.dtype[Any]) -> Line:
    """Make the formulas that convert one line of the target."""
    to, origin = _FORMATS[target], _FORMATS[source]
    convert = _make_formula(to, origin)
    target_bytes, source_bytes = to.item_bytes, origin.item_bytes
    items = LINE // target_bytes
    width = min(16, items)
    load, _, _ = access(origin.element, width, source_bytes if origin.element == "u32" else None)
    _, store, stream = access(to.element, width, target_bytes if to.element == "u32" else None)
    reserve_source, reserve_target = stack(width * source_bytes), stack(width * target_bytes)

    def whole(write: Any) -> Any:
        @formula
        def do_line(target: Any, source: Any) -> None:
            for at in range(0, items, width):
                write(target + at * target_bytes, convert(load(source + at * source_bytes)))

        return do_line

    @formula
    def do_part(target: Any, source: Any, count: Any) -> None:
        """Convert whole vectors, then less than one beside the arrays, which it would overrun."""
        done = count // width * width
        for at in range(0, done, width):
            store(target + at * target_bytes, convert(load(source + at * source_bytes)))
        if done < count:
            few_source, few_target, left = reserve_source(), reserve_target(), count - done
            copy_bytes(few_source, source + done * source_bytes, left * source_bytes, False)
            store(few_target, convert(load(few_source)))
            copy_bytes(target + done * target_bytes, few_target, left * target_bytes, False)

    return Line(whole(store), whole(stream), do_part, target_bytes, source_bytes)


# --------------------------------------------------------------------------- entry


def convert(target: Array, source: Array) -> None:
    """Write the values of `source` into `target`, of another dtype; parameters as in `copy.copy`."""
    if not target.flags.writeable:
        raise ValueError("the target of a copy must be writable, found a read-only array")
    if source.shape != target.shape:
        source = np.broadcast_to(source, target.shape)
    pair = target.dtype.newbyteorder("="), source.dtype.newbyteorder("=")
    if pair[0] == pair[1] or pair[0] not in _FORMATS or pair[1] not in _FORMATS:
        copy_by_numpy(target, source)
        return
    if np.may_share_memory(target, source):
        source = source.copy()
    if target.dtype.isnative and source.dtype.isnative:
        walk, past_caches = walk_of(target, source), target.nbytes >= STREAM_FROM_BYTES
        if walk.axes[-1].target == target.itemsize:
            if walk.axes[-1].source == source.itemsize:
                _convert_runs(converting(*pair), walk, target.itemsize, past_caches)
                return
            if (row := transposed_axis(walk.axes, source.itemsize)) is not None:
                copy_transposed(transposing(*pair), walk, row, target.itemsize, past_caches)
                return
    _convert_tiles(converting(*pair), target, source)


def _convert_runs(loop: Any, walk: Walk, item_bytes: int, past_caches: bool) -> None:
    axes, run = walk.axes[:-1], walk.axes[-1].length
    outer = table(axes)

    def work(start: int, stop: int) -> None:
        loop(walk.target, walk.source, start, stop, outer, run, past_caches)

    pool.run(work, run * steps(axes), item_bytes, LINE)


def _convert_tiles(loop: Any, target: Array, source: Array) -> None:
    """Convert by way of tiles in scratch memory, whose axes are in the order of the source's memory."""
    order = sorted(range(source.ndim), key=lambda axis: -abs(source.strides[axis]))
    target, source = target.transpose(order), source.transpose(order)
    extents = list(target.shape)
    while math.prod(extents) * (target.itemsize + source.itemsize) > TILE_BYTES:
        longest = extents.index(max(extents))
        extents[longest] = -(-extents[longest] // 2)
    counts = [-(-length // extent) for length, extent in zip(target.shape, extents, strict=True)]
    as_it_is = source.dtype.isnative and source.strides[-1] == source.itemsize
    copy_out = copy_apart if target.dtype.isnative else np.copyto

    def work(start: int, stop: int) -> None:
        converted = np.empty(math.prod(extents), target.dtype.newbyteorder("="))
        gathered = np.empty(0 if as_it_is else converted.size, source.dtype.newbyteorder("="))
        for tile in range(start, stop):
            places = zip(np.unravel_index(tile, counts), extents, strict=True)
            here = tuple([slice(place * extent, (place + 1) * extent) for place, extent in places])
            part, given = target[here], source[here]
            made = converted[: part.size].reshape(part.shape)
            if not as_it_is:
                np.copyto(gathered[: part.size].reshape(part.shape), given)
                given = gathered[: part.size].reshape(part.shape)
            walk = walk_of(made, given)
            loop(walk.target, walk.source, 0, part.size, table(walk.axes[:-1]), walk.axes[-1].length, False)
            copy_out(part, made)

    pool.run(work, math.prod(counts), math.prod(extents) * target.itemsize, 1)
