"""Conversions between dtypes inside the memory of a CUDA device, by the formulas of the CPU.

Floating-point numbers are rounded once, to nearest even. Integers keep their low bits; on the way to a short
floating-point dtype they become float32 first, as in NumPy. A float becomes an integer by cutting off its fraction.
Where the result does not fit, C leaves it open and NumPy's changes with the processor and the length of the array: here
it is that of x86-64's scalar instructions; of float8 infinity becomes the last integer of its side and NaN zero, as in
ml_dtypes. A NaN stays a NaN; its sign and payload are those that the hardware gives it.
Of complex numbers the real part is taken, and what becomes complex has no imaginary part.
"""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from numparam.kernels.array import DeviceArray
from numparam.kernels.copy import convert as host
from numparam.kernels.copy.cuda_rows import (
    ITEMS_AHEAD,
    WORDS,
    copy,
    line_mover,
    make_rows,
    move_rows,
    mover,
    walk_between,
)
from numparam.kernels.copy.cuda_tiles import make_tiles, move_tiles
from numparam.kernels.copy.entry import transposed_axis
from numparam.kernels.fill import Span, constant
from numparam.kernels.formula.formats import unchanged
from numparam.kernels.machine.compile import CudaKernel, formula
from numparam.kernels.machine.cuda import line_loader, store_item
from numparam.kernels.machine.lanes import (
    low_word,
    select,
    sign_extended,
    signed,
    signed_to_float32,
    signed_to_float64,
    to_float32,
    to_float64,
    truncated32,
    truncated64,
    widened,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOOL, _FLOAT32, _FLOAT64 = np.dtype(np.bool_), np.dtype(np.float32), np.dtype(np.float64)
_PART_OF: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.complex64): _FLOAT32,
    np.dtype(np.complex128): _FLOAT64,
}
INTEGERS = [np.dtype(code) for code in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")]
FLOATS = list(host._FORMATS)
DTYPES = [_BOOL, *INTEGERS, *FLOATS, *_PART_OF]

_INFINITY = math.inf
_NO, _YES, _NONE, _HIGHEST_BIT = np.uint32(0), np.uint32(1), np.uint64(0), np.uint64(2**63)

# --------------------------------------------------------------------------- formulas


@formula
def _to_int32(x: Any) -> Any:
    inside = (x > -(2.0**31)) & (x < 2.0**31)
    return select(inside, truncated32(select(inside, x, 0.0)), 0x80000000)


@formula
def _to_int64(x: Any) -> Any:
    inside = (x > -(2.0**63)) & (x < 2.0**63)
    return select(inside, truncated64(select(inside, x, 0.0)), 0x8000000000000000)


@formula
def _to_uint64(x: Any) -> Any:
    upper = x >= 2.0**63
    return _to_int64(select(upper, x - 2.0**63, x)) ^ select(upper, _HIGHEST_BIT, _NONE)


@formula
def _to_uint32(x: Any) -> Any:
    return low_word(_to_int64(x))


def _of_float(target: np.dtype[Any], source: np.dtype[Any]) -> Any:
    """Make the formula from what is loaded of a float to an integer."""
    widen = host._FORMATS[source].widen
    if target.itemsize == 8:
        cut = _to_int64 if target.kind == "i" else _to_uint64
    else:
        cut = _to_uint32 if target == np.uint32 else _to_int32
    if source.itemsize > 1:
        return formula(lambda x: cut(widen(x)))
    kind = np.uint64 if target.itemsize == 8 else np.uint32
    low, high, nothing = (
        kind(number % 2 ** (8 * kind(0).itemsize)) for number in (np.iinfo(target).min, np.iinfo(target).max, 0)
    )

    @formula
    def of_float8(bits: Any) -> Any:
        x = widen(bits)
        number = select(x == _INFINITY, high, select(x == -_INFINITY, low, cut(x)))
        return select(x != x, nothing, number)

    return of_float8


def _of_integer(target: np.dtype[Any], source: np.dtype[Any]) -> Any:
    """Make the formula from what is loaded of an integer to any number."""
    has_sign, is_long, is_double = source.kind == "i", source.itemsize == 8, target == _FLOAT64
    if target in FLOATS:
        to_float = to_float64 if is_double else to_float32
        if has_sign and is_long:
            widen = signed_to_float64 if is_double else signed_to_float32
        else:
            widen = formula(lambda x: to_float(signed(x))) if has_sign else to_float
        shorten = host._FORMATS[target].shorten
        return formula(lambda x: shorten(widen(x)))
    if is_long:
        return unchanged if target.itemsize == 8 else low_word
    return (sign_extended if has_sign else widened) if target.itemsize == 8 else unchanged


def _low_bits(convert: Any, target: np.dtype[Any]) -> Any:
    """Cut what a formula makes down to a short integer: items of a line share words."""
    mask = (1 << 8 * target.itemsize) - 1
    return formula(lambda x: convert(x) & mask) if target in INTEGERS and target.itemsize < 4 else convert


def _truth(source: np.dtype[Any]) -> Any:
    """Make the formula from the bits of a number to whether it is not zero, of either sign."""
    parts = 2 if source in _PART_OF else 1
    bits = 8 * source.itemsize // parts
    mask = (1 << bits) - 1 if source in INTEGERS else (1 << (bits - 1)) - 1
    if source == np.complex64:
        mask |= mask << 32
    if source == np.complex128:
        return formula(lambda pair: select(((pair[0] | pair[1]) & mask) != 0, _YES, _NO))
    return formula(lambda x: select((x & mask) != 0, _YES, _NO))


# --------------------------------------------------------------------------- kernels


def canonical(target: np.dtype[Any], source: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return the pair of dtypes whose kernel serves a pair of dtypes; if both are the same a copy does."""
    if source == _BOOL:
        source = INTEGERS[0]
    if target == _BOOL:
        if source in INTEGERS:
            source = np.dtype(f"u{source.itemsize}")
        elif source in FLOATS and source.itemsize <= 2:
            source = np.dtype(np.float16 if source.itemsize == 2 else ml_dtypes.float8_e5m2)
    elif source in INTEGERS and target in INTEGERS:
        target = np.dtype(f"u{target.itemsize}")
        if target.itemsize <= source.itemsize:
            source = np.dtype(f"u{source.itemsize}")
    elif source in FLOATS and target in INTEGERS and target.itemsize <= 2 <= source.itemsize:
        target = np.dtype(f"u{target.itemsize}")
    return target, source


def pairs() -> Iterator[tuple[np.dtype[Any], np.dtype[Any]]]:
    """Yield target and source of every kernel."""
    real = [dtype for dtype in DTYPES if dtype not in _PART_OF]
    found = {canonical(target, source): None for target, source in itertools.product(real, real)}
    found |= {(_BOOL, source): None for source in _PART_OF}
    yield from ((target, source) for target, source in found if target != source)


@cache
def make_conversion(target: np.dtype[Any], source: np.dtype[Any]) -> CudaKernel:
    """Make the kernel that converts one dtype to another; `pairs` tells which there are."""
    name = f"convert_{source}_to_{target}"
    if source == np.complex128:  # to bool; an item is two words
        load, word, truth, byte = line_loader(2), WORDS[8], _truth(source), WORDS[1]
        load_pair = formula(lambda origin: load(origin, word))
        return make_rows(
            name, mover(load_pair, formula(lambda to, pair: store_item(to, truth(pair), byte)), ITEMS_AHEAD)
        )
    return make_rows(name, line_mover(*_steps_between(target, source)))


@cache
def make_transposed(target: np.dtype[Any], source: np.dtype[Any]) -> CudaKernel:
    """Make the kernel that converts and exchanges two axes, for the `pairs` whose items have at most 8 bytes."""
    return make_tiles(f"convert_transposed_{source}_to_{target}", *_steps_between(target, source))


@cache
def _steps_between(target: np.dtype[Any], source: np.dtype[Any]) -> tuple[Any, Any, Any]:
    """Return scalars of the types that are stored and loaded, and the formula from one to the other."""
    if target == _BOOL:
        return WORDS[1], WORDS[source.itemsize], _truth(source)
    if source in INTEGERS:
        convert = _low_bits(_of_integer(target, source), target)
    elif target in INTEGERS:
        convert = _low_bits(_of_float(target, source), target)
    else:
        convert = host._make_formula(host._FORMATS[target], host._FORMATS[source])
    return _item(target), _item(source), convert


def _item(dtype: np.dtype[Any]) -> Any:
    """Return a scalar of the type in which a thread loads and stores items of a dtype."""
    if dtype in (_FLOAT32, _FLOAT64) or dtype.kind == "i":
        return dtype.type(0)
    return WORDS[dtype.itemsize]


# --------------------------------------------------------------------------- entry


def convert(
    target: DeviceArray,
    source: DeviceArray,
    shape: tuple[int, ...],
    target_span: Span | None = None,
    source_span: Span | None = None,
) -> None:
    """Write the values of a slice into one of another dtype; parameters as in `copy_threads.copy`."""
    if target.dtype in _PART_OF:
        _convert_to_complex(target, source, shape, target_span, source_span)
        return
    if source.dtype in _PART_OF and target.dtype != _BOOL:
        source, source_span = _part(source, shape, source_span)
    to, origin = canonical(target.dtype, source.dtype)
    if to == origin:
        copy(_seen_as(target, to), _seen_as(source, to), shape, target_span, source_span)
        return
    walk = walk_between(target, source, shape, target_span, source_span)
    if walk.axes and walk.axes[-1].target == to.itemsize and origin.itemsize <= 8:
        row = transposed_axis(walk.axes, origin.itemsize)
        if row is not None:
            size = min(to.itemsize, origin.itemsize)
            move_tiles(make_transposed(to, origin), target.device, walk, row, size)
            return
    move_rows(make_conversion(to, origin), target.device, walk, to.itemsize, origin.itemsize)


def _convert_to_complex(
    target: DeviceArray,
    source: DeviceArray,
    shape: tuple[int, ...],
    target_span: Span | None,
    source_span: Span | None,
) -> None:
    real, real_span = _part(target, shape, target_span)
    if source.dtype not in _PART_OF:
        copy(real, source, shape, real_span, source_span)
        source, source_span = DeviceArray.empty((1,), real.dtype, target.device), Span(0, (0,) * len(shape))
        constant.fill(source, 0)
    else:
        source, source_span = _part(source, shape, source_span)
        copy(real, source, shape, real_span, source_span)
        source_span = source_span._replace(base=source_span.base + 1)
    copy(real, source, shape, real_span._replace(base=real_span.base + 1), source_span)


def _part(array: DeviceArray, shape: tuple[int, ...], span: Span | None) -> tuple[DeviceArray, Span]:
    """Return a complex array as the floats that it is made of, and where the real parts of a slice are in it."""
    base, steps = span or Span(0, tuple([math.prod(shape[axis + 1 :]) for axis in range(len(shape))]))
    floats = DeviceArray((2 * array.size,), _PART_OF[array.dtype], array.device, array.address, array._owner)
    return floats, Span(2 * base, tuple([2 * step for step in steps]))


def _seen_as(array: DeviceArray, dtype: np.dtype[Any]) -> DeviceArray:
    return DeviceArray(array.shape, dtype, array.device, array.address, array._owner)
