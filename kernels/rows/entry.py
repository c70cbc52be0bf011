"""Gather and scatter of rows, such as the rows of an embedding table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numparam.kernels.dispatch import kind, on_cuda
from numparam.kernels.rows import cpu

if TYPE_CHECKING:
    from collections.abc import Callable

    from numparam.kernels.copy.walk import Array


def gather(target: Any, source: Any, indices: Array) -> None:
    """Write ``source[indices]`` into `target`.

    Both are of one dtype and device and share no memory; `target` is C-contiguous, and so is each row of `source`. The
    indices, one axis of int64 from 0 to ``len(source) - 1``, are not checked again.
    """
    _GATHERS[kind(target)](target, source, indices)


def scatter(target: Any, indices: Array, source: Any) -> None:
    """Write `source` into ``target[indices]``; of the rows that are written twice the last one stays.

    Parameters as in `gather`, with `target` and `source` exchanged; the first axis of `source` is as long as the
    indices. On a CPU one thread writes.
    """
    _SCATTERS[kind(target)](target, indices, source)


_GATHERS: dict[str, Callable[[Any, Any, Array], None]] = {"cpu": cpu.gather, "cuda": on_cuda("rows.cuda", "gather")}
_SCATTERS: dict[str, Callable[[Any, Array, Any], None]] = {"cpu": cpu.scatter, "cuda": on_cuda("rows.cuda", "scatter")}
