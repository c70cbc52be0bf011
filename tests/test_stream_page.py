"""docs/random-stream.md is enough to write the stream: this is an implementation from that page alone.

Tables and vectors are read from the page. Only correctly rounded arithmetic, which every language has, is imported.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import mpmath
import numpy as np
import pytest

import reference
from formats import FLOAT32, FLOAT64, FORMATS, Format
from numparam.indexing.region import Region
from numparam.stream.source import Source

PAGE = (Path(__file__).parent.parent / "docs" / "random-stream.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
TABLES = {
    name: [float(number) for number in numbers.split()]
    for name, numbers in re.findall(r"^([A-Z0-9_]{4,}) +((?:-?\d[-\de. ]*\n? *)+)$", BLOCKS, re.MULTILINE)
}
NAME, SEED = "encoder.0.weight", 0x0123456789ABCDEF


# --------------------------------------------------------------------------- 1 and 2: streams and words


def stream_number(kind: str, text: str, label: str) -> int:
    start = b"n" if kind == "name" else b"#"
    digest = hashlib.blake2b(start + text.encode(), digest_size=8, person=label.encode()).digest()
    return int.from_bytes(digest, "little")


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    for _ in range(10):
        p0, p1 = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = (
            (p1 >> 32) ^ counter[1] ^ key[0], p1 % 2**32,
            (p0 >> 32) ^ counter[3] ^ key[1], p0 % 2**32,
        )  # fmt: skip
        key = ((key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32)
    return counter


@cache
def word(label: str, position: int) -> int:
    block, stream = position // 4, stream_number("name", NAME, label)
    counter = (block % 2**32, block >> 32, stream % 2**32, stream >> 32)
    return philox(counter, (SEED % 2**32, SEED >> 32))[position % 4]


class Words(NamedTuple):
    """H and L of a position."""

    high: int
    low: int


def words(f: Format, position: int) -> Words:
    return Words(word("", position), word("refine", position) if f is FLOAT64 else 0)


def signed(w: int) -> int:
    return w - 2**32 if w >= 2**31 else w


# --------------------------------------------------------------------------- 3: elementary functions


def horner(f: Format, x: float, table: str) -> float:
    p, *rest = [f.round(Fraction(c)) for c in TABLES[table]]
    for c in rest:
        p = f.fma(x, p, c)
    return p


def split(f: Format, x: float) -> tuple[int, float]:
    m, e = math.frexp(x)
    if m < (0xB504F3 / 2**24 if f is FLOAT32 else 0x16A09E667F3BCD / 2**53):
        e, m = e - 1, 2 * m
    return e, f.subtract(m, 1.0)


def log2parts(f: Format, e: int, g: float) -> float:
    if f is FLOAT32:
        y = f.multiply(g, g)
        inner = f.fma(g, horner(f, y, "LOG32_ODD"), horner(f, y, "LOG32_EVEN"))
        return f.fma(g, inner, f.multiply(e, f.round(Fraction(0.6931471805599453))))
    s = f.divide(g, f.add(g, 2.0))
    z = f.multiply(s, s)
    h = f.multiply(f.multiply(g, g), 0.5)
    t = f.fma(s, f.fma(z, horner(f, z, "LOG64"), h), f.multiply(e, 1.90821492927058770002e-10))
    return f.fma(e, 0.693147180369123816490, f.subtract(g, f.subtract(h, t)))


def log(f: Format, x: float) -> float:
    return log2parts(f, *split(f, x))


def logfraction(f: Format, v: float) -> float:
    if v > 0:
        return log(f, v)
    e, g = split(f, f.add(v, 1.0))
    return log2parts(f, e, v if e == 0 else g)


def quantile(f: Format, q: float) -> float:
    if f is FLOAT32:
        v = -log(f, f.fma(-q, q, q))
        if v < f.round(Fraction(6.386294361119891)):
            c = f.subtract(v, f.round(Fraction(3.8862943611198906)))
            d = f.multiply(c, c)
            p = f.fma(c, horner(f, d, "CENTRAL_ODD"), horner(f, d, "CENTRAL_EVEN"))
        else:
            s = f.sqrt(f.subtract(v, f.round(Fraction(1.3862943611198906))))
            t = f.subtract(f.divide(1.0, s), f.round(Fraction(0.28)))
            u = f.multiply(t, t)
            p = f.multiply(s, f.fma(t, horner(f, u, "TAIL_ODD"), horner(f, u, "TAIL_EVEN")))
        return f.multiply(f.fma(q, -2.0, 1.0), p)
    c = f.subtract(0.5, q)
    if c <= 0.425:
        r = f.subtract(0.180625, f.multiply(c, c))
        return f.divide(f.multiply(c, horner(f, r, "MIDDLE_N")), horner(f, r, "MIDDLE_D"))
    s = f.sqrt(-log(f, q))
    r, which = (f.subtract(s, 1.6), "NEAR") if s <= 5 else (f.subtract(s, 5.0), "FAR")
    return f.divide(horner(f, r, f"{which}_N"), horner(f, r, f"{which}_D"))


# --------------------------------------------------------------------------- 4: distributions


def uniform(f: Format, position: int, low: float, high: float) -> float:
    scale, middle = (high / 2 - low / 2) / 2**31, low / 2 + high / 2
    w = words(f, position)
    number = f.round(signed(w.high) + Fraction(w.low, 2**32))
    return f.fma(number, f.round(Fraction(scale)), f.round(Fraction(middle)))


def normal(f: Format, position: int, mean: float, sigma: float) -> float:
    a, b = words(f, position & ~1), words(f, position | 1)
    number = f.round(signed(a.high) + Fraction(a.low, 2**32))
    v = f.fma(number, 2.0**-32, 2.0**-33 if f is FLOAT32 else 2.0**-65)
    r = f.sqrt(f.multiply(logfraction(f, v), -2.0))
    x = f.multiply(f.round(signed(4 * b.high % 2**32) + Fraction(4 * b.low, 2**32)), 2.0**-31)
    quadrant = b.high >> 30
    y = f.multiply(x, x)
    along = horner(f, y, "COS32" if f is FLOAT32 else "COS64") * (-1 if quadrant in (1, 3) else 1)
    across = f.multiply(x, horner(f, y, "SIN32" if f is FLOAT32 else "SIN64"))
    pair = (along, across) if quadrant < 2 else (across, along)
    return f.fma(f.multiply(r, pair[position % 2]), f.round(Fraction(sigma)), f.round(Fraction(mean)))


def upper_tail(x: float) -> Fraction:
    if math.isinf(x):
        return Fraction(int(x < 0))
    with mpmath.workdps(100):
        man, exp = (mpmath.erfc(mpmath.mpf(x) / mpmath.sqrt(2)) / 2).man_exp
        return Fraction(int(man)) * Fraction(2) ** int(exp)


def truncated_normal(f: Format, position: int, mean: float, sigma: float, low: float, high: float) -> float:
    if mean - low >= 10 * sigma and high - mean >= 10 * sigma:
        return normal(f, position, mean, sigma)
    a, b = (low - mean) / sigma, (high - mean) / sigma
    if b <= 0:
        a, b, sigma = -b, -a, -sigma
    above = upper_tail(b)
    if a < 0:
        below = upper_tail(-a)
        step = (1 - below - above) / 2**32
        cut = min(round((Fraction(1, 2) - below) / step), 2**32 - 1)
    else:
        below, step, cut = Fraction(0), (upper_tail(a) - above) / 2**32, 0
    half = step / (2 if f is FLOAT32 else 2**33)
    rounded = [f.round(Fraction(FLOAT64.round(x))) for x in (below + half, above + half, step)]
    w, sigma, mean = words(f, position), f.round(Fraction(sigma)), f.round(Fraction(mean))
    if w.high < cut:
        q = f.fma(f.round(w.high + Fraction(w.low, 2**32)), rounded[2], rounded[0])
        return f.fma(quantile(f, q), -sigma, mean)
    low_word = 0 if f is FLOAT32 else 2**32 - 1 - w.low
    q = f.fma(f.round(2**32 - 1 - w.high + Fraction(low_word, 2**32)), rounded[2], rounded[1])
    return f.fma(quantile(f, q), sigma, mean)


def stored(distribution: str, arguments: tuple[float, ...], dtype: str, position: int) -> int:
    """Return the bits of an element."""
    if distribution == "bits":
        return word("", position)
    f = FLOAT64 if dtype == "float64" else FLOAT32
    draw: Any = {"uniform": uniform, "normal": normal, "truncated_normal": truncated_normal}[distribution]
    value, kept = draw(f, position, *arguments), FORMATS[dtype]
    if distribution != "normal":
        low, high = arguments[-2:]
        value = min(max(value, kept.smallest_from(low)), kept.largest_to(high))
    return kept.encode(kept.round(Fraction(value), negative_zero=math.copysign(1, value) < 0))


# --------------------------------------------------------------------------- the page, numparam and the reference agree


def test_random123_vectors() -> None:
    found = re.findall(r"^counter((?: \w{8}){4})  key((?: \w{8}){2}) ((?: \w{8}){4})$", BLOCKS, re.MULTILINE)
    assert len(found) == 3
    for row in found:
        counter, key, result = (tuple(int(number, 16) for number in part.split()) for part in row)
        assert philox(counter, key) == result


def test_stream_numbers() -> None:
    found = re.findall(r'^(name|number) +"(.*?)" +"(.*?)" +0x(\w{16})$', BLOCKS, re.MULTILINE)
    assert len(found) == 8
    for kind, text, label, number in found:
        assert stream_number(kind, text, label) == int(number, 16)


VECTORS = re.findall(r"^(bits|uniform|normal|truncated_normal) +(.*?) +(\w+) +(\d+) 0x(\w+)$", BLOCKS, re.MULTILINE)


def by_numparam(distribution: str, arguments: tuple[float, ...], dtype: str, position: int) -> int:
    out = np.empty(1, getattr(ml_dtypes, dtype, dtype))
    getattr(Source(SEED, NAME), distribution)(out, Region.full((2**40,))[position : position + 1], *arguments)
    return int(out.view(f"u{out.itemsize}")[0])


def by_reference(distribution: str, arguments: tuple[float, ...], dtype: str, position: int) -> int:
    key = SEED, stream_number("name", NAME, ""), stream_number("name", NAME, "refine")
    return reference.stream_bits(distribution, arguments, dtype, key, position)


def test_values() -> None:
    assert len(VECTORS) > 80
    for distribution, texts, dtype, position, bits in VECTORS:
        case = distribution, tuple(float(text) for text in texts.split()), dtype, int(position)
        assert [stored(*case), by_numparam(*case), by_reference(*case)] == [int(bits, 16)] * 3, case


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(
    "draw",
    [
        ("uniform", (-1.5, 0.25)), ("normal", (-0.5, 3.0)), ("truncated_normal", (0.0, 1.0, -1.0, 3.0)),
        ("truncated_normal", (1.0, 0.5, -math.inf, 0.0)), ("truncated_normal", (0.0, 1.0, 4.0, 9.0)),
    ],
    ids=str,
)  # fmt: skip
def test_any_position_and_dtype(draw: tuple[str, tuple[float, ...]], dtype: str) -> None:
    chosen = random.Random(1)
    for position in [chosen.randrange(2**bits) for bits in (4, 8, 20, 30, 36, 40)]:
        case = *draw, dtype, position
        assert stored(*case) == by_numparam(*case) == by_reference(*case), case
