"""Gather and scatter of rows, such as the rows of an embedding table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numparam.kernels.dispatch import kind
from numparam.kernels.rows import cpu

if TYPE_CHECKING:
    from collections.abc import Callable

    from numparam.kernels.copy.walk import Array


def gather(target: Any, source: Any, indices: Array) -> None:
    """Write ``source[indices]`` into `target`.

    Parameters
    ----------
    target : ndarray or DeviceArray
        C-contiguous and writable, of shape ``(len(indices), *source.shape[1:])``, sharing no memory with `source`.
    source : ndarray or DeviceArray
        Of the dtype of `target` and on its device; each of its rows C-contiguous.
    indices : ndarray
        One axis of int64, each from 0 to ``len(source) - 1``, which is not checked again.

    Examples
    --------
    >>> import numpy as np
    >>> target = np.empty((2, 3), np.int64)
    >>> gather(target, np.arange(12).reshape(4, 3), np.array([3, 1]))
    >>> target
    array([[ 9, 10, 11],
           [ 3,  4,  5]])
    """
    _GATHERS[kind(target)](target, source, indices)


def scatter(target: Any, indices: Array, source: Any) -> None:
    """Write `source` into ``target[indices]``; of the rows that are written twice the last one stays.

    Parameters as in `gather`, with `target` and `source` exchanged. On a CPU one thread writes.
    """
    _SCATTERS[kind(target)](target, indices, source)


def _gather_cuda(target: Any, source: Any, indices: Array) -> None:
    from numparam.kernels.rows import cuda

    cuda.gather(target, source, indices)


def _scatter_cuda(target: Any, indices: Array, source: Any) -> None:
    from numparam.kernels.rows import cuda

    cuda.scatter(target, indices, source)


_GATHERS: dict[str, Callable[[Any, Any, Array], None]] = {"cpu": cpu.gather, "cuda": _gather_cuda}
_SCATTERS: dict[str, Callable[[Any, Array, Any], None]] = {"cpu": cpu.scatter, "cuda": _scatter_cuda}
