"""Whether MPI reads and writes the memory of NVIDIA GPUs by itself.

A CUDA-aware MPI declares it in the standard's way, by ``cuda`` in the info key ``mpi_memory_alloc_kinds`` of its world
(MPI 4.1). One that cannot declare it is trusted when ``NUMPARAM_CUDA_AWARE_MPI=1`` is set; 0 turns the direct way off.
Without it, and for every reduction, which the processor computes, values go through pinned host memory, 4 MiB at a
time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from numparam.communication.exchange import world

if TYPE_CHECKING:
    from numparam.kernels.array import DeviceArray


def is_direct() -> bool:
    """Return whether MPI may be given addresses on a CUDA device."""
    setting = os.environ.get("NUMPARAM_CUDA_AWARE_MPI")
    if setting is not None or world.communicator is None:
        return setting == "1"
    info = world.communicator.Get_info()
    kinds = info.get("mpi_memory_alloc_kinds") or ""
    info.Free()
    return any(kind.split(":")[0] == "cuda" for kind in kinds.split(","))


def finish(array: DeviceArray) -> None:
    """Wait for the work that was queued on the device of an array, which MPI does not see."""
    from numparam.kernels.machine.driver import get_driver

    get_driver().record(array.device).sync()
