"""Let a mode of torch see every function of `torch.nn.init`."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

# Functions of torch.nn.init that torch's own modes do not see, or see in pieces that depend on the shard.
_UNSEEN = (
    *("trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_normal_", "orthogonal_", "sparse_"),
    *("eye_", "dirac_", "ones_", "zeros_"),
)
_ORIGINALS = {name: getattr(init, name) for name in _UNSEEN}
_PLAIN = {name: FunctionType(function.__code__, vars(init), name) for name, function in _ORIGINALS.items()}


_lock = RLock()
_active = 0
_codes: dict[str, CodeType] = {}


@contextmanager
def seeing(mode: TorchFunctionMode, uncaught: dict[str, None]) -> Iterator[None]:
    """Enter a mode, let it see all functions of `torch.nn.init`, and note which generators were used all the same."""
    global _active  # noqa: PLW0603
    states = _generators()
    with _lock:
        _active += 1
        if _active == 1:
            for name in _UNSEEN:
                # Whoever has imported the function by its name calls the same object, so its code is replaced.
                function = getattr(init, name)
                _codes[name], function.__code__ = function.__code__, _overridable(name, arguments(name))
    try:
        with mode:
            yield
    finally:
        with _lock:
            _active -= 1
            if not _active:
                for name in _UNSEEN:
                    _ORIGINALS[name].__code__ = _codes[name]
    uncaught |= dict.fromkeys(what for what, state in _generators().items() if state != states[what])


def _generators() -> dict[str, Any]:
    """Return the states of the generators that initialisation code may use."""
    return {
        "a random generator of torch was used": bytes(torch.default_generator.get_state().numpy().tobytes()),
        "numpy.random was used": repr(np.random.get_state(legacy=False)["state"]),  # noqa: NPY002
        "Python's random was used": hash(random.getstate()),
    }


@cache
def arguments(name: str) -> tuple[str, ...]:
    """Return the names of the arguments of a function of `torch.nn.init`."""
    return tuple(inspect.signature(_ORIGINALS.get(name) or getattr(init, name)).parameters)


def _overridable(name: str, arguments: tuple[str, ...]) -> CodeType:
    """Return code that asks the modes, as most functions of `torch.nn.init` do themselves."""
    call = ", ".join(f"{argument}={argument}" for argument in arguments)
    scope: dict[str, Any] = {}
    exec(
        f"def {name}({', '.join(arguments)}):\n"
        "    if torch.overrides.has_torch_function_variadic(tensor):\n"
        f"        return torch.overrides.handle_torch_function({name}, (tensor,), {call})\n"
        "    from numparam.torch.seeing import _PLAIN\n"
        f"    return _PLAIN[{name!r}]({call})\n",
        scope,
    )
    code: CodeType = scope[name].__code__
    return code
