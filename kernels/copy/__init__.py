"""Copy and convert arrays of any strides, dtype and device."""

from numparam.kernels.copy.entry import copy, duplicate

__all__ = ["copy", "duplicate"]
