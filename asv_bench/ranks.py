"""Time what ranks do together against MPI's own: ``python asv_bench/ranks.py [COUNT ...]``, by default 2 to 32 ranks.

Starts itself with mpiexec for each number of ranks and prints a Markdown table. In a round everything is called in
turn, so a machine that slows down slows all of it; the ratio is of the medians over the rounds. More ranks than cores
measure how well they share them.
"""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

COUNTS = (2, 4, 8, 16, 32)
GRADIENTS, BYTES = 32, 64 << 20
MODEL_BYTES = 90_000_000
ROUNDS = 12

Call = Callable[[], object]


def collectives() -> list[tuple[str, Call, Call]]:
    """Return what is compared: a title, MPI's call and that of numparam."""
    from mpi4py import MPI

    from numparam.communication import comm_func

    world = MPI.COMM_WORLD.Dup()
    rows: list[tuple[str, Call, Call]] = [("barrier", world.Barrier, comm_func.barrier)]
    for title, size in (("8 B", 2), ("4 KiB", 1 << 10), ("64 KiB", 1 << 14), ("1 MiB", 1 << 18), ("16 MiB", 1 << 22)):
        values, out = np.ones(size, np.float32), np.empty(size, np.float32)
        rows.append(
            (
                f"all_reduce, {title}",
                lambda values=values, out=out: world.Allreduce(values, out),
                lambda values=values: comm_func.all_reduce(values),
            )
        )
    return rows


def training() -> list[tuple[str, Call]]:
    """Return what a training loop calls, which MPI alone does not have."""
    import numparam
    from numparam import Parameter
    from numparam.communication import get_rank
    from numparam.parallel import DistributedGradReducer, broadcast_parameters, check_agreement

    def reducer(count: int, size: int, dtype: str, comm_fusion: int = 1) -> Call:
        gradients = [np.ones(size, numparam.dtypes.as_dtype(dtype)) for _ in range(count)]
        parameters = [Parameter(gradient, name=f"p{place}") for place, gradient in enumerate(gradients)]
        for parameter in parameters:
            parameter.comm_fusion = comm_fusion
        reduce = DistributedGradReducer(parameters, mean=True)
        return lambda: reduce(gradients)

    values = [np.full(MODEL_BYTES // 4 // 60, get_rank(), np.float32) for _ in range(60)]
    model = [Parameter(value, name=f"m{place}") for place, value in enumerate(values)]
    return [
        ("gradients, 64 MiB of float32", reducer(GRADIENTS, BYTES // GRADIENTS // 4, "float32")),
        ("gradients, 64 MiB of bfloat16", reducer(GRADIENTS, BYTES // GRADIENTS // 2, "bfloat16")),
        ("100 gradients of 4 kB, fused", reducer(100, 1000, "float32")),
        ("100 gradients of 4 kB, not fused", reducer(100, 1000, "float32", 0)),
        ("broadcast of a model of 90 MB", lambda: broadcast_parameters(model)),
        ("comparison of a model of 90 MB", lambda: check_agreement(model)),
    ]


def measure(calls: list[Call], rounds: int, enough: float) -> list[float]:
    """Return the median seconds of each call over rounds, each of as many repetitions as take some seconds."""
    from mpi4py import MPI

    found: list[list[float]] = [[] for _ in calls]
    repetitions = [0] * len(calls)
    for round_ in range(rounds + 1):
        for place, call in enumerate(calls):
            if not round_:
                call()  # compiles, or makes what is kept
            MPI.COMM_WORLD.Barrier()
            start = time.perf_counter()
            for _ in range(repetitions[place] or 1):
                call()
            took = MPI.COMM_WORLD.allreduce(time.perf_counter() - start, MPI.MAX)
            if round_:
                found[place].append(took / repetitions[place])
            else:  # a first guess
                repetitions[place] = min(max(int(enough / took), 1), 200)
    return [statistics.median(times) for times in found]


def main_of_a_rank() -> None:
    """Measure and let rank 0 print its rows of the table."""
    from numparam.communication import get_group_size, get_rank, init

    init()
    ranks, rows = get_group_size(), collectives()
    rounds = ROUNDS if ranks <= 8 else 5
    seconds = measure([call for _, *pair in rows for call in pair], rounds, 0.02)
    if get_rank() == 0:
        for (title, *_), mpi, own in zip(rows, seconds[::2], seconds[1::2], strict=True):
            print(f"| {ranks} | {title} | {mpi * 1e3:.3f} | {own * 1e3:.3f} | {own / mpi:.2f} |", flush=True)
    if ranks == 2:
        others = training()
        for (title, _), took in zip(others, measure([call for _, call in others], 5, 0.02), strict=True):
            if get_rank() == 0:
                print(f"| {ranks} | {title} | | {took * 1e3:.3f} | |", flush=True)


def main() -> None:
    """Start the ranks, and print a table."""
    from mpi4py import MPI

    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python ", end="")
    print(f"{platform.python_version()}, {MPI.Get_library_version().split('Release')[0].split()[2]} of MPICH")
    print("\n| ranks | operation | MPI, ms | numparam, ms | ratio |\n| ---: | --- | ---: | ---: | ---: |", flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMPARAM_NUM_THREADS": "1"}
    mpiexec = Path(sys.executable).parent / "mpiexec"
    for count in map(int, sys.argv[1:] or COUNTS):
        command = [str(mpiexec), "-n", str(count), sys.executable, __file__]
        subprocess.run(command, env=environment | {"NUMPARAM_BENCHED_RANKS": str(count)}, check=True)


if __name__ == "__main__":
    if "NUMPARAM_BENCHED_RANKS" in os.environ:
        main_of_a_rank()
    else:
        main()
