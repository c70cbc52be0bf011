"""Initializers under the names of ``mindspore.common.initializer``."""

from collections.abc import Sequence

from numparam.errors import ArgumentValueError, ShapeError
from numparam.initializer import (
    Constant,
    Dirac,
    HeNormal,
    HeUniform,
    Identity,
    Initializer,
    Normal,
    One,
    Orthogonal,
    Sparse,
    TruncatedNormal,
    Uniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
    Zero,
    initializer,
)
from numparam.initializer.fan import fans, gain
from numparam.text import shown

__all__ = [
    "Constant", "Dirac", "HeNormal", "HeUniform", "Identity", "Initializer", "Normal", "One", "Orthogonal", "Sparse",
    "TruncatedNormal", "Uniform", "VarianceScaling", "XavierNormal", "XavierUniform", "Zero", "initializer",
]  # fmt: skip

_calculate_gain = gain


def _calculate_fan_in_and_fan_out(shape: Sequence[int]) -> tuple[int, int]:
    """Return the inputs and outputs of a weight; a ShapeError, which is a ValueError, if it has less than two axes."""
    if len(shape) < 2:
        raise ShapeError(f"fan_in and fan_out need a shape of two axes or more, found {tuple(shape)}")
    return fans(tuple(shape))


def _calculate_correct_fan(shape: Sequence[int], mode: str) -> int:
    """Return the inputs or the outputs of a weight."""
    modes = ("fan_in", "fan_out")
    if mode.lower() not in modes:
        raise ArgumentValueError(f"mode is one of {', '.join(modes)}; found {shown(mode)}")
    return _calculate_fan_in_and_fan_out(shape)[modes.index(mode.lower())]
