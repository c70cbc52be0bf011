"""What a reduction does with the values of the ranks, in the order of their ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import copy_context
from enum import StrEnum
from functools import lru_cache
from itertools import chain, repeat
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

    __hash__ = str.__hash__  # the same as of an equal str, and in a tenth of the time


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
        self._function = _FUNCTIONS[self.op]
        self.dtype = np.dtype(np.float32) if dtypes.is_floating(dtype) and dtype.itemsize < 4 else dtype
        self._room = np.empty((2, 0), self.dtype)

    def of(self, parts: Sequence[Array]) -> Array:
        """Return the reduction of some arrays of one shape, which are at least two."""
        first = parts[0]
        if first.ndim and first.dtype is self.dtype:  # of scalars NumPy would return a scalar
            return _QUIET.copy().run(self._fold, iter(parts))
        out = np.empty(first.shape, first.dtype)
        self.into(out.reshape(-1), [part.reshape(-1) for part in parts])
        return out

    def into(self, out: Array, parts: Sequence[Array]) -> None:
        """Write the reduction of some flat arrays into another, which may be one of them."""
        is_direct = out.dtype == self.dtype and id(out) not in map(id, parts[2:])
        if not is_direct and self._room.shape[1] < min(out.size, _BLOCK):
            self._room = np.empty((2, min(out.size, _BLOCK)), self.dtype)
        _QUIET.copy().run(self._reduce, out, parts, is_direct)

    def _reduce(self, out: Array, parts: Sequence[Array], is_direct: bool) -> None:
        if out.size > _BLOCK:
            for start in range(0, out.size, _BLOCK):
                stop = start + _BLOCK
                self._reduce(out[start:stop], [part[start:stop] for part in parts], is_direct)
            return
        if is_direct:
            found = self._fold(iter(parts), out)
        else:
            result, wide = self._room[:, : out.size]
            found = self._fold(map(_converted, parts, chain([result], repeat(wide))), result)
        if found is not out:
            (np.copyto if out.dtype == found.dtype else arrays.overwrite)(out, found)

    def _fold(self, values: Iterator[Array], out: Array | None = None) -> Array:
        """Return the reduction of arrays: a new array, `out`, or the only one of them itself."""
        found = next(values)
        for value in values:
            found = out = self._function(found, value, out=out)
        return found if self.divisor == 1 else np.true_divide(found, self.divisor, out=out)


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
