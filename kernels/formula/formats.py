"""Round float32 to the bits of shorter floating-point types, to nearest even.

Numba has none of these types on a CPU, so their bits are computed as integers. NaN stays NaN; what is too large becomes
infinity, or NaN in float8_e4m3fn, which has no infinity.
"""

from __future__ import annotations

from typing import Any

from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import (
    F32,
    HAS_FLOAT16_INSTRUCTION,
    U32,
    bits,
    float16_bits,
    float_of_bits,
    select,
)


@formula
def finite_to_bfloat16(x: F32) -> U32:
    """Return the bits of bfloat16, the upper half of float32, for anything but NaN."""
    b = bits(x)
    return (b + ((b >> 16) & 1) + 0x7FFF) >> 16


@formula
def finite_pair_to_bfloat16(x: F32, y: F32) -> U32:
    """Return two `finite_to_bfloat16` in the halves of one word."""
    a, b = bits(x), bits(y)
    a = a + ((a >> 16) & 1) + 0x7FFF
    b = b + ((b >> 16) & 1) + 0x7FFF
    return (a >> 16) | (b & 0xFFFF0000)


@formula
def to_bfloat16(x: F32) -> U32:
    """Return bfloat16 bits."""
    return select(x != x, ((bits(x) >> 16) & 0x8000) | 0x7FC0, finite_to_bfloat16(x))


def _short_float(exponent_bits: int, mantissa_bits: int, *, has_infinity: bool) -> Any:
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


to_float16 = float16_bits if HAS_FLOAT16_INSTRUCTION else _short_float(5, 10, has_infinity=True)
to_float8_e5m2 = _short_float(5, 2, has_infinity=True)
to_float8_e4m3fn = _short_float(4, 3, has_infinity=False)


@formula
def unchanged(x: Any) -> Any:
    """Return x: float32 and float64 are stored as they are drawn."""
    return x
