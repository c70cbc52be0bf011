"""Decorators under the names of ``mindspore.common.api``: nothing is compiled, so functions run as they are."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

__all__ = ["jit", "jit_class"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


@overload
def jit(function: F, **options: Any) -> F: ...
@overload
def jit(function: None = None, **options: Any) -> Callable[[F], F]: ...
def jit(function: Any = None, **options: Any) -> Any:  # noqa: ARG001
    """Return the function itself, or a decorator that does; the options of MindSpore's compiler have no effect.

    Examples
    --------
    >>> @jit(jit_level="O1")
    ... def double(x):
    ...     return 2 * x
    >>> double(3)
    6
    """
    return (lambda decorated: decorated) if function is None else function


def jit_class(cls: C) -> C:
    """Return the class itself."""
    return cls
