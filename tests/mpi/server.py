"""Workers and servers against one process: the argument names the case; workers compare with a serial run."""

import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

import numparam
from numparam import Cell, Embedding, EmbeddingLookup, Parameter
from numparam.communication import comm_func, create_group, get_rank, init, release
from numparam.initializer import Normal, initializer
from numparam.optim import Adam, Momentum
from numparam.server import ParameterServer, set_ps_context

DIM, BATCH = 8, 30
ROWS = partial(Adam, learning_rate=0.1)


class Net(Cell):
    def __init__(self, **options):
        super().__init__()
        self.items = EmbeddingLookup(None, DIM, Normal(), optimizer=ROWS, **options)
        self.weight = Parameter(initializer(Normal(), (7, DIM)))
        self.bias = Parameter(initializer("ones", (3,)))
        self.own = Parameter(initializer("zeros", (2,)))


def batch(step: int, worker: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a worker brings in a step: some keys are common, most are of any size."""
    rng = np.random.default_rng([step, worker])
    keys = np.concatenate([rng.integers(0, 40, BATCH // 2), rng.integers(-(2**63), 2**63 - 1, BATCH // 2)])
    return keys, rng.normal(size=(BATCH, DIM)).astype(np.float32)


def dense(step: int, worker: int) -> list[np.ndarray]:
    rng = np.random.default_rng([step, worker, 1])
    return [rng.normal(size=shape).astype(np.float32) for shape in ((7, DIM), (3,))]


def joined(step: int, workers: int) -> tuple[np.ndarray, np.ndarray]:
    parts = [batch(step, worker) for worker in range(workers)]
    return np.concatenate([keys for keys, _ in parts]), np.concatenate([rows for _, rows in parts])


def serial(steps: int, workers: int, **options) -> Embedding:
    table = Embedding(None, DIM, name="items.embedding_table", init=Normal(), seed=7, optimizer=ROWS, **options)
    for step in range(steps):
        table.update(*joined(step, workers))
    return table


def equals_serial(in_server: str) -> None:
    net = Net()
    for parameter in (net.items.embedding_table, net.weight, net.bias):
        parameter.set_param_ps(in_server == "True")
    if get_rank() == 1:
        net.bias.set_data(np.full(3, 9.0, np.float32))  # the values of worker 0 count, or what servers generate
    job = ParameterServer(net, lambda parameters: Momentum(parameters, 0.1, 0.9))
    if job.role == "server":
        job.run()
        return
    worker, workers = get_rank(), len(job.workers)
    create_group("workers", list(job.workers))
    for step in range(4):
        keys, rows = batch(step, worker)
        expected = serial(step, workers)
        assert (net.items(keys) == expected.find(keys)).all()
        net.items.update(keys, rows)
        job.push(dense(step, worker))
        total = comm_func.all_reduce(np.ones(2, np.float32), group="workers")  # a parameter without servers
        assert total.tolist() == [workers] * 2
    job.pull()
    numparam.set_seed(7)
    alone = Net()
    optimizer = Momentum([alone.weight, alone.bias], 0.1, 0.9)
    for step in range(4):
        parts = [dense(step, other) for other in range(workers)]
        optimizer([sum(grads[1:], grads[0]) for grads in zip(*parts, strict=True)])
    assert (net.weight.asnumpy() == alone.weight.asnumpy()).all()
    assert (net.bias.asnumpy() == alone.bias.asnumpy()).all()
    assert job.counters["distinct_ids"] < job.counters["ids"]
    job.end()
    print("equal")


def goes_on(folder: str, steps: str, kills: str) -> None:
    """Train until some step, from where the servers are, and print every step that was acknowledged."""
    net = Net(path=None, max_rows=400)
    net.items.embedding_table.set_param_ps(True)
    job = ParameterServer(net, path=folder)
    chance = random.Random(os.getpid())
    if job.role == "server":
        if kills == "server":
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.1, 0.6))
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        job.run()
        return
    step = job.step()
    while step < int(steps):
        keys, rows = batch(step, get_rank())
        time.sleep(chance.uniform(0, 0.004))  # workers come in any order
        net.items(keys)
        if kills == "worker" and get_rank() == 1 and chance.random() < 0.05:
            os.kill(os.getpid(), signal.SIGKILL)
        if kills == "stop" and get_rank() == 1 and chance.random() < 0.05:
            os.kill(os.getpid(), signal.SIGSTOP)
        net.items.update(keys, rows)
        step += 1
        if get_rank() == 0:
            with (Path(folder) / "acknowledged").open("a") as file:
                file.write(f"{step}\n")
    job.save()
    job.end()


def disagrees() -> None:
    net = Net()
    net.items.embedding_table.set_param_ps(True)
    job = ParameterServer(net)
    if job.role == "server":
        job.run()
    elif get_rank():
        net.items([1])
    else:
        net.items.update([1], np.ones((1, DIM), np.float32))


def is_silent() -> None:
    net = Net()
    net.items.embedding_table.set_param_ps(True)
    job = ParameterServer(net)
    if job.role == "server":
        job.run()
    elif get_rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        net.items([1])


if __name__ == "__main__":
    case, servers, timeout, *arguments = sys.argv[1:]
    numparam.set_seed(7)
    set_ps_context(enable_ps=True, server_num=int(servers))
    init(timeout=float(timeout))
    globals()[case](*arguments)
    release()
