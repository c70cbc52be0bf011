"""Weights moved by noise: ``out = base + coefficient * noise``, drawn where it is added and kept nowhere.

Several perturbations in one pass are rounded to the dtype of the base one after another, so their bits are the bits of
as many passes. What an element becomes depends on its value, the keys and its place in the full tensor alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numparam.kernels.dispatch import kind, on_cuda
from numparam.kernels.perturb import cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numparam.kernels.perturb.noise import Dense, LowRank


def perturb(out: Any, base: Any, noise: Dense | LowRank, coefficients: Sequence[float], opposite: Any = None) -> None:
    """Write ``base + coefficient * noise``.

    Parameters
    ----------
    out : ndarray or DeviceArray
        C-contiguous. It may be `base` itself.
    base : ndarray or DeviceArray
        Of the shape of `out`, and a floating-point dtype of 16 bits or more; float64 only if `out` is too.
    noise : Dense or LowRank
    coefficients : sequence of float
        One for each perturbation.
    opposite : ndarray or DeviceArray, optional
        An array like `out`, for the weights moved the other way.
    """
    if base.size:
        _TWINS[kind(base)](out, base, noise, coefficients, opposite)


def perturb_on_lattice(values: Any, noise: Dense | LowRank, coefficients: Sequence[float], reach: float) -> bool:
    """Move float32 weights in place by noise on the lattice of a reach, see `formulas`, or return False.

    False if a weight is not on the lattice, before or after; then nothing has changed.
    """
    return not values.size or bool(_LATTICE_TWINS[kind(values)](values, noise, coefficients, reach))


_TWINS: dict[str, Callable[..., None]] = {"cpu": cpu.perturb, "cuda": on_cuda("perturb.cuda", "perturb")}
_LATTICE_TWINS: dict[str, Callable[..., bool]] = {
    "cpu": cpu.perturb_on_lattice,
    "cuda": on_cuda("perturb.cuda", "perturb_on_lattice"),
}
