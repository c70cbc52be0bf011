"""What a reduction does with the values of the ranks, in the order of their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import copy_context
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.errors import ArgumentValueError, DtypeError
from numparam.indexing import arrays
from numparam.text import shown

Array = np.ndarray[Any, np.dtype[Any]]

_BLOCK = 1 << 18  # fits the caches, for the steps after the first; conversions of half as many take 1.3 times as long
with np.errstate(all="ignore"):
    _QUIET = copy_context()  # to enter it takes 0.1 us, to enter errstate 1.2 us, longer than to add 4 KiB


class ReduceOp(StrEnum):
    """Name a reduction of the values that the ranks hold at one index; ``"sum"`` is the same as `SUM`."""

    SUM = "sum"
    AVG = "avg"
    MAX = "max"
    MIN = "min"
    PROD = "prod"


_FUNCTIONS: dict[ReduceOp, np.ufunc] = {
    ReduceOp.SUM: np.add,
    ReduceOp.AVG: np.add,
    ReduceOp.MAX: np.maximum,
    ReduceOp.MIN: np.minimum,
    ReduceOp.PROD: np.multiply,
}


class Reduction:
    """Reduce arrays of one dtype, in order, and divide the result by `divisor`.

    Floats of 16 and 8 bits are reduced and divided in float32, and rounded once.
    """

    def __init__(self, op: ReduceOp | str, dtype: np.dtype[Any], divisor: int = 1) -> None:
        if op not in list(ReduceOp):
            raise ArgumentValueError(f"op must be one of {', '.join(ReduceOp)}, found {shown(op)}")
        if dtype.kind == "b" and op not in (ReduceOp.MAX, ReduceOp.MIN):
            raise DtypeError(f"{op} of bools is not defined; use max for any, min for all")
        if (divisor != 1 or op == ReduceOp.AVG) and dtype.kind in "iu":
            raise DtypeError(f"a mean of {dtype} values is not defined; convert them to a float first")
        self.op, self.divisor = ReduceOp(op), divisor
        self.dtype = np.dtype(np.float32) if dtypes.is_floating(dtype) and dtype.itemsize < 4 else dtype
        self._room = np.empty((2, 0), self.dtype)

    def into(self, out: Array, parts: Sequence[Array]) -> None:
        """Write the reduction of some flat arrays into another, which may be one of them."""
        is_direct = out.dtype == self.dtype and (len(parts) < 3 or all(part is not out for part in parts[2:]))
        if not is_direct and self._room.shape[1] < min(out.size, _BLOCK):
            self._room = np.empty((2, min(out.size, _BLOCK)), self.dtype)
        _QUIET.copy().run(self._reduce, out, parts, is_direct)

    def _reduce(self, out: Array, parts: Sequence[Array], is_direct: bool) -> None:
        if out.size <= _BLOCK:
            self._block(out, parts, is_direct)
            return
        for start in range(0, out.size, _BLOCK):
            stop = start + _BLOCK
            self._block(out[start:stop], [part[start:stop] for part in parts], is_direct)

    def _block(self, out: Array, parts: Sequence[Array], is_direct: bool) -> None:
        result, wide = (out, out) if is_direct else self._room[:, : out.size]
        function = _FUNCTIONS[self.op]
        first = _converted(parts[0], result)
        for part in parts[1:]:
            first = function(first, _converted(part, wide), out=result)
        if self.divisor != 1:
            first = np.true_divide(first, self.divisor, out=result)
        if first is not out:
            (np.copyto if out.dtype == first.dtype else arrays.overwrite)(out, first)


@lru_cache(maxsize=64)
def reduction_of(op: ReduceOp | str, dtype: np.dtype[Any], count: int) -> Reduction:
    """Return the reduction of the values of some ranks: a mean is over all of them."""
    return Reduction(op, dtype, count if op == ReduceOp.AVG else 1)


def _converted(values: Array, room: Array) -> Array:
    """Return values in the dtype of a buffer; converted ones are in the buffer."""
    if values.dtype == room.dtype:
        return values
    arrays.overwrite(room, values)
    return room
