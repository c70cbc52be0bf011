"""Cases for several processes: a file of them runs all of its own on each rank, as `test_torch_ranks.py` asks for.

A file is run with the number of ranks and the path of a store, and calls `main` at its end.
"""

import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DeviceMesh, distribute_tensor, init_device_mesh

SEED = 11
SIZE = int(sys.argv[1])
CASES: list[Callable[[], None]] = []


def case(test: Callable[[], None]) -> Callable[[], None]:
    CASES.append(test)
    return test


def world(*lengths: int) -> DeviceMesh:
    return init_device_mesh("cpu", lengths, mesh_dim_names=("dp", "tp")[: len(lengths)])


def same(sharded: Any, full: Any, where: Any) -> None:
    """Compare the part of this rank with that of the full tensor, bit for bit."""
    if hasattr(sharded, "device_mesh"):
        full = distribute_tensor(full.detach(), sharded.device_mesh, sharded.placements).to_local()
        sharded = sharded.to_local()
    assert sharded.shape == full.shape or not sharded.numel() + full.numel(), where
    assert sharded.detach().contiguous().numpy().tobytes() == full.detach().contiguous().numpy().tobytes(), where


def same_modules(sharded: nn.Module, full: nn.Module, where: str) -> None:
    parts = {**dict(sharded.named_parameters()), **dict(sharded.named_buffers())}
    for name, tensor in [*full.named_parameters(), *full.named_buffers()]:
        same(parts[name], tensor, (where, name))


def run(rank: int, store: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=SIZE, timeout=timedelta(seconds=300)
    )
    for test in CASES:
        test()
        if rank == 0:
            print(f"passed {test.__name__}", flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    # A fork spares each rank the import of torch, 2 s of work.
    torch.multiprocessing.start_processes(run, (sys.argv[2],), nprocs=SIZE, start_method="fork")
