"""Optimizer steps in one pass over memory, on the device where the arrays are."""

from numparam.kernels.update.entry import row_sums, update, update_moments, update_rows, update_rowwise
from numparam.kernels.update.rules import RULES
from numparam.kernels.update.step import Words

__all__ = ["RULES", "Words", "row_sums", "update", "update_moments", "update_rows", "update_rowwise"]
