"""The attributes of a parameter that training and parallel runs read: each has a default and a rule."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np

from numparam.checks import as_bool, as_int
from numparam.errors import ArgumentTypeError
from numparam.text import shown

Value = TypeVar("Value")

_cache_keys = count()


if TYPE_CHECKING:
    from typing import Protocol

    class Named(Protocol):
        """A parameter, for the message of an error."""

        @property
        def name(self) -> str: ...  # noqa: D102


class Flag(Generic[Value]):
    """Keep a checked attribute of a parameter, which takes no memory while it has its default.

    The check takes a description of the attribute and a value, and returns what is stored, or raises.
    """

    def __init__(self, default: Callable[[], Value], check: Callable[[str, Any], Value], doc: str) -> None:
        self.default = default
        self.check = check
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, parameter: None, owner: type) -> Flag[Value]: ...

    @overload
    def __get__(self, parameter: Named, owner: type) -> Value: ...

    def __get__(self, parameter: Named | None, owner: type) -> Flag[Value] | Value:
        if parameter is None:
            return self
        state = vars(parameter)
        return state[self.name] if self.name in state else self.default()

    def __set__(self, parameter: Named, value: Any) -> None:
        vars(parameter)[self.name] = self.check(f"Parameter {parameter.name!r}: {self.name}", value)


def switch(default: bool, doc: str) -> Flag[bool]:
    """Return a flag that is exactly True or False."""
    return Flag(lambda: default, as_bool, doc)


def integer(default: int, doc: str, low: int | None = None) -> Flag[int]:
    """Return a flag that is an int, at least `low` if there is a limit."""

    def check(what: str, value: Any) -> int:
        # As in MindSpore, a bool is an int where any will do.
        return int(value) if low is None and isinstance(value, bool) else as_int(what, value, low)

    return Flag(lambda: default, check, doc)


def lengths(doc: str) -> Flag[list[int]]:
    """Return a flag that is a list, given as a list or tuple."""

    def check(what: str, value: Any) -> list[int]:
        if not isinstance(value, list | tuple) or not all(isinstance(item, int | np.integer) for item in value):
            raise ArgumentTypeError(f"{what} is a list or tuple of ints, found {shown(value)}")
        return [int(item) for item in value]

    return Flag(list, check, doc)


def anything(default: Any, doc: str) -> Flag[Any]:
    """Return a flag that takes any value."""
    return Flag(lambda: default, lambda _, value: value, doc)


def next_cache_key() -> int:
    """Return the next number by which an embedding cache knows a parameter."""
    return next(_cache_keys)
