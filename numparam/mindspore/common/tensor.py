"""Tensors under the names of ``mindspore.common.tensor``."""

from collections.abc import Sequence
from typing import Any

from numparam.tensor import Array, Tensor

__all__ = ["Tensor", "from_numpy", "is_tensor", "tensor"]


def tensor(
    input_data: Any = None, dtype: Any = None, shape: int | Sequence[int] | None = None, init: Any = None
) -> Tensor:
    """Return a new tensor; see `numparam.Tensor`."""
    return Tensor(input_data, dtype, shape, init)


def from_numpy(array: Array) -> Tensor:
    """Return a tensor whose storage is an array; see `numparam.Tensor.from_numpy`."""
    return Tensor.from_numpy(array)


def is_tensor(obj: object) -> bool:
    """Return whether an object is a tensor, as parameters are."""
    return isinstance(obj, Tensor)
