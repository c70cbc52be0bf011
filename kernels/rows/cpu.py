"""Gather and scatter of rows on a CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

from numparam.kernels.copy.runs import copy_bytes
from numparam.kernels.copy.walk import STREAM_FROM_BYTES, Array
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import kernel
from numparam.kernels.machine.memory import LINE, prefetch

# So many rows ahead the first lines of a row are prefetched: no processor predicts where rows are.
_ROWS_AHEAD = 4
_LINES_AHEAD = 16


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
                following = source + indices[min(row + _ROWS_AHEAD, stop - 1)] * step
                for line in range(min(_LINES_AHEAD, row_bytes // LINE + 1)):
                    prefetch(following + line * LINE)
                origin = source + indices[row] * step
                copy_bytes(target + row * row_bytes, origin, row_bytes, past_caches)

    return move


# --------------------------------------------------------------------------- entry


def gather(target: Array, source: Array, indices: Array) -> None:
    """Write ``source[indices]`` into `target`; see `rows.gather`."""
    row_bytes = target.nbytes // max(1, len(indices))
    loop, step, past_caches = _moving(False), source.strides[0], target.nbytes >= STREAM_FROM_BYTES

    def work(start: int, stop: int) -> None:
        loop(target.ctypes.data, source.ctypes.data, start, stop, indices, row_bytes, step, past_caches)

    pool.run(work, len(indices), row_bytes, 1)


def scatter(target: Array, indices: Array, source: Array) -> None:
    """Write `source` into ``target[indices]`` on one thread; see `rows.scatter`."""
    row_bytes = source.nbytes // max(1, len(indices))
    past_caches = source.nbytes >= STREAM_FROM_BYTES
    _moving(True)(
        target.ctypes.data, source.ctypes.data, 0, len(indices), indices, row_bytes, target.strides[0], past_caches
    )
