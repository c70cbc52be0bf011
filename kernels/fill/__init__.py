"""Fill arrays with random values or a constant, on the device where they are."""

from numparam.kernels.fill.entries import bits, normal, truncated_normal, uniform
from numparam.kernels.fill.key import Key, Span

__all__ = ["Key", "Span", "bits", "normal", "truncated_normal", "uniform"]
