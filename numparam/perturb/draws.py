"""What a perturbation draws: the kind of noise, and the noise of a region as kernels take it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.checks import as_int
from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError, ShapeError
from numparam.indexing.region import Region, as_slice
from numparam.stream.seed import Label, as_seed, stream
from numparam.stream.source import Source
from numparam.text import shown

if TYPE_CHECKING:
    from numparam.kernels.perturb import Dense, LowRank

KINDS = ("normal", "rademacher", "uniform")
LARGEST_NORMAL = 6.8
"""No normal value of float32 is larger: a radius has 32 bits."""

_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
_BATCH = 8
"""Low-rank perturbations whose factors are in memory at a time."""


@dataclass(frozen=True)
class Noise:
    """Describe the noise.

    Parameters
    ----------
    kind : {"normal", "rademacher", "uniform"}
        Standard normal values, signs, or uniform values of [-1, 1].
    rank : int, optional
        For matrices: the noise is the product of two normal factors of this rank, over the root of the rank, so that
        its elements have the variance 1.
    reach : float, optional
        Of the lattice on which float32 parameters move in place; None rounds sums to the dtype.
    """

    kind: str = "normal"
    rank: int | None = None
    reach: float | None = None

    def __post_init__(self) -> None:
        if self.reach is not None:
            as_reach(self.reach)
        if self.kind not in KINDS:
            raise ArgumentValueError(f"noise must be one of {', '.join(KINDS)}, found {self.kind!r}")
        if self.rank is not None:
            as_int("rank", self.rank, 1)
            if self.kind != "normal":
                raise ArgumentValueError(f"low-rank noise is a product of normal factors, found {self.kind!r}")

    @property
    def largest(self) -> float:
        """Return a bound of its absolute values."""
        if self.rank is None:
            return LARGEST_NORMAL if self.kind == "normal" else 1.0
        return math.sqrt(self.rank) * LARGEST_NORMAL**2

    def check(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Check that a parameter can be perturbed."""
        if dtype not in _FLOATS and dtype.name != "bfloat16":
            raise DtypeError(f"Parameter {name!r}: floats of 16 bits or more are perturbed, found {dtype}")
        if self.rank is not None and len(shape) != 2:
            raise ShapeError(f"Parameter {name!r}: low-rank noise is for matrices, found shape {shape}")
        if self.reach is not None and dtype != np.float32:
            raise DtypeError(
                f"Parameter {name!r} of {dtype} loses bits when noise is added and subtracted in place; give base=, "
                "its float32 master weights or a copy of it, or write perturbed(parameter, seed, scale, out=other)"
            )

    def check_scales(self, name: str, scales: Iterable[float]) -> None:
        """Check that noise is small enough for the lattice.

        Raises
        ------
        ArgumentValueError
            If it can be a quarter of the reach.
        """
        most = max(map(abs, scales), default=0.0) * self.largest
        if self.reach is not None and most >= self.reach / 4:
            raise ArgumentValueError(
                f"Parameter {name!r}: noise of up to {most:.3g} needs a lattice of four times that reach, found "
                f"{self.reach}"
            )

    def drawn(self, name: str, region: Region, like: Any, seeds: Sequence[int]) -> Dense | LowRank:
        """Return the noise of a region of a parameter, for kernels; `like` is an array of the parameter's dtype."""
        from numparam.kernels.fill import Key, Span
        from numparam.kernels.formula.access import state_dtype
        from numparam.kernels.perturb import Dense, LowRank

        dtype = state_dtype(like.dtype)
        if self.rank is not None:
            rows, columns = (as_slice(each) for each in region.ranges)
            left = Region.full((region.full_shape[0], self.rank))[rows]
            right = Region.full((self.rank, region.full_shape[1]))[:, columns]
            return LowRank(*(_factors(name, part, label, like, dtype, seeds)
                             for part, label in ((left, "left"), (right, "right"))))  # fmt: skip
        number = stream(name, "noise")
        refinement = stream(name, "refinenoise") if dtype == np.float64 else 0
        keys = [Key(seed, number, refinement) for seed in seeds]
        span = None if region.is_full else Span(*region.span())
        if self.kind == "normal":
            return Dense("normal", (1.0, 0.0), keys, span)
        if self.kind == "uniform":
            return Dense("uniform", (2.0**-31, 0.0, -1.0, 1.0), keys, span)
        return Dense("either", (np.uint32(2**31), 1.0, -1.0), keys, span)

    def write(
        self, out: Any, base: Any, name: str, region: Region, seeds: Sequence[int], scales: Sequence[float]
    ) -> None:
        """Write a region moved by several perturbations, one after another, into an array; it may be `base`."""
        from numparam.kernels import copy
        from numparam.kernels.perturb import perturb

        if self.reach is not None:
            if out is not base:
                copy.copy(out, base)
            if not self.move(out, name, region, seeds, scales):
                raise ArgumentValueError(
                    f"Parameter {name!r}: its values must be multiples of {self.reach / 2**24:.3g} up to {self.reach}, "
                    "before and after a perturbation; call snap_ first, with a larger reach if they grow"
                )
            return
        step = len(seeds) if self.rank is None else _BATCH
        if len(seeds) > step and out.dtype != base.dtype:
            kept = np.empty(base.shape, base.dtype) if isinstance(base, np.ndarray) else type(base).empty(
                base.shape, base.dtype, base.device)  # fmt: skip
            self.write(kept, base, name, region, seeds, scales)
            copy.copy(out, kept)
            return
        for start in range(0, len(seeds), max(step, 1)):
            chosen = slice(start, start + step)
            noise = self.drawn(name, region, base, seeds[chosen])
            perturb(out, base, noise, self.coefficients(scales[chosen]))
            base = out

    def move(self, memory: Any, name: str, region: Region, seeds: Sequence[int], scales: Sequence[float]) -> bool:
        """Move values on the lattice in place, or return False and leave them as they are."""
        from numparam.kernels.perturb import perturb_on_lattice

        step = max(len(seeds), 1) if self.rank is None else _BATCH
        for start in range(0, len(seeds), step):
            chosen = slice(start, start + step)
            drawn = self.drawn(name, region, memory, seeds[chosen])
            if not perturb_on_lattice(memory, drawn, self.coefficients(scales[chosen]), float(self.reach or 0)):
                self.move(memory, name, region, seeds[:start][::-1], [-each for each in scales[:start][::-1]])
                return False
        return True

    def coefficients(self, scales: Iterable[float]) -> list[float]:
        """Return what the drawn values are multiplied by."""
        return [scale / math.sqrt(self.rank or 1) for scale in scales]


