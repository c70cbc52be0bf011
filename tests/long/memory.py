"""Load, generate, compute and save under limits of memory: it is done or refused, and works once there is memory."""

from __future__ import annotations

import os
import random
import resource
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import numparam
from numparam import Parameter, Tensor, load_checkpoint, save_checkpoint
from numparam.errors import NumparamError
from numparam.initializer import initializer
from savers import KINDS, number_in, stems

FULL, LEAST = 5_000, 12
LINE = """{tries} tries of {kinds} kinds with 0 to 96 MiB of memory left, {done} done, {refused} refused by a
MemoryError or an error of numparam; each was right afterwards with all memory, no checkpoint was lost, no file left"""
MOST, SECONDS = 96 << 20, 300
ACTIONS: dict[str, Callable[[int], object]] = {
    "normal": lambda n: Parameter(initializer("normal", (n, 256)), name="a").asnumpy().sum(),
    "orthogonal": lambda n: Parameter(initializer("orthogonal", (n // 16, 128)), name="a")[3:5].asnumpy().sum(),
    "sparse": lambda n: Parameter(initializer(numparam.initializer.Sparse(0.5), (n, 64)), name="a").asnumpy().sum(),
    "cast": lambda n: Parameter(initializer("normal", (n, 256)), name="a").astype(numparam.float64).asnumpy().sum(),
    "arithmetic": lambda n: (Tensor(np.ones((n, 256), np.float32)) * 2 + 1).asnumpy().sum(),
    "slices": lambda n: Tensor(np.ones((n, 256), np.float32))[::3, ::-1].asnumpy().sum(),
}


def limited(left: int, work: Callable[[], object]) -> tuple[int, object]:
    """Do something in a forked process that can take so many bytes more; return 0 if it was done, 3 if refused."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(SECONDS)
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (size + left, most))
            try:
                first: object = work()
                status = 0
            except (MemoryError, NumparamError):
                first, status = None, 3
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            second = work()
            if status == 0 and first != second:
                status = 4
            os.write(sending, repr(second).encode())
        except BaseException:
            os.write(sending, traceback.format_exc().encode())
        finally:
            os._exit(status if status != 1 else 1)
    os.close(sending)
    said = b"".join(iter(lambda: os.read(receiving, 1 << 16), b"")).decode()
    os.close(receiving)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def prove(count: int, seed: int, folder: Path) -> Counter[str]:
    """Try `count` times; raise for the first that crashes, hangs, or is wrong once there is memory."""
    chance, counts = random.Random(seed), Counter[str](tries=count)
    os.fsync = os.fstat  # type: ignore[assignment]
    for kind in KINDS:
        (folder / kind).mkdir()
        KINDS[kind](folder / kind / "m", 1)
    save_checkpoint({"w": np.ones((4096, 1024), np.float32)}, folder / "large")
    ACTIONS["load"] = lambda n: load_checkpoint(folder / "large.safetensors")["w"][: n // 8].asnumpy().sum()
    for action in ACTIONS.values():
        action(1 << 14)  # loads the kernels of each way
    names = [*ACTIONS, *KINDS]
    counts["kinds"] = len(names)
    for number in range(count):
        name, left, rows = names[number % len(names)], int(MOST * chance.random() ** 2), chance.randrange(16, 1 << 15)
        if name in ACTIONS:
            status, said = limited(left, lambda name=name, rows=rows: str(ACTIONS[name](rows)))
        else:
            path = folder / name / "m"
            expected = len(stems(path.parent))
            status, said = limited(left, lambda name=name, path=path: KINDS[name](path, 2) and None)
            assert number_in(path, name) == 2, f"{name}, {left} bytes left: {said}"
            assert len(stems(path.parent)) == expected, stems(path.parent)
            KINDS[name](path, 1)
        assert status in (0, 3), f"{name} of {rows} rows, {left} bytes left: it ended with {status}: {said}"
        counts["done" if status == 0 else "refused"] += 1
    return counts
