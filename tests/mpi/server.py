"""Workers and servers against one process: the argument names the case; workers compare with a serial run."""

import atexit
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from mpi4py import MPI

import numparam
from numparam import Cell, Embedding, EmbeddingLookup, Parameter, load_checkpoint
from numparam.communication import comm_func, create_group, get_rank, init, release, ring
from numparam.communication.ring import Ring
from numparam.embedding import load_table
from numparam.initializer import Normal, initializer
from numparam.optim import SGD, Adam, Momentum
from numparam.server import ParameterServer, messages, set_ps_context
from numparam.server.division import owners
from numparam.server.service import check_one_save

DIM, BATCH = 8, 30
messages._PIECE_BYTES = 100  # three rows, so that everything travels in pieces
ROWS = partial(Adam, learning_rate=0.1)


class Net(Cell):
    def __init__(self, **options):
        super().__init__()
        self.items = EmbeddingLookup(None, DIM, **{"param_init": Normal(), "optimizer": ROWS, **options})
        self.weight = Parameter(initializer(Normal(), (7, DIM)))
        self.bias = Parameter(initializer("ones", (3,)))
        self.own = Parameter(initializer("zeros", (2,)))

    def serve(self, in_server=True, **options):
        for parameter in (self.items.embedding_table, self.weight, self.bias):
            parameter.set_param_ps(in_server)
        return ParameterServer(self, **{"optimizer": momentum, **options})


class Foreign:
    """Be an array of another library."""

    def __init__(self, array):
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


def momentum(parameters):
    return Momentum(parameters, 0.1, 0.9)


