"""Shared by the comparisons with other libraries: fair rounds, processes with some cores, and tables."""

import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import date
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray[Any, Any]
Call = Callable[[], object]
Measured = TypeVar("Measured")


def in_parts(work: Callable[[int, Array], object], out: Array, threads: int) -> Call:
    """Return a call that runs `work(i, part)` on each of `threads` equal parts of `out` at once."""
    if threads == 1:
        return lambda: work(0, out)
    parts = np.array_split(out, threads)
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(work, range(threads), parts))


# For a moment after JAX returns, what it left running halves the speed of whoever comes next.
SETTLE_SECONDS = 0.25


def best_seconds(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Call each contender once to warm up, then all in turn for some rounds; return the best time of each."""
    for call in calls.values():
        call()
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            if "jax" in calls:
                sleep(SETTLE_SECONDS)
            start = perf_counter()
            call()
            best[name] = min(best[name], perf_counter() - start)
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
    found = [name for name in names if importlib.util.find_spec(name)]
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
    names = importlib.metadata.packages_distributions().get(name, [])
    return importlib.metadata.version(names[0]) if names else "of the checkout"


def heading(where: str, libraries: Iterable[str], absent: Iterable[str], *explanation: str) -> str:
    """Describe when, where and with which versions was measured, what the numbers are, and what is missing."""
    versions = ", ".join(f"{name} {version_of(name)}" for name in libraries)
    missing = [f"Absent: {name}." for name in absent]
    return "\n".join([f"{date.today():%d %B %Y}; {where}; {versions}.", *explanation, *missing, ""])


def machine() -> str:
    import llvmlite.binding

    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = model[1] if model else platform.machine()
    cores = len(os.sched_getaffinity(0))
    cpu = llvmlite.binding.get_host_cpu_name()
    return f"{name} ({cpu}), {cores} cores, {platform.system()}; Python {platform.python_version()}"
