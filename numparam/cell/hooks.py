"""Functions that run before or after a cell."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from numparam.errors import ArgumentTypeError

Hooks = dict[int, Callable[..., Any]]

_numbers = count()  # never the same twice: a handle that is used again must not remove a later hook


class HookHandle:
    """Remove a hook again.

    Examples
    --------
    >>> from numparam import Cell
    >>> handle = Cell().register_forward_pre_hook(lambda cell, inputs: None)
    >>> handle.remove()
    """

    def __init__(self, hooks: Hooks, hook: Callable[..., Any], what: str, prepend: bool) -> None:
        if not callable(hook):
            raise ArgumentTypeError(f"{what} is a function, found {hook!r}")
        self._hooks, self._number = hooks, next(_numbers)
        hooks[self._number] = hook
        if prepend:
            for number in [number for number in hooks if number != self._number]:
                hooks[number] = hooks.pop(number)

    def remove(self) -> None:
        """Remove the hook; once more is no error."""
        self._hooks.pop(self._number, None)
