"""What numparam asks of a CUDA driver, in one place: devices, memory, copies, launches.

Everything here goes through ``cuda.core`` and nothing else in numparam does. Work on a device is queued on its default
stream, so what other libraries queue there comes in the order it was asked for.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numparam.kernels._compile import CudaKernel

_NEEDED = ("numba_cuda", "cuda.core", "cuda.bindings")
_INSTALL = "install an NVIDIA driver, and numparam[cuda13] or, for CUDA 12, numparam[cuda12]"


class DeviceMissingError(RuntimeError):
    """Report that a CUDA device cannot be used; the message says what was looked for and what to install."""


class DeviceMemoryError(MemoryError):
    """Report that a device has no room, with the sizes."""


def count_devices() -> int:
    """Return how many CUDA devices the driver has.

    Raises
    ------
    DeviceMissingError
        If there is no driver, it does not start, or a package is missing.
    """
    # A question to the driver alone takes 0.1 ms, an import of cuda.core half a second.
    try:
        library = ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "windll") else "libcuda.so.1")
    except OSError:
        raise DeviceMissingError(f"the NVIDIA driver's libcuda.so.1 was looked for and not found; {_INSTALL}") from None
    count = ctypes.c_int()
    if (status := library.cuInit(0)) or (status := library.cuDeviceGetCount(ctypes.byref(count))):
        raise DeviceMissingError(f"the NVIDIA driver was found, but starting it failed with CUDA error {status}")
    if missing := [name for name in _NEEDED if not _is_installed(name)]:
        raise DeviceMissingError(f"Python package {missing[0]!r} was looked for and not found; {_INSTALL}")
    return count.value


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


class Driver:
    """Talk to the devices of this machine, numbered from 0."""

    def name(self, device: int) -> str:
        """Return the name of the card."""
        return str(_device(device).name)

    def memory(self, device: int) -> tuple[int, int]:
        """Return how many bytes are free and how many there are."""
        from cuda.bindings import driver

        _device(device)
        status, free, total = driver.cuMemGetInfo()
        if status:
            raise DeviceMissingError(f"cuda:{device} does not tell its memory: {status}")
        return int(free), int(total)

    def multiprocessors(self, device: int) -> int:
        """Return how many multiprocessors the card has."""
        return int(_device(device).properties.multiprocessor_count)

    def allocate(self, device: int, nbytes: int) -> Any:
        """Return a new buffer of the stream-ordered pool; it is freed with its last reference.

        Raises
        ------
        DeviceMemoryError
            If the device has no room.
        """
        card = _device(device)
        try:
            return card.allocate(nbytes, stream=card.default_stream)
        except Exception as error:
            if "OUT_OF_MEMORY" not in str(error).upper().replace("MEMORYALLOCATION", "OUT_OF_MEMORY"):
                raise
            free, total = self.memory(device)
            raise DeviceMemoryError(
                f"{nbytes} bytes were asked of cuda:{device}, which has {free} of {total} bytes free"
            ) from error

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        """Return host memory that a device copies from and to while the processor works on."""
        from cuda.core import LegacyPinnedMemoryResource

        _device(0)
        buffer = LegacyPinnedMemoryResource().allocate(nbytes)
        array = np.from_dlpack(buffer).view(np.uint8)
        return array.reshape(-1)

    def copy(self, device: int, target: int, source: int, nbytes: int) -> None:
        """Queue a copy between two addresses of device or pinned memory."""
        from cuda.core import Buffer

        stream = _device(device).default_stream
        Buffer.from_handle(target, nbytes).copy_from(Buffer.from_handle(source, nbytes), stream=stream)

    def record(self, device: int) -> Any:
        """Return an event that comes when all that is queued is done; its ``sync()`` waits for it."""
        return _device(device).default_stream.record()

    def launch(
        self, device: int, kernel: CudaKernel, grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[Any]
    ) -> None:
        """Queue a kernel; arguments are NumPy scalars of the kernel's types."""
        from cuda.core import LaunchConfig, launch

        config = LaunchConfig(grid=(*grid, 1), block=(*block, 1))
        launch(_device(device).default_stream, config, _load(device, kernel), *arguments)


@cache
def _device(index: int) -> Any:
    from cuda.core import Device

    device = Device(index)
    device.set_current()
    return device


@cache
def _load(device: int, kernel: CudaKernel) -> Any:
    from cuda.core import ObjectCode

    return ObjectCode.from_cubin(kernel.cubin(_device(device).arch)).get_kernel(kernel.name)


@lru_cache(maxsize=1)
def get_driver() -> Driver:
    """Return the driver.

    Raises
    ------
    DeviceMissingError
        If no device can be used.
    """
    count_devices()
    return Driver()
