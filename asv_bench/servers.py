"""Time pushes to a server against an MPI send of as many bytes: ``mpiexec -n 2 python asv_bench/servers.py``.

Prints medians of a dense parameter of 16 MiB with SGD, and of 65,536 rows of 64 float32 of a table. Gradients are
written just before each call, as a step of training does, for the send too.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI

from numparam import Cell, EmbeddingLookup, Parameter
from numparam.communication import init, release
from numparam.initializer import Normal, initializer
from numparam.optim import SGD
from numparam.server import ParameterServer, set_ps_context

ROWS, DIM, ROUNDS = 1 << 16, 64, 15
OPTIMIZER = partial(SGD, learning_rate=0.1)


def median(call: Callable[[], object], gradient: np.ndarray[Any, Any]) -> float:
    """Return the seconds of a call, after gradients were written."""
    times = []
    for _ in range(ROUNDS):
        gradient.fill(1.0)
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Be the server or the worker."""
    set_ps_context(enable_ps=True, server_num=1)
    init()
    net = Cell()
    net.weight = Parameter(initializer(Normal(), (ROWS, DIM)))
    net.items = EmbeddingLookup(None, DIM, optimizer=OPTIMIZER)
    net.cached = EmbeddingLookup(None, DIM, optimizer=OPTIMIZER, vocab_cache_size=ROWS)
    net.set_param_ps(init_in_server=True)
    job = ParameterServer(net, OPTIMIZER)
    gradient, answer = np.ones((ROWS, DIM), np.float32), np.empty(1)
    if job.role == "server":
        job.run()
        for _ in range(ROUNDS):
            MPI.COMM_WORLD.Recv(gradient, 0)
            MPI.COMM_WORLD.Send(answer, 0)
    else:
        keys = np.random.default_rng(0).permutation(2 * ROWS)[:ROWS]
        times = {
            "push of a parameter": median(lambda: job.push([gradient]), gradient),
            "update of rows": median(lambda: net.items.update(keys, gradient), gradient),
            "lookup of rows": median(lambda: net.items(keys), gradient),
            "lookup of rows in the cache": median(lambda: net.cached(keys), gradient),
        }
        job.end()
        sent = median(lambda: (MPI.COMM_WORLD.Send(gradient, 1), MPI.COMM_WORLD.Recv(answer, 1)), gradient)
        for name, seconds in {"MPI send": sent, **times}.items():
            print(
                f"{name:<28}{seconds * 1e3:7.2f} ms {gradient.nbytes / seconds / 1e9:6.2f} GB/s {sent / seconds:5.2f}"
            )
    release()


if __name__ == "__main__":
    main()
