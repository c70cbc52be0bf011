"""Tensors: values, or a description of values that are materialised when they are needed."""

from numparam.tensor.convert import SupportsDLPack, as_array, from_torch
from numparam.tensor.recipe import Recipe
from numparam.tensor.state import State
from numparam.tensor.tensor import Tensor
from numparam.tensor.values import Array, Host, Lazy, Values, launched_together

__all__ = [
    "Array", "Host", "Lazy", "Recipe", "State", "SupportsDLPack", "Tensor", "Values", "as_array", "from_torch",
    "launched_together",
]  # fmt: skip
