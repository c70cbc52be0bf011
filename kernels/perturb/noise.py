"""What noise a perturbation adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numparam.kernels.fill import Key, Span


class Dense(NamedTuple):
    """Noise that is drawn for each element.

    Attributes
    ----------
    distribution : str
        One of the distributions of `fill`, in float32, or float64 for weights of float64.
    params : tuple
        Of the distribution.
    keys : sequence of Key
        One for each perturbation.
    span : Span, optional
        Where the weights lie in the full tensor.
    """

    distribution: str
    params: tuple[Any, ...]
    keys: Sequence[Key]
    span: Span | None


class LowRank(NamedTuple):
    """Noise of a matrix that is the product of two factors, whose dtype is float32, or float64 for such weights.

    Attributes
    ----------
    lefts : ndarray or DeviceArray
        Of shape (perturbations, rows, rank).
    rights : ndarray or DeviceArray
        Of shape (perturbations, rank, columns).
    """

    lefts: Any
    rights: Any
