"""Conversions round once, to nearest even: every pattern of the short types, and every tie of the long ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from numparam.kernels import copy
from numparam.kernels.copy import convert, cpu, transposes
from numparam.kernels.copy.walk import walk_of
from numparam.kernels.machine import pool

SHORT = [np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn)]
FLOATS = [np.dtype(np.float64), np.dtype(np.float32), *SHORT]
PAIRS = [(source, target) for source in FLOATS for target in FLOATS if source != target]


@cache
def values_of(dtype: np.dtype[Any]) -> np.ndarray:
    """Return all patterns of a short type; of a long one the numbers of the short types, the ties between them, their
    neighbours, and random patterns."""
    if dtype in SHORT:
        patterns = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
        return np.tile(patterns, -(-20_000 // patterns.size))
    random = np.random.default_rng(5).integers(0, 2**63, 50_000, np.uint64)
    parts = [(random >> np.uint64(64 - 8 * dtype.itemsize) << np.uint64(1)).astype(f"u{dtype.itemsize}").view(dtype)]
    for short in SHORT:
        numbers = numbers_of(short)
        for exact in (numbers, (numbers[1:] + numbers[:-1]) / 2, numbers[[0, -1]] * (1 + 2.0**-12)):
            rounded = exact.astype(dtype)
            parts += [rounded, np.nextafter(rounded, dtype.type(np.inf)), np.nextafter(rounded, dtype.type(-np.inf))]
    parts.append(
        np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, 1e-300, -7e-46, 3.4028235677973366e38], dtype)
    )
    return np.concatenate(parts)


@cache
def numbers_of(dtype: np.dtype[Any]) -> np.ndarray:
    """Return the finite numbers of a short type in ascending order, as float64."""
    with np.errstate(invalid="ignore"):
        numbers = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype).astype(np.float64)
    return np.unique(numbers[np.isfinite(numbers)])


def nearest(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Round float64 to a short type by looking for the nearest number, slowly and exactly."""
    numbers = numbers_of(dtype)
    largest = numbers[-1]
    gap = numbers[-1] - numbers[-2]
    below = np.clip(np.searchsorted(numbers, values, side="right") - 1, 0, numbers.size - 2)
    low, high = numbers[below], numbers[below + 1]
    with np.errstate(invalid="ignore", over="ignore"):
        down, up = values - low, high - values
    even = (low.astype(dtype).view(f"u{dtype.itemsize}") & 1) == 0
    chosen = np.where((down < up) | ((down == up) & even), low, high)
    result = np.copysign(chosen, values).astype(dtype)
    # The last number of float8_e4m3fn is even, that of the others odd: a tie with the next power goes up there.
    last_is_even = largest.astype(dtype).view(f"u{dtype.itemsize}") & 1 == 0
    limit = largest + gap / 2
    beyond = np.abs(values) > limit if last_is_even else np.abs(values) >= limit
    overflow = np.nan if dtype == FLOATS[-1] else np.inf
    result[beyond] = np.copysign(overflow, values[beyond]).astype(dtype)
    return result


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare bits, but of NaN only that it is one, and its sign."""
    with np.errstate(invalid="ignore"):
        nan = np.isnan(expected.astype(np.float64))
    bits = f"u{found.itemsize}"
    assert np.array_equal(np.isnan(found.astype(np.float64)), nan)
    assert np.array_equal(found.view(bits)[~nan], expected.view(bits)[~nan])
    assert np.array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("source, target", PAIRS, ids=str)
def test_every_pattern_and_every_tie(source: np.dtype[Any], target: np.dtype[Any]) -> None:
    values = values_of(source)
    found = np.empty(values.size, target)
    copy.copy(found, values)
    if source == np.float64 and target in SHORT:
        numbers = ~np.isnan(values)
        assert_same_bits(found[numbers], nearest(values[numbers], target))
        assert np.isnan(found[~numbers].astype(np.float64)).all()
    else:
        assert_same_bits(found, values.astype(target))


@pytest.mark.parametrize("target", SHORT[1:], ids=str)
def test_float64_is_rounded_once(target: np.dtype[Any]) -> None:
    numbers = numbers_of(target)
    middle = (numbers[numbers.size // 2 + 20] + numbers[numbers.size // 2 + 21]) / 2
    values = np.array([middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)])
    small, large = np.empty(3, target), np.empty(30_000, target)
    copy.copy(small, values)
    copy.copy(large, np.tile(values, 10_000))
    assert small.astype(float)[1] > small.astype(float)[2]
    assert np.array_equal(np.tile(small, 10_000).view(f"u{target.itemsize}"), large.view(f"u{target.itemsize}"))


@pytest.mark.parametrize("source, target", [("f4", "f2"), ("f2", "f4"), ("f4", "f8"), ("f8", "f4")])
@pytest.mark.parametrize("thread_count", [1, 2])
def test_any_layout(monkeypatch: pytest.MonkeyPatch, source: str, target: str, thread_count: int) -> None:
    monkeypatch.setattr(pool, "_num_threads", thread_count)
    values = np.random.default_rng(2).random((60, 300, 70)).astype(source)
    for view in (
        values, values[:, 3:-2, 5:], values[::-1, ::2, ::-3], values.T, values.transpose(1, 2, 0)[1:],
        np.broadcast_to(values[:1], values.shape), values.astype(values.dtype.newbyteorder(">")),
    ):  # fmt: skip
        wide = np.zeros([2 * length for length in view.shape], target)
        for out in (
            np.zeros(view.shape, target),
            wide[::2, ::-2, ::2],
            wide[: len(view), : view.shape[1], 1 : 1 + view.shape[2]],
        ):
            copy.copy(out, view)
            assert np.array_equal(out, view.astype(target))
        foreign = np.zeros(view.shape, np.dtype(target).newbyteorder(">"))
        copy.copy(foreign, view)
        assert np.array_equal(foreign, view.astype(target))


@pytest.mark.parametrize("source, target", [PAIRS[i] for i in (1, 2, 5, 8, 9, 17, 20, 28)], ids=str)
def test_transposes_of_odd_shapes(source: Any, target: Any) -> None:
    block = transposes.block(np.dtype(target).itemsize)
    for rows, columns in [(8, 9), (block.rows + 1, block.columns - 1), (3 * block.rows - 5, 2 * block.columns + 7)]:
        values = np.random.default_rng(2).random((columns, rows + 3)).astype(source)[:, 1:-2]
        out = np.zeros((rows, columns + 2), target)
        walk = walk_of(out[:, 1:-1], values.T)
        loop = convert.transposing(out.dtype, values.dtype)
        cpu.copy_transposed(loop, walk, 0, out.itemsize, past_caches=True)
        expected = np.zeros_like(out)
        for to, given in zip(expected[:, 1:-1].T, values, strict=True):
            copy.copy(to, given)
        assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("count", [1, 15, 16, 17, 4095, 20_000, 20_001])
@pytest.mark.parametrize("start", [0, 1, 5, 31])
def test_any_length_and_alignment(count: int, start: int) -> None:
    values = np.random.default_rng(2).random(count).astype("f4")
    out = np.zeros(count + 64, "f2")
    copy.copy(out[start : start + count], values)
    expected = np.zeros(count + 64, "f2")
    expected[start : start + count] = values
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("source", ["?", "i1", "u2", "i8", "f4", "c8"])
@pytest.mark.parametrize("target", ["?", "u1", "i4", "f2", ml_dtypes.bfloat16, "f8", "c16"])
@pytest.mark.parametrize("shape", [(7,), (700, 800)])
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_integers_and_bools_as_numpy_does(source: Any, target: Any, shape: tuple[int, ...]) -> None:
    values = (np.arange(np.prod(shape)) % 100).reshape(shape).astype(source)
    out = np.zeros(shape, target)
    copy.copy(out.T, values.T)
    assert np.array_equal(out, values.astype(target))


def test_overlap_of_two_dtypes() -> None:
    memory = np.arange(100_000, dtype="f4")
    expected = memory[:50_000].astype("f8")
    copy.copy(memory.view("f8"), memory[:50_000])
    assert np.array_equal(memory.view("f8"), expected)
