"""Fill arrays with random values or a constant, on the device where they are."""

from numparam.kernels.fill.entries import bits, either, normal, truncated_normal, uniform
from numparam.kernels.fill.key import Key, Rows, Span

__all__ = ["Key", "Rows", "Span", "bits", "either", "normal", "truncated_normal", "uniform"]
