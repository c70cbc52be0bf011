"""Cells under the names of ``mindspore.nn``; its layers are not here."""

from numparam.cell import CellDict, CellList, SequentialCell
from numparam.mindspore._absent import absent
from numparam.mindspore.nn import utils as utils
from numparam.mindspore.nn.cell import Cell

__all__ = ["Cell", "CellDict", "CellList", "SequentialCell"]

__getattr__ = absent(__name__)
