"""Layouts: how parameters are sharded over a mesh of ranks."""

from numparam.layout.layout import Layout

__all__ = ["Layout"]
