"""Slices and indices: of tensors, read, written, gathered and scattered, and of lazy parameters."""

from typing import Any

import numpy as np

import numparam
from numparam import Tensor

from .common import OneThread, Warm, lazy, touched
from .copying import Make, Pair

SIDE = 4096


def part(index: Any) -> Make:
    def make(scale: int = 1) -> Pair:
        source = touched((SIDE * scale, SIDE * scale))[index]
        return touched(source.shape), source

    return make


SLICES: dict[str, Make] = {
    "rows": part(np.s_[500:3500]),
    "columns of 8 KB": part(np.s_[:, 1000:3000]),
    "columns of 4 KB": part(np.s_[:, 1000:2000]),
    "columns of 64 bytes": lambda scale=1: (
        touched((2**17 * scale**2, 16)),
        touched((2**17 * scale**2, 128))[:, 35:51],
    ),
    "every fourth column": part(np.s_[:, ::4]),
    "columns in reverse": part(np.s_[:, ::-1]),
    "rows in reverse": part(np.s_[::-1]),
}


class Slice(OneThread):
    params = tuple(SLICES)
    param_names = ("slice",)

    def setup(self, name: str) -> None:
        numparam.set_num_threads(1)
        target, source = SLICES[name]()
        self.target, self.source = Tensor.from_numpy(target), Tensor.from_numpy(source)
        self.time_warm(name)

    def time_warm(self, name: str) -> None:
        self.target[...] = self.source


class Rows(OneThread):
    """Embedding rows by an array of indices."""

    params = (64, 512, 4096)
    param_names = ("row bytes",)

    def setup(self, row_bytes: int) -> None:
        numparam.set_num_threads(1)
        self.table = Tensor.from_numpy(touched((2**26 // row_bytes, row_bytes // 4)))
        self.values = touched((2**24 // row_bytes, row_bytes // 4))
        self.indices = np.random.default_rng(1).integers(0, len(self.table), len(self.values))
        self.time_gather(row_bytes)
        self.time_scatter(row_bytes)

    def time_gather(self, row_bytes: int) -> None:
        self.table[self.indices]

    def time_scatter(self, row_bytes: int) -> None:
        self.table[self.indices] = self.values


INDICES: dict[str, Any] = {
    "integer": 3,
    "integers": (3, 5, 7),
    "slice": np.s_[2:9, :, 4],
    "ellipsis": np.s_[..., 4],
    "new axis": np.s_[:, None, 3],
    "mask": np.arange(64) % 3 == 0,
    "array": np.arange(0, 64, 5),
    "list": [1, 5, -2],
    "arrays": (np.arange(8), np.arange(8)),
    "array and slice": np.s_[[1, 5, -2], 3:9],
    "tensor": Tensor(np.arange(0, 64, 5)),
}


class Index(Warm):
    """Every kind of index on a small tensor: the cost of a call."""

    params = tuple(INDICES)
    param_names = ("index",)

    def setup(self, kind: str) -> None:
        self.tensor, self.index = Tensor(np.ones((64, 16, 16), np.float32)), INDICES[kind]
        self.values = self.tensor[self.index].asnumpy()
        self.time_write(kind)

    def time_read(self, kind: str) -> None:
        self.tensor[self.index]

    def time_write(self, kind: str) -> None:
        self.tensor[self.index] = self.values


LAZY: dict[str, Any] = {
    "element": (777_777, 12_345),
    "row": np.s_[777_777],
    "rows": np.s_[500_000:500_016],
    "every fourth column": np.s_[:64, : 2**20 : 4],
    "block": np.s_[1_000:5_096, 3_000:7_096],
}


class Lazy(Warm):
    """Slices of a parameter of 2**40 elements, 4 TiB if it were materialised."""

    params = tuple(LAZY)
    param_names = ("slice",)

    def setup(self, name: str) -> None:
        self.parameter, self.index = lazy((2**20, 2**20)), LAZY[name]
        self.time_read(name)

    def time_read(self, name: str) -> None:
        self.parameter[self.index].asnumpy()
