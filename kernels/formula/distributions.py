"""Random words to values: uniform, normal, truncated normal.

Each distribution is one formula for float32, from one pair of words to one pair of values, and one for float64, from
the same words and a second pair that refines them: the float64 value is the float32 one with more digits. Next to it
is the function that turns the user's arguments into the formula's parameters, in exact or decimal arithmetic,
so that the parameters too are the same on every machine.

Half precision values are these float32 values rounded once; `Bounds` are rounded inwards to the stored type beforehand,
so that rounding cannot carry a value across them.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numparam.kernels.formula.elementary import (
    cos_eighth,
    cos_eighth_64,
    log,
    log_64,
    log_fraction_64,
    minus_twice_log_fraction,
    sin_eighth,
    sin_eighth_64,
)
from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import (
    F32,
    F64,
    U32,
    bits,
    bits64,
    float64_of_bits,
    float_of_bits,
    fma,
    select,
    signed,
    sqrt,
    to_float32,
    to_float64,
    widened,
)

TWO_31, TWO_32 = 2.0**31, 2.0**32


class Bounds(NamedTuple):
    """The smallest and the largest number of the stored type inside an interval."""

    low: float
    high: float


class TruncatedParams(NamedTuple):
    """What the truncated normal formulas take."""

    split: np.uint32
    """First word on the upper side of the mean."""
    below: float
    """Tail probability at the middle of the lowest cell."""
    above: float
    """Tail probability at the middle of the highest cell."""
    step: float
    """Probability of one 32-bit word."""
    sigma: float
    mean: float
    low: float
    high: float

    @property
    def symmetric(self) -> bool:
        """Whether both bounds are equally far from the mean, within `CENTRAL_LIMIT`: most truncated draws."""
        return self.split == 2**31 and self.below == self.above > CENTRAL_TAIL


@formula
def clamp(x: Any, low: float, high: float) -> Any:
    """Return x moved into [low, high]."""
    x = select(x < low, low, x)
    return select(x > high, high, x)


@formula
def uniform(a: U32, b: U32, params: Any) -> tuple[F32, F32]:
    """Read each word as a signed integer and scale it: one conversion, one fma, symmetric about the middle."""
    scale, middle, low, high = params
    return (
        clamp(fma(to_float32(signed(a)), scale, middle), low, high),
        clamp(fma(to_float32(signed(b)), scale, middle), low, high),
    )


@formula
def _signed_64(word: U32, refinement: U32) -> F64:
    """Return the 64-bit signed integer (word, refinement) divided by 2**32, rounded once."""
    return fma(to_float64(refinement), 1.0 / TWO_32, to_float64(signed(word)))


@formula
def uniform_64(a: U32, b: U32, a_refined: U32, b_refined: U32, params: Any) -> tuple[F64, F64]:
    """Return `uniform` of 64-bit words."""
    scale, middle, low, high = params
    return (
        clamp(fma(_signed_64(a, a_refined), scale, middle), low, high),
        clamp(fma(_signed_64(b, b_refined), scale, middle), low, high),
    )


def uniform_params(low: float, high: float, bounds: Bounds) -> tuple[float, ...]:
    """Return (scale of a signed 32-bit word, middle, bounds)."""
    return (high / 2 - low / 2) / TWO_31, low / 2 + high / 2, *bounds


@formula
def either(a: U32, b: U32, params: Any) -> tuple[F32, F32]:
    """Return the first number for words below a split, and the second for the others."""
    split, below, above = params
    return select(a < split, below, above), select(b < split, below, above)


@formula
def either_64(a: U32, b: U32, _a_refined: U32, _b_refined: U32, params: Any) -> tuple[F64, F64]:
    """Return `either` in float64."""
    split, below, above = params
    return select(a < split, below, above), select(b < split, below, above)


@formula
def normal(a: U32, b: U32, params: Any) -> tuple[F32, F32]:
    """Turn two words into two independent normal values: the radius from all bits of `a`, the angle from all of `b`.

    Box and Muller, "A note on the generation of random normal deviates" (1958).
    """
    sigma, mean = params
    # The fraction is (word + 1/2) / 2**32, minus 1 in its upper half: small radii keep their digits as large ones do.
    radius = sqrt(minus_twice_log_fraction(fma(to_float32(signed(a)), 1.0 / TWO_32, 0.5 / TWO_32)))
    # The top two bits choose a quadrant, the other thirty an angle in [-pi/4, pi/4) around its middle.
    x = to_float32(signed(b << 2)) * (1.0 / TWO_31)
    along = float_of_bits(bits(cos_eighth(x)) ^ ((b << 1) & 0x80000000))
    across = sin_eighth(x)
    upright = signed(b) < 0
    return (
        fma(radius * select(upright, across, along), sigma, mean),
        fma(radius * select(upright, along, across), sigma, mean),
    )


@formula
def normal_64(a: U32, b: U32, a_refined: U32, b_refined: U32, params: Any) -> tuple[F64, F64]:
    """Return `normal` of 64-bit words; the sixty-four bits of the first word reach 9.5 sigmas."""
    sigma, mean = params
    fraction = fma(_signed_64(a, a_refined), 1.0 / TWO_32, 0.5 / (TWO_32 * TWO_32))
    radius = sqrt(log_fraction_64(fraction) * -2.0)
    x = fma(to_float64(b_refined), 4.0 / TWO_32, to_float64(signed(b << 2))) * (1.0 / TWO_31)
    sign = widened((b << 1) & 0x80000000) << 32
    along = float64_of_bits(bits64(cos_eighth_64(x)) ^ sign)
    across = sin_eighth_64(x)
    upright = signed(b) < 0
    return (
        fma(radius * select(upright, across, along), sigma, mean),
        fma(radius * select(upright, along, across), sigma, mean),
    )


BEYOND_NORMAL = 10.0
"""Bounds at least so many sigmas away truncate nothing: no normal value reaches them."""


@formula
def normal_within(a: U32, b: U32, params: Any) -> tuple[F32, F32]:
    """Return `normal` inside bounds that only rounding to a short type can reach."""
    sigma, mean, low, high = params
    x, y = normal(a, b, (sigma, mean))
    return clamp(x, low, high), clamp(y, low, high)


@formula
def normal_within_64(a: U32, b: U32, a_refined: U32, b_refined: U32, params: Any) -> tuple[F64, F64]:
    """Return `normal_within` of 64-bit words."""
    sigma, mean, low, high = params
    x, y = normal_64(a, b, a_refined, b_refined, (sigma, mean))
    return clamp(x, low, high), clamp(y, low, high)


def normal_params(mean: float, sigma: float) -> tuple[float, ...]:
    """Return (sigma, mean)."""
    return sigma, mean


LN4 = 1.3862943611198906
CENTRAL_LIMIT = 5.0
"""Largest ``-log(4 q (1 - q))`` of the central polynomial; 2.9 sigmas."""
CENTRAL_TAIL = 0.0017
"""A tail probability inside `CENTRAL_LIMIT`."""


@formula
def _logit_variable(q: F32) -> F32:
    """Return ``-log(q (1 - q))``."""
    return -log(fma(-q, q, q))


@formula
def _central(v: F32) -> F32:
    """Return z / (1 - 2 q) with P(Z > z) = q from ``v = _logit_variable(q)`` up to ``CENTRAL_LIMIT + LN4``.

    The variable is from Giles, "Approximating the erfinv function" (2010); the polynomial is our own fit.
    """
    c = v - (2.5 + LN4)
    d = c * c
    even = fma(d, 2.9896170872234507e-08, -4.858604825130897e-06)
    odd = fma(d, -1.2980753361091502e-08, 6.664417924184818e-07)
    even = fma(d, even, 0.00030862720450386405)
    odd = fma(d, odd, -7.049052328511607e-06)
    even = fma(d, even, -0.00590750016272068)
    odd = fma(d, odd, -0.0017716041766107082)
    even = fma(d, even, 2.1233134269714355)
    odd = fma(d, odd, 0.34880203008651733)
    return fma(c, odd, even)


@formula
def _tail(v: F32) -> F32:
    """Return z / (1 - 2 q) from `v` above ``CENTRAL_LIMIT + LN4``: a fit in ``1/sqrt(v - LN4)`` down to q = 2**-126."""
    s = sqrt(v - LN4)
    t = 1.0 / s - 0.28
    u = t * t
    even = fma(u, 9497.8740234375, -979.056640625)
    odd = fma(u, 2068.364013671875, -263.0931701660156)
    even = fma(u, even, 24.478435516357422)
    odd = fma(u, odd, 17.038610458374023)
    even = fma(u, even, 1.2284680604934692)
    odd = fma(u, odd, 0.8089299201965332)
    even = fma(u, even, 0.18440359830856323)
    odd = fma(u, odd, -0.2713260054588318)
    even = fma(u, even, 1.349284052848816)
    return s * fma(t, odd, even)


@formula
def _upper_quantile_central(q: F32) -> F32:
    """Return z with P(Z > z) = q for q in [0.0017, 1/2], 4 ulp."""
    return fma(q, -2.0, 1.0) * _central(_logit_variable(q))


@formula
def _upper_quantile(q: F32) -> F32:
    """Return z with P(Z > z) = q for q in [2**-126, 1/2], 6 ulp."""
    v = _logit_variable(q)
    near = v < CENTRAL_LIMIT + LN4
    return fma(q, -2.0, 1.0) * select(near, _central(v), _tail(select(near, CENTRAL_LIMIT + LN4, v)))


@formula
def _upper_quantile_64(q: F64) -> F64:
    """Return z with P(Z > z) = q, for q in [2**-1022, 1/2], 5 ulp: algorithm AS 241 of Wichura (1988)."""
    c = 0.5 - q
    r = 0.180625 - c * c
    n = fma(r, 2509.0809287301226727, 33430.575583588128105)
    n = fma(r, n, 67265.770927008700853)
    n = fma(r, n, 45921.953931549871457)
    n = fma(r, n, 13731.693765509461125)
    n = fma(r, n, 1971.5909503065514427)
    n = fma(r, n, 133.14166789178437745)
    n = fma(r, n, 3.387132872796366608)
    d = fma(r, 5226.495278852545925, 28729.085735721942674)
    d = fma(r, d, 39307.89580009271061)
    d = fma(r, d, 21213.794301586595867)
    d = fma(r, d, 5394.1960214247511077)
    d = fma(r, d, 687.1870074920579083)
    d = fma(r, d, 42.313330701600911252)
    d = fma(r, d, 1.0)
    central = c * n / d

    s = sqrt(-log_64(q))
    r = s - 1.6
    n = fma(r, 7.7454501427834140764e-4, 0.0227238449892691845833)
    n = fma(r, n, 0.24178072517745061177)
    n = fma(r, n, 1.27045825245236838258)
    n = fma(r, n, 3.64784832476320460504)
    n = fma(r, n, 5.7694972214606914055)
    n = fma(r, n, 4.6303378461565452959)
    n = fma(r, n, 1.42343711074968357734)
    d = fma(r, 1.05075007164441684324e-9, 5.475938084995344946e-4)
    d = fma(r, d, 0.0151986665636164571966)
    d = fma(r, d, 0.14810397642748007459)
    d = fma(r, d, 0.68976733498510000455)
    d = fma(r, d, 1.6763848301838038494)
    d = fma(r, d, 2.05319162663775882187)
    d = fma(r, d, 1.0)
    near = n / d

    r = s - 5.0
    n = fma(r, 2.01033439929228813265e-7, 2.71155556874348757815e-5)
    n = fma(r, n, 0.0012426609473880784386)
    n = fma(r, n, 0.026532189526576123093)
    n = fma(r, n, 0.29656057182850489123)
    n = fma(r, n, 1.7848265399172913358)
    n = fma(r, n, 5.4637849111641143699)
    n = fma(r, n, 6.6579046435011037772)
    d = fma(r, 2.04426310338993978564e-15, 1.4215117583164458887e-7)
    d = fma(r, d, 1.8463183175100546818e-5)
    d = fma(r, d, 7.868691311456132591e-4)
    d = fma(r, d, 0.0148753612908506148525)
    d = fma(r, d, 0.13692988092273580531)
    d = fma(r, d, 0.59983220655588793769)
    d = fma(r, d, 1.0)
    far = n / d

    return select(c <= 0.425, central, select(s <= 5.0, near, far))


@formula
def _truncated(word: U32, params: Any) -> F32:
    split, below, above, step, sigma, mean, low, high = params
    lower = word < split
    # Cells are counted from the nearer end, as integers: tails keep their relative precision.
    q = fma(to_float32(select(lower, word, ~word)), step, select(lower, below, above))
    return clamp(fma(_upper_quantile(q), select(lower, -sigma, sigma), mean), low, high)


@formula
def truncated_normal(a: U32, b: U32, params: Any) -> tuple[F32, F32]:
    """Invert the normal distribution function between its values at the bounds: one word, one value, no rejection."""
    return _truncated(a, params), _truncated(b, params)


@formula
def _truncated_symmetric(word: U32, params: Any) -> F32:
    _, below, _, step, sigma, mean, low, high = params
    upper = signed(word) < 0
    q = fma(to_float32(signed(select(upper, ~word, word))), step, below)
    return clamp(fma(_upper_quantile_central(q), select(upper, sigma, -sigma), mean), low, high)


@formula
def truncated_normal_symmetric(a: U32, b: U32, params: Any) -> tuple[F32, F32]:
    """Return the same bits as `truncated_normal` where `TruncatedParams.symmetric` holds, half as fast again."""
    return _truncated_symmetric(a, params), _truncated_symmetric(b, params)


@formula
def _truncated_64(word: U32, refinement: U32, params: Any) -> F64:
    split, below, above, step, sigma, mean, low, high = params
    lower = word < split
    cell = fma(to_float64(select(lower, refinement, ~refinement)), 1.0 / TWO_32, to_float64(select(lower, word, ~word)))
    q = fma(cell, step, select(lower, below, above))
    return clamp(fma(_upper_quantile_64(q), select(lower, -sigma, sigma), mean), low, high)


@formula
def truncated_normal_64(a: U32, b: U32, a_refined: U32, b_refined: U32, params: Any) -> tuple[F64, F64]:
    """Return `truncated_normal` of 64-bit words."""
    return _truncated_64(a, a_refined, params), _truncated_64(b, b_refined, params)


# A context of our own: rounding and traps that a user has set must not reach the parameters.
_SIXTY_DIGITS = Context(prec=60)


def truncated_normal_params(
    mean: float, sigma: float, low: float, high: float, bounds: Bounds, *, word_bits: int
) -> TruncatedParams:
    """Return the parameters of one truncated normal distribution."""
    a, b = (low - mean) / sigma, (high - mean) / sigma
    if b <= 0:  # both bounds below the mean: mirror, so that the nearer end is always the upper one
        a, b, sigma = -b, -a, -sigma
    with localcontext(_SIXTY_DIGITS):
        below, above = (normal_tail(-a), normal_tail(b)) if a < 0 else (Decimal(0), normal_tail(b))
        mass = 1 - below - above if a < 0 else normal_tail(a) - above
        if mass < Decimal(2) ** -93:
            raise ValueError(
                f"the interval [{low!r}, {high!r}] holds less than 2**-93 of a normal distribution with mean "
                f"{mean!r} and sigma {abs(sigma)!r}; move the bounds closer to the mean or widen sigma"
            )
        step = mass / 2**32
        # Rounded, for the quotient of a symmetric interval is 2**31 give or take the last digit; a mean just below the
        # upper bound leaves no word above it, and the last word loses nothing by counting as one.
        split = min(round((Decimal("0.5") - below) / step), 2**32 - 1) if a < 0 else 0
        half_cell = step / 2 ** (word_bits - 31)
        return TruncatedParams(
            np.uint32(split), float(below + half_cell), float(above + half_cell), float(step), sigma, mean, *bounds
        )


@lru_cache(maxsize=256)
def normal_tail(x: float) -> Decimal:
    """Return P(Z > x) of a standard normal Z to 40 digits, in decimal arithmetic: the same digits on every machine."""
    if math.isinf(x):
        return Decimal(int(x < 0))
    with localcontext(_SIXTY_DIGITS):
        if x < 0:
            return 1 - normal_tail(-x)
        z = Decimal(x)
        density = (-z * z / 2).exp() / (2 * PI).sqrt()
        if x < 5:
            # P(0 < Z < z) = density * (z + z**3/3 + z**5/(3*5) + ...)
            total = term = z
            k = 1
            while term > Decimal("1e-50"):
                k += 2
                term *= z * z / k
                total += term
            return Decimal("0.5") - density * total
        # Laplace's continued fraction 1/(z + 1/(z + 2/(z + ...))), from the inside
        fraction = z
        for k in range(400, 0, -1):
            fraction = z + k / fraction
        return density / fraction


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
