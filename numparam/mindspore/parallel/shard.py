"""Layouts under the name of ``mindspore.parallel.shard``."""

from numparam.layout import Layout

__all__ = ["Layout"]
