"""Shared by the benchmarks: the draws, the arrays they fill, peak memory and clean processes."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from numparam.kernels import fill
from numparam.kernels.fill import constant

ELEMENTS = 2**26
"""Enough that every dtype of four bytes or two is far larger than any cache: 256 or 128 MiB."""

DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float64": np.dtype(np.float64),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
}

SIGMA = 0.02
KEY = fill.Key(seed=7, stream=1, refinement=2)

DRAWS: dict[str, Callable[[np.ndarray[Any, Any]], None]] = {
    "uniform": lambda out: fill.uniform(out, KEY, -1.0, 1.0),
    "normal": lambda out: fill.normal(out, KEY, 0.0, SIGMA),
    "truncated normal": lambda out: fill.truncated_normal(out, KEY, 0.0, SIGMA, -2 * SIGMA, 2 * SIGMA),
    "constant": lambda out: constant.fill(out, 1.5),
}


def touched(dtype: str, elements: int = ELEMENTS) -> np.ndarray[Any, Any]:
    """Return an array whose pages are in memory, so that a fill pays for no page fault."""
    out = np.empty(elements, DTYPES[dtype])
    out.view(np.uint8)[:] = 1
    return out


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


def in_fresh_process(code: str) -> float:
    """Run `code` in a new interpreter and return the number it prints."""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(ran.stdout)


def seconds_of(statements: str) -> str:
    """Return code that prints how many seconds `statements` take, the interpreter's own start left out."""
    return f"from time import perf_counter\nstart = perf_counter()\n{statements}\nprint(perf_counter() - start)"


FIRST_NORMAL = """
import numparam
from numparam.initializer import Normal, initializer
numparam.Parameter(initializer(Normal(0.02), (1024, 1024), numparam.float32), name="w").asnumpy()
"""
