"""What numparam asks of a CUDA driver, in one place: devices, memory, copies, launches.

Work on a device is queued on its legacy default stream, so what other libraries queue there comes in the order it was
asked for.
"""

from __future__ import annotations

import ctypes
import importlib.util
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numparam.kernels._compile import CudaKernel

_PACKAGES = ("numba_cuda", "cuda.core", "cuda.bindings")
_LIBRARIES = ("nvvm", "nvrtc", "nvJitLink")
"""What compiles and links kernels. numba-cuda alone comes without."""

_NO_DEVICE = 100
_OUT_OF_MEMORY = "OUT_OF_MEMORY"


class DeviceMissingError(RuntimeError):
    """Report that a CUDA device cannot be used; the message says what was looked for and what to install."""


class DeviceMemoryError(MemoryError):
    """Report that a device has no room, with the sizes."""


def count_devices() -> int:
    """Return how many CUDA devices the driver has.

    Raises
    ------
    DeviceMissingError
        If there is no driver, it does not start, or a package or library is missing.
    """
    # A question to the driver alone takes 0.1 ms, an import of cuda.core half a second.
    try:
        library = ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "windll") else "libcuda.so.1")
    except OSError:
        raise DeviceMissingError(
            "the NVIDIA driver's libcuda.so.1 was looked for and not found; "
            "install an NVIDIA driver, and numparam[cuda13] or, for CUDA 12, numparam[cuda12]"
        ) from None
    count, version = ctypes.c_int(), ctypes.c_int()
    if (status := library.cuInit(0)) == _NO_DEVICE:
        return 0
    if status or (status := library.cuDeviceGetCount(ctypes.byref(count))):
        raise DeviceMissingError(f"the NVIDIA driver was found, but starting it failed with CUDA error {status}")
    if missing := _missing():
        library.cuDriverGetVersion(ctypes.byref(version))
        extra = "cuda13" if version.value >= 13000 else "cuda12"
        raise DeviceMissingError(f'{missing} was looked for and not found; pip install "numparam[{extra}]"')
    return count.value


@cache
def _missing() -> str:
    """Say which package or library is missing, nothing if none is."""
    for name in _PACKAGES:
        if not _is_installed(name):
            return f"Python package {name!r}"
    from cuda import pathfinder

    for name in _LIBRARIES:
        try:
            pathfinder.load_nvidia_dynamic_lib(name)
        except pathfinder.DynamicLibNotFoundError:
            return f"CUDA's library {name}"
    return ""


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


class Driver:
    """Talk to the devices of this machine, numbered from 0."""

    def name(self, device: int) -> str:
        """Return the name of the card."""
        with _current(device) as card:
            return str(card.name)

    def memory(self, device: int) -> tuple[int, int]:
        """Return how many bytes are free and how many there are."""
        from cuda.bindings import driver

        with _current(device):
            status, free, total = driver.cuMemGetInfo()
        if status:
            raise DeviceMissingError(f"cuda:{device} does not tell its memory: {status}")
        return int(free), int(total)

    @cache  # noqa: B019
    def multiprocessors(self, device: int) -> int:
        """Return how many multiprocessors the card has."""
        with _current(device) as card:
            return int(card.properties.multiprocessor_count)

    def allocate(self, device: int, nbytes: int) -> Any:
        """Return a new buffer of the stream-ordered pool; it is freed, in that order, with its last reference.

        Raises
        ------
        DeviceMemoryError
            If the device has no room.
        """
        try:
            with _current(device) as card:
                return card.allocate(nbytes, stream=_stream())
        except Exception as error:
            if _OUT_OF_MEMORY not in str(error):
                raise
            free, total = self.memory(device)
            raise DeviceMemoryError(
                f"{nbytes} bytes were asked of cuda:{device}, which has {free} of {total} bytes free"
            ) from error

    def pinned(self, device: int, nbytes: int) -> np.ndarray[Any, Any]:
        """Return host memory that a device copies from and to while the processor works on.

        Raises
        ------
        DeviceMemoryError
            If the host has no room.
        """
        from cuda.core import LegacyPinnedMemoryResource

        try:
            with _current(device):  # another one would give memory away to a context that nobody needs
                buffer = LegacyPinnedMemoryResource().allocate(nbytes)
        except Exception as error:
            if _OUT_OF_MEMORY not in str(error):
                raise
            raise DeviceMemoryError(f"{nbytes} bytes of page-locked host memory were asked for and refused") from error
        return np.from_dlpack(buffer).view(np.uint8)

    def copy(self, device: int, target: int, source: int, nbytes: int) -> None:
        """Queue a copy between two addresses of device or pinned memory."""
        from cuda.core import Buffer

        with _current(device):
            Buffer.from_handle(target, nbytes).copy_from(Buffer.from_handle(source, nbytes), stream=_stream())

    def record(self, device: int) -> Any:
        """Return an event that comes when all that is queued is done; its ``sync()`` waits for it."""
        with _current(device):
            return _stream().record()

    def launch(
        self, device: int, kernel: CudaKernel, grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[Any]
    ) -> None:
        """Queue a kernel; arguments are NumPy scalars of the kernel's types."""
        from cuda.core import LaunchConfig, launch

        with _current(device):
            launch(_stream(), LaunchConfig(grid=(*grid, 1), block=(*block, 1)), _load(device, kernel), *arguments)


@contextmanager
def _current(index: int) -> Iterator[Any]:
    """Make a device that of the calling thread, and then the one again that other libraries had made it."""
    from cuda.bindings import driver
    from cuda.core import Device

    _, before = driver.cuCtxGetCurrent()
    device = Device(index)
    device.set_current()
    try:
        yield device
    finally:
        if int(before):
            driver.cuCtxSetCurrent(before)


def _stream() -> Any:
    from cuda.core import LEGACY_DEFAULT_STREAM

    return LEGACY_DEFAULT_STREAM


@cache
def _load(device: int, kernel: CudaKernel) -> Any:
    from cuda.core import Device, ObjectCode

    return ObjectCode.from_cubin(kernel.cubin(Device(device).arch)).get_kernel(kernel.name)


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
