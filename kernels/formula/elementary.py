"""Logarithm, cosine and sine from correctly rounded operations only, in float32 and float64.

The polynomials are minimax fits (relative error, lowest coefficients rounded first and the others fitted again), made
for the ranges stated at each function. Long ones are summed as two interleaved halves, even and odd powers: waiting
for one chain of fused multiply-adds takes longer than computing them. tests/test_elementary.py measures their errors
against exact arithmetic.
"""

from __future__ import annotations

from typing import Any

from numparam.kernels.machine.avx512 import power, scaled
from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import (
    F32,
    F64,
    bits64,
    float64_of_bits,
    fma,
    select,
)

LN2 = 0.6931471805599453
LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # the high part has 21 trailing zero bits


def _log_times(factor: float) -> Any:
    """Make the formula of ``factor * log((1 + f) / 2**e)``; the digits are the same for every power of two."""

    @formula
    def log_times(e: F32, f: F32) -> F32:
        g = f * f
        even = fma(g, factor * 0.08700359612703323, factor * 0.14914511144161224)
        odd = fma(g, factor * -0.14266914129257202, factor * -0.16577653586864471)
        even = fma(g, even, factor * 0.199631005525589)
        odd = fma(g, odd, factor * -0.2500133514404297)
        even = fma(g, even, factor * 0.3333390951156616)
        odd = fma(g, odd, factor * -0.5)
        even = fma(g, even, factor)
        return fma(f, fma(f, odd, even), e * (factor * -LN2))

    return log_times


_log, _minus_twice_log = _log_times(1.0), _log_times(-2.0)


@formula
def log(x: F32) -> F32:
    """Return the natural logarithm of normal float32 numbers in (0, 2**126), 3 ulp; exactly 0 for 1."""
    return _log(power(x), scaled(x) - 1.0)


@formula
def minus_twice_log_fraction(v: F32) -> F32:
    """Return ``-2 log(v)`` for v in (0, 1/2] and ``-2 log(1 + v)`` for v in [-1/2, 0), 4 ulp.

    Digits next to 1 survive.
    """
    x = select(v < 0.0, v + 1.0, v)
    e = power(x)
    return _minus_twice_log(e, select(e == 0.0, v, scaled(x) - 1.0))


@formula
def cos_eighth(x: F32) -> F32:
    """Return ``cos(pi/4 * x)`` for x in [-1, 1], 1 ulp."""
    y = x * x
    p = fma(y, 3.493981466817786e-06, -0.0003258686338085681)
    p = fma(y, p, 0.015854284167289734)
    p = fma(y, p, -0.3084251284599304)
    return fma(y, p, 1.0)


@formula
def sin_eighth(x: F32) -> F32:
    """Return ``sin(pi/4 * x)`` for x in [-1, 1], 2 ulp."""
    y = x * x
    p = fma(y, -3.658583591459319e-05, 0.002490987302735448)
    p = fma(y, p, -0.08074582368135452)
    p = fma(y, p, 0.7853981852531433)
    return x * p


@formula
def log_64(x: F64) -> F64:
    """Return the natural logarithm of positive normal float64 numbers, 1 ulp; exactly 0 for 1."""
    exponent, f = _split_64(x)
    return _log_64(exponent, f)


@formula
def log_fraction_64(v: F64) -> F64:
    """Return `log_fraction` in float64, 2 ulp."""
    exponent, f = _split_64(select(v < 0.0, v + 1.0, v))
    return _log_64(exponent, select(exponent == 0.0, v, f))


@formula
def _split_64(x: F64) -> tuple[F64, F64]:
    # The sum moves sqrt(1/2) to 1, so the exponent field is the power of two to divide by.
    shifted = bits64(x) + (0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
    exponent = float64_of_bits((shifted >> 52) | 0x4330000000000000) - (4503599627370496.0 + 1023.0)
    return exponent, float64_of_bits((shifted & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD) - 1.0


@formula
def _log_64(exponent: F64, f: F64) -> F64:
    # log(1 + f) = 2 atanh(s), s = f / (2 + f), arranged so that f enters unrounded.
    s = f / (f + 2.0)
    z = s * s
    p = fma(z, 0.1308675766695207, 0.13268760562036724)
    p = fma(z, p, 0.15386240172447838)
    p = fma(z, p, 0.18181795631498243)
    p = fma(z, p, 0.22222222391794727)
    p = fma(z, p, 0.28571428570803253)
    p = fma(z, p, 0.4000000000000088)
    p = fma(z, p, 0.6666666666666666)
    half_square = f * f * 0.5
    tail = fma(s, fma(z, p, half_square), exponent * LN2_LOW)
    return fma(exponent, LN2_HIGH, f - (half_square - tail))


@formula
def cos_eighth_64(x: F64) -> F64:
    """Return ``cos(pi/4 * x)`` for x in [-1, 1], 1 ulp."""
    y = x * x
    p = fma(y, -3.8581890073416675e-13, 1.1500512028217341e-10)
    p = fma(y, p, -2.4611364033652597e-08)
    p = fma(y, p, 3.590860446027952e-06)
    p = fma(y, p, -0.00032599188692673765)
    p = fma(y, p, 0.01585434424381542)
    p = fma(y, p, -0.30842513753404244)
    return fma(y, p, 1.0)


@formula
def sin_eighth_64(x: F64) -> F64:
    """Return ``sin(pi/4 * x)`` for x in [-1, 1], 2 ulp."""
    y = x * x
    p = fma(y, 6.877360573166326e-12, -1.7571500746983935e-09)
    p = fma(y, p, 3.133616225433416e-07)
    p = fma(y, p, -3.657620415891387e-05)
    p = fma(y, p, 0.002490394570188844)
    p = fma(y, p, -0.08074551218828054)
    p = fma(y, p, 0.7853981633974483)
    return x * p
