"""Time what ranks do together, beside what plain MPI takes: ``mpiexec -n 2 python asv_bench/ranks.py``.

In a round everything is called once, in turn, so a machine that slows down slows all of it; the best of the rounds
counts. Rank 0 prints. More ranks than cores measure the scheduler.
"""

import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

import numparam
from numparam import Parameter
from numparam.communication import comm_func, get_group_size, get_rank, init
from numparam.parallel import DistributedGradReducer, broadcast_parameters, check_agreement

ROUNDS = 12
GRADIENTS, BYTES = 32, 64 << 20
MODEL_BYTES = 90_000_000


def reducer(dtype: str) -> Callable[[], object]:
    """Reduce 64 MiB of gradients, 32 of them, in fused buckets."""
    kind = numparam.dtypes.as_dtype(dtype)
    gradients = [np.ones(BYTES // GRADIENTS // kind.itemsize, kind) for _ in range(GRADIENTS)]
    parameters = [Parameter(gradient, name=f"p{place}") for place, gradient in enumerate(gradients)]
    reduce = DistributedGradReducer(parameters, mean=True)
    return lambda: reduce(gradients)


def small_gradients(comm_fusion: int) -> Callable[[], object]:
    """Reduce 100 gradients of 4 kB, fused or not."""
    gradients = [np.ones(1000, np.float32) for _ in range(100)]
    parameters = [Parameter(gradient, name=f"p{place}") for place, gradient in enumerate(gradients)]
    for parameter in parameters:
        parameter.comm_fusion = comm_fusion
    reduce = DistributedGradReducer(parameters)
    return lambda: reduce(gradients)


def main() -> None:
    init()
    plain, out = np.ones(BYTES // 4, np.float32), np.empty(BYTES // 4, np.float32)
    model = [
        Parameter(np.full(MODEL_BYTES // 4 // 60, get_rank(), np.float32), name=f"m{place}") for place in range(60)
    ]
    calls: dict[str, Callable[[], object]] = {
        "MPI.Allreduce, 64 MiB of float32": lambda: MPI.COMM_WORLD.Allreduce(plain, out),
        "gradients, 64 MiB of float32": reducer("float32"),
        "gradients, 64 MiB of bfloat16": reducer("bfloat16"),
        "100 gradients of 4 kB, fused": small_gradients(1),
        "100 gradients of 4 kB, not fused": small_gradients(0),
        "broadcast of a model of 90 MB": lambda: broadcast_parameters(model),
        "comparison of a model of 90 MB": lambda: check_agreement(model),
        "barrier": comm_func.barrier,
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            MPI.COMM_WORLD.Barrier()
            start = time.perf_counter()
            call()
            MPI.COMM_WORLD.Barrier()
            best[name] = min(best[name], time.perf_counter() - start)
    if get_rank() == 0:
        print(f"{get_group_size()} ranks; {MPI.Get_library_version().splitlines()[0]}; best of {ROUNDS}")
        for name, seconds in best.items():
            rate = f"  {BYTES / seconds / 1e9:.2f} GB/s" if "64 MiB" in name else ""
            print(f"{name:36} {seconds * 1e3:9.2f} ms{rate}")


if __name__ == "__main__":
    main()
