"""Digest the elements of an array by their bits and places; the entry finds the words and the way by device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.copy import copy
from numparam.kernels.digest import cpu
from numparam.kernels.digest.key import MODULUS, DigestKey
from numparam.kernels.digest.words import Words, words_of
from numparam.kernels.dispatch import kind, on_cuda
from numparam.kernels.fill.key import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRATCH_BYTES = 1 << 18
"""Of a piece that is put into the order of its tensor first."""
_RUN = 512
"""Elements of a piece that are consecutive in the tensor: the rest are consecutive in memory, for a transpose."""


def digest(array: Any, key: DigestKey, span: Span | None = None) -> tuple[int, int]:
    """Return two sums modulo `MODULUS` over the elements, each weighed by its place in the logical tensor.

    The sums of the regions of any partition of a tensor add up, modulo `MODULUS`, to the sums of the tensor. The array
    has any strides and elements of 1, 2, 4, 8 or 16 bytes; `span` locates them in the logical tensor, which is the
    array by default.
    """
    if array.dtype.itemsize not in (1, 2, 4, 8, 16) or array.dtype.hasobject:
        raise TypeError(f"elements of 1, 2, 4, 8 or 16 bytes have a digest, found {array.dtype}")
    first = second = 0
    if array.size:
        twin = _TWINS[kind(array)]
        for part, base, steps in _in_order(array, span or Span(0, _row_major(array.shape))):
            a, b = twin(words_of(part, base, steps), key)
            first, second = first + a, second + b
    return first % MODULUS, second % MODULUS


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _in_order(array: Any, span: Span) -> Iterator[tuple[Any, int, tuple[int, ...]]]:
    """Yield arrays with base and steps whose elements are consecutive in memory where they are in the tensor."""
    reversed_axes = [step < 0 for step in span.strides]
    if any(reversed_axes):
        ends = [(n - 1) * step for n, step in zip(array.shape, span.strides, strict=True) if step < 0]
        array = array[tuple(slice(None, None, -1) if back else slice(None) for back in reversed_axes)]
        span = Span(span.base + sum(ends), tuple(map(abs, span.strides)))
    order = sorted(range(array.ndim), key=lambda axis: (array.shape[axis] == 1, -span.strides[axis]))
    array, steps = array.transpose(*order), tuple(span.strides[axis] for axis in order)
    long = [axis for axis in range(array.ndim) if array.shape[axis] > 1]
    itemsize = array.dtype.itemsize
    if not long or steps[long[-1]] != 1 or array.strides[long[-1]] == itemsize:
        yield array, span.base, steps
        return
    limit = SCRATCH_BYTES // itemsize
    scratch = _scratch_like(array, min(limit, array.size))
    for index in _pieces(array.shape, array.strides, limit):
        part = array[index]
        piece = scratch[: part.size].reshape(part.shape)
        copy(piece, part)
        starts = [item.start * step for item, step in zip(index, steps, strict=True)]
        yield piece, span.base + sum(starts), steps


def _scratch_like(array: Any, size: int) -> Any:
    if isinstance(array, np.ndarray):
        return np.empty(size, array.dtype)
    return type(array).empty((size,), array.dtype, array.device)


def _pieces(shape: tuple[int, ...], strides: tuple[int, ...], limit: int) -> Iterator[tuple[slice, ...]]:
    """Yield indices of boxes of at most `limit` elements, long in the tensor and in memory."""
    lengths = [1] * len(shape)
    near = sorted(range(len(shape) - 1), key=lambda axis: abs(strides[axis]))
    for axis, most in ((len(shape) - 1, _RUN), *((axis, limit) for axis in near)):
        lengths[axis] = min(shape[axis], most, limit)
        limit //= lengths[axis]
    for starts in np.ndindex(*(-(-n // size) for n, size in zip(shape, lengths, strict=True))):
        yield tuple(
            slice(at * size, min(n, (at + 1) * size)) for at, size, n in zip(starts, lengths, shape, strict=True)
        )


# --------------------------------------------------------------------------- devices


_TWINS: dict[str, Callable[[Words, DigestKey], tuple[int, int]]] = {
    "cpu": cpu.digest_words, "cuda": on_cuda("digest.cuda", "digest_words"),
}  # fmt: skip
