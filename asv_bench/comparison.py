"""Shared by the comparisons with other libraries: fair rounds, processes with some cores, limits, tables, records."""

import ctypes
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray[Any, Any]
Call = Callable[[], object]
Measured = TypeVar("Measured")

SIGMA = 0.02
LATEST = Path(__file__).parent / "latest"
"""The record of the last run of each comparison, which `standing.py` shows."""


def draws() -> dict[str, Callable[[Any], None]]:
    """Return numparam's fills, each into an array on the host or on a device."""
    from numparam.kernels import fill
    from numparam.kernels.fill import constant

    key = fill.Key(seed=7, stream=1, refinement=2)
    return {
        "uniform": lambda out: fill.uniform(out, key, -1.0, 1.0),
        "normal": lambda out: fill.normal(out, key, 0.0, SIGMA),
        "truncated normal": lambda out: fill.truncated_normal(out, key, 0.0, SIGMA, -2 * SIGMA, 2 * SIGMA),
        "constant": lambda out: constant.fill(out, 1.5),
    }


def seconds_in_fresh_process(statements: str) -> float:
    """Return how long `statements` take in a new interpreter, whose own start is left out."""
    code = f"from time import perf_counter\nstart = perf_counter()\n{statements}\nprint(perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def in_parts(work: Callable[[int, Array], object], out: Array, threads: int) -> Call:
    """Return a call that runs `work(i, part)` on each of `threads` equal parts of `out` at once."""
    if threads == 1:
        return lambda: work(0, out)
    parts = np.array_split(out, threads)
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(work, range(threads), parts))


def memset(out: Array, threads: int) -> Call:
    """Return a call that writes `out` with libc's memset."""
    call = ctypes.CDLL(None).memset
    call.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    return in_parts(lambda _, part: call(part.ctypes.data, 1, part.nbytes), out, threads)


def streaming_fill(out: Array, threads: int) -> Call:
    """Return a call that writes `out` with stores that bypass the caches, which libc's memset may not use."""
    import numba

    from numparam.kernels.machine.memory import stream_word

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator]
    def write(words: Any, word: Any) -> None:
        for at in range(0, words.size // 4 * 4, 4):
            stream_word(words, at, word)

    words = out.view(np.uint64)
    words = words[-words.ctypes.data % 32 // 8 :]
    words = words[: words.size // (4 * threads) * 4 * threads]
    return in_parts(lambda _, part: write(part, np.uint64(1)), words, threads)


LIMITS: Mapping[str, Callable[[Array, int], Call]] = {"memset": memset, "streaming fill": streaming_fill}


def with_limit(speeds: Mapping[str, float]) -> dict[str, float]:
    """Add the limit: the faster of the two ways to write memory."""
    return {**speeds, "limit": max(speeds[name] for name in LIMITS)}


# For a moment after JAX returns, what it left running halves the speed of whoever comes next.
SETTLE_SECONDS = 0.25


def best_seconds(calls: Mapping[str, Call], rounds: int, clock: Callable[[], float] = perf_counter) -> dict[str, float]:
    """Call each contender once to warm up, then all in turn for some rounds; return the best time of each."""
    for call in calls.values():
        call()
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            if "jax" in calls:
                sleep(SETTLE_SECONDS)
            start = clock()
            call()
            best[name] = min(best[name], clock() - start)
    return best


def on_cores(counts: Iterable[int], measure: Callable[..., Measured], *arguments: Any) -> dict[int, Measured]:
    """Call ``measure(threads, *arguments)`` for each thread count in a process that has as many cores."""
    measured = {}
    for threads in counts:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
            measured[threads] = child.submit(_measure_on, threads, measure, *arguments).result()
    return measured


def _measure_on(threads: int, measure: Callable[..., Measured], *arguments: Any) -> Measured:
    cores = sorted(os.sched_getaffinity(0))
    if threads < len(cores):  # to set all of them again left every thread on one core, seen on a virtual machine
        os.sched_setaffinity(0, cores[:threads])  # before a library counts them
    return measure(threads, *arguments)


def present(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split the names of libraries into those that this environment has and those that it lacks."""
    found = [
        name for name in names if importlib.util.find_spec(name.partition(".")[0]) and importlib.util.find_spec(name)
    ]
    return found, [name for name in names if name not in found]


def judged(measured: Mapping[str, float], targets: Mapping[str, float]) -> str:
    """Describe each target whose contender ran, and whether it was reached."""
    verdicts = []
    for name, wanted in targets.items():
        if name in measured:
            ratio = measured["numparam"] / measured[name]
            verdicts.append(f"{name} {wanted:g}×: " + ("met" if ratio >= wanted else f"missed, {ratio:.3g}×"))
    return ", ".join(verdicts)


def markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def version_of(name: str) -> str:
    """Return the version of an installed module, whatever its distribution is called."""
    names = ["mkl"] if name == "mkl" else importlib.metadata.packages_distributions().get(name.partition(".")[0], [])
    return importlib.metadata.version(names[0]) if names else "of the checkout"


def heading(where: str, libraries: Iterable[str], absent: Iterable[str], *explanation: str) -> str:
    """Describe when, where and with which versions was measured, what the numbers are, and what is missing."""
    versions = ", ".join(f"{name} {version_of(name)}" for name in libraries)
    missing = [f"Absent: {name}." for name in absent]
    return "\n".join([f"{date.today():%d %B %Y}; {where}; {versions}.", *explanation, *missing, ""])


def record(script: str, unit: str, libraries: Iterable[str], rows: list[dict[str, Any]]) -> None:
    """Write a run to ``latest/SCRIPT.json``.

    A row has `work`, `threads` and `speeds`, which maps contenders and limits to how much each does in a second; more
    is better. `limits` names those that are not libraries, and `targets` says by what factor to beat which contender.
    """
    LATEST.mkdir(exist_ok=True)
    content = {
        "script": script,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "versions": {name: version_of(name) for name in libraries},
        "unit": unit,
        "rows": rows,
    }
    (LATEST / f"{script}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def machine() -> str:
    import llvmlite.binding

    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = model[1] if model else platform.machine()
    cores = len(os.sched_getaffinity(0))
    cpu = llvmlite.binding.get_host_cpu_name()
    return f"{name} ({cpu}), {cores} cores, {platform.system()}; Python {platform.python_version()}"
