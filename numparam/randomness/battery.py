"""Tests of random words: each sorts what it reads into categories of known probability, for a chi-square test.

Categories are counted chunk by chunk and added, so a test of any length takes the memory of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint32]]
Counts = np.ndarray[Any, np.dtype[np.int64]]
Probabilities = np.ndarray[Any, np.dtype[np.float64]]

_FEW = 5  # categories that expect fewer are pooled, so that the chi-square distribution fits


class Check(NamedTuple):
    """Sort words into categories, as a publication, the `source`, describes.

    `categories` gives from words how many things fell in each category, `probabilities` what to expect.
    """

    name: str
    source: str
    categories: Callable[[Words], Counts]
    probabilities: Probabilities


def p_value(counts: Counts, probabilities: Probabilities) -> float:
    """Return the probability of a fit at most as good as that of the counts (Pearson, 1900)."""
    from scipy import special

    expected = probabilities * counts.sum()
    order = np.argsort(expected)[::-1]
    expected, counts = expected[order], counts[order]
    kept = int(np.searchsorted(-expected, -_FEW, side="right"))
    if kept and expected[kept:].sum() < _FEW:
        kept -= 1
    groups = np.arange(min(kept + 1, len(expected)))  # the last is of all that expect few
    expected, counts = np.add.reduceat(expected, groups), np.add.reduceat(counts, groups)
    return float(special.chdtrc(len(groups) - 1, np.sum((counts - expected) ** 2 / expected)))


def _histogram(values: np.ndarray[Any, Any], size: int) -> Counts:
    return np.bincount(values.reshape(-1), minlength=size)


def _uniform(size: int) -> Probabilities:
    return np.full(size, 1 / size)


def _binomial(trials: int) -> Probabilities:
    return np.array([math.comb(trials, k) for k in range(trials + 1)]) / 2.0**trials


def _half(words: Words, which: int) -> Counts:
    return _histogram(words.view(np.uint16)[which::2], 1 << 16)


def _pair(words: Words, lag: int, shift: int) -> Counts:
    """Count pairs of bytes of words some places apart; no word is in two pairs."""
    part = (words[: len(words) // (2 * lag) * 2 * lag] >> np.uint32(shift)).astype(np.uint8).reshape(-1, 2, lag)
    return _histogram(part[:, 0].astype(np.uint16) << np.uint16(8) | part[:, 1], 1 << 16)


def _weights(words: Words) -> Counts:
    """Count pairs of the numbers of ones in neighbouring words."""
    ones = np.bitwise_count(words[: len(words) // 2 * 2]).reshape(-1, 2)
    return _histogram(ones[:, 0].astype(np.uint16) * np.uint16(33) + ones[:, 1], 33 * 33)


def _equal_bits(words: Words, lag: int) -> Counts:
    """Count the bits in which words differ that are some places apart."""
    return _histogram(np.bitwise_count(words[lag:] ^ words[:-lag]), 33)


_LONGEST_GAP = 100


def _gaps(words: Words) -> Counts:
    """Count the distances between words that are below an eighth of the range."""
    places = np.flatnonzero(words < np.uint32(1 << 29))
    # As many in every chunk: what the end of a chunk breaks off would be the long ones.
    gaps = np.diff(places)[: len(words) * 15 // 128] - 1
    return _histogram(np.minimum(gaps, _LONGEST_GAP), _LONGEST_GAP + 1)


def _gap_probabilities() -> Probabilities:
    powers = (7 / 8) ** np.arange(_LONGEST_GAP + 1)
    return np.append(powers[:-1] / 8, powers[-1])


_PAIRS = [(i, j) for i in range(4) for j in range(i)]


def _order_of(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    code = np.zeros(numbers.shape[1], np.uint8)
    for bit, (i, j) in enumerate(_PAIRS):
        code |= (numbers[i] > numbers[j]).view(np.uint8) << np.uint8(bit)
    return code


def _orders(words: Words) -> Counts:
    """Count the orders of four words in a row."""
    return _histogram(_order_of(words[: len(words) // 4 * 4].reshape(-1, 4).T), 64)


def _order_probabilities() -> Probabilities:
    codes = _order_of(np.array([*permutations(range(4))]).T)
    return np.bincount(codes, minlength=64) / 24


def _largest(words: Words) -> Counts:
    """Count the largest of eight words, made uniform by its eighth power."""
    largest = words[: len(words) // 8 * 8].reshape(-1, 8).max(axis=1)
    return _histogram((((largest + 0.5) / 2.0**32) ** 8 * 1024).astype(np.int64), 1024)


_MATRICES = 512


def _ranks(words: Words) -> Counts:
    """Count the ranks of 32 x 32 matrices of bits, of which a chunk gives a few hundred."""
    rows = words[: min(len(words) // 32, _MATRICES) * 32].reshape(-1, 32).copy()
    ranks = np.zeros(len(rows), np.int64)
    for bit in range(32):
        has = (rows >> np.uint32(bit) & np.uint32(1)).astype(bool)
        found = has.any(axis=1)
        pivot = np.where(found, rows[np.arange(len(rows)), has.argmax(axis=1)], np.uint32(0))
        rows ^= np.where(has, pivot[:, None], np.uint32(0))  # the pivot's own row becomes zero and is not found again
        ranks += found
    return _histogram(ranks, 33)


def _rank_probabilities() -> Probabilities:
    size, found = 32, []
    for rank in range(size + 1):
        product = 2.0 ** (rank * (2 * size - rank) - size * size)
        for i in range(rank):
            product *= (1 - 2.0 ** (i - size)) ** 2 / (1 - 2.0 ** (i - rank))
        found.append(product)
    return np.array(found)


_BIRTHDAYS, _MOST_REPEATED = 4096, 30


def _spacings(words: Words) -> Counts:
    """Count the spacings between 4096 sorted words that occur again, in an eighth of a chunk."""
    days = np.sort(words[: len(words) // 8 // _BIRTHDAYS * _BIRTHDAYS].reshape(-1, _BIRTHDAYS), axis=1)
    spacings = np.sort(np.diff(days, axis=1), axis=1)
    return _histogram(np.minimum((spacings[:, 1:] == spacings[:, :-1]).sum(axis=1), _MOST_REPEATED), _MOST_REPEATED + 1)


def _spacing_probabilities() -> Probabilities:
    mean = _BIRTHDAYS**3 / 2.0**34
    found = np.array([math.exp(-mean) * mean**k / math.factorial(k) for k in range(_MOST_REPEATED)])
    return np.append(found, 1 - found.sum())


_KNUTH = "Knuth, The Art of Computer Programming 2, 3.3.2 (1997)"
_ECUYER = "L'Ecuyer and Simard, TestU01 (2007)"
_MARSAGLIA = "Marsaglia and Tsay (1985)"

CHECKS = (
    Check("low halves", _KNUTH, partial(_half, which=0), _uniform(1 << 16)),
    Check("high halves", _KNUTH, partial(_half, which=1), _uniform(1 << 16)),
    Check("pairs of neighbours", _KNUTH, partial(_pair, lag=1, shift=0), _uniform(1 << 16)),
    Check("pairs of neighbouring blocks", _KNUTH, partial(_pair, lag=4, shift=24), _uniform(1 << 16)),
    Check("weights", _ECUYER, _weights, np.outer(_binomial(32), _binomial(32)).ravel()),
    *(
        Check(
            f"differing bits, {lag} apart", "L'Ecuyer and Simard (2007)", partial(_equal_bits, lag=lag), _binomial(32)
        )
        for lag in (1, 4, 1024)
    ),
    Check("gaps", _KNUTH, _gaps, _gap_probabilities()),
    Check("orders of four", _KNUTH, _orders, _order_probabilities()),
    Check("largest of eight", _KNUTH, _largest, _uniform(1024)),
    Check("ranks of matrices", _MARSAGLIA, _ranks, _rank_probabilities()),
    Check("birthday spacings", "Marsaglia and Tsang (2002)", _spacings, _spacing_probabilities()),
)
"""The tests, each with the publication that describes it."""
