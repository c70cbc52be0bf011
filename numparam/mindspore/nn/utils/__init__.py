"""What ``mindspore.nn.utils`` has."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_init_parameters"]


@contextmanager
def no_init_parameters() -> Iterator[None]:
    """Do nothing: parameters of an initializer are always lazy.

    Examples
    --------
    >>> from numparam import Parameter
    >>> from numparam.initializer import initializer
    >>> with no_init_parameters():
    ...     Parameter(initializer("normal", (2**20, 2**20))).has_init
    True
    """
    yield
