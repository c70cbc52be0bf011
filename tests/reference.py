"""The random stream, version 1, once more: slow, obvious, and independent of the kernels.

Read it from top to bottom to learn the stream:

1. `formats.Format`, in a file of its own: floating-point arithmetic. Every operation computes the exact rational result
   and rounds it once, so it is correctly rounded by construction. Python floats are used as boxes that hold a number of
   any format here, its signed zeros and its infinities; nothing is ever computed with them.
2. `philox`: from (key, counter) to four words of 32 bits.
3. `LOG`, `COSINE`, `SINE`, `QUANTILE`: the elementary functions of both precisions.
4. `uniform`, `normal`, `truncated_normal`: from words to numbers, one text for both precisions.
5. The parameters these take, from what the user asks for.
6. `stream_bits`: everything together, the stored bits of one element.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import mpmath

from formats import FLOAT32, FLOAT64, FORMATS, Format, exponent_of, is_negative, power_of_two

# --------------------------------------------------------------------------- 2. random bits


@lru_cache(maxsize=1 << 16)
def philox(seed: int, stream: int, block: int) -> tuple[int, int, int, int]:
    """Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011)."""
    counter = (block % 2**32, block >> 32, stream % 2**32, stream >> 32)
    key = (seed % 2**32, seed >> 32)
    for _ in range(10):
        product_0 = 0xD2511F53 * counter[0]
        product_1 = 0xCD9E8D57 * counter[2]
        counter = (
            (product_1 >> 32) ^ counter[1] ^ key[0],
            product_1 % 2**32,
            (product_0 >> 32) ^ counter[3] ^ key[1],
            product_0 % 2**32,
        )
        key = ((key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32)
    return counter


class Word(NamedTuple):
    """32 random bits, and for float64 32 more below them."""

    high: int
    low: int = 0


def signed(word: int) -> int:
    """Read 32 bits as two's complement."""
    return word - 2**32 if word >= 2**31 else word


# --------------------------------------------------------------------------- 3. elementary functions


def _split(f: Format, x: float, sqrt_half: float) -> tuple[int, float]:
    """Return (e, m - 1) with ``x = 2**e * m`` and m in [sqrt(1/2), sqrt(2))."""
    e = exponent_of(Fraction(x)) + 1
    m = Fraction(x) / power_of_two(e)  # in [1/2, 1)
    if m < Fraction(sqrt_half):
        e, m = e - 1, 2 * m
    return e, f.subtract(float(m), 1.0)


SQRT_HALF_32 = float(Fraction(0xB504F3, 2**24))
SQRT_HALF_64 = float(Fraction(0x16A09E667F3BCD, 2**53))
LN2 = Fraction("0.6931471805599453")
LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10


def _log_32(e: int, g: float) -> float:
    f = FLOAT32
    square = f.multiply(g, g)
    even = f.polynomial(square, 0.08700359612703323, 0.14914511144161224, 0.199631005525589, 0.3333390951156616, 1)
    odd = f.polynomial(square, -0.14266914129257202, -0.16577653586864471, -0.2500133514404297, -0.5)
    return f.fma(g, f.fma(g, odd, even), f.multiply(float(e), f.round(LN2)))


def _log_64(e: int, g: float) -> float:
    f = FLOAT64
    s = f.divide(g, f.add(g, 2.0))
    z = f.multiply(s, s)
    p = f.polynomial(
        z,
        0.1308675766695207, 0.13268760562036724, 0.15386240172447838, 0.18181795631498243,
        0.22222222391794727, 0.28571428570803253, 0.4000000000000088, 0.6666666666666666,
    )  # fmt: skip
    half_square = f.multiply(f.multiply(g, g), 0.5)
    tail = f.fma(s, f.fma(z, p, half_square), f.multiply(float(e), LN2_LOW))
    return f.fma(float(e), LN2_HIGH, f.subtract(g, f.subtract(half_square, tail)))


SPLIT_LOG = {FLOAT32: (SQRT_HALF_32, _log_32), FLOAT64: (SQRT_HALF_64, _log_64)}


def log(f: Format, x: float) -> float:
    """Return ``log(x)``."""
    sqrt_half, split_log = SPLIT_LOG[f]
    return split_log(*_split(f, x, sqrt_half))


