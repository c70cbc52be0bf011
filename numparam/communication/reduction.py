"""What a reduction does with the values of the ranks, in the order of their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from numparam import dtypes, indexing
from numparam.errors import ArgumentValueError, DtypeError

Array = np.ndarray[Any, np.dtype[Any]]


class ReduceOp(StrEnum):
    """Name what becomes of the values that the ranks have at one index.

    Examples
    --------
    >>> ReduceOp("sum") is ReduceOp.SUM
    True
    """

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
    """Reduce arrays of one dtype: first with second, then with the third, and so on.

    Floats of 16 and 8 bits are reduced in float32, divided there if a mean is wanted, and rounded once.

    Parameters
    ----------
    op : ReduceOp or str
    dtype : numpy.dtype
        Of the values.
    divisor : int
        The result is divided by it.

    Raises
    ------
    ArgumentValueError
        If there is no such operation.
    DtypeError
        If it makes no sense for the dtype: sums of bools, divided integers.

    Examples
    --------
    >>> out = np.empty(2, np.float32)
    >>> Reduction("avg", out.dtype, 2).into(out, [np.float32([1, 2]), np.float32([3, 5])])
    >>> out
    array([2. , 3.5], dtype=float32)
    """

    def __init__(self, op: ReduceOp | str, dtype: np.dtype[Any], divisor: int = 1) -> None:
        if op not in list(ReduceOp):
            raise ArgumentValueError(f"op is one of {', '.join(ReduceOp)}; found {op!r}")
        if dtype.kind == "b" and op not in (ReduceOp.MAX, ReduceOp.MIN):
            raise DtypeError(f"bools have no {op}; max is true where any is, min where all are")
        if (divisor != 1 or op == ReduceOp.AVG) and dtype.kind in "iu":
            raise DtypeError(f"the mean of values of dtype {dtype} need not be one; convert them to a float first")
        self.op, self.divisor = ReduceOp(op), divisor
        self.dtype = np.dtype(np.float32) if dtypes.is_floating(dtype) and dtype.itemsize < 4 else dtype
        self._scratch: list[Array] = []

    def into(self, out: Array, parts: Sequence[Array]) -> None:
        """Write the reduction of some flat arrays into another, which may be one of them."""
        function = _FUNCTIONS[self.op]
        result, wide = self._buffers(out.size)
        with np.errstate(all="ignore"):
            first, *others = parts
            if first.dtype != self.dtype:
                indexing.overwrite(result, first)
                first = result
            for part in others:
                if part.dtype != self.dtype:
                    indexing.overwrite(wide, part)
                    part = wide  # noqa: PLW2901
                function(first, part, out=result)
                first = result
            if self.divisor != 1:
                first = np.true_divide(first, self.divisor, out=result)
            if out.dtype == self.dtype:
                np.copyto(out, first)
            else:
                indexing.overwrite(out, first)

    def _buffers(self, size: int) -> list[Array]:
        if not self._scratch or self._scratch[0].size < size:
            self._scratch = [np.empty(size, self.dtype) for _ in range(2)]
        return [buffer[:size] for buffer in self._scratch]