def _factors(name: str, region: Region, label: str, like: Any, dtype: np.dtype[Any], seeds: Sequence[int]) -> Any:
    shape = len(seeds), *region.shape
    factors: Any = np.empty(shape, dtype) if isinstance(like, np.ndarray) else type(like).empty(
        shape, dtype, like.device)  # fmt: skip
    for place, seed in enumerate(seeds):
        Source(seed, name).normal(factors[place], region, 0.0, 1.0, Label(label))
    return factors


def as_pairs(seed: Any, scale: Any) -> tuple[list[int], list[float]]:
    """Return seeds and scales, of one perturbation or of several, as lists of one length."""
    many = isinstance(seed, Iterable)
    seeds = [as_seed(each) for each in seed] if many else [as_seed(seed)]
    scales = list(scale) if isinstance(scale, Iterable) else [scale] * (len(seeds) if many else 1)
    if len(scales) != len(seeds):
        raise ArgumentValueError(f"expected a scale for each of {len(seeds)} seeds, found {len(scales)}")
    for each in scales:
        if isinstance(each, bool) or not isinstance(each, int | float | np.integer | np.floating):
            raise ArgumentTypeError(f"scale must be a number, found {each!r:.80}")
        if not math.isfinite(each):
            raise ArgumentValueError(f"scale must be finite, found {each!r}")
    return seeds, [float(each) for each in scales]


def as_reach(reach: Any) -> float:
    """Return the reach of a lattice.

    Raises
    ------
    ArgumentValueError
        If it is not a power of two.
    """
    if not isinstance(reach, int | float) or not 2.0**-60 <= reach <= 2.0**60 or math.frexp(reach)[0] != 0.5:
        raise ArgumentValueError(f"reach must be a power of two, found {shown(reach)}")
    return float(reach)