def log_fraction(f: Format, v: float) -> float:
    """Return ``log(v)`` for positive v and ``log(1 + v)`` for negative v."""
    sqrt_half, split_log = SPLIT_LOG[f]
    if v >= 0:
        return log(f, v)
    e, g = _split(f, f.add(v, 1.0), sqrt_half)
    return split_log(e, v if e == 0 else g)  # v itself has digits that 1 + v has lost


COSINE = {
    FLOAT32: (3.493981466817786e-06, -0.0003258686338085681, 0.015854284167289734, -0.3084251284599304, 1),
    FLOAT64: (
        -3.8581890073416675e-13, 1.1500512028217341e-10, -2.4611364033652597e-08, 3.590860446027952e-06,
        -0.00032599188692673765, 0.01585434424381542, -0.30842513753404244, 1,
    ),
}  # fmt: skip
SINE = {
    FLOAT32: (-3.658583591459319e-05, 0.002490987302735448, -0.08074582368135452, 0.7853981852531433),
    FLOAT64: (
        6.877360573166326e-12, -1.7571500746983935e-09, 3.133616225433416e-07, -3.657620415891387e-05,
        0.002490394570188844, -0.08074551218828054, 0.7853981633974483,
    ),
}  # fmt: skip


def cos_eighth(f: Format, x: float) -> float:
    """Return ``cos(pi/4 * x)`` for x in [-1, 1]."""
    return f.polynomial(f.multiply(x, x), *COSINE[f])


def sin_eighth(f: Format, x: float) -> float:
    """Return ``sin(pi/4 * x)`` for x in [-1, 1]."""
    return f.multiply(x, f.polynomial(f.multiply(x, x), *SINE[f]))


LN4 = Fraction("1.3862943611198906")


def upper_quantile_32(q: float) -> float:
    """Return z with P(Z > z) = q: a polynomial in ``v = -log(q (1 - q))``, and one in ``1/sqrt(v - log(4))``."""
    f = FLOAT32
    v = -log(f, f.fma(-q, q, q))
    if v < f.round(5 + LN4):
        c = f.subtract(v, f.round(Fraction("2.5") + LN4))
        d = f.multiply(c, c)
        even = f.polynomial(
            d, 2.9896170872234507e-08, -4.858604825130897e-06, 0.00030862720450386405,
            -0.00590750016272068, 2.1233134269714355,
        )  # fmt: skip
        odd = f.polynomial(
            d, -1.2980753361091502e-08, 6.664417924184818e-07, -7.049052328511607e-06,
            -0.0017716041766107082, 0.34880203008651733,
        )  # fmt: skip
        return f.multiply(f.fma(q, -2.0, 1.0), f.fma(c, odd, even))
    s = f.sqrt(f.subtract(v, f.round(LN4)))
    t = f.subtract(f.divide(1.0, s), f.round(Fraction("0.28")))
    u = f.multiply(t, t)
    even = f.polynomial(
        u, 9497.8740234375, -979.056640625, 24.478435516357422, 1.2284680604934692, 0.18440359830856323,
        1.349284052848816,
    )  # fmt: skip
    odd = f.polynomial(
        u, 2068.364013671875, -263.0931701660156, 17.038610458374023, 0.8089299201965332, -0.2713260054588318
    )
    return f.multiply(f.fma(q, -2.0, 1.0), f.multiply(s, f.fma(t, odd, even)))


def upper_quantile_64(q: float) -> float:
    """Return z with P(Z > z) = q: Wichura, "Algorithm AS 241" (1988), PPND16."""
    f = FLOAT64
    c = f.subtract(0.5, q)
    if c <= 0.425:
        r = f.subtract(0.180625, f.multiply(c, c))
        numerator = f.polynomial(
            r, 2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
            13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608,
        )  # fmt: skip
        denominator = f.polynomial(
            r, 5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
            5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1,
        )  # fmt: skip
        return f.divide(f.multiply(c, numerator), denominator)
    s = f.sqrt(-log(f, q))
    if s <= 5.0:
        r = f.subtract(s, 1.6)
        numerator = f.polynomial(
            r, 7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
            3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734,
        )  # fmt: skip
        denominator = f.polynomial(
            r, 1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
            0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1,
        )  # fmt: skip
    else:
        r = f.subtract(s, 5.0)
        numerator = f.polynomial(
            r, 2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386,
            0.026532189526576123093, 0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699,
            6.6579046435011037772,
        )  # fmt: skip
        denominator = f.polynomial(
            r, 2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5,
            7.868691311456132591e-4, 0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1,
        )  # fmt: skip
    return f.divide(numerator, denominator)


