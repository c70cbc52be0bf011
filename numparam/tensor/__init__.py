"""Tensors: values, or the description of values that are made when they are needed."""

from numparam.tensor.tensor import Array, Recipe, Tensor, as_array

__all__ = ["Array", "Recipe", "Tensor", "as_array"]
