"""Optimizer steps in one pass over memory, on the device where the arrays are."""

from numparam.kernels.update.entry import row_sums, update, update_moments, update_rows, update_rowwise
from numparam.kernels.update.rules import RULES

__all__ = ["RULES", "row_sums", "update", "update_moments", "update_rows", "update_rowwise"]
