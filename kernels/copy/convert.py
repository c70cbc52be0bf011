"""Copy from one floating-point dtype to another, rounding once, to nearest even.

Every pair of float64, float32, float16, bfloat16, float8_e5m2 and float8_e4m3fn has its loop, made and compiled when it
is first needed. All short types are exact in float32, and a float64 is rounded to the digits of a short type before it
becomes a float32, where ml_dtypes rounds twice. NaN stays NaN and keeps its sign, infinities stay, and what is too
large becomes infinity, or NaN in float8_e4m3fn, which has no infinity. Integers and bools convert as NumPy does.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from numparam.kernels.copy.cpu import copy_apart, copy_by_numpy, copy_transposed
from numparam.kernels.copy.runs import Line, copy_bytes, each_run, one_run, walker
from numparam.kernels.copy.transposes import transposer
from numparam.kernels.copy.walk import STREAM_FROM_BYTES, Array, Walk, steps, table, transposed_axis, walk_of
from numparam.kernels.formula.formats import FORMATS, conversion
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import WIDTH
from numparam.kernels.machine.memory import LINE, access, stack

TILE_BYTES = 1 << 18


@cache
def converting(target: np.dtype[Any], source: np.dtype[Any]) -> Any:
    """Make the loop over runs from one dtype to another."""
    to, origin = FORMATS[target].item_bytes, FORMATS[source].item_bytes
    return walker(f"convert {source} to {target}", to, origin, each_run(converter(target, source)))


@cache
def transposing(target: np.dtype[Any], source: np.dtype[Any]) -> Any:
    """Make the loop over blocks that are converted and transposed."""
    to, origin, convert = FORMATS[target].item_bytes, FORMATS[source].item_bytes, one_run(converter(target, source))

    @formula
    def fetch(target: Any, source: Any, count: Any) -> None:
        convert(target, source, count, False)

    return transposer(f"transpose {source} to {target}", to, origin, fetch)


def converter(target: np.dtype[Any], source: np.dtype[Any]) -> Line:
    """Make the formulas that convert one line of the target."""
    to, origin, convert = FORMATS[target], FORMATS[source], conversion(target, source)
    target_bytes, source_bytes = to.item_bytes, origin.item_bytes
    items = LINE // target_bytes
    # AVX-512 narrows and stores in one instruction, which does not bypass the caches, unless a vector is a whole line.
    width = min(16 if WIDTH < 16 else LINE, items)
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
        """Convert whole vectors, then less than one on the stack, for it would overrun the arrays."""
        done = count // width * width
        for at in range(0, done, width):
            store(target + at * target_bytes, convert(load(source + at * source_bytes)))
        if done < count:
            few_source, few_target, left = reserve_source(), reserve_target(), count - done
            copy_bytes(few_source, source + done * source_bytes, left * source_bytes, False)
            store(few_target, convert(load(few_source)))
            copy_bytes(target + done * target_bytes, few_target, left * target_bytes, False)

    return Line(whole(store), whole(stream), do_part, target_bytes, source_bytes)


def convert(target: Array, source: Array) -> None:
    """Write the values of `source` into `target`, of one shape and different dtypes."""
    pair = target.dtype.newbyteorder("="), source.dtype.newbyteorder("=")
    if pair[0] == pair[1] or pair[0] not in FORMATS or pair[1] not in FORMATS:
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
