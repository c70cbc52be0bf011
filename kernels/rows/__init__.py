"""Gather and scatter the rows of arrays."""

from numparam.kernels.rows.cpu import gather, scatter

__all__ = ["gather", "scatter"]
