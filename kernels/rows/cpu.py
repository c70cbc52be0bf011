"""Gather and scatter of rows on a CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

from numparam.kernels.copy.runs import copy_bytes
from numparam.kernels.copy.walk import STREAM_FROM_BYTES, Array
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import kernel
from numparam.kernels.machine.memory import prefetch_row

ROWS_AHEAD = 4


# --------------------------------------------------------------------------- loop


@cache
def _moving(scattered: bool) -> Any:
    """Make the loop that copies consecutive rows to rows at given indices, or the other way round."""

    @kernel("scatter rows" if scattered else "gather rows")
    def move(
        target: Any, source: Any, start: Any, stop: Any, indices: Any, row_bytes: Any, step: Any, past_caches: Any
    ) -> None:
        for row in range(start, stop):
            if scattered:
                origin = source + row * row_bytes
                copy_bytes(target + indices[row] * step, origin, row_bytes, past_caches)
            else:
                prefetch_row(source + indices[min(row + ROWS_AHEAD, stop - 1)] * step, row_bytes)
                if indices[row] >= 0:
                    copy_bytes(target + row * row_bytes, source + indices[row] * step, row_bytes, past_caches)

    return move


# --------------------------------------------------------------------------- entry


def gather(target: Array, source: Array, indices: Array) -> None:
    """Write ``source[indices]`` into `target`, but not where an index is negative; see `rows.gather`."""
    row_bytes = target.nbytes // max(1, len(indices))
    loop, step, past_caches = _moving(False), source.strides[0], target.nbytes >= STREAM_FROM_BYTES

    def work(start: int, stop: int) -> None:
        loop(target.ctypes.data, source.ctypes.data, start, stop, indices, row_bytes, step, past_caches)

    pool.run(work, len(indices), row_bytes, 1)


def scatter_distinct(target: Array, indices: Array, source: Array) -> None:
    """Write `source` into ``target[indices]``, all of which differ, on several threads when it pays."""
    row_bytes = source.nbytes // max(1, len(indices))
    pool.run(lambda start, stop: scatter(target, indices[start:stop], source[start:stop]), len(indices), row_bytes, 1)


def scatter(target: Array, indices: Array, source: Array) -> None:
    """Write `source` into ``target[indices]`` on one thread; see `rows.scatter`."""
    row_bytes = source.nbytes // max(1, len(indices))
    past_caches = source.nbytes >= STREAM_FROM_BYTES
    _moving(True)(
        target.ctypes.data, source.ctypes.data, 0, len(indices), indices, row_bytes, target.strides[0], past_caches
    )
