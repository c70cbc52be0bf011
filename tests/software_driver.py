"""Give a process a CUDA driver in software, so that all above the driver runs as it does with a card.

``python tests/software_driver.py SCRIPT ...``, or ``-m MODULE ...``, compiles `software_driver.c` to a ``libcuda.so.1``
and runs a Python program that finds it. numparam's driver layer, cuda.core, cuda.bindings and numba-cuda are then the
real ones, and kernels run in the PTX interpreter. ``python tests/software_driver.py -m pytest -m gpu`` is an example.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np

DEVICE_BYTES = 1 << 30
_DIRECTORY = "NUMPARAM_SOFTWARE_DRIVER"  # of the compiled driver, in the environment of who uses it
_SOURCE = Path(__file__).with_suffix(".c")
_kernels: dict[str, Any] = {}
_kept: list[Any] = []


def missing() -> str:
    """Say what is missing to compile the driver, nothing if all is there."""
    if shutil.which("cc") is None:
        return "no C compiler"
    return "" if any((path / "cuda.h").exists() for path in _headers()) else "no cuda.h: install numparam[test]"


def _headers() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return [Path(place, part, "include") for place in places or () for part in ("cu13", "cuda_runtime")]


def compile_driver(directory: Path) -> None:
    """Compile the driver into a directory."""
    options = ["-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-pthread", *(f"-I{path}" for path in _headers())]
    subprocess.run(["cc", *options, "-o", directory / "libcuda.so.1", _SOURCE], check=True)


def environment(directory: Path) -> dict[str, str]:
    """Return the environment of a process that finds the driver in a directory."""
    path = os.pathsep.join(filter(None, [str(directory), os.environ.get("LD_LIBRARY_PATH")]))
    return {**os.environ, "LD_LIBRARY_PATH": path, _DIRECTORY: str(directory)}


def start() -> None:
    """Have this process's driver run kernels in the interpreter."""
    from interpreted_device import module
    from numparam.kernels.machine.compile import CudaKernel
    from ptx_interpreter import Launch, Memory

    library = ctypes.CDLL("libcuda.so.1")
    link = CudaKernel.cubin

    def cubin(kernel: CudaKernel, architecture: str) -> bytes:
        _kernels[kernel.name] = kernel
        return link(kernel, architecture)

    CudaKernel.cubin = cubin  # type: ignore[method-assign]

    @ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int)
    def describe(name: bytes, at: int) -> int:
        kernel = _kernels.get(name.decode())
        return np.dtype(str(kernel.leaves[at])).itemsize if kernel and at < len(kernel.leaves) else 0

    @ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_uint64)
    )
    def run(device: int, name: bytes, shape: Any, arguments: Any) -> int:
        try:
            kernel = _kernels[name.decode()]
            words = np.ctypeslib.as_array(arguments, (max(len(kernel.leaves), 1),))
            values = [words[at : at + 1].view(str(kind))[0] for at, kind in enumerate(kernel.leaves)]
            memory = Memory(*_memory_of(library, device))
            module(kernel).run(Launch((shape[0], shape[1]), (shape[2], shape[3])), values, memory)
        except Exception:
            traceback.print_exc()
            return 1
        return 0

    _kept.extend((describe, run))
    library.software_driver_start(run, describe, ctypes.c_size_t(DEVICE_BYTES))


def _memory_of(library: Any, device: int) -> list[np.ndarray[Any, Any]]:
    library.software_driver_memory.restype = ctypes.c_size_t
    arrays, start = [], ctypes.c_void_p()
    while size := library.software_driver_memory(device, len(arrays), ctypes.byref(start)):
        arrays.append(np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(start.value)))  # type: ignore[arg-type]
    return arrays


def _run(program: str, *arguments: str) -> None:
    """Run a script or ``-m`` module in this process, with the driver."""
    start()
    sys.argv = list(arguments) if program == "-m" else [program, *arguments]
    if program == "-m":
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    if os.environ.get(_DIRECTORY):
        _run(*sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as directory:
            compile_driver(Path(directory))
            sys.exit(
                subprocess.run([sys.executable, *sys.argv], env=environment(Path(directory)), check=False).returncode
            )
