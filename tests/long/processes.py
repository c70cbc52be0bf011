"""Generate values in 16 threads, in forked and spawned processes, and while the interpreter ends."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numparam
from numparam import Parameter, load_checkpoint, save_checkpoint
from numparam.initializer import initializer
from numparam.kernels.machine import pool

FULL, LEAST = 4_000, 4
LINE = """{threads} races of 16 threads, {fork} forks during fills, {spawn} spawned processes and {ends} ends of an
interpreter (threads, atexit, SIGINT, SIGTERM): the same bits, the right status, nothing else on standard error"""
THREADS, SECONDS = 16, 120
numparam.set_seed(7)  # in spawned processes too
INITS = ("normal", "uniform", "truncated_normal", "xavier_uniform", "orthogonal", "zeros")
SHAPE = (96, 700)
# An interpreter that has imported everything forks one that ends, which takes a hundredth of the time of a new one.
PROGRAM = """
import atexit, os, signal, sys, threading, time
import numparam
from numparam.initializer import initializer
initializer("normal", (1, 8)).asnumpy()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore it
while True:
    if not (request := os.read(0, 65536)):
        os._exit(0)
    way, path, seed, out, err = request.decode().splitlines()
    child = os.fork()
    if child == 0:
        for descriptor, file in enumerate((os.devnull, out, err)):
            os.dup2(os.open(file, os.O_RDWR), descriptor)
        break
    os.write(1, b"%d\\n" % child)
    _, status = os.waitpid(child, 0)
    os.write(1, b"%d\\n" % os.waitstatus_to_exitcode(status))
lazy = [numparam.Parameter(initializer("normal", (300, 2000)), name=str(i)) for i in range(4)]
def save():
    numparam.save_checkpoint(lazy, path)
def late():
    threading.main_thread().join()
    save()
def fill():
    while True:
        numparam.Tensor(lazy[0]).asnumpy()
def many(daemon):
    for _ in range(4):
        threading.Thread(target=fill, daemon=daemon).start()
if way == "atexit":
    atexit.register(save)
elif way == "late thread":
    threading.Thread(target=late).start()
elif way == "asynchronous":
    numparam.save_checkpoint(lazy, path, async_save=True)
else:
    save()
    many(True)
    time.sleep(float(seed) / 50)
    if way == "exit":
        sys.exit(3)
    print("ready", flush=True)
    fill()
"""
STATUS = {"atexit": 0, "late thread": 0, "asynchronous": 0, "exit": 3, "SIGINT": -signal.SIGINT,
          "SIGTERM": -signal.SIGTERM}  # fmt: skip


def drawn(number: int, shape: tuple[int, ...] = SHAPE) -> bytes:
    init = INITS[number % len(INITS)]
    return Parameter(initializer(init, shape), name=f"w{number}").asnumpy().tobytes()


def expected(number: int) -> bytes:
    """Return what one thread draws."""
    before, count = pool.get_num_threads(), 1
    numparam.set_num_threads(count)
    try:
        return drawn(number)
    finally:
        numparam.set_num_threads(before)


def in_threads(number: int, chance: random.Random, folder: Path) -> None:
    """Draw what others draw, and touch one lazy parameter, all at once."""
    right, one, found, start = expected(number), Parameter(initializer("normal", SHAPE), name="one"), [], []
    line = threading.Barrier(THREADS)

    def work(own: int) -> None:
        line.wait()
        if own % 4 == 3:
            save_checkpoint({"a": one}, folder / f"{own}")
        start.append(one.asnumpy().tobytes())
        found.append(drawn(number))

    threads = [threading.Thread(target=work, args=(own,)) for own in range(THREADS)]
    numparam.set_num_threads(chance.choice((1, 2, 7)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(found) == THREADS, "a thread did not end well"
    assert set(found) == {right}
    assert len(set(start)) == 1
    assert {load_checkpoint(folder / f"{own}.safetensors")["a"].asnumpy().tobytes() for own in (3, 7)} == set(start)


def in_forks(number: int, chance: random.Random, folder: Path) -> None:
    """Fork while threads draw and save; the child draws, saves and ends."""
    right, stop = expected(number), threading.Event()

    def work(own: int) -> None:
        while not stop.is_set():
            drawn(number + own)
            save_checkpoint({"a": drawn.__name__, "b": Parameter([1.0], name="b")}, folder / f"fork{own}")

    threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(chance.uniform(0, 0.02))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            save_checkpoint([Parameter(initializer("normal", SHAPE), name="one")], folder / "child")
            status = 0 if drawn(number) == right else 2
        finally:
            os._exit(status)
    stop.set()
    end = time.monotonic() + SECONDS
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < end:
        time.sleep(0.002)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
    for thread in threads:
        thread.join(SECONDS)
    assert ended == (child, 0), f"the forked child ended with {ended}"


def in_spawned(number: int, _chance: random.Random, _folder: Path) -> None:
    """Draw in a pool of processes that begin anew."""
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        assert workers.apply_async(drawn, (number,)).get(SECONDS) == expected(number)


@cache
def server() -> subprocess.Popen[str]:
    """Start what forks interpreters."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def at_the_end(number: int, chance: random.Random, folder: Path) -> None:
    """End an interpreter while its threads draw, or save when it has ended."""
    way, path, out, err = list(STATUS)[number // 3 % len(STATUS)], folder / "end", folder / "out", folder / "err"
    err.write_text("")
    out.unlink(missing_ok=True)
    os.mkfifo(out)
    stream = os.open(out, os.O_RDWR)
    server().stdin.write(f"{way}\n{path}\n{chance.random()}\n{out}\n{err}\n")
    server().stdin.flush()
    child = int(server().stdout.readline())
    if way.startswith("SIG"):
        ready = b""
        while len(ready) < 6:
            ready += os.read(stream, 6 - len(ready))
        assert ready == b"ready\n", ready
        time.sleep(chance.uniform(0, 0.05))
        os.kill(child, signal.Signals[way])
    os.close(stream)
    status, said = int(server().stdout.readline()), err.read_text()
    interrupted = way == "SIGINT"
    assert said.count("Traceback") == interrupted, said
    assert bool(said) == said.endswith("\nKeyboardInterrupt\n") == interrupted, said
    assert status == STATUS[way], f"{way}: {status}"
    found = load_checkpoint(f"{path}.safetensors")
    assert found["0"].asnumpy().shape == (300, 2000)
    Path(f"{path}.safetensors").unlink()


KINDS: dict[str, Callable[[int, random.Random, Path], None]] = {
    "threads": in_threads, "fork": in_forks, "ends": at_the_end, "spawn": in_spawned,
}  # fmt: skip
SPAWN_EVERY = 20


def prove(count: int, seed: int, folder: Path) -> Counter[str]:
    """Draw `count` times in one of the ways; raise for the first value, status or message that is not right."""
    chance, counts = random.Random(seed), Counter[str]()
    os.fsync = os.fstat  # type: ignore[assignment]
    for number in range(count):
        kind = "spawn" if number % SPAWN_EVERY == 0 else list(KINDS)[number % 3]
        KINDS[kind](number + seed % 2 * len(KINDS), chance, folder)
        counts[kind] += 1
    return counts
