"""Handles of functions that were registered to be called later."""

from __future__ import annotations

from itertools import count
from typing import Any

from numparam.errors import ArgumentTypeError
from numparam.text import shown

_numbers = count()  # never the same twice: a handle that is used again must not remove a later hook


class HookHandle:
    """Remove a hook again.

    Examples
    --------
    >>> from numparam import SequentialCell
    >>> cell = SequentialCell()
    >>> handle = cell.register_forward_hook(lambda cell, inputs, output: output + 1)
    >>> with_hook = cell(3)
    >>> handle.remove()
    >>> with_hook, cell(3)
    (4, 3)
    """

    def __init__(
        self, hooks: dict[int, Any], function: Any, what: str, kept: Any = None, prepend: bool = False
    ) -> None:
        if not callable(function):
            raise ArgumentTypeError(f"{what} is a function, found {shown(function)}")
        self._hooks, self._number = hooks, next(_numbers)
        hooks[self._number] = function if kept is None else kept
        if prepend:
            for number in [number for number in hooks if number != self._number]:
                hooks[number] = hooks.pop(number)

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        self._hooks.pop(self._number, None)
