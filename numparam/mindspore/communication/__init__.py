"""Ranks under the names of ``mindspore.communication``."""

from numparam.mindspore.communication import comm_func
from numparam.mindspore.communication.management import *  # noqa: F403
from numparam.mindspore.communication.management import __all__ as _management

__all__ = [*_management, "comm_func"]  # noqa: PLE0604
