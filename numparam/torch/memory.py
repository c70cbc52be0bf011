"""The memory of torch tensors, as arrays for numparam's kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from numparam.device import device
from numparam.dtypes import EXTENSIONS, as_dtype
from numparam.errors import DeviceError

if TYPE_CHECKING:
    from numparam.kernels.array import DeviceArray

_EXTENSIONS = {as_dtype(name) for name in EXTENSIONS}  # the name of a dtype is computed each time
_BITS = {1: torch.uint8, 2: torch.uint16}


def dtype_of(tensor: torch.Tensor) -> np.dtype[Any]:
    """Return the NumPy dtype of a tensor.

    Examples
    --------
    >>> dtype_of(torch.empty(0, dtype=torch.bfloat16))
    dtype(bfloat16)
    """
    return as_numpy(tensor.dtype)


@cache
def as_numpy(dtype: torch.dtype) -> np.dtype[Any]:
    """Return the NumPy dtype of a dtype of torch."""
    return as_dtype(str(dtype).removeprefix("torch."))


@cache  # asking the driver takes 0.1 ms, and models have thousands of parameters
def is_reachable(place: torch.device) -> bool:
    """Tell whether numparam can write to a device: the CPU, or an NVIDIA GPU if the extra is installed."""
    if place.type != "cuda" or torch.version.hip is not None:
        return bool(place.type == "cpu")
    try:
        device(f"cuda:{place.index}")
    except DeviceError:
        return False
    return True


def shared(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[Any]] | DeviceArray:
    """Return an array over the memory of a row-major tensor on a reachable device.

    Examples
    --------
    >>> tensor = torch.zeros(3, dtype=torch.bfloat16)
    >>> shared(tensor)[1:] = 2
    >>> tensor
    tensor([0., 2., 2.], dtype=torch.bfloat16)
    """
    dtype = dtype_of(tensor)
    bare = tensor.detach()
    if bare.device.type == "cuda":
        from numparam.kernels.array import DeviceArray

        return DeviceArray(tuple(bare.shape), dtype, bare.device.index, bare.data_ptr(), bare)
    if dtype in _EXTENSIONS:  # torch converts only their bits to NumPy
        bare = bare.view(_BITS[dtype.itemsize])
    array: np.ndarray[Any, np.dtype[Any]] = bare.numpy()
    return array.view(dtype)


@contextmanager
def in_order(indices: Iterable[int]) -> Iterator[None]:
    """Order numparam's work on CUDA devices after torch's earlier work and before its later work."""
    streams = [(torch.cuda.current_stream(index), torch.cuda.default_stream(index)) for index in indices]
    for current, default in streams:
        default.wait_stream(current)
    yield
    for current, default in streams:
        current.wait_stream(default)
