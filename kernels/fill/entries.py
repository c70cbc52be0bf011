"""Random fill: write any slice of a logical tensor, each element a pure function of (key, global flat index)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from numparam.kernels.dispatch import kind, on_cuda
from numparam.kernels.fill import cpu, rows
from numparam.kernels.fill.key import Rows
from numparam.kernels.formula import distributions
from numparam.kernels.formula.distributions import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numparam.kernels.fill.key import Key, Span

    Place = Span | Rows | None

FLOAT32_MAX = float(np.finfo(np.float32).max)


def uniform(out: np.ndarray[Any, Any], key: Key, low: float, high: float, span: Place = None) -> None:
    """Write uniform values of the closed interval [low, high], whose bounds no rounding crosses.

    `out` is C-contiguous and of a floating-point dtype; `span` locates it in the logical tensor, from index 0 by
    default. Of `Arrays` the streams and refinements in the key are arrays of uint64. A ValueError if no number of the
    dtype lies in the interval.
    """
    bounds = _inner_bounds(low + 0.0, high + 0.0, out.dtype)
    _fill("uniform", out, key, distributions.uniform_params(low, high, bounds), span)


def normal(out: np.ndarray[Any, Any], key: Key, mean: float, sigma: float, span: Place = None) -> None:
    """Write normal values with the given mean and standard deviation; parameters as in `uniform`."""
    _fill("normal", out, key, distributions.normal_params(mean, sigma), span)


def truncated_normal(
    out: np.ndarray[Any, Any], key: Key, mean: float, sigma: float, low: float, high: float, span: Place = None
) -> None:
    """Write normal values restricted to [low, high], absolute and possibly infinite bounds that no rounding crosses.

    Bounds that are ten sigmas away or more truncate nothing, and the values are the same as from `normal`. A ValueError
    if less than 2**-93 of the distribution, or no number of the dtype, lies in the interval.
    """
    bounds = _inner_bounds(low + 0.0, high + 0.0, out.dtype)
    if min(mean - low, high - mean) >= distributions.BEYOND_NORMAL * sigma:
        _fill("normal_within", out, key, (*distributions.normal_params(mean, sigma), *bounds), span)
        return
    word_bits = 64 if out.dtype == np.float64 else 32
    params = distributions.truncated_normal_params(mean, sigma, low, high, bounds, word_bits=word_bits)
    distribution = "truncated_normal_symmetric" if params.symmetric and word_bits == 32 else "truncated_normal"
    _fill(distribution, out, key, params, span)


def either(out: np.ndarray[Any, Any], key: Key, chance: float, chosen: float, other: float, span: Place = None) -> None:
    """Write `chosen` with a probability, rounded to 32 bits, and `other` elsewhere; parameters as in `uniform`."""
    split = np.uint32(min(round(chance * 2**32), 2**32 - 1))
    _fill("either", out, key, (split, float(chosen), float(other)), span)


def bits(out: np.ndarray[Any, Any], key: Key, span: Place = None) -> None:
    """Write the raw words of the stream into an array of uint32."""
    _fill("bits", out, key, (), span)


def _fill(distribution: str, out: np.ndarray[Any, Any], key: Key, params: tuple[Any, ...], span: Place) -> None:
    if out.size:
        _check_params(distribution, params, out.dtype)
        (_ROW_TWINS if isinstance(span, Rows) else _TWINS)[kind(out)](distribution, out, key, params, span)


_info: Any = ml_dtypes.finfo


@lru_cache(maxsize=1024)
def _check_params(distribution: str, params: tuple[Any, ...], dtype: np.dtype[Any]) -> None:
    if params and dtype != np.float64 and max(*params, -min(params)) > FLOAT32_MAX:
        name = distribution.split("_", maxsplit=1)[0]
        raise ValueError(
            f"{name} values of {dtype} are drawn in float32, whose numbers end at {FLOAT32_MAX:.4g}; found the "
            f"parameters {params}; use smaller ones, or float64"
        )
    if distribution == "normal":
        sigma, mean = params
        reach = abs(mean) + sigma * (9.6 if dtype == np.float64 else 6.4)  # of 64-bit and of 32-bit words
        if reach > (most := float(_info(dtype).max)):
            raise ValueError(
                f"normal values of mean {mean:.4g} and sigma {sigma:.4g} reach {reach:.4g}, and {dtype} ends at "
                f"{most:.4g}; use smaller ones, a truncated normal, or a wider dtype"
            )


@lru_cache(maxsize=1024)
def _inner_bounds(low: float, high: float, dtype: np.dtype[Any]) -> Bounds:
    """Return the smallest and largest finite number of `dtype` in [low, high]: rounding cannot leave the interval.

    A bound that is zero has no sign: what is kept for one would be found for the other.
    """
    largest = np.asarray(ml_dtypes.finfo(dtype).max, dtype)  # type: ignore[no-untyped-call]
    limit = float(largest)
    inner_low, inner_high = (np.asarray(min(max(bound, -limit), limit)).astype(dtype) for bound in (low, high))
    # Towards the largest number, for float8_e4m3fn has no infinity to step towards.
    if float(inner_low) < low:
        inner_low = np.nextafter(inner_low, largest)
    if float(inner_high) > high:
        inner_high = np.nextafter(inner_high, -largest)
    if not low <= float(inner_low) <= float(inner_high) <= high:
        raise ValueError(
            f"no {dtype} number lies between {low!r} and {high!r}; widen the interval or use a longer dtype"
        )
    return Bounds(float(inner_low), float(inner_high))


_TWINS: dict[str, Callable[..., None]] = {
    "cpu": cpu.fill_array,
    "many": cpu.fill_arrays,
    "cuda": on_cuda("fill.cuda", "fill_array"),
}
_ROW_TWINS: dict[str, Callable[..., None]] = {"cpu": rows.fill_rows, "cuda": on_cuda("fill.cuda", "fill_rows")}
