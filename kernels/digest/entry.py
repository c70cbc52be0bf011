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
from numparam.kernels.machine import pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRATCH_BYTES = 3 << 18
"""Of the pieces that are put into the order of their tensor first, one for each thread: few, since a call of a kernel
takes as long as 100 KiB of values."""
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
    if not array.size:
        return 0, 0
    sums, run = _TWINS[kind(array)]
    array, base, steps = _in_order(array, span or Span(0, _row_major(array.shape)))
    found = []
    if _is_consecutive(array, steps):
        found.append(sums(words_of(array, base, steps), key))
    else:
        limit = max(SCRATCH_BYTES // pool.get_num_threads() // array.dtype.itemsize, _RUN)
        indices = list(_pieces(array.shape, array.strides, limit))

        def work(start: int, stop: int) -> None:
            scratch = _scratch_like(array, min(limit, array.size))
            for index in indices[start:stop]:
                part = array[index]
                piece = scratch[: part.size].reshape(part.shape)
                copy(piece, part)
                first = base + sum([item.start * step for item, step in zip(index, steps, strict=True)])
                found.append(sums(words_of(piece, first, steps), key))

        run(work, len(indices), array.size * array.dtype.itemsize // len(indices), 1)
    return sum([first for first, _ in found]) % MODULUS, sum([second for _, second in found]) % MODULUS


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _in_order(array: Any, span: Span) -> tuple[Any, int, tuple[int, ...]]:
    """Return the array with its axes in the order of the tensor, walked upwards there, and its base and steps."""
    reversed_axes = [step < 0 for step in span.strides]
    if any(reversed_axes):
        ends = [(n - 1) * step for n, step in zip(array.shape, span.strides, strict=True) if step < 0]
        array = array[tuple(slice(None, None, -1) if back else slice(None) for back in reversed_axes)]
        span = Span(span.base + sum(ends), tuple(map(abs, span.strides)))
    order = sorted(range(array.ndim), key=lambda axis: (array.shape[axis] == 1, -span.strides[axis]))
    return array.transpose(*order), span.base, tuple(span.strides[axis] for axis in order)


def _is_consecutive(array: Any, steps: tuple[int, ...]) -> bool:
    """Say whether elements that follow each other in the tensor do so in memory."""
    inner = next((axis for axis in reversed(range(array.ndim)) if array.shape[axis] > 1), None)
    return inner is None or steps[inner] != 1 or array.strides[inner] == array.dtype.itemsize


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


def _in_turn(work: Callable[[int, int], None], count: int, *_: int) -> None:
    work(0, count)


_TWINS: dict[str, tuple[Callable[[Words, DigestKey], tuple[int, int]], Callable[..., None]]] = {
    "cpu": (cpu.digest_words, pool.run),
    "cuda": (on_cuda("digest.cuda", "digest_words"), _in_turn),
}
"""How words are summed up, and how pieces are run, by the kind of device."""
