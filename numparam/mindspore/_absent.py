"""The error for names of MindSpore that are not here."""

from collections.abc import Callable
from typing import NoReturn


def absent(module: str) -> Callable[[str], NoReturn]:
    """Return the ``__getattr__`` of a module, which explains what is here."""

    def getattribute(name: str) -> NoReturn:
        raise AttributeError(
            f"{module} has no {name!r}: it covers parameters, initializers, cells, contexts and checkpoints, without "
            "layers, operators, gradients and training; the page 'Programs written for MindSpore' lists every name"
        )

    return getattribute