def batch(step: int, worker: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a worker brings in a step: some keys are common, most are of any size."""
    rng = np.random.default_rng([step, worker])
    keys = np.concatenate([rng.integers(0, 40, BATCH // 2), rng.integers(-(2**63), 2**63 - 1, BATCH // 2)])
    return keys, rng.normal(size=(BATCH, DIM)).astype(np.float32)


def dense(step: int, worker: int) -> list[np.ndarray]:
    rng = np.random.default_rng([step, worker, 1])
    return [rng.normal(size=shape).astype(np.float32) for shape in ((7, DIM), (3,))]


def serial(steps: int, workers: int, servers: int = 1, place: int = 0, **options) -> Embedding:
    """Return the table of one process, or what one of several servers has of it."""
    options = {"init": Normal(), "optimizer": ROWS, **options}
    table = Embedding(None, DIM, name="items.embedding_table", seed=7, **options)
    for step in range(steps):
        parts = [batch(step, worker) for worker in range(workers)]
        keys, rows = (np.concatenate([part[which] for part in parts]) for which in (0, 1))
        mine = owners(keys, servers) == place
        table.update(keys[mine], np.trunc(rows[mine]) if options["optimizer"] is None else rows[mine])
    return table


def serial_dense(steps: int, workers: int) -> Net:
    numparam.set_seed(7)
    alone = Net()
    optimizer = momentum([alone.weight, alone.bias])
    for step in range(steps):
        parts = [dense(step, worker) for worker in range(workers)]
        optimizer([sum(grads[1:], grads[0]) for grads in zip(*parts, strict=True)])
    return alone


def check_snapshots(folder: Path, steps: int, workers: int, servers: int, is_asynchronous: bool = False) -> None:
    """Compare what servers saved with a serial replay."""
    files = [folder / f"snapshot-{place}-of-{servers}.safetensors" for place in range(servers)]
    for place, file in enumerate(files):
        options = {"optimizer": None, "init": "zeros"} if is_asynchronous else {"max_rows": 400}
        expected, found = (serial(count, workers, servers, place, **options) for count in (steps, 0))
        load_table(found, [file])
        assert found.step == steps * (workers if is_asynchronous else 1), (found.step, steps)
        for a, b in list(zip(found.export(), expected.export(), strict=True))[: 2 if is_asynchronous else 3]:
            assert a.shape == b.shape
            assert (a == b).all()
    check_one_save({str(file): load_checkpoint(file) for file in files})
    assert "snapshot.save" in load_checkpoint(files[0])
    if not is_asynchronous:
        alone, contents = serial_dense(steps, workers), [load_checkpoint(file) for file in files]
        for parameter in (alone.weight, alone.bias):
            found = np.concatenate([content[parameter.name].asnumpy() for content in contents])
            assert (found == parameter.asnumpy()).all(), parameter.name


def equals_serial(in_server: str, cache_rows: str) -> None:
    net = Net(vocab_cache_size=int(cache_rows))
    if not int(cache_rows):
        ring.SLOT_BYTES = 24  # less than a row
    if get_rank() == 1:
        net.bias.set_data(np.full(3, 9.0, np.float32))  # the values of worker 0 count, or what servers generate
    job = net.serve(in_server == "True")
    if job.role == "server":
        job.run()
        return
    worker, workers = get_rank(), len(job.workers)
    create_group("workers", list(job.workers))
    for step in range(5):
        keys, rows = batch(step, worker)
        expected = serial(step, workers)
        for ids in (keys, batch(max(0, step - 1), worker)[0], np.arange(20)):
            assert (net.items(ids) == expected.find(ids)).all(), (step, worker)
        net.items.prefetch(batch(step + 1, worker)[0])
        net.items.update(keys, rows)
        weight, bias = dense(step, worker)
        job.push([Foreign(weight), numparam.Tensor(bias)])
        total = comm_func.all_reduce(np.ones(2, np.float32), group="workers")  # a parameter without servers
        assert total.tolist() == [workers] * 2
    job.pull()
    alone = serial_dense(5, workers)
    assert (net.weight.asnumpy() == alone.weight.asnumpy()).all()
    assert (net.bias.asnumpy() == alone.bias.asnumpy()).all()
    if counters := net.items.cache and net.items.cache.counters:
        assert min(counters[name] for name in ("hits", "misses", "evicted", "forgotten", "updated")) > 0, counters
    else:
        assert job.counters["distinct_ids"] < job.counters["ids"]
        net.items.embedding_table.unique = False
        assert (net.items([5, 5]) == serial(5, workers).find([5, 5])).all()
        sent = job.counters["ids"] - job.counters["distinct_ids"]
        net.items([5, 5])
        assert job.counters["ids"] - job.counters["distinct_ids"] == sent
    job.end()
    print("equal")


def is_asynchronous(bound: str, cache_rows: str) -> None:
    """Let worker 1 be slow; sums of integers are exact in any order."""
    net = Net(optimizer=None, param_init="zeros", vocab_cache_size=int(cache_rows))
    job = net.serve(optimizer=lambda parameters: SGD(parameters, 1.0))
    if job.role == "server":
        job.run()
        assert 0 < job.counters["staleness"] <= int(bound)
        return
    create_group("workers", list(job.workers))
    for step in range(12):
        net.items(batch(step, get_rank())[0])
        if get_rank() == 1:
            time.sleep(0.01)
        net.items.update(np.arange(40), np.full((40, DIM), 1 + get_rank(), np.float32))
        job.push([np.ones(shape, np.float32) for shape in ((7, DIM), (3,))])
    comm_func.barrier("workers")
    expected = 12 * sum(1 + worker for worker in job.workers)
    assert (net.items(np.arange(40)) == expected).all() or int(cache_rows)  # a cache is as new as the last update
    job.pull()
    assert (net.bias.asnumpy() == 1 - 12 * len(job.workers)).all()
    assert job.counters["staleness"] <= int(bound)
    if get_rank() == 0:
        assert job.counters["waits"] > 0
    job.end()
    print("exact")


def reads_ahead() -> None:
    """Read ahead from a server that is stopped, as one that is busy."""
    server = MPI.COMM_WORLD.bcast(os.getpid(), root=1)
    net = Net(vocab_cache_size=50)
    job = net.serve()
    if job.role == "server":
        job.run()
        return
    keys, rows = batch(0, 0)
    net.items.update(keys, rows)
    os.kill(server, signal.SIGSTOP)
    net.items.prefetch(keys)
    os.kill(server, signal.SIGCONT)
    assert (net.items(keys) == serial(1, 1).find(keys)).all()
    assert net.items.cache.counters["prefetched"] == np.unique(keys).size
    job.end()
    print("ahead")


def goes_on(folder: str, steps: str, way: str, rank: str) -> None:
    """Train until some step, from where the servers are, and note every step that was acknowledged."""
    bound = numparam.server.get_ps_context("staleness")
    options = {"max_rows": 400} if bound is None else {"optimizer": None, "param_init": "zeros"}
    net = Net(**options)
    job = net.serve(path=folder)
    chance = random.Random(os.getpid())
    if way == "within" and get_rank() == int(rank):
        end_within_transfer(signal.SIGKILL, chance.randint(1, 400))
    elif way != "none" and get_rank() == int(rank):  # at any instant, also within a call
        after = f"sleep {chance.uniform(0, 0.8):.3f}; kill -{way.upper()} {os.getpid()}"
        # Not after the job: MPI ends a process when all have come to their end, and waits for one that is stopped.
        atexit.register(subprocess.Popen(["sh", "-c", after]).kill)
    if job.role == "server":
        job.run()
        return
    step, dense_step = job.step(), job.step(None)
    for current in range(min(step, dense_step), int(steps)):
        keys, rows = batch(current, get_rank())
        time.sleep(chance.uniform(0, 0.004))  # workers come in any order
        if current >= step:
            net.items(keys)
            net.items.update(keys, rows if bound is None else np.trunc(rows))
        if current >= dense_step:
            job.push(dense(current, get_rank()))
        with (Path(folder) / f"acknowledged-{get_rank()}").open("a") as file:
            file.write(f"{current + 1}\n")
    job.save()
    job.end()


def disagrees() -> None:
    net = Net()
    job = net.serve()
    if job.role == "server":
        job.run()
    elif get_rank():
        job.save()
    else:
        net.items.update([1], np.ones((1, DIM), np.float32))


def is_silent() -> None:
    net = Net()
    job = net.serve()
    if job.role == "server":
        job.run()
    elif get_rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        net.items.update([1], np.ones((1, DIM), np.float32))
        net.items.update([1], np.ones((1, DIM), np.float32))


def end_within_transfer(sign: int, pieces: int) -> None:
    """Send this process a signal when so many pieces have gone through its rings."""
    leave, left = Ring.leave, count(pieces - 1, -1)

    def counted(ring):
        leave(ring)
        if not next(left):
            os.kill(os.getpid(), sign)

    Ring.leave = counted


def ends_within(rank: str, sign: str, pieces: str) -> None:
    net = Net()
    job = net.serve()
    if get_rank() == int(rank):
        end_within_transfer(int(sign), int(pieces))
    if job.role == "server":
        job.run()
    else:
        net.items.update(*batch(0, get_rank()))
        net.items(batch(0, get_rank())[0])


if __name__ == "__main__":
    case, servers, staleness, timeout, *arguments = sys.argv[1:]
    numparam.set_seed(7)
    set_ps_context(enable_ps=True, server_num=int(servers), staleness=None if staleness == "none" else int(staleness))
    init(timeout=60)
    if case in ("is_silent", "ends_within"):  # on a busy machine kernels take seconds to load
        serial(1, 1)
        comm_func.barrier()
    init(timeout=float(timeout))
    globals()[case](*arguments)
    release()
