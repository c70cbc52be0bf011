"""Draws have the distributions they claim, and streams, words and shards know nothing of each other.

Seeds are fixed, so a test either passes always or never. Limits are those that a right generator would break with a
probability of about one in a million.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import special, stats

from numparam.kernels import fill
from numparam.kernels.fill import Key, Span
from numparam.stream.seed import stream

pytestmark = pytest.mark.slow

COUNT, CHUNK, BINS = 1 << 26, 1 << 21, 1 << 16
KEY = Key(7, stream("layers.0.weight"), stream("layers.0.weight", "refine"))


class Draw(NamedTuple):
    """A distribution, its truth, and its distribution function, accurate in both tails."""

    name: str
    arguments: tuple[float, ...]
    truth: Any
    probability: Callable[[np.ndarray], np.ndarray]


def _truncated(low: float, high: float) -> Draw:
    mass = special.ndtr(-low) - special.ndtr(-high)

    def probability(x: np.ndarray) -> np.ndarray:
        return (special.ndtr(-low) - special.ndtr(-x)) / mass

    return Draw("truncated_normal", (0.0, 1.0, low, high), stats.truncnorm(low, high), probability)


DRAWS = {
    "uniform": Draw("uniform", (-1.0, 1.0), stats.uniform(-1, 2), lambda x: (x + 1) / 2),
    "normal": Draw("normal", (0.0, 1.0), stats.norm(), special.ndtr),
    "truncated -2 2": _truncated(-2, 2),
    "truncated -3.5 4": _truncated(-3.5, 4),
    "truncated 0.5 inf": _truncated(0.5, math.inf),
    "truncated 3 inf": _truncated(3, math.inf),
}
every_draw = pytest.mark.parametrize("name", DRAWS)


def drawn(name: str, shape: Any, key: Key = KEY, dtype: Any = np.float32, span: Span | None = None) -> np.ndarray:
    out = np.empty(shape, dtype)
    getattr(fill, DRAWS[name].name)(out, key, *DRAWS[name].arguments, span)
    return out


def chunks(name: str, count: int = COUNT, dtype: Any = np.float32) -> Iterator[np.ndarray]:
    for start in range(0, count, CHUNK):
        yield drawn(name, min(CHUNK, count - start), dtype=dtype, span=Span(start, (1,))).astype(np.float64)


class Summary(NamedTuple):
    """What one pass over all draws leaves."""

    histogram: np.ndarray
    """Counts of the distribution function's values in equal bins."""
    powers: np.ndarray
    """Means of the first to fourth power."""
    beyond: dict[int, int]
    """How many lie so many sigmas from 0, or more."""
    smallest: float
    largest: float


def summary(name: str, count: int = COUNT, dtype: Any = np.float32) -> Summary:
    return _summary(name, count, dtype)  # what is left out is the same to the cache as what is given


@cache
def _summary(name: str, count: int, dtype: Any) -> Summary:
    histogram, powers = np.zeros(BINS, np.int64), np.zeros(4)
    beyond = dict.fromkeys((3, 4, 5), 0)
    smallest, largest = math.inf, -math.inf
    for x in chunks(name, count, dtype):
        bins = np.minimum(DRAWS[name].probability(x) * BINS, BINS - 1).astype(np.int64)
        histogram += np.bincount(bins, minlength=BINS)
        power = np.ones_like(x)
        for k in range(4):
            power *= x
            powers[k] += power.sum() / count
        for sigmas in beyond:
            beyond[sigmas] += int(np.count_nonzero(np.abs(x) >= sigmas))
        smallest, largest = min(smallest, x.min()), max(largest, x.max())
    return Summary(histogram, powers, beyond, smallest, largest)


# --------------------------------------------------------------------------- one distribution


@every_draw
@pytest.mark.parametrize("dtype, count", [(np.float32, COUNT), (np.float64, 1 << 23)])
def test_moments(name: str, dtype: Any, count: int) -> None:
    truth = DRAWS[name].truth
    for k, found in enumerate(summary(name, count, dtype).powers, 1):
        mean, square = truth.moment(k), truth.moment(2 * k)
        assert abs(found - mean) < 5 * math.sqrt((square - mean**2) / count), f"moment {k}"


