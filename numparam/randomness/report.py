"""Run the tests of randomness and collect their results."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from numparam.errors import ArgumentValueError, StateError
from numparam.kernels import fill
from numparam.kernels.fill import Key
from numparam.randomness import draws
from numparam.randomness.battery import CHECKS, p_value
from numparam.randomness.words import ORDERS, words
from numparam.stream.seed import stream

FAILED, WEAK = 1e-9, 1e-4
DIEHARDER = ("-a", "-g", "200")  # all its tests, on words from the standard input
SHORT, MOST_DRAWS = 36, 32  # binary logarithms of the bits, and of the draws of a distribution

_LONGEST_NAME = 16


class Result(NamedTuple):
    """Hold the result of one test: what was read, how it was tested, and of how many words, draws or pairs of streams.

    `p` is the probability of a fit at most as good, from a right generator.
    """

    group: str
    test: str
    amount: int
    p: float

    @property
    def verdict(self) -> str:
        """Return ``"passed"``, ``"weak"`` or ``"failed"``."""
        tail = min(self.p, 1 - self.p)
        return "failed" if tail < FAILED else "weak" if tail < WEAK else "passed"


@dataclass
class Report:
    """Hold the results of a run; it is true if no test failed."""

    results: list[Result] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether no test failed."""
        return all(result.verdict != "failed" for result in self.results)


def examine(seed: int = 7, bits: int = SHORT, say: Callable[[Result], Any] = lambda _: None) -> Report:
    """Test the stream as parameters read it: words, the effect of names and seeds, and draws.

    Parameters
    ----------
    seed : int
    bits : int
        The binary logarithm of the bits that are read: 2**36 take minutes. Each distribution is drawn twice as often
        as there are words, at most 2**32 times.
    say : callable
        Gets each result when it is there.

    Raises
    ------
    ValueError
        If `bits` is below 25 or above 48.
    RuntimeError
        If SciPy is not installed.

    Examples
    --------
    >>> report = examine(bits=25)
    >>> bool(report), sorted({result.group for result in report.results})[:5]
    (True, ['avalanche', 'columns', 'draws', 'indices', 'interleaved'])
    """
    if not 25 <= bits <= 48:
        raise ArgumentValueError(f"bits is a binary logarithm from 25 to 48, found {bits}")
    if importlib.util.find_spec("scipy") is None:
        raise StateError('the tests of randomness need SciPy: pip install "numparam[selftest]"')
    report = Report()
    for result in _results(seed, 2 ** (bits - 5)):
        report.results.append(result)
        say(result)
    return report


def _results(seed: int, limit: int) -> Iterator[Result]:
    for order in ORDERS:
        found = [np.zeros(len(check.probabilities), np.int64) for check in CHECKS]
        amount = 0
        for part in words(order, seed, limit // len(ORDERS)):
            amount += part.size
            found = [total + check.categories(part) for total, check in zip(found, CHECKS, strict=True)]
        for total, check in zip(found, CHECKS, strict=True):
            yield Result(order, check.name, amount, p_value(total, check.probabilities))
    yield from _avalanche(seed)
    yield _correlation(seed)
    amount = min(2 * limit, 2**MOST_DRAWS)
    for draw in draws.DRAWS:
        yield Result("draws", draw.name, amount, p_value(draws.counts(draw, seed, amount), draws.probabilities(draw)))


def _first_words(seed: int, name: str) -> np.ndarray[Any, Any]:
    out = np.empty(32, np.uint32)
    fill.bits(out, Key(seed, stream(name), 0))
    return out


def _avalanche(seed: int, cases: int = 256) -> Iterator[Result]:
    """Count which bits of the first 1024 change when one bit of the seed, or one of the name, does."""
    from scipy import special

    def changed_seed(case: int, bit: int) -> tuple[int, str]:
        return (seed + case) ^ 1 << bit, f"w.{case}"

    def changed_name(case: int, bit: int) -> tuple[int, str]:
        name = bytearray(f"w.{case}".ljust(_LONGEST_NAME, "x").encode())
        name[bit // 7] ^= 1 << bit % 7  # stays ASCII
        return seed + case, name.decode()

    for what, change, bits in (("seed", changed_seed, 64), ("name", changed_name, 7 * _LONGEST_NAME)):
        flips = np.zeros((bits, 1024), np.int64)
        for case in range(cases):
            name = f"w.{case}" if what == "seed" else f"w.{case}".ljust(_LONGEST_NAME, "x")
            base = _first_words(seed + case, name)
            for bit in range(bits):
                flips[bit] += np.unpackbits((base ^ _first_words(*change(case, bit))).view(np.uint8))
        for test, counts, trials in (
            (f"each bit of the {what}", flips.sum(axis=1), 1024 * cases),
            (f"each bit of the words by the {what}", flips.sum(axis=0), bits * cases),
        ):
            scores = (counts - trials / 2) ** 2 / (trials / 4)
            yield Result("avalanche", test, bits * cases, float(special.chdtrc(len(scores), scores.sum())))


def _correlation(seed: int, streams: int = 1024, length: int = 4096) -> Result:
    """Correlate the normals of every two of many names."""
    from scipy import special

    values = np.empty((streams, length), np.float32)
    for place, row in enumerate(values):
        fill.normal(row, Key(seed, stream(f"layers.{place}.weight"), 0), 0.0, 1.0)
    pairs = np.triu_indices(streams, 1)
    scores = (values.astype(np.float64) @ values.T.astype(np.float64))[pairs] ** 2 / length
    # A product of normals has kurtosis: the square of a sum of n has mean n and variance n * n * (2 + 6 / n).
    z = (scores.sum() - len(scores)) / np.sqrt(len(scores) * (2 + 6 / length))
    return Result("streams", "correlation of every two names", len(scores), float(special.ndtr(-z)))


def dieharder(order: str, seed: int, arguments: tuple[str, ...] = DIEHARDER) -> Iterator[str]:
    """Yield the lines that dieharder prints about the words in an order; all its tests take hours.

    A ValueError if the order is unknown, a RuntimeError if the program is not installed.
    """
    if order not in ORDERS:
        raise ArgumentValueError(f"words are read in the order of {', '.join(ORDERS)}; found {order!r}")
    program = shutil.which("dieharder")
    if program is None:
        raise StateError("dieharder is not installed; Debian and Ubuntu have a package of that name")
    with subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        feeding = threading.Thread(target=partial(_feed, process.stdin, order, seed), daemon=True)
        feeding.start()
        for line in process.stdout:
            yield line.decode().rstrip()
        feeding.join()


def _feed(pipe: Any, order: str, seed: int) -> None:
    with suppress(BrokenPipeError), pipe:  # dieharder ends when it has enough
        for part in ORDERS[order](seed):
            pipe.write(part)
