"""What can be drawn and stored: the formulas of every distribution, and the bits of every dtype."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from numparam.kernels.formula import distributions, formats
from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import U32


@formula
def raw_bits(a: U32, b: U32, params: Any) -> tuple[U32, U32]:  # noqa: ARG001
    """Return the words themselves."""
    return a, b


class Storage(NamedTuple):
    """How one dtype is drawn and stored."""

    items: type[np.generic]
    """The dtype of its bits."""
    rounding: Any
    """Formula from a drawn value to what is stored."""
    wide: bool = False
    """Whether the words are refined to 64 bits."""
    pairing: Any = None
    """Formula that rounds two neighbours into one word, where that is faster."""


STORAGE: dict[np.dtype[Any], Storage] = {
    np.dtype(np.float32): Storage(np.float32, formats.unchanged),
    np.dtype(np.float64): Storage(np.float64, formats.unchanged, wide=True),
    np.dtype(np.float16): Storage(np.uint16, formats.to_float16),
    np.dtype(ml_dtypes.bfloat16): Storage(
        np.uint16, formats.finite_to_bfloat16, pairing=formats.finite_pair_to_bfloat16
    ),
    np.dtype(ml_dtypes.float8_e5m2): Storage(np.uint8, formats.to_float8_e5m2),
    np.dtype(ml_dtypes.float8_e4m3fn): Storage(np.uint8, formats.to_float8_e4m3fn),
    np.dtype(np.uint32): Storage(np.uint32, formats.unchanged),
}

DRAWS = {
    "bits": (raw_bits, None),
    "uniform": (distributions.uniform, distributions.uniform_64),
    "either": (distributions.either, distributions.either_64),
    "normal": (distributions.normal, distributions.normal_64),
    "truncated_normal": (distributions.truncated_normal, distributions.truncated_normal_64),
    "truncated_normal_symmetric": (distributions.truncated_normal_symmetric, None),
    "normal_within": (distributions.normal_within, distributions.normal_within_64),
}
