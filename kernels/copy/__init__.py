"""Copy and convert arrays of any strides and dtype."""

from numparam.kernels.copy.entry import copy

__all__ = ["copy"]
