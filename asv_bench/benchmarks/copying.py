"""Copies and conversions of full arrays, transposes, and the overhead of small copies."""

from collections.abc import Callable

import ml_dtypes
import numpy as np

from numparam.kernels import copy
from numparam.kernels.machine import pool

from . import common

Array = np.ndarray
Pair = tuple[Array, Array]


def touched(shape: tuple[int, ...], dtype: object = np.float32) -> Array:
    """Return an array of ones, whose pages are in memory."""
    return np.ones(shape, dtype)


def conversion(target: object, source: object) -> Callable[[], Pair]:
    return lambda: (touched((2**26,), target), touched((2**26,), source))


def permuted(*order: int) -> Callable[[], Pair]:
    def make() -> Pair:
        source = touched((16, 128, 128, 64)).transpose(order)
        return touched(source.shape), source

    return make


LAYOUTS: dict[str, Callable[[], Pair]] = {
    "contiguous": conversion("f4", "f4"),
    "float32 to float16": conversion("f2", "f4"),
    "float16 to float32": conversion("f4", "f2"),
    "float32 to bfloat16": conversion(ml_dtypes.bfloat16, "f4"),
    "bfloat16 to float32": conversion("f4", ml_dtypes.bfloat16),
    "float32 to float8_e4m3fn": conversion(ml_dtypes.float8_e4m3fn, "f4"),
    "float64 to float32": conversion("f4", "f8"),
    "float64 to bfloat16": conversion(ml_dtypes.bfloat16, "f8"),
    "transpose": lambda: (touched((4096, 4096)), touched((4096, 4096)).T),
    "transpose of odd sides": lambda: (touched((4099, 4097)), touched((4097, 4099)).T),
    "transpose of bytes": lambda: (touched((8192, 8192), "u1"), touched((8192, 8192), "u1").T),
    "axes 0 2 1 3": permuted(0, 2, 1, 3),
    "axes 3 2 1 0": permuted(3, 2, 1, 0),
    "transpose to float16": lambda: (touched((4096, 4096), "f2"), touched((4096, 4096)).T),
}


class Copy:
    params = (list(LAYOUTS), [1, 2])
    param_names = ("layout", "threads")

    def setup(self, layout: str, thread_count: int) -> None:
        pool.set_num_threads(thread_count)
        self.target, self.source = LAYOUTS[layout]()
        copy.copy(self.target, self.source)

    def time_warm(self, layout: str, thread_count: int) -> None:
        copy.copy(self.target, self.source)


class ExtraMemory:
    params = (list(LAYOUTS),)
    param_names = ("layout",)

    def setup(self, layout: str) -> None:
        pool.set_num_threads(2)
        self.target, self.source = LAYOUTS[layout]()
        copy.copy(self.target, self.source)

    def track_bytes(self, layout: str) -> int:
        return common.extra_memory(lambda: copy.copy(self.target, self.source))

    track_bytes.unit = "bytes"


class Small:
    """A copy of 1 KiB, and NumPy's; the difference must be below 3 us."""

    def setup(self) -> None:
        self.target, self.source = touched((16, 16)), touched((16, 16))

    def time_numparam(self) -> None:
        copy.copy(self.target, self.source)

    def time_numpy(self) -> None:
        np.copyto(self.target, self.source)
