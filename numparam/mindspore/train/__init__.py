"""Checkpoints under the names of ``mindspore.train``."""

from numparam.mindspore._absent import absent
from numparam.mindspore.train.serialization import *  # noqa: F403
from numparam.mindspore.train.serialization import __all__ as __all__

__getattr__ = absent(__name__)
