"""Values that say where they stand, and an initializer of a user's own that makes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from numparam.initializer import Initializer


def ramp(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """Count the elements in row-major order."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


class Ramp(Initializer):
    """Make a ramp as users may write it: whole arrays alone."""

    def _initialize(self, arr: np.ndarray[Any, Any]) -> None:
        arr[...] = ramp(arr.shape)
