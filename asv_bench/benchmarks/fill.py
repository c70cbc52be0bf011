"""Fills of full arrays: every draw, dtype and thread count, and the memory used in addition to the array."""

from numparam.kernels.machine import pool

from . import common


class Fill:
    params = (list(common.DRAWS), list(common.DTYPES), [1, 2])
    param_names = ("draw", "dtype", "threads")

    def setup(self, draw: str, dtype: str, thread_count: int) -> None:
        pool.set_num_threads(thread_count)
        self.fill = common.DRAWS[draw]
        self.out = common.touched(dtype)
        self.fill(self.out)

    def time_warm(self, draw: str, dtype: str, thread_count: int) -> None:
        self.fill(self.out)


class ExtraMemory:
    params = (list(common.DRAWS), ["float32", "bfloat16"])
    param_names = ("draw", "dtype")

    def setup(self, draw: str, dtype: str) -> None:
        pool.set_num_threads(2)
        self.fill = common.DRAWS[draw]
        self.out = common.touched(dtype)
        self.fill(self.out)

    def track_bytes(self, draw: str, dtype: str) -> int:
        return common.extra_memory(lambda: self.fill(self.out))

    track_bytes.unit = "bytes"
