"""Many small arrays in few calls, which cost more than their values.

On a CPU a fill takes `Arrays`, which it gives the values of as many streams. On a CUDA device small fills inside ``with
Batch()`` are launched at its end: each kernel that takes part reads its tasks from a table of 64-bit words in device
memory, one row for each array or piece of one, and is launched once.
"""

from __future__ import annotations

import math
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.array import DeviceArray
from numparam.kernels.launch import THREADS, launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numparam.kernels.machine.compile import CudaKernel

MOST_BYTES = 1 << 22
"""Of an array that waits for others; a larger one fills a device by itself."""


class Arrays:
    """Point to row-major arrays of one shape and dtype in host memory, whose owner keeps them."""

    kind = "many"

    def __init__(self, addresses: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.addresses = np.asarray(addresses, np.int64)
        self.shape, self.dtype, self.size = shape, dtype, math.prod(shape)

    def reshape(self, shape: tuple[int, ...]) -> Arrays:
        """Return the same arrays in another shape of the same size."""
        return Arrays(self.addresses, shape, self.dtype)

    def __getitem__(self, rows: slice) -> Arrays:
        """Return consecutive rows of each array."""
        start, stop, _ = rows.indices(self.shape[0])
        shape = max(stop - start, 0), *self.shape[1:]
        return Arrays(self.addresses + start * math.prod(shape[1:]) * self.dtype.itemsize, shape, self.dtype)


_current: ContextVar[Batch | None] = ContextVar("batch", default=None)


class Batch:
    """Collect the fills of small arrays, and launch them when the block ends without an error.

    Until then the arrays hold what they held before.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[CudaKernel, int, tuple[int, ...]], list[Sequence[int]]] = {}
        self._arrays: list[DeviceArray] = []
        self._token: Token[Batch | None] | None = None

    def __enter__(self) -> Batch:
        self._token = _current.set(self)
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        assert self._token is not None
        _current.reset(self._token)
        if failed is None:
            for (kernel, device, common), rows in self._rows.items():
                table = DeviceArray.from_host(np.array(rows, np.uint64), device)
                launch(device, kernel, THREADS, len(rows), (table.address, len(rows), *common))

    def add(self, kernel: CudaKernel, out: DeviceArray, rows: Iterable[Sequence[int]], *common: int) -> None:
        """Put off the launch of a kernel that takes a table, its number of rows, and the `common` numbers."""
        self._arrays.append(out)
        self._rows.setdefault((kernel, out.device, common), []).extend(rows)


def waiting(out: DeviceArray) -> Batch | None:
    """Return the batch that an array should wait in, if any."""
    return _current.get() if out.nbytes <= MOST_BYTES else None
