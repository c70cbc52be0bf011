"""Integers, bools and complex numbers to other dtypes, and floats to integers, in the steps of a CUDA thread.

Integers keep their low bits; on the way to a short floating-point dtype they become float32 first, as in NumPy. A float
becomes an integer by cutting off its fraction. Where the result does not fit, C leaves it open and NumPy's changes with
the processor and the length of the array: here it is as x86-64's scalar instructions do; of float8 infinity becomes
the last integer of its side and NaN zero, as in ml_dtypes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numparam.kernels.formula.formats import FORMATS, unchanged
from numparam.kernels.machine.compile import formula
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

_FLOAT64 = np.dtype(np.float64)
PART_OF: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.complex64): np.dtype(np.float32),
    np.dtype(np.complex128): _FLOAT64,
}
INTEGERS = [np.dtype(code) for code in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")]

_INFINITY = math.inf
_NO, _YES, _NONE, _HIGHEST_BIT = np.uint32(0), np.uint32(1), np.uint64(0), np.uint64(2**63)


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


def of_float(target: np.dtype[Any], source: np.dtype[Any]) -> Any:
    """Make the formula from what is loaded of a float to an integer."""
    widen = FORMATS[source].widen
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


def of_integer(target: np.dtype[Any], source: np.dtype[Any]) -> Any:
    """Make the formula from what is loaded of an integer to any number."""
    has_sign, is_long, is_double = source.kind == "i", source.itemsize == 8, target == _FLOAT64
    if target in FORMATS:
        to_float = to_float64 if is_double else to_float32
        if has_sign and is_long:
            widen = signed_to_float64 if is_double else signed_to_float32
        else:
            widen = formula(lambda x: to_float(signed(x))) if has_sign else to_float
        shorten = FORMATS[target].shorten
        return formula(lambda x: shorten(widen(x)))
    if is_long:
        return unchanged if target.itemsize == 8 else low_word
    return (sign_extended if has_sign else widened) if target.itemsize == 8 else unchanged


def low_bits(convert: Any, target: np.dtype[Any]) -> Any:
    """Truncate the result of a formula to a short integer: items of a line share words."""
    mask = (1 << 8 * target.itemsize) - 1
    return formula(lambda x: convert(x) & mask) if target in INTEGERS and target.itemsize < 4 else convert


def truth(source: np.dtype[Any]) -> Any:
    """Make the formula from the bits of a number to whether it is not zero, of either sign."""
    parts = 2 if source in PART_OF else 1
    bits = 8 * source.itemsize // parts
    mask = (1 << bits) - 1 if source in INTEGERS else (1 << (bits - 1)) - 1
    if source == np.complex64:
        mask |= mask << 32
    if source == np.complex128:
        return formula(lambda pair: select(((pair[0] | pair[1]) & mask) != 0, _YES, _NO))
    return formula(lambda x: select((x & mask) != 0, _YES, _NO))
