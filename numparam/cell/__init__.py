"""Cells: trees of parameters with names, flags and a computation."""

from numparam.cell.cell import Cell
from numparam.cell.containers import CellDict, CellList, SequentialCell

__all__ = ["Cell", "CellDict", "CellList", "SequentialCell"]
