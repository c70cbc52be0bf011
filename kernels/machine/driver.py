"""All calls of the CUDA driver: devices, memory, copies, launches.

Work on a device is queued on its legacy default stream, so it runs in order with the work that other libraries queue
there. Only copies to the host have a separate stream, so that kernels go on meanwhile.
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import threading
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numparam.kernels.machine.compile import CudaKernel

_PACKAGES = ("numba_cuda", "cuda.core", "cuda.bindings")
_LIBRARIES = ("nvvm", "nvrtc", "nvJitLink")
"""What compiles and links kernels. numba-cuda alone comes without."""

_NO_DEVICE = 100
_OUT_OF_MEMORY = "OUT_OF_MEMORY"

LEGACY_DEFAULT_STREAM = 1
"""How a driver, DLPack and the CUDA array interface number it."""


class DeviceMissingError(RuntimeError):
    """Report that a CUDA device cannot be used; the message has what was looked for and what to install."""


class DeviceMemoryError(MemoryError):
    """Report that a device has no room, with the sizes."""


def count_devices() -> int:
    """Return how many CUDA devices the driver has."""
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
    """Return which package or library is missing, or an empty string."""
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


class _Card:
    """What does not change about a device."""

    def __init__(self, number: int) -> None:
        from cuda.bindings import driver
        from cuda.core import Device

        _, before = driver.cuCtxGetCurrent()
        self.device = Device(number)
        self.device.set_current()
        _, self.context = driver.cuCtxGetCurrent()
        self.handle = int(self.context)
        self.multiprocessors = int(self.device.properties.multiprocessor_count)
        self.side_stream = self.device.create_stream()
        driver.cuCtxSetCurrent(before)


class _Current:
    """Make a card current in the calling thread for a ``with`` block, and restore the one of another library."""

    __slots__ = ("_before", "_card", "_driver")

    def __init__(self, driver: Any, card: _Card) -> None:
        self._driver, self._card = driver, card

    def __enter__(self) -> _Card:
        _, before = self._driver.cuCtxGetCurrent()
        handle = int(before)
        self._before = before if handle not in (0, self._card.handle) else None
        if handle != self._card.handle:
            self._driver.cuCtxSetCurrent(self._card.context)
        return self._card

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            self._driver.cuCtxSetCurrent(self._before)


class _Loaded:
    """A kernel on a card, and for every thread the memory from which a launch takes the arguments.

    To pack them and call the driver takes a fraction of the time of `cuda.core.launch` and the NumPy scalars it wants.
    """

    def __init__(self, kernel: CudaKernel, architecture: str) -> None:
        from cuda.bindings import driver
        from cuda.core import ObjectCode

        self._loaded = ObjectCode.from_cubin(kernel.cubin(architecture)).get_kernel(kernel.name)
        self._function, self._launch = driver.CUfunction(int(self._loaded.handle)), driver.cuLaunchKernel
        self._stream = driver.CUstream(LEGACY_DEFAULT_STREAM)
        # A driver aligns arguments as C does.
        self._arguments = struct.Struct("".join(np.dtype(str(kind)).char for kind in kernel.leaves))
        self._local = threading.local()

    def launch(self, grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[Any]) -> Any:
        """Queue the kernel and return the status."""
        try:
            packed, address, _ = self._local.memory
        except AttributeError:
            packed, address, _ = self._local.memory = self._new_memory()
        self._arguments.pack_into(packed, 0, *arguments)
        return self._launch(self._function, *grid, 1, *block, 1, 0, self._stream, 0, address)[0]

    def _new_memory(self) -> tuple[Any, int, Any]:
        """Return a buffer for the arguments, the address of its description for the driver, and the description."""
        packed, size = (ctypes.c_byte * self._arguments.size)(), ctypes.c_size_t(self._arguments.size)
        told = (ctypes.c_void_p * 5)(1, ctypes.addressof(packed), 2, ctypes.addressof(size), 0)
        return packed, ctypes.addressof(told), (told, size)


class Driver:
    """Talk to the devices of this machine, numbered from 0."""

    def __init__(self) -> None:
        from cuda import core
        from cuda.bindings import driver

        self._core, self._driver, self._stream = core, driver, core.LEGACY_DEFAULT_STREAM

    def name(self, device: int) -> str:
        """Return the name of the card."""
        return str(self._card(device).device.name)

    def memory(self, device: int) -> tuple[int, int]:
        """Return how many bytes are free and how many there are."""
        with self._current(device):
            status, free, total = self._driver.cuMemGetInfo()
        if status:
            raise DeviceMissingError(f"cuda:{device} does not report its memory: {status}")
        return int(free), int(total)

    def multiprocessors(self, device: int) -> int:
        """Return how many multiprocessors the card has."""
        return self._card(device).multiprocessors

    def allocate(self, device: int, nbytes: int) -> Any:
        """Return a new buffer of the stream-ordered pool; it is freed, in that order, with its last reference."""
        try:
            with self._current(device) as card:
                return card.device.allocate(nbytes, stream=self._stream)
        except Exception as error:
            if _OUT_OF_MEMORY not in str(error):
                raise
            free, total = self.memory(device)
            raise DeviceMemoryError(
                f"{nbytes} bytes were requested on cuda:{device}, which has {free} of {total} bytes free"
            ) from error

    def pinned(self, device: int, nbytes: int) -> np.ndarray[Any, Any]:
        """Return host memory that a device copies from and to while the processor works on."""
        try:
            with self._current(device):  # another one would give memory away to a context that is not needed
                buffer = self._core.LegacyPinnedMemoryResource().allocate(nbytes)
        except Exception as error:
            if _OUT_OF_MEMORY not in str(error):
                raise
            raise DeviceMemoryError(f"{nbytes} bytes of page-locked host memory were requested and refused") from error
        return np.from_dlpack(buffer).view(np.uint8)

    def copy(self, device: int, target: int, source: int, nbytes: int) -> None:
        """Queue a copy between two addresses of device or pinned memory."""
        with self._current(device):
            self._copy(target, source, nbytes, self._stream)

    def fetch(self, device: int, target: int, source: int, nbytes: int, after: Any) -> Any:
        """Queue a copy to pinned memory after an event, while other work goes on; return the event of its end."""
        with self._current(device) as card:
            card.side_stream.wait(after)
            self._copy(target, source, nbytes, card.side_stream)
            return card.side_stream.record()

    def record(self, device: int) -> Any:
        """Return an event that comes when all that is queued is done; its ``sync()`` waits for it."""
        with self._current(device):
            return self._stream.record()

    def launch(
        self, device: int, kernel: CudaKernel, grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[Any]
    ) -> None:
        """Queue a kernel; arguments are numbers in the ranges of the kernel's types."""
        with self._current(device):
            status = self._load(device, kernel).launch(grid, block, arguments)
        if status:
            raise RuntimeError(f"cuda:{device} refuses kernel {kernel.name} on grid {grid}, block {block}: {status!r}")

    def _current(self, device: int) -> _Current:
        return _Current(self._driver, self._card(device))

    @cache  # noqa: B019
    def _card(self, device: int) -> _Card:
        return _Card(device)

    @cache  # noqa: B019
    def _load(self, device: int, kernel: CudaKernel) -> _Loaded:
        return _Loaded(kernel, self._card(device).device.arch)

    def _copy(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        handle = self._core.Buffer.from_handle
        handle(target, nbytes).copy_from(handle(source, nbytes), stream=stream)


@lru_cache(maxsize=1)
def get_driver() -> Driver:
    """Return the driver."""
    count_devices()
    return Driver()
