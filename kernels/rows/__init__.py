"""Gather and scatter the rows of arrays, on any device."""

from numparam.kernels.rows.entry import gather, scatter

__all__ = ["gather", "scatter"]