QUANTILE = {FLOAT32: upper_quantile_32, FLOAT64: upper_quantile_64}

# --------------------------------------------------------------------------- 4. distributions
# A value is drawn in `f`, FLOAT32 or FLOAT64; the low bits of a word are 0 in FLOAT32. Uniform and truncated normal
# values are then moved into their bounds.


def _half_cell(f: Format) -> Fraction:
    """Return half of the distance of neighbouring words."""
    return Fraction(1, 2) if f is FLOAT32 else Fraction(1, 2**33)


def clamp(x: float, low: float, high: float) -> float:
    """Return x moved into [low, high]."""
    return low if x < low else min(x, high)


def uniform(f: Format, word: Word, scale: float, middle: float) -> float:
    position = f.round(signed(word.high) + Fraction(word.low, 2**32))
    return f.fma(position, scale, middle)


@lru_cache(maxsize=1 << 12)
def normal(f: Format, a: Word, b: Word, sigma: float, mean: float) -> tuple[float, float]:
    """Box and Muller, "A note on the generation of random normal deviates" (1958)."""
    position = f.round(signed(a.high) + Fraction(a.low, 2**32))
    fraction = f.fma(position, 2.0**-32, float(_half_cell(f) / 2**32))
    radius = f.sqrt(f.multiply(log_fraction(f, fraction), -2.0))
    # The top two bits choose a quadrant, the others an angle in [-pi/4, pi/4) around its middle.
    position = f.round(signed((b.high << 2) % 2**32) + Fraction(4 * b.low, 2**32))
    x = f.multiply(position, 2.0**-31)
    along, across = cos_eighth(f, x), sin_eighth(f, x)
    quadrant = b.high >> 30
    if quadrant in (1, 3):
        along = -along
    first, second = (along, across) if quadrant < 2 else (across, along)
    return f.fma(f.multiply(radius, first), sigma, mean), f.fma(f.multiply(radius, second), sigma, mean)


class Truncated(NamedTuple):
    """What `truncated_normal` takes."""

    split: int
    below: float
    above: float
    step: float
    sigma: float
    mean: float


def truncated_normal(f: Format, word: Word, params: Truncated) -> float:
    """Invert the distribution function, counting cells from the nearer end."""
    if word.high < params.split:
        cells, end, sigma = word.high + Fraction(word.low, 2**32), params.below, -params.sigma
    else:
        low = 2**32 - 1 - word.low if f is FLOAT64 else 0
        cells, end, sigma = 2**32 - 1 - word.high + Fraction(low, 2**32), params.above, params.sigma
    q = f.fma(f.round(cells), params.step, end)
    return f.fma(QUANTILE[f](q), sigma, params.mean)


# --------------------------------------------------------------------------- 5. parameters
# They are computed exactly, rounded to float64 and, where values are drawn in float32, then to float32.


@lru_cache(maxsize=256)
def inner_bounds(low: float, high: float, stored: Format) -> tuple[float, float]:
    """Return the smallest and the largest finite number of the stored format in [low, high]."""
    return stored.smallest_from(low), stored.largest_to(high)


def uniform_params(low: float, high: float) -> tuple[float, float]:
    scale = FLOAT64.round((Fraction(high) - Fraction(low)) / 2**32)
    middle = FLOAT64.round((Fraction(low) + Fraction(high)) / 2)
    return scale, middle


def normal_tail(x: float) -> Fraction:
    """Return P(Z > x), exact to far more digits than anything here needs."""
    if math.isinf(x):
        return Fraction(int(x < 0))
    with mpmath.workdps(400):
        man, exp = (mpmath.erfc(mpmath.mpf(x) / mpmath.sqrt(2)) / 2).man_exp
    return int(man) * power_of_two(int(exp))