@every_draw
@pytest.mark.parametrize("dtype, count", [(np.float32, COUNT), (np.float64, 1 << 23)])
def test_kolmogorov_smirnov(name: str, dtype: Any, count: int) -> None:
    """The largest distance of the distribution functions, at the edges of the bins."""
    reached = np.cumsum(summary(name, count, dtype).histogram) / count
    distance = np.abs(reached - np.arange(1, BINS + 1) / BINS).max()
    assert stats.kstwobign.sf(distance * math.sqrt(count)) > 1e-6


@every_draw
@pytest.mark.parametrize("bins", [1 << 8, 1 << 12, BINS])
def test_equal_bins_fill_equally(name: str, bins: int) -> None:
    """Neither too unevenly, nor too evenly for independent draws."""
    if bins == BINS and name == "truncated 3 inf":
        pytest.skip("a bin would hold twenty float32 numbers or so: too few to fill all bins evenly")
    counts = summary(name).histogram.reshape(bins, -1).sum(axis=1)
    expected = COUNT / bins
    statistic = ((counts - expected) ** 2).sum() / expected
    assert 1e-6 < stats.chi2.sf(statistic, len(counts) - 1) < 1 - 1e-6


@pytest.mark.parametrize("name", ["normal", "truncated -3.5 4", "truncated 0.5 inf", "truncated 3 inf"])
@pytest.mark.parametrize("sigmas", [3, 4, 5])
def test_tails_hold_as_many_as_they_should(name: str, sigmas: int) -> None:
    truth = DRAWS[name].truth
    expected = COUNT * (truth.sf(sigmas) + truth.cdf(-sigmas))
    found = summary(name).beyond[sigmas]
    if expected in (0, COUNT):
        assert found == expected
    else:
        share = expected / COUNT
        assert stats.binom.cdf(found, COUNT, share) > 1e-6
        assert stats.binom.sf(found - 1, COUNT, share) > 1e-6


@every_draw
def test_extremes_lie_where_they_should(name: str) -> None:
    """The probability beyond the most extreme of n draws is about 1/n: exponentially distributed in that unit."""
    truth, found = DRAWS[name].truth, summary(name)
    low, high = truth.support()
    assert low <= found.smallest
    assert found.largest <= high
    for beyond in (truth.cdf(found.smallest), truth.sf(found.largest)):
        assert beyond * COUNT < 14
    if name != "uniform" and math.isinf(high):  # uniform float32 values are rounded to the very bound
        assert truth.sf(found.largest) * COUNT > 1e-6


def test_normal_values_reach_as_far_as_so_many_do() -> None:
    """The limit of the 32-bit radius is 6.76, and 2**26 draws rarely pass 6.2."""
    largest = max(-summary("normal").smallest, summary("normal").largest)
    assert 5.2 < largest < 6.76


def test_short_types_are_unbiased() -> None:
    """Rounding to nearest even leaves mean and variance alone."""
    import ml_dtypes

    x = drawn("normal", 1 << 24, dtype=ml_dtypes.bfloat16).astype(np.float64)
    assert abs(x.mean()) < 5 / 2**12
    assert abs(x.var() - 1) < 5 * math.sqrt(2) / 2**12


# --------------------------------------------------------------------------- independence


def assert_uncorrelated(x: np.ndarray, y: np.ndarray) -> None:
    """Compare values, magnitudes and signs."""
    for f, g in ((x, y), (x * x, y * y), (x, y * y), (np.sign(x), np.sign(y))):
        assert abs(np.corrcoef(f, g)[0, 1]) * math.sqrt(x.size) < 5


MANY = 1 << 20


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    return drawn("normal", 2 * MANY).astype(np.float64)


OTHER_KEYS = {
    "next seed": KEY._replace(seed=KEY.seed + 1),
    "seed with a high bit": KEY._replace(seed=KEY.seed ^ 1 << 63),
    "next stream": KEY._replace(stream=KEY.stream + 1),
    "stream with a high bit": KEY._replace(stream=KEY.stream ^ 1 << 63),
    "another layer": KEY._replace(stream=stream("layers.1.weight")),
    "another label": KEY._replace(stream=stream("layers.0.weight", "refine")),
    "a number": KEY._replace(stream=stream(0)),
    "seed and stream exchanged": Key(KEY.stream, KEY.seed, 0),
}


