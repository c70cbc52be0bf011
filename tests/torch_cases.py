"""Cases for several processes: a file of them runs all of its own on each rank, as `test_torch_ranks.py` asks for.

A file is run with the number of ranks and the path of a store, and calls `main` at its end.
"""

import sys
import warnings
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.tensor import DeviceMesh, init_device_mesh

SEED = 11
SIZE = int(sys.argv[1])
CASES: list[Callable[[], None]] = []


def case(test: Callable[[], None]) -> Callable[[], None]:
    CASES.append(test)
    return test


def world(*lengths: int) -> DeviceMesh:
    return init_device_mesh("cpu", lengths, mesh_dim_names=("dp", "tp")[: len(lengths)])


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
