"""A CUDA device without a GPU: a driver whose memory is NumPy arrays and whose kernels run in the PTX interpreter.

It is as lazy as a driver may be. Copies and launches wait in a queue until somebody waits for an event, so code that
reads or reuses memory too early reads what was there before.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pytest

from numparam.kernels import array as device_array
from numparam.kernels.machine import driver as _driver
from numparam.kernels.machine.compile import CudaKernel
from ptx_interpreter import Launch, Memory, Module


@cache
def missing() -> str:
    """Say what is missing to compile PTX, nothing if all is there."""
    try:
        import numba_cuda  # noqa: F401
        from cuda.bindings import nvjitlink, nvvm
        from numba import cuda

        nvvm.version()
        nvjitlink.version()
    except Exception as error:
        return f"no CUDA compiler: install numparam[cuda13] ({type(error).__name__}: {str(error)[:80]})"
    return "" if cuda.implementation == "NVIDIA" else "numba.cuda is not that of numba-cuda"


needs_compiler = [pytest.mark.ptx, pytest.mark.skipif(missing() != "", reason=missing())]


class _Buffer:
    def __init__(self, nbytes: int) -> None:
        space = np.zeros(nbytes + 256, np.uint8)
        start = -space.ctypes.data % 256
        self.data = space[start : start + nbytes]
        self.data[...] = 0xA5
        self.handle = self.data.ctypes.data


class _Event:
    def __init__(self, wait: Callable[[], None]) -> None:
        self.sync = wait


def _once(*works: Callable[[], None]) -> Callable[[], None]:
    waiting = list(works)

    def wait() -> None:
        while waiting:
            waiting.pop(0)()

    return wait


@lru_cache(maxsize=256)
def module(kernel: CudaKernel) -> Module:
    """Read a kernel's PTX once."""
    return Module(kernel.ptx)


class InterpretedDriver:
    """Stand for `numparam.kernels.machine.driver.Driver`, with two devices of `total` bytes each."""

    def __init__(self, total: int = 64 << 20) -> None:
        self.total = total
        self.launches: list[tuple[str, int]] = []
        self.read: list[int] = []
        """Bytes of every copy to the host."""
        self._buffers: list[weakref.WeakSet[_Buffer]] = [weakref.WeakSet(), weakref.WeakSet()]
        self._pinned: list[np.ndarray[Any, Any]] = []
        self._queues: list[list[Callable[[], None]]] = [[], []]

    def name(self, device: int) -> str:
        return f"interpreted {device}"

    def used(self, device: int) -> int:
        return sum(buffer.data.size for buffer in self._buffers[device])

    def memory(self, device: int) -> tuple[int, int]:
        return self.total - self.used(device), self.total

    def multiprocessors(self, device: int) -> int:  # noqa: ARG002
        return 1

    def allocate(self, device: int, nbytes: int) -> _Buffer:
        free, total = self.memory(device)
        if nbytes > free:
            raise _driver.DeviceMemoryError(
                f"{nbytes} bytes were requested on cuda:{device}, {free} of {total} are free"
            )
        buffer = _Buffer(nbytes)
        self._buffers[device].add(buffer)
        return buffer

    def pinned(self, device: int, nbytes: int) -> np.ndarray[Any, Any]:  # noqa: ARG002
        self._pinned.append(_Buffer(nbytes).data)
        return self._pinned[-1]

    @property
    def pinned_bytes(self) -> int:
        return sum(data.size for data in self._pinned)

    def copy(self, device: int, target: int, source: int, nbytes: int) -> None:
        self._queues[device].append(self._copying(target, source, nbytes))

    def fetch(self, device: int, target: int, source: int, nbytes: int, after: _Event) -> _Event:  # noqa: ARG002
        self.read.append(nbytes)
        return _Event(_once(after.sync, self._copying(target, source, nbytes)))

    def _copying(self, target: int, source: int, nbytes: int) -> Callable[[], None]:
        for address in (target, source):
            if not any(start <= address and address + nbytes <= start + size for start, size in self._ranges()):
                raise ValueError(f"a copy of {nbytes} bytes at {address:#x} leaves its memory")
        kept = [list(buffers) for buffers in self._buffers]  # memory is freed in the order of the stream

        def work() -> None:
            ctypes.memmove(target, source, nbytes)
            kept.clear()

        return work

    def _ranges(self) -> Iterator[tuple[int, int]]:
        for buffers in self._buffers:
            yield from ((buffer.handle, buffer.data.size) for buffer in buffers)
        yield from ((data.ctypes.data, data.size) for data in self._pinned)

    def record(self, device: int) -> _Event:
        queue = self._queues[device]
        until = list(queue)

        def wait() -> None:
            for work in until:
                if work in queue:
                    queue.remove(work)
                    work()

        return _Event(wait)

    def launch(
        self, device: int, kernel: CudaKernel, grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[Any]
    ) -> None:
        self.launches.append((kernel.name, device))
        values = [np.array(value, str(kind))[()] for value, kind in zip(arguments, kernel.leaves, strict=True)]
        assert block[0] * block[1] <= 1024
        buffers = list(self._buffers[device])  # as a device does, it keeps them until the kernel has run

        def work() -> None:
            module(kernel).run(Launch(grid, block), values, Memory(*(buffer.data for buffer in buffers)))

        self._queues[device].append(work)


@contextmanager
def interpreted(total: int = 64 << 20) -> Iterator[InterpretedDriver]:
    """Put the interpreted driver in the place of the real one."""
    driver = InterpretedDriver(total)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_driver, "count_devices", lambda: 2)
        patch.setattr(_driver, "get_driver", lambda: driver)
        patch.setattr(device_array, "STAGING_BYTES", 1 << 18)  # less to make for each test
        yield driver
    device_array._free.clear()
