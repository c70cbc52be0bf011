"""Shared by the benchmarks: sizes, dtypes, arrays in memory, statistics, and reasons to skip."""

import importlib.util
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import numparam
from numparam.initializer import Initializer, Normal, TruncatedNormal, Uniform, initializer
from numparam.kernels import fill  # noqa: F401 # imports Numba before asv forks, so that no benchmark pays for it

Array = np.ndarray[Any, Any]

ELEMENTS = 2**24
"""Enough that every dtype of two bytes or more is at least as large as the last level of most caches."""

SIGMA = 0.02
DTYPES = ("float32", "bfloat16", "float16", "float64", "float8_e4m3fn")
DRAWS: dict[str, Initializer] = {
    "uniform": Uniform(1.0),
    "normal": Normal(SIGMA),
    "truncated normal": TruncatedNormal(SIGMA, 0.0, -2 * SIGMA, 2 * SIGMA),
    "constant": numparam.initializer.Constant(1.5),
}


class Warm:
    """Many short samples over several processes: what differs by chance from one process to the next is seen as such.

    `asv continuous` compares the samples with a rank test, which needs sixteen on each side to see 20 % where one
    sample in ten is disturbed. It takes them as independent, but those of a process share its pages, and a shared
    machine is slow for a round at a time: in four and in eight rounds a slice of equal commits differed by a tenth.
    """

    rounds = 16
    repeat = (2, 3, 0.15)
    sample_time = 0.02
    warmup_time = 0.05
    timeout = 120


class OneThread(Warm):
    """The processor's time, not that of a clock: what other programs take of it is not counted."""

    timer = time.process_time


class Fresh:
    """One sample is one new process."""

    rounds = 4
    number = 1
    repeat = (4, 6, 2.0)
    warmup_time = 0
    timeout = 300


def dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def touched(shape: int | tuple[int, ...], of: str = "float32") -> Array:
    """Return an array of ones whose pages are in memory, so that no benchmark pays for page faults."""
    return np.ones(shape, dtype(of))


def lazy(shape: tuple[int, ...], name: str = "w") -> numparam.Parameter:
    return numparam.Parameter(initializer(Normal(SIGMA), shape, numparam.float32), name=name)


def needs(*libraries: str) -> None:
    """Skip a benchmark, from its setup, where a library is absent; asv prints the reason with ``--show-stderr``."""
    absent = [library for library in libraries if importlib.util.find_spec(library) is None]
    if absent:
        raise NotImplementedError(f"skipped: {', '.join(absent)} is not installed")


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found, f"no {field} in /proc/self/status"
    return int(found[1]) * 1024


def extra_memory(call: Callable[[], object]) -> int:
    """Return by how many bytes the resident set rose above its start while `call` ran (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak restarts from the present size
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)