@pytest.mark.parametrize("name", OTHER_KEYS)
def test_streams_are_uncorrelated(name: str, normal: np.ndarray) -> None:
    assert_uncorrelated(normal[:MANY], drawn("normal", MANY, OTHER_KEYS[name]).astype(np.float64))


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 1000, 1024, 4096, MANY - 1, MANY])
def test_elements_at_any_distance_are_uncorrelated(lag: int, normal: np.ndarray) -> None:
    """Neighbours share a word pair, a block or a tile; rows of a matrix lie a power of two apart."""
    assert_uncorrelated(normal[:MANY], normal[lag : lag + MANY])


@pytest.mark.parametrize("name", ["uniform", "truncated -2 2"])
@pytest.mark.parametrize("lag", [1, 2, 4, 1024])
def test_other_distributions_are_uncorrelated_too(name: str, lag: int) -> None:
    x = drawn(name, MANY + lag).astype(np.float64)
    assert_uncorrelated(x[:MANY], x[lag:])


def test_the_two_normal_values_of_a_pair_are_independent(normal: np.ndarray) -> None:
    """Their angle is uniform and says nothing of their radius, whose square is exponentially distributed."""
    x, y = normal[::2], normal[1::2]
    angle = np.arctan2(y, x) / (2 * np.pi) % 1
    radius = np.exp(-(x * x + y * y) / 2)
    for values in (angle, radius):
        assert stats.kstest(values, "uniform").pvalue > 1e-6
    cells = np.histogram2d(angle, radius, bins=64, range=((0, 1), (0, 1)))[0]
    assert 1e-6 < stats.chisquare(cells.reshape(-1)).pvalue < 1 - 1e-6


@pytest.mark.parametrize("axis", [0, 1])
def test_shards_are_uncorrelated(axis: int) -> None:
    """The shards of four ranks along either axis of a matrix beyond 2**34 elements."""
    rows = columns = 1 << 18
    shards = []
    for rank in range(4):
        corner = (rank * rows // 4, 5) if axis == 0 else (5, rank * columns // 4)
        span = Span(corner[0] * columns + corner[1], (columns, 1))
        shards.append(drawn("normal", (512, 1024), span=span).astype(np.float64).reshape(-1))
    for first in range(4):
        for second in range(first):
            assert_uncorrelated(shards[first], shards[second])


# --------------------------------------------------------------------------- words


def words(count: int, key: Key = KEY, base: int = 0) -> np.ndarray:
    out = np.empty(count, np.uint32)
    fill.bits(out, key, Span(base, (1,)))
    return out


def test_every_bit_is_set_half_of_the_time() -> None:
    found = words(1 << 24)
    for bit in range(32):
        for k in range(4):  # of each word of a block
            ones = np.count_nonzero(found[k::4] >> np.uint32(bit) & np.uint32(1))
            assert abs(ones - 2**21) < 5 * 2**10


def test_words_repeat_as_often_as_chance_has_it() -> None:
    """Pairs of equal words among n: about n**2 / 2 / 2**32, with Poisson scatter."""
    count = 1 << 22
    found = words(count)
    repeats = count - len(np.unique(found))
    assert abs(repeats - count**2 / 2**33) < 5 * math.sqrt(count**2 / 2**33)


def test_no_pattern_repeats_across_shards() -> None:
    """Among 2**24 pairs of words of shards, streams and seeds, not two are expected to be alike."""
    pieces = [words(1 << 22, KEY, rank << 33) for rank in range(4)]  # the last three begin at or beyond 2**33
    pieces += [words(1 << 22, KEY._replace(stream=KEY.stream + k)) for k in (1, 2)]
    pieces += [words(1 << 22, KEY._replace(seed=KEY.seed + k)) for k in (1, 2)]
    pairs = np.concatenate(pieces).view(np.uint64)
    pairs.sort()
    assert not np.any(pairs[1:] == pairs[:-1])


def test_a_bit_of_the_key_changes_half_of_the_words_bits() -> None:
    before = words(1 << 14)
    for bit in range(64):
        for key in (KEY._replace(seed=KEY.seed ^ 1 << bit), KEY._replace(stream=KEY.stream ^ 1 << bit)):
            changed = int(np.bitwise_count(before ^ words(1 << 14, key)).sum())
            assert abs(changed - 2**18) < 5 * math.sqrt(2**17)
