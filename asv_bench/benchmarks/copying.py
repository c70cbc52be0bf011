"""Copies and casts of full tensors, transposes, and the overhead of small copies."""

import time
from collections.abc import Callable

import numpy as np

import numparam
from numparam import Tensor

from .common import ELEMENTS, Array, OneThread, Warm, dtype, touched

Pair = tuple[Array, Array]


Make = Callable[..., Pair]
"""Makes a target and a source; the comparison with other libraries asks for sides that are twice as long."""


def conversion(target: str, source: str) -> Make:
    def make(scale: int = 1) -> Pair:
        return touched(ELEMENTS * scale**2, target), touched(ELEMENTS * scale**2, source)

    return make


def permuted(*order: int) -> Make:
    def make(scale: int = 1) -> Pair:
        source = touched((16, 128, 128, 64)).transpose(order)
        return touched(source.shape), source

    return make


def transposed(rows: int, columns: int, target: str = "float32", source: str = "float32") -> Make:
    return lambda scale=1: (touched((rows, columns), target), touched((columns, rows), source).T)


LAYOUTS: dict[str, Make] = {
    "contiguous": conversion("float32", "float32"),
    "float32 to float16": conversion("float16", "float32"),
    "float16 to float32": conversion("float32", "float16"),
    "float32 to bfloat16": conversion("bfloat16", "float32"),
    "bfloat16 to float32": conversion("float32", "bfloat16"),
    "float32 to float8_e4m3fn": conversion("float8_e4m3fn", "float32"),
    "float64 to float32": conversion("float32", "float64"),
    "float64 to bfloat16": conversion("bfloat16", "float64"),
    "int32 to float32": conversion("float32", "int32"),
    "transpose": transposed(4096, 4096),
    "transpose of odd sides": transposed(4099, 4097),
    "transpose of bytes": transposed(8192, 8192, "uint8", "uint8"),
    "axes 0 2 1 3": permuted(0, 2, 1, 3),
    "axes 3 2 1 0": permuted(3, 2, 1, 0),
    "transpose to float16": transposed(4096, 4096, "float16"),
}


class Copy(OneThread):
    params = tuple(LAYOUTS)
    param_names = ("layout",)
    threads = 1

    def setup(self, layout: str) -> None:
        numparam.set_num_threads(self.threads)
        target, source = LAYOUTS[layout]()
        self.target, self.source = Tensor.from_numpy(target), Tensor.from_numpy(source)
        self.target[...] = self.source

    def time_warm(self, layout: str) -> None:
        self.target[...] = self.source


class CopyWithTwoThreads(Copy):
    timer = time.perf_counter
    params = ("contiguous", "float32 to bfloat16", "transpose", "axes 3 2 1 0")
    threads = 2


class New(Warm):
    """Copies that allocate their result."""

    def setup(self) -> None:
        numparam.set_num_threads(2)
        self.tensor = Tensor.from_numpy(touched((4096, 1024)))
        self.columns = Tensor.from_numpy(touched((1024, 4096)).T)
        self.half = dtype("bfloat16")
        for call in (self.time_copy, self.time_astype, self.time_contiguous):
            call()

    def time_copy(self) -> None:
        self.tensor.copy()

    def time_astype(self) -> None:
        self.tensor.astype(self.half)

    def time_contiguous(self) -> None:
        self.columns.contiguous()


class Small(Warm):
    """A copy of 1 KiB, and NumPy's."""

    def setup(self) -> None:
        self.target, self.source = Tensor.from_numpy(touched((16, 16))), touched((16, 16))
        self.out = touched((16, 16))
        self.time_numparam()

    def time_numparam(self) -> None:
        self.target[...] = self.source

    def time_numpy(self) -> None:
        np.copyto(self.out, self.source)
