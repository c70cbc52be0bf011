"""Which twin of an operation an array takes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


def kind(array: Any) -> str:
    """Return the kind of device that holds an array: the key of an operation's table of twins."""
    if isinstance(array, np.ndarray):
        return "cpu"
    try:
        return str(array.kind)
    except AttributeError:
        raise TypeError(f"a NumPy or device array was expected, found {type(array).__name__}") from None


def on_cuda(module: str, name: str) -> Callable[..., Any]:
    """Return the twin of an operation in a module of CUDA kernels, which is imported with its first call."""

    def twin(*arguments: Any) -> Any:
        return getattr(import_module(f"numparam.kernels.{module}"), name)(*arguments)

    return twin
