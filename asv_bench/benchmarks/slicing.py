"""Slices of tensors: read, written, gathered and scattered."""

from collections.abc import Callable
from typing import Any

import numpy as np

from numparam import Tensor
from numparam.kernels import copy, rows
from numparam.kernels.machine import pool

from .copying import Pair, touched

SIDE = 8192


def part(index: Any) -> Callable[[], Pair]:
    def make() -> Pair:
        source = touched((SIDE, SIDE))[index]
        return touched(source.shape), source

    return make


SLICES: dict[str, Callable[[], Pair]] = {
    "rows": part(np.s_[1000:5000]),
    "columns of 8 KB": part(np.s_[:, 1000:3000]),
    "columns of 4 KB": part(np.s_[:, 1000:2000]),
    "columns of 64 bytes": lambda: (touched((2**19, 16)), touched((2**19, 128))[:, 35:51]),
    "every fourth column": part(np.s_[:, ::4]),
    "columns in reverse": part(np.s_[:, ::-1]),
    "rows in reverse": part(np.s_[::-1]),
}


class Slice:
    params = (list(SLICES), [1, 2])
    param_names = ("slice", "threads")

    def setup(self, name: str, thread_count: int) -> None:
        pool.set_num_threads(thread_count)
        self.target, self.source = SLICES[name]()
        copy.copy(self.target, self.source)

    def time_warm(self, name: str, thread_count: int) -> None:
        copy.copy(self.target, self.source)


class Rows:
    params = ([64, 512, 4096], [1, 2])
    param_names = ("row bytes", "threads")

    def setup(self, row_bytes: int, thread_count: int) -> None:
        pool.set_num_threads(thread_count)
        self.table = touched((2**28 // row_bytes, row_bytes // 4))
        self.values = touched((2**26 // row_bytes, row_bytes // 4))
        self.indices = np.random.default_rng(1).integers(0, len(self.table), len(self.values))
        self.time_gather(row_bytes, thread_count)
        self.time_scatter(row_bytes, thread_count)

    def time_gather(self, row_bytes: int, thread_count: int) -> None:
        rows.gather(self.values, self.table, self.indices)

    def time_scatter(self, row_bytes: int, thread_count: int) -> None:
        rows.scatter(self.table, self.indices, self.values)


class SmallTensor:
    """Reading and writing a row of 64 numbers."""

    def setup(self) -> None:
        self.tensor = Tensor(np.ones((64, 64), np.float32))
        self.row = np.ones(64, np.float32)

    def time_read(self) -> None:
        self.tensor[3]

    def time_write(self) -> None:
        self.tensor[3] = self.row
