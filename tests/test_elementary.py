"""The elementary functions keep the accuracy that their docstrings state."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy import special

from compiled import call
from numparam.kernels.formula import distributions, elementary

RNG = np.random.default_rng(20261124)


def ulp_errors(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the errors in units of the last place of the exact results."""
    return np.abs((found.astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(found.dtype)).astype(np.float64))


def ulp_error_64(found: float, exact: mpmath.mpf) -> float:
    return float(abs(found - exact) / np.spacing(abs(float(exact))))


def _patterns(first: float, last: float, count: int) -> np.ndarray:
    """Return float32 numbers evenly spread over the bit patterns from `first` to `last`, both included."""
    ends = np.array([first, last], np.float32).view(np.uint32).astype(np.int64)
    return np.linspace(*ends, count).astype(np.uint32).view(np.float32)


# The exact values are float64 ones of NumPy and SciPy, good to 2**-28 float32 ulp; mpmath confirms that below.
DENSE = {
    "log": (
        elementary.log,
        np.log,
        lambda: np.concatenate([_patterns(2.0**-126, 2.0**126, 1 << 20), _patterns(0.5, 2, 1 << 20)]),
    ),
    "minus_twice_log_fraction": (
        elementary.minus_twice_log_fraction,
        lambda v: -2 * np.where(v < 0, np.log1p(v), np.log(np.abs(v))),
        lambda: np.concatenate([_patterns(2.0**-33, 0.5, 1 << 20), -_patterns(2.0**-33, 0.5, 1 << 20)]),
    ),
    "cos_eighth": (
        elementary.cos_eighth,
        lambda x: np.cos(np.pi / 4 * x),
        lambda: np.concatenate([_patterns(2.0**-30, 1, 1 << 19), RNG.uniform(-1, 1, 1 << 19).astype(np.float32)]),
    ),
    "sin_eighth": (
        elementary.sin_eighth,
        lambda x: np.sin(np.pi / 4 * x),
        lambda: np.concatenate([_patterns(2.0**-30, 1, 1 << 19), -_patterns(2.0**-30, 1, 1 << 19)]),
    ),
    "quantile": (
        distributions._upper_quantile,
        lambda q: -special.ndtri(q),
        lambda: np.concatenate([_patterns(2.0**-126, 0.4999, 1 << 20), _patterns(1e-4, 0.4999, 1 << 20)]),
    ),
    "quantile_central": (
        distributions._upper_quantile_central,
        lambda q: -special.ndtri(q),
        lambda: _patterns(distributions.CENTRAL_TAIL, 0.4999, 1 << 21),
    ),
}
BOUNDS = {
    "log": 3,
    "minus_twice_log_fraction": 4,
    "cos_eighth": 1,
    "sin_eighth": 2,
    "quantile": 6,
    "quantile_central": 4,
}


@pytest.mark.parametrize("name", DENSE)
def test_float32_functions_are_as_accurate_as_they_say(name: str) -> None:
    formula, exact, arguments = DENSE[name]
    numbers = arguments()
    errors = ulp_errors(call(formula, numbers), exact(numbers.astype(np.float64)))
    assert errors.max() < BOUNDS[name]


EXACT = {
    "log": mpmath.log,
    "log_fraction": lambda v: mpmath.log1p(v) if v < 0 else mpmath.log(v),
    "minus_twice_log_fraction": lambda v: -2 * (mpmath.log1p(v) if v < 0 else mpmath.log(v)),
    "cos_eighth": lambda x: mpmath.cos(mpmath.pi / 4 * x),
    "sin_eighth": lambda x: mpmath.sin(mpmath.pi / 4 * x),
}


def quantile_error(q: float, z: float) -> mpmath.mpf:
    """Return how far z lies above the number that a standard normal exceeds with probability q, to first order."""
    q, z = mpmath.mpf(q), mpmath.mpf(z)
    density = mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi)
    return (q - mpmath.erfc(z / mpmath.sqrt(2)) / 2) / density


