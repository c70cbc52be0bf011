"""Cells under the name of ``mindspore.nn.cell``."""

from numparam.cell import Cell

__all__ = ["Cell"]