def truncated_params(f: Format, mean: float, sigma: float, low: float, high: float) -> Truncated:
    a, b = _standardised(low, mean, sigma), _standardised(high, mean, sigma)
    if b <= 0:  # mirrored: tail probabilities are small numbers and keep their digits, 1 minus them would not
        a, b, sigma = -b, -a, -sigma
    above = normal_tail(b)
    if a < 0:
        below = normal_tail(-a)
        step = (1 - below - above) / 2**32
        split = min(round((Fraction(1, 2) - below) / step), 2**32 - 1)
    else:
        below = Fraction(0)
        step = (normal_tail(a) - above) / 2**32
        split = 0
    half = step * _half_cell(f)
    return Truncated(split, *(FLOAT64.round(x) for x in (below + half, above + half, step)), sigma, mean)


@lru_cache(maxsize=256)
def truncates_nothing(mean: float, sigma: float, low: float, high: float) -> bool:
    """Tell whether both bounds are ten sigmas away or more: then a truncated normal value is the normal one."""
    f = FLOAT64
    far = f.multiply(10.0, sigma)
    far_below = math.isinf(low) or f.subtract(mean, low) >= far
    far_above = math.isinf(high) or f.subtract(high, mean) >= far
    return far_below and far_above


def _standardised(x: float, mean: float, sigma: float) -> float:
    return x if math.isinf(x) else FLOAT64.divide(FLOAT64.subtract(x, mean), sigma)


# --------------------------------------------------------------------------- 6. the stream

Key = tuple[int, int, int]
"""Seed, stream, and stream of the low words."""


@lru_cache(maxsize=256)
def _params(distribution: str, arguments: tuple[float, ...], f: Format) -> tuple[float, ...]:
    if distribution == "uniform":
        return tuple(f.round(Fraction(x)) for x in uniform_params(*arguments))
    if distribution == "normal":
        mean, sigma = arguments
        return f.round(Fraction(sigma)), f.round(Fraction(mean))
    split, *others = truncated_params(f, *arguments)
    return split, *(f.round(Fraction(x)) for x in others)


@lru_cache(maxsize=1 << 17)
def drawn(distribution: str, arguments: tuple[float, ...], f: Format, key: Key, index: int) -> float:
    """Return the value of an element before bounds and storage."""
    seed, stream, refinement = key
    block, k = divmod(index, 4)
    high = philox(seed, stream, block)
    low = philox(seed, refinement, block) if f is FLOAT64 else (0, 0, 0, 0)
    words = [Word(*pair) for pair in zip(high, low, strict=True)]
    params = _params(distribution, arguments, f)
    if distribution == "uniform":
        return uniform(f, words[k], *params)
    if distribution == "truncated_normal":
        return truncated_normal(f, words[k], Truncated(*params))
    first = k - k % 2
    return normal(f, words[first], words[first + 1], *params)[k % 2]


def stored_bits(dtype: str, value: float) -> int:
    """Round a number to a dtype; return its bits."""
    stored = FORMATS[dtype]
    if math.isfinite(value):
        value = stored.round(Fraction(value), negative_zero=is_negative(value))
    elif not stored.has_infinity:
        value = math.copysign(math.nan, value)
    return stored.encode(value)


def stream_bits(distribution: str, arguments: tuple[float, ...], dtype: str, key: Key, index: int) -> int:
    """Return the stored bits of element `index` of a whole tensor.

    Parameters
    ----------
    distribution : str
        ``"uniform"`` of (low, high), ``"normal"`` of (mean, sigma), ``"truncated_normal"`` of (mean, sigma, low, high)
        or ``"bits"``, the words themselves.
    arguments : tuple of float
    dtype : str
        One of `FORMATS`.
    key : Key
    index : int
        Flat index in row-major order.
    """
    if distribution == "bits":
        return philox(key[0], key[1], index // 4)[index % 4]
    f = FLOAT64 if dtype == "float64" else FLOAT32
    if distribution == "truncated_normal" and truncates_nothing(*arguments):
        value = drawn("normal", arguments[:2], f, key, index)
    else:
        value = drawn(distribution, arguments, f, key, index)
    if distribution != "normal":
        value = clamp(value, *inner_bounds(*arguments[-2:], FORMATS[dtype]))
    return stored_bits(dtype, value)