@pytest.mark.parametrize("name", DENSE)
def test_yardsticks_agree_with_exact_arithmetic(name: str) -> None:
    _, yardstick, arguments = DENSE[name]
    arguments = RNG.choice(arguments(), 300).astype(np.float64)
    with mpmath.workdps(80):
        for argument, found in zip(arguments.tolist(), yardstick(arguments).tolist(), strict=True):
            exact = EXACT[name](mpmath.mpf(argument)) if name in EXACT else found - quantile_error(argument, found)
            assert abs(found - exact) <= abs(exact) * 2.0**-49


def _doubles(low: float, high: float, count: int = 2000) -> np.ndarray:
    """Return float64 numbers between `low` and `high`, all orders of magnitude alike."""
    return np.exp(RNG.uniform(np.log(low), np.log(high), count))


UP_TO_HALF = np.concatenate(
    [_doubles(2.0**-65, 0.5), -_doubles(2.0**-65, 0.5), RNG.uniform(-0.5, 0.5, 2000), [0.5, -0.5]]
)
UP_TO_ONE = np.concatenate([RNG.uniform(-1, 1, 4000), _doubles(2.0**-60, 1), -_doubles(2.0**-60, 1), [1.0, -1.0]])
NEAR_ONE = 1 + np.concatenate([_doubles(2.0**-52, 0.4), -_doubles(2.0**-52, 0.4)])
WIDE = {
    "log": (elementary.log_64, np.concatenate([_doubles(1e-307, 1e308), RNG.uniform(0.5, 2, 3000), NEAR_ONE])),
    "log_fraction": (elementary.log_fraction_64, UP_TO_HALF[UP_TO_HALF != 0]),
    "cos_eighth": (elementary.cos_eighth_64, UP_TO_ONE),
    "sin_eighth": (elementary.sin_eighth_64, UP_TO_ONE),
}
BOUNDS_64 = {"log": 1, "log_fraction": 2, "cos_eighth": 1, "sin_eighth": 2}


@pytest.mark.parametrize("name", WIDE)
def test_float64_functions_are_as_accurate_as_they_say(name: str) -> None:
    formula, arguments = WIDE[name]
    found = call(formula, arguments, result=np.float64)
    with mpmath.workdps(60):
        errors = [
            ulp_error_64(y, EXACT[name](mpmath.mpf(x))) for x, y in zip(arguments.tolist(), found.tolist(), strict=True)
        ]
    assert max(errors) < BOUNDS_64[name]


@pytest.mark.parametrize("low, high", [(0.0746, 0.49), (1.4e-11, 0.0751), (2.0**-200, 1.4e-11), (1e-307, 2.0**-200)])
def test_float64_quantile_is_as_accurate_as_it_says(low: float, high: float) -> None:
    arguments = _doubles(low, high)
    found = call(distributions._upper_quantile_64, arguments, result=np.float64)
    with mpmath.workdps(40):
        errors = [
            float(abs(quantile_error(q, z)) / np.spacing(z))
            for q, z in zip(arguments.tolist(), found.tolist(), strict=True)
        ]
    assert max(errors) < 5


def test_logarithm_of_one_is_zero() -> None:
    assert call(elementary.log, np.ones(1, np.float32)) == 0
    assert call(elementary.log_64, np.ones(1), result=np.float64) == 0


def test_digits_next_to_one_survive() -> None:
    v = np.array([-(2.0**-33)], np.float32)
    assert call(elementary.minus_twice_log_fraction, v) == -2 * v


@pytest.mark.parametrize("q", [0.5, np.nextafter(np.float32(0.5), np.float32(0))])
def test_quantile_is_continuous_at_the_middle(q: float) -> None:
    z = call(distributions._upper_quantile, np.array([q], np.float32))
    assert abs(z[0] - (0.5 - q) * np.sqrt(2 * np.pi)) <= 1e-6 * (0.5 - q)


def test_quantile_falls_where_its_two_polynomials_meet() -> None:
    q = _patterns(0.00165, 0.0018, 1 << 18)
    z = call(distributions._upper_quantile, q)
    assert np.diff(z).max() <= 8 * np.spacing(np.float32(2.9))
