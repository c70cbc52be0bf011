"""Layouts under the names of ``mindspore.parallel``."""

from numparam.mindspore.parallel.shard import Layout

__all__ = ["Layout"]
