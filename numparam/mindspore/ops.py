"""Functions of tensors under the names of ``mindspore.ops``, for what a tensor has; NumPy computes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from numparam.dtypes import as_dtype
from numparam.mindspore._absent import absent
from numparam.mindspore.common.tensor import is_tensor
from numparam.tensor import Tensor

__all__ = ["cast", "concat", "is_tensor", "matmul", "ones", "reshape", "stack", "transpose", "zeros"]


def cast(input: Tensor, dtype: Any) -> Tensor:  # noqa: A002
    """Return a tensor in another dtype; see `numparam.Tensor.astype`."""
    return input.astype(dtype)


def reshape(input: Tensor, shape: Sequence[int]) -> Tensor:  # noqa: A002
    """Return a tensor of another shape; see `numparam.Tensor.reshape`."""
    return input.reshape(shape)


def transpose(input: Tensor, input_perm: Sequence[int]) -> Tensor:  # noqa: A002
    """Return a tensor with its axes in another order; see `numparam.Tensor.transpose`."""
    return input.transpose(input_perm)


def matmul(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """Return the product of matrices."""
    product: Tensor = np.matmul(input, other)
    return product


def concat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return tensors joined along an axis.

    Examples
    --------
    >>> concat([Tensor([1]), Tensor([2, 3])]).tolist()
    [1, 2, 3]
    """
    return Tensor(np.concatenate([item.asnumpy() for item in tensors], axis))


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return tensors joined along a new axis."""
    return Tensor(np.stack([item.asnumpy() for item in tensors], axis))


def zeros(size: int | Sequence[int], dtype: Any = None) -> Tensor:
    """Return a tensor of zeros, float32 by default."""
    return Tensor(np.zeros(size, as_dtype("float32" if dtype is None else dtype)))


def ones(shape: int | Sequence[int], dtype: Any = None) -> Tensor:
    """Return a tensor of ones, float32 by default."""
    return Tensor(np.ones(shape, as_dtype("float32" if dtype is None else dtype)))


__getattr__ = absent(__name__)
