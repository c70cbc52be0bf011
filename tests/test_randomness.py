"""The tests of randomness find planted faults, and find none where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from numparam.cli import main
from numparam.errors import ArgumentValueError, StateError
from numparam.randomness import ORDERS, dieharder, examine, known_answers, report, words
from numparam.randomness.battery import CHECKS, p_value
from numparam.randomness.draws import DRAWS, counts, probabilities

COUNT = 1 << 20


def good() -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, 2**32, COUNT, np.uint32)


def p_values(numbers: np.ndarray[Any, Any], names: Any = None) -> dict[str, float]:
    return {
        check.name: p_value(check.categories(numbers), check.probabilities)
        for check in CHECKS
        if names is None or check.name in names
    }


def test_probabilities_of_categories_are_complete() -> None:
    for check in CHECKS:
        assert check.probabilities.sum() == pytest.approx(1, abs=1e-12), check.name
        assert len(check.categories(good())) == len(check.probabilities), check.name
    for draw in DRAWS:
        assert probabilities(draw).sum() == pytest.approx(1, abs=1e-12), draw.name


def test_another_good_generator_passes() -> None:
    found = p_values(good())
    assert min(found.values()) > 1e-4, found


def with_heavy_words(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    numbers[::50] |= 0x00FF00FF
    return numbers


def with_repeats(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    numbers[4::64] = numbers[3::64]
    return numbers


def with_blocks_in_step(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    numbers[4::40] = numbers[:-4:40] ^ np.uint32(0xFFFF)
    return numbers


def with_no_rank(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    numbers[31::32] = numbers[:-1:32][: len(numbers[31::32])] ^ numbers[1::32]
    return numbers


def with_even_gaps(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    numbers[::8] |= np.uint32(1 << 31)
    return numbers


def in_order(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    numbers.reshape(-1, 4)[::30].sort(axis=1)
    return numbers


@pytest.mark.parametrize(
    "fault, found_by",
    [
        (lambda numbers: numbers & np.uint32(0xFFFFFFFE), "low halves"),
        (lambda numbers: numbers % np.uint32(3 << 30), "high halves"),
        (lambda numbers: np.repeat(numbers[::2], 2), "pairs of neighbours"),
        (with_heavy_words, "weights"),
        (with_repeats, "differing bits, 1 apart"),
        (with_blocks_in_step, "differing bits, 4 apart"),
        (with_blocks_in_step, "pairs of neighbouring blocks"),
        (in_order, "orders of four"),
        (lambda numbers: np.minimum(numbers, np.uint32(0xF8000000)), "largest of eight"),
        (with_even_gaps, "gaps"),
        (with_no_rank, "ranks of matrices"),
        (lambda numbers: numbers & np.uint32(0xFFFFF000), "birthday spacings"),
    ],
)
def test_planted_faults_are_found(fault: Any, found_by: str) -> None:
    assert p_values(fault(good()), [found_by])[found_by] < 1e-6


def test_orders_read_the_same_words() -> None:
    rows = next(words("shards", 7, 1)).reshape(8, 256, 512)[0]
    columns = next(words("columns", 7, 1)).reshape(4096, 256)
    assert np.array_equal(rows, columns.T[:, :512])
    for order in ORDERS:
        found = np.concatenate([*words(order, 7, 1 << 21)])
        assert found.size >= 1 << 21
        found.sort()
        assert np.count_nonzero(np.diff(found) == 0) < 2 * found.size**2 / 2**33, order


def test_counts_of_draws_find_a_wrong_tail() -> None:
    (normal,) = (draw for draw in DRAWS if draw.name == "normal")
    found = counts(normal, 7, 1 << 22)
    assert p_value(found, probabilities(normal)) > 1e-4
    found[: len(found) // 2 - 16 * 4] *= 2  # beyond four sigmas, on one side
    assert p_value(found, probabilities(normal)) < report.FAILED


@pytest.mark.slow
def test_the_stream_passes() -> None:
    found = examine(bits=28)
    assert found
    assert len(found.results) == len(ORDERS) * len(CHECKS) + 5 + len(DRAWS)


def test_known_answers_are_checked_on_every_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(right for *_, right in known_answers())
    assert main(["selftest"]) == 0
    assert capsys.readouterr().out.startswith("cpu      right  Uniform(scale=0.5), float32\n")


def test_bad_arguments_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentValueError, match="from 25 to 48, found 20"):
        examine(bits=20)
    with pytest.raises(ArgumentValueError, match=r"indices, names, .* found 'sideways'"):
        next(dieharder("sideways", 7))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StateError, match="dieharder is not installed"):
        next(dieharder("indices", 7))
