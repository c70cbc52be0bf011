"""Fill arrays with random values or a constant, on the device where they are."""

from numparam.kernels.fill.entries import Key, Span, bits, normal, truncated_normal, uniform

__all__ = ["Key", "Span", "bits", "normal", "truncated_normal", "uniform"]
