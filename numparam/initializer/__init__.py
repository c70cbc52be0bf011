"""Initializers: what the values of a new parameter are."""

from typing import TYPE_CHECKING, Any

from numparam.initializer.base import Initializer
from numparam.initializer.constants import Constant, One, Zero
from numparam.initializer.entry import GlorotNormal, GlorotUniform, KaimingNormal, KaimingUniform, by_name, initializer
from numparam.initializer.fan import (
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
)
from numparam.initializer.random import CorrectedTruncatedNormal, Normal, TruncatedNormal, Uniform
from numparam.initializer.structured import Dirac, Identity, Orthogonal, Sparse
from numparam.initializer.unset import Unset

if TYPE_CHECKING:
    from numparam.initializer.axes import Axes

__all__ = [
    "Axes", "Constant", "CorrectedTruncatedNormal", "Dirac", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform",
    "Identity", "Initializer", "KaimingNormal", "KaimingUniform", "LecunNormal", "LecunUniform", "Normal", "One",
    "Orthogonal", "Sparse", "TruncatedNormal", "Uniform", "Unset", "VarianceScaling", "XavierNormal", "XavierUniform",
    "Zero", "by_name", "initializer",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "Axes":  # half a millisecond, a twentieth of `import numparam`
        from numparam.initializer.axes import Axes

        return Axes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
