"""Many small arrays in few launches: small fills on a CUDA device inside ``with Batch()`` are launched at its end.

Each kernel that takes part reads its tasks from a table of 64-bit words in device memory, one row for each
array or piece of one, and is launched once.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

import numpy as np

from numparam.kernels.array import DeviceArray
from numparam.kernels.launch import THREADS, launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numparam.kernels.machine.compile import CudaKernel

MOST_BYTES = 1 << 22
"""Of an array that waits for others; a larger one fills a device by itself."""

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
