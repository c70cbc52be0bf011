"""Random fills hold the values of the reference, bit for bit, in any slice and with any number of threads."""

from __future__ import annotations

import decimal
import functools
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from compiled import call
from numparam.kernels import fill
from numparam.kernels.fill import Key, Span, cpu, entries
from numparam.kernels.fill.cpu import SHORTEST_RUN, TILE
from numparam.kernels.formula import distributions
from numparam.kernels.formula.distributions import Bounds
from numparam.kernels.machine import pool

KEY = Key(0x9E3779B97F4A7C15, 0x0123456789ABCDEF, 0xFEDCBA9876543210)
DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in reference.FORMATS}
DRAWS: dict[str, tuple[str, tuple[float, ...]]] = {
    "uniform": ("uniform", (-0.3, 0.7)),
    "normal": ("normal", (0.1, 1.3)),
    "truncated symmetric": ("truncated_normal", (0.0, 1.0, -2.0, 2.0)),
    "truncated central": ("truncated_normal", (0.25, 0.5, -0.5, 1.5)),
    "truncated wide": ("truncated_normal", (0.5, 1.0, -3.5, 4.0)),
    "truncated tail": ("truncated_normal", (0.0, 0.02, 0.06, math.inf)),
    "truncated lower tail": ("truncated_normal", (-1.0, 2.0, -17.0, -9.0)),
    "truncated nowhere": ("truncated_normal", (0.0, 0.02, -2.0, 2.0)),
}
every_draw = pytest.mark.parametrize("draw", DRAWS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = pool._num_threads
    yield
    pool._num_threads = before


def filled(draw: str, dtype: str, shape: Any, span: Span | None = None) -> np.ndarray:
    """Return the bits of a fill."""
    out = np.empty(shape, DTYPES[dtype])
    distribution, arguments = DRAWS[draw]
    getattr(fill, distribution)(out, KEY, *arguments, span)
    return out.view(f"u{out.itemsize}")


def expected(draw: str, dtype: str, indices: Any) -> list[int]:
    return [reference.stream_bits(*DRAWS[draw], dtype, KEY, int(index)) for index in indices]


# --------------------------------------------------------------------------- against the reference


@every_draw
@every_dtype
def test_values_are_those_of_the_reference(draw: str, dtype: str) -> None:
    assert filled(draw, dtype, 1000).tolist() == expected(draw, dtype, range(1000))


@every_draw
@every_dtype
@pytest.mark.parametrize("base, step", [(2**34 - 61, 1), (2**34 + 100, -3), (2**62 + 2, 2**41 + 1)])
def test_values_far_away_are_those_of_the_reference(draw: str, dtype: str, base: int, step: int) -> None:
    found = filled(draw, dtype, 150, Span(base, (step,)))
    assert found.tolist() == expected(draw, dtype, base + step * np.arange(150))


# --------------------------------------------------------------------------- slices

COUNT = 4096


@functools.cache
def whole(draw: str, dtype: str) -> np.ndarray:
    """Return the first `COUNT` elements, as one contiguous fill."""
    return filled(draw, dtype, COUNT)


@every_draw
@every_dtype
def test_runs_of_every_skip_and_length(draw: str, dtype: str) -> None:
    """Runs begin anywhere in a block and end anywhere in a tile; nothing before or after them is written."""
    distribution, arguments = DRAWS[draw]
    for skip, length in itertools.product((*range(4), TILE - 1), range(2 * TILE + 2)):
        buffer = np.zeros(length + 2, DTYPES[dtype])
        getattr(fill, distribution)(buffer[1:-1], KEY, *arguments, Span(skip, (1,)))
        found = buffer.view(f"u{buffer.itemsize}")
        assert np.array_equal(found[1:-1], whole(draw, dtype)[skip : skip + length])
        assert found[0] == found[-1] == 0


@every_draw
@every_dtype
def test_runs_in_rows(draw: str, dtype: str) -> None:
    """Rows about as long as the shortest that is written as a run, at every offset from a block."""
    for length, step in itertools.product((SHORTEST_RUN - 1, SHORTEST_RUN, TILE + 1, 3 * TILE - 1), (101, 230, -307)):
        rows = 9
        base = 3 if step > 0 else 3 - step * rows
        found = filled(draw, dtype, (rows, length), Span(base, (step, 1)))
        index = base + step * np.arange(rows)[:, None] + np.arange(length)
        assert np.array_equal(found, whole(draw, dtype)[index])


@every_draw
@every_dtype
def test_both_loops_give_the_same_bits(draw: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by_run = filled(draw, dtype, 1001, Span(5, (1,)))
    monkeypatch.setattr(cpu, "SHORTEST_RUN", 10**9)
    monkeypatch.setattr(cpu, "make_run", None)
    by_gather = filled(draw, dtype, (1001, 2), Span(5, (1, 0)))
    assert np.array_equal(by_run, by_gather[:, 0])
    assert np.array_equal(by_run, by_gather[:, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_rows_of_full_blocks(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "FEWEST_IN_BLOCKS", 0)
    monkeypatch.setattr(cpu, "make_gather", lambda *_: pytest.fail("an element at a time"))
    for length, step, rows in itertools.product((4, 8, 12), (16, 80, -28), (1, 7, 40)):
        base = 8 if step > 0 else 8 - step * rows
        found = filled("normal", dtype, (rows, 2, length), Span(base, (step, 52, 1)))
        index = base + step * np.arange(rows)[:, None, None] + 52 * np.arange(2)[:, None] + np.arange(length)
        assert np.array_equal(found, whole("normal", dtype)[index])


@every_dtype
def test_either_number_is_chosen_by_the_word(dtype: str) -> None:
    words, out = np.empty(1001, np.uint32), np.empty(1001, DTYPES[dtype])
    fill.bits(words, KEY)
    fill.either(out, KEY, 0.25, 2.0, -0.5)
    assert np.array_equal(out, np.where(words < 2**30, 2.0, -0.5).astype(out.dtype))
    fill.either(out, KEY, 0.0, 2.0, -0.5)
    assert (out == DTYPES[dtype].type(-0.5)).all()


@st.composite
def spans(draw: st.DrawFn) -> tuple[tuple[int, ...], Span]:
    """Any shape of rank 0 to 6 with strides of any sign that stay inside `COUNT` elements."""
    shape = draw(st.lists(st.integers(0, 7) | st.integers(30, 70), max_size=6).filter(lambda s: math.prod(s) <= 3000))
    low = high = 0
    strides = []
    for length in shape:
        reach = max(1, (COUNT - 1 - high + low) // max(1, length - 1))
        step = draw(st.integers(-reach, reach) | st.sampled_from([1, min(4, reach), -1])) if length > 1 else 1
        if abs(step) * max(0, length - 1) > COUNT - 1 - high + low:
            step = 0
        strides.append(step)
        low, high = low + min(0, step * (length - 1)), high + max(0, step * (length - 1))
    base = draw(st.integers(-low, COUNT - 1 - high)) if math.prod(shape) else 0
    return tuple(shape), Span(base, tuple(strides))


@settings(deadline=None, max_examples=300)
@given(case=spans(), kind=st.sampled_from(list(zip(DRAWS, DTYPES, strict=False))))
def test_any_slice_holds_the_values_of_the_whole(case: tuple[tuple[int, ...], Span], kind: tuple[str, str]) -> None:
    shape, span = case
    draw, dtype = kind
    index = np.full(shape, span.base)
    for axis, step in enumerate(span.strides):
        index += step * np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    assert np.array_equal(filled(draw, dtype, shape, span), whole(draw, dtype)[index])


@every_dtype
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (5, 7, 11)])
def test_the_whole_array_is_the_default(dtype: str, shape: tuple[int, ...]) -> None:
    expected = whole("normal", dtype)[: math.prod(shape)].reshape(shape)
    assert np.array_equal(filled("normal", dtype, shape), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e5m2", "float64"])
@pytest.mark.parametrize("size", [3 * 2**20 + 5, 4 * 2**20 - TILE])
def test_any_number_of_threads_gives_the_same_bits(dtype: str, size: int) -> None:
    pool.set_num_threads(1)
    alone = filled("uniform", dtype, size, Span(3, (1,)))
    strided = filled("uniform", dtype, (size // 9, 9), Span(3, (9, 1)))
    assert np.array_equal(alone[: strided.size], strided.reshape(-1))
    for count in range(2, 8):
        pool.set_num_threads(count)
        assert np.array_equal(filled("uniform", dtype, size, Span(3, (1,))), alone)
    gathered = filled("uniform", dtype, (size // 2, 2), Span(3 + size - 1, (-2, -1)))
    assert np.array_equal(gathered.reshape(-1), alone[::-1][: gathered.size])


@every_dtype
def test_dtypes_are_roundings_of_one_draw(dtype: str) -> None:
    """A float64 value rounds to nearly the float32 one: it is the same draw with more digits."""
    single = whole("normal", "float32").view(np.float32)
    found = whole("normal", dtype).view(DTYPES[dtype])
    if dtype == "float64":
        assert np.abs(found - single).max() < 1e-5
        assert np.mean(found != single) > 0.99
    else:
        with np.errstate(over="ignore"):
            assert np.array_equal(found, single.astype(DTYPES[dtype]))


# --------------------------------------------------------------------------- special words

SPECIAL = [0, 1, 2, 2**29, *(k * 2**30 + d for k in (1, 2, 3) for d in (-1, 0, 1)), 2**32 - 2, 2**32 - 1]
SPECIAL += [2**k + d for k in (8, 23, 24, 25) for d in (-1, 0, 1)]
SPECIAL += [0x55555555, 0xAAAAAAAA, 0x3FFFFF80, 0xBFFFFFC0]  # the last two round up to a power of two


def special_pairs(extra: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    words = sorted({*SPECIAL, *extra})
    pairs = np.array(list(itertools.product(words, words)), np.uint32)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def single(params: Any) -> tuple[Any, ...]:
    return tuple(np.float32(x) if isinstance(x, float) else x for x in params)


EVERYWHERE = (-math.inf, math.inf)


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.0, 1.0), (-0.3, 0.7), (1.0, 1.0 + 2.0**-20), (-3e38, 3e38)])
def test_uniform_of_special_words(low: float, high: float) -> None:
    a, b = special_pairs()
    params = reference.uniform_params(low, high)
    found = call(distributions.uniform, a, b, params=single((*params, *EVERYWHERE)))
    params = tuple(reference.FLOAT32.round(reference.Fraction(x)) for x in params)
    for words, values in zip((a, b), found, strict=True):
        exact = [reference.uniform(reference.FLOAT32, reference.Word(int(word)), *params) for word in words]
        assert values.tolist() == exact


def test_uniform_words_are_symmetric() -> None:
    """Word 2**32 - w mirrors word w about the middle; the two ends are the bounds."""
    words = np.array([0x80000000, 0x80000001, 0x7FFFFFFF, 0, 1, 0xFFFFFFFF], np.uint32)
    params = single((*distributions.uniform_params(-1.0, 1.0, Bounds(-1, 1)),))
    low, above_low, high, zero, smallest, largest_negative = call(distributions.uniform, words, words, params=params)[0]
    assert (low, high, zero) == (-1, 1, 0)
    assert above_low == -high
    assert smallest == -largest_negative == 2.0**-31


@pytest.mark.parametrize("mean, sigma", [(0.0, 1.0), (0.5, 0.02), (-1e-30, 1e-38)])
def test_normal_of_special_words(mean: float, sigma: float) -> None:
    a, b = special_pairs()
    found = np.stack(call(distributions.normal, a, b, params=single((sigma, mean))))
    f = reference.FLOAT32
    params = f.round(reference.Fraction(sigma)), f.round(reference.Fraction(mean))
    exact = [
        reference.normal(f, reference.Word(int(x)), reference.Word(int(y)), *params) for x, y in zip(a, b, strict=True)
    ]
    assert np.array_equal(found.view(np.uint32).T, np.array(exact, np.float32).view(np.uint32))


def test_normal_reaches_as_far_as_its_words() -> None:
    zero = np.zeros(1, np.uint32)
    largest = call(distributions.normal, zero, zero, params=single((1.0, 0.0)))[0][0]
    assert largest == pytest.approx(math.sqrt(2 * 33 * math.log(2)), rel=1e-6)
    smallest = call(distributions.normal, zero - np.uint32(1), zero, params=single((1.0, 0.0)))[0][0]
    assert smallest == pytest.approx(math.sqrt(2) * 2.0**-16.5, rel=1e-6)


@pytest.mark.parametrize("draw", ["uniform_64", "normal_64"])
def test_refined_values_of_special_words(draw: str) -> None:
    a, b = special_pairs()
    lows = np.random.default_rng(5).choice(np.array(SPECIAL, np.uint32), (2, a.size))
    params = (2.0**-31, 0.25, *EVERYWHERE) if draw == "uniform_64" else (1.3, 0.25)
    found = np.stack(call(getattr(distributions, draw), a, b, *lows, params=params, result=np.float64))
    f = reference.FLOAT64
    exact = []
    for high_a, high_b, low_a, low_b in zip(a.tolist(), b.tolist(), *lows.tolist(), strict=True):
        x, y = reference.Word(high_a, low_a), reference.Word(high_b, low_b)
        if draw == "uniform_64":
            exact.append((reference.uniform(f, x, *params[:2]), reference.uniform(f, y, *params[:2])))
        else:
            exact.append(reference.normal(f, x, y, *params))
    assert np.array_equal(found.view(np.uint64).T, np.array(exact).view(np.uint64))


TRUNCATIONS = [
    (0.0, 1.0, -2.0, 2.0),
    (0.0, 1.0, -2.0, 0.5),
    (3.0, 2.0, -9.0, 4.0),
    (0.0, 1.0, 1.0, math.inf),
    (0.0, 1.0, -math.inf, -7.5),
    (0.0, 1.0, 10.0, 10.5),
    (0.0, 1.0, -1.0, 1e-80),
    (0.0, 1.0, -1e-80, 1.0),
    (0.0, 1.0, 0.0, 1.0),
    (0.0, 1.0, -1.0, 0.0),
    (-0.7, 0.3, -0.70001, -0.69999),
]


@pytest.mark.parametrize("mean, sigma, low, high", TRUNCATIONS)
@pytest.mark.parametrize("bits", [32, 64])
def test_truncated_normal_of_special_words(mean: float, sigma: float, low: float, high: float, bits: int) -> None:
    """Both sides of the split, the ends, and words that lie beside them."""
    f = reference.FLOAT32 if bits == 32 else reference.FLOAT64
    params = distributions.truncated_normal_params(mean, sigma, low, high, Bounds(*EVERYWHERE), word_bits=bits)
    split = int(params.split)
    a, b = special_pairs(tuple(word for word in (split - 1, split, split + 1) if 0 <= word < 2**32))
    exact_params = reference.Truncated(split, *(f.round(reference.Fraction(x)) for x in tuple(params)[1:6]))
    if bits == 32:
        found = call(distributions.truncated_normal, a, b, params=single(params))
        lows = np.zeros((2, a.size), np.uint32)
    else:
        lows = np.random.default_rng(6).choice(np.array(SPECIAL, np.uint32), (2, a.size))
        found = call(distributions.truncated_normal_64, a, b, *lows, params=tuple(params), result=np.float64)
    for highs, low_words, values in zip((a, b), lows, found, strict=True):
        words = {reference.Word(*pair) for pair in zip(highs.tolist(), low_words.tolist(), strict=True)}
        exact = {word: reference.truncated_normal(f, word, exact_params) for word in words}
        expected = [exact[reference.Word(*pair)] for pair in zip(highs.tolist(), low_words.tolist(), strict=True)]
        assert values.tolist() == expected


@pytest.mark.parametrize("mean, sigma, low, high", [*TRUNCATIONS, (0.1, 0.3, -0.5, math.inf), (0.0, 1e-3, 0.002, 0.02)])
@pytest.mark.parametrize("bits", [32, 64])
def test_truncated_parameters_are_correctly_rounded(
    mean: float, sigma: float, low: float, high: float, bits: int
) -> None:
    f = reference.FLOAT32 if bits == 32 else reference.FLOAT64
    found = distributions.truncated_normal_params(mean, sigma, low, high, Bounds(low, high), word_bits=bits)
    assert tuple(found)[:6] == tuple(reference.truncated_params(f, mean, sigma, low, high))


@pytest.mark.parametrize("bound", [0.1, 0.5, 0.98, 1.0, 1.645, 2.0, 2.5, 3.0, 7.0])
def test_symmetric_bounds_split_in_the_middle(bound: float) -> None:
    """Exactly: the faster formula for symmetric bounds depends on it."""
    params = distributions.truncated_normal_params(0.5, 1.0, 0.5 - bound, 0.5 + bound, Bounds(0, 0), word_bits=32)
    assert params.split == 2**31
    assert params.below == params.above


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.1, 0.3), (-0.3, 0.7), (1e-300, 2e-300), (-1e308, 1e308)])
def test_uniform_parameters_are_correctly_rounded(low: float, high: float) -> None:
    assert distributions.uniform_params(low, high, Bounds(low, high))[:2] == reference.uniform_params(low, high)


@pytest.mark.parametrize("x", [0.0, 1e-300, 0.5, 1.0, 2.0, 4.999, 5.0, 5.001, 8.0, 11.3, 38.0, 150.0, -1.0, -20.0])
def test_normal_tail_has_forty_digits(x: float) -> None:
    found = reference.Fraction(distributions.normal_tail(x))
    exact = reference.normal_tail(x)
    assert abs(found - exact) <= exact / 10**40


def test_parameters_do_not_depend_on_the_decimal_context_of_the_user() -> None:
    arguments = (0.1, 1.0, -1.7, 2.3, Bounds(-1.7, 2.3))
    expected = distributions.truncated_normal_params(*arguments, word_bits=32)
    distributions.normal_tail.cache_clear()
    with decimal.localcontext() as context:
        context.prec, context.rounding, context.Emin = 5, decimal.ROUND_UP, -10
        context.traps[decimal.FloatOperation] = context.traps[decimal.Inexact] = True
        assert distributions.truncated_normal_params(*arguments, word_bits=32) == expected


# --------------------------------------------------------------------------- bounds

INTERVALS = [(0.1, 1.0), (1 / 3, 2 / 3), (-0.3, 0.7), (-1 / 3, 0.1), (0.0, 0.1), (-1000.0, 1000.0), (0.7, 0.8)]


@every_dtype
@pytest.mark.parametrize("low, high", INTERVALS)
def test_uniform_values_stay_inside_their_bounds(dtype: str, low: float, high: float) -> None:
    out = np.empty(1 << 18, DTYPES[dtype])
    fill.uniform(out, KEY, low, high)
    values = out.astype(np.float64)
    assert low <= values.min() <= values.max() <= high
    if out.itemsize == 1 and high < 100:  # so many draws reach the ends
        assert (values.min(), values.max()) == reference.inner_bounds(low, high, reference.FORMATS[dtype])


@every_dtype
@pytest.mark.parametrize("mean, sigma", [(0.0, 1.0), (0.5, 0.05), (-4.0, 1.0), (0.2, 3.0)])
@pytest.mark.parametrize("low, high", INTERVALS)
def test_truncated_values_stay_inside_their_bounds(
    dtype: str, mean: float, sigma: float, low: float, high: float
) -> None:
    out = np.empty(1 << 14, DTYPES[dtype])
    fill.truncated_normal(out, KEY, mean, sigma, low, high)
    values = out.astype(np.float64)
    assert low <= values.min() <= values.max() <= high


@every_dtype
def test_bounds_are_rounded_inwards(dtype: str) -> None:
    f = reference.FORMATS[dtype]
    for low, high in (
        *INTERVALS,
        (-math.inf, math.inf),
        (-1e300, 1e300),
        (-1e-12, 1e-12),
        (0.1, math.inf),
        (-2e-3, -1e-4),
    ):
        found = entries._inner_bounds(low, high, DTYPES[dtype])
        assert found == reference.inner_bounds(low, high, f)
        assert low <= found.low <= found.high <= high


@pytest.mark.parametrize(
    "dtype, low, high",
    [
        ("float8_e4m3fn", 0.1, 0.1001),
        ("float8_e4m3fn", 449.0, 1000.0),
        ("float8_e5m2", 1.01, 1.2),
        ("float16", 1.0001, 1.0002),
        ("float16", 65505.0, 65510.0),
        ("bfloat16", 1 / 3, 1 / 3 + 1e-4),
        ("float32", 1 + 2.0**-30, 1 + 2.0**-25),
        ("float32", -1e300, -1e299),
    ],
)
def test_interval_without_a_number_is_an_error(dtype: str, low: float, high: float) -> None:
    out = np.empty(3, DTYPES[dtype])
    with pytest.raises(ValueError, match=re.escape(f"no {dtype} number lies between {low!r} and {high!r}; widen")):
        fill.uniform(out, KEY, low, high)
    with pytest.raises(ValueError, match=f"no {dtype} number"):
        fill.truncated_normal(out, KEY, low, 1.0, low, high)


@pytest.mark.parametrize("low, high", [(40.0, math.inf), (-math.inf, -12.0), (1e300, 1.5e300), (1.0, 1.0)])
def test_interval_without_mass_is_an_error(low: float, high: float) -> None:
    out = np.empty(3, np.float64)
    with pytest.raises(ValueError, match=r"holds less than 2\*\*-93 of a normal distribution"):
        fill.truncated_normal(out, KEY, 0.0, 1.0, low, high)


@every_dtype
def test_a_single_number_is_an_interval(dtype: str) -> None:
    out = np.empty(100, DTYPES[dtype])
    fill.uniform(out, KEY, 0.75, 0.75)
    assert np.all(out.astype(np.float64) == 0.75)


def test_tiny_probabilities_are_drawn() -> None:
    """Just above 2**-93, the smallest mass that is accepted, values still vary and follow the density."""
    out = np.empty(10_000, np.float32)
    fill.truncated_normal(out, KEY, 0.0, 1.0, 11.0, math.inf)
    assert len(np.unique(out)) > 5000
    assert out.min() >= 11
    assert np.mean(out) == pytest.approx(11 + 1 / 11, abs=0.003)


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=str)
def test_parameters_beyond_float32_are_refused(dtype: type) -> None:
    out = np.zeros(4, dtype)
    with pytest.raises(ValueError, match=r"drawn in float32, whose numbers end at 3\.403e\+38"):
        fill.uniform(out, fill.Key(1, 2, 3), -1e300, 1e300)
    with pytest.raises(ValueError, match="use smaller ones, or float64"):
        fill.normal(out, fill.Key(1, 2, 3), 0.0, 1e39)
    assert not out.any()
