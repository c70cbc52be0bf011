"""Floating-point formats: float32 to the bits of shorter types, rounded to nearest even, and back.

Numba lacks the short types on a CPU, so their bits are computed as integers. NaN stays NaN; what is too large
becomes infinity, or NaN in float8_e4m3fn, which has no infinity. All short types are exact in float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from numparam.kernels.machine.avx512 import chosen
from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import (
    F32,
    F64,
    HAS_FLOAT16_INSTRUCTION,
    U32,
    bits,
    bits64,
    carried,
    extended,
    float16_bits,
    float64_of_bits,
    float_of_bits,
    rounded,
    select,
)

_LOWER_HALF = np.uint32(0xFFFF)


@formula
def finite_to_bfloat16(x: F32) -> U32:
    """Return the bits of bfloat16, the upper half of float32, for anything but NaN."""
    b = bits(x)
    return (b + ((b >> 16) & 1) + 0x7FFF) >> 16


@formula
def finite_pair_to_bfloat16(x: F32, y: F32) -> U32:
    """Return two `finite_to_bfloat16` in the halves of one word."""
    a, b = bits(x), bits(y)
    upper, lower = chosen(_LOWER_HALF, a >> 16, b), chosen(_LOWER_HALF, a, b << 16)
    return carried(upper, lower, ~upper & 0x00010001)  # a half carries from odd numbers only


@formula
def to_bfloat16(x: F32) -> U32:
    """Return bfloat16 bits."""
    return select(x != x, ((bits(x) >> 16) & 0x8000) | 0x7FC0, finite_to_bfloat16(x))


def encoder(exponent_bits: int, mantissa_bits: int, *, has_infinity: bool) -> Any:
    """Make the formula for a type of one sign bit, `exponent_bits` and `mantissa_bits`."""
    bias = 2 ** (exponent_bits - 1) - 1
    dropped = 23 - mantissa_bits
    sign_shift = 31 - exponent_bits - mantissa_bits
    rebias = (127 - bias) << mantissa_bits
    smallest_normal = (128 - bias) << 23
    # Adding this power of two leaves the multiple of the smallest subnormal in the last bits, correctly rounded.
    magic_bits = (1 - bias - mantissa_bits + 23 + 127) << 23
    magic = 2.0 ** (1 - bias - mantissa_bits + 23)
    top_exponent = ((1 << exponent_bits) - 1) << mantissa_bits
    overflow = top_exponent if has_infinity else top_exponent | ((1 << mantissa_bits) - 1)
    quiet = top_exponent | (1 << (mantissa_bits - 1)) if has_infinity else overflow
    sign_bit = 1 << (exponent_bits + mantissa_bits)
    half = (1 << (dropped - 1)) - 1

    @formula
    def convert(x: F32) -> U32:
        b = bits(x)
        magnitude = b & 0x7FFFFFFF
        normal = ((magnitude + ((magnitude >> dropped) & 1) + half) >> dropped) - rebias
        subnormal = bits(float_of_bits(magnitude) + magic) - magic_bits
        result = select(magnitude < smallest_normal, subnormal, normal)
        result = select(result > overflow, overflow, result)
        result = select(x != x, quiet, result) if has_infinity else result
        return result | ((b >> sign_shift) & sign_bit)

    return convert


to_float16 = float16_bits if HAS_FLOAT16_INSTRUCTION else encoder(5, 10, has_infinity=True)
to_float8_e5m2 = encoder(5, 2, has_infinity=True)
to_float8_e4m3fn = encoder(4, 3, has_infinity=False)


@formula
def unchanged(x: Any) -> Any:
    """Return x: float32 and float64 are stored as they are drawn."""
    return x


@formula
def from_bfloat16(b: U32) -> F32:
    """Read bfloat16 bits."""
    return float_of_bits(b << 16)


def _decoder(exponent_bits: int, mantissa_bits: int, *, has_infinity: bool) -> Any:
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


from_float16 = _decoder(5, 10, has_infinity=True)
from_float8_e5m2 = _decoder(5, 2, has_infinity=True)
from_float8_e4m3fn = _decoder(4, 3, has_infinity=False)


@formula
def upper_half(x: F32) -> U32:
    """Return the bits of bfloat16 of a float32 that bfloat16 has, or of NaN."""
    return select(x != x, ((bits(x) >> 16) & 0x8000) | 0x7FC0, bits(x) >> 16)


def narrower(digits: int, least_exponent: int, shorten: Any) -> Any:
    """Make the formula from float64 to a type of so many binary digits and that exponent of the least normal number.

    A number 2**(53 - digits) times as large leaves, when it is added, the digits of the type, correctly rounded. What
    `shorten` gets has these digits, and it rounds nothing.
    """
    least, magic = 2.0**least_exponent, 1.5 * 2.0 ** (53 - digits)

    @formula
    def convert(x: F64) -> U32:
        power = float64_of_bits(bits64(x) & 0x7FF0000000000000)
        power = select(power > least, power, least)
        power = select(power < 2.0**200, power, 2.0**200)  # 2**1023 times the magic number would be infinite
        number = (x + power * magic) - power * magic
        return shorten(rounded(float64_of_bits(bits64(number) | (bits64(x) & 0x8000000000000000))))

    return convert


narrow_to_float16 = narrower(11, -14, to_float16)
narrow_to_bfloat16 = narrower(8, -126, upper_half)
narrow_to_float8_e5m2 = narrower(3, -14, to_float8_e5m2)
narrow_to_float8_e4m3fn = narrower(4, -6, to_float8_e4m3fn)


class Format(NamedTuple):
    """How one dtype is kept, how it becomes float32, and how it is made from float32 and from float64."""

    element: str
    item_bytes: int
    widen: Any = unchanged
    shorten: Any = unchanged
    narrow: Any = rounded


FORMATS: dict[np.dtype[Any], Format] = {
    np.dtype(np.float64): Format("f64", 8),
    np.dtype(np.float32): Format("f32", 4),
    np.dtype(np.float16): Format("u32", 2, from_float16, to_float16, narrow_to_float16),
    np.dtype(ml_dtypes.bfloat16): Format("u32", 2, from_bfloat16, to_bfloat16, narrow_to_bfloat16),
    np.dtype(ml_dtypes.float8_e5m2): Format("u32", 1, from_float8_e5m2, to_float8_e5m2, narrow_to_float8_e5m2),
    np.dtype(ml_dtypes.float8_e4m3fn): Format("u32", 1, from_float8_e4m3fn, to_float8_e4m3fn, narrow_to_float8_e4m3fn),
}


def conversion(target: np.dtype[Any], source: np.dtype[Any]) -> Any:
    """Make the formula from what is loaded of one dtype to what is stored of another."""
    widen, shorten = FORMATS[source].widen, FORMATS[target].shorten
    if FORMATS[source].element == "f64":
        return FORMATS[target].narrow
    if FORMATS[target].element == "f64":
        return formula(lambda x: extended(widen(x)))
    return formula(lambda x: shorten(widen(x)))
