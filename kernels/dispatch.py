"""Which twin of an operation an array takes."""

from __future__ import annotations

from typing import Any

import numpy as np


def kind(array: Any) -> str:
    """Return the kind of device that holds an array: the key of an operation's table of twins."""
    if isinstance(array, np.ndarray):
        return "cpu"
    try:
        return str(array.kind)
    except AttributeError:
        raise TypeError(f"a NumPy or device array was expected, found {type(array).__name__}") from None
