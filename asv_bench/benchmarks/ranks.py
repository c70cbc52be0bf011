"""Ranks: collectives, gradients and an optimizer on two ranks; `asv_bench/ranks.py` compares with MPI's own."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from .common import Warm, needs

WORKER = """
import sys
import numpy as np
import numparam
from numparam import Parameter, communication
from numparam.communication import comm_func
from numparam.optim import Momentum
from numparam.parallel import DistributedGradReducer, ParallelOptimizer, broadcast_parameters, check_agreement
communication.init()
first = communication.get_rank() == 0
numparam.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True, enable_parallel_optimizer=True)
values = np.ones(2**18, np.float32)
gradients = [values.copy() for _ in range(4)]
model = [Parameter(values.copy(), name=f"p{place}") for place in range(4)]
reduce = DistributedGradReducer(model, mean=True)
others = [Parameter(values.copy(), name=f"q{place}") for place in range(4)]
optimizer = ParallelOptimizer(Momentum(others, 0.02, 0.9))
calls = {
    "barrier": comm_func.barrier,
    "all_reduce": lambda: comm_func.all_reduce(values),
    "all_gather": lambda: comm_func.all_gather_into_tensor(values),
    "broadcast": lambda: broadcast_parameters(model),
    "agreement": lambda: check_agreement(model),
    "gradients": lambda: reduce(gradients),
    "optimizer": lambda: optimizer(gradients),
}
names = list(calls)
while True:
    line = sys.stdin.readline().strip() if first else ""
    asked = int(comm_func.broadcast(np.array([names.index(line) if line else -1]))[0])
    if asked < 0:
        break
    calls[names[asked]]()
    if first:
        print("done", flush=True)
communication.release()
"""


@cache
def started() -> "subprocess.Popen[str]":
    """Start two ranks, once in a process: asv has one for each operation, and `once.py` the same for all.

    They end when the pipe to them closes, with this process.
    """
    here = Path(sys.executable).parent  # where the mpich package puts it
    mpiexec = shutil.which("mpiexec", path=f"{here}{os.pathsep}{os.environ.get('PATH', '')}")
    if mpiexec is None:
        raise NotImplementedError('skipped: no mpiexec, which pip install "numparam[mpi]" brings')
    environment = os.environ | {"NUMPARAM_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [mpiexec, "-n", "2", sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )


class TwoRanks(Warm):
    """Arrays of 1 MiB. A sample includes the question to rank 0 through a pipe, which `barrier` shows."""

    params = ("barrier", "all_reduce", "all_gather", "broadcast", "agreement", "gradients", "optimizer")
    param_names = ("operation",)

    def setup(self, operation: str) -> None:
        needs("mpi4py")
        self.ranks = started()
        self.time_call(operation)

    def time_call(self, operation: str) -> None:
        print(operation, file=self.ranks.stdin, flush=True)
        answer = self.ranks.stdout.readline()  # type: ignore[union-attr]
        assert answer == "done\n", answer
