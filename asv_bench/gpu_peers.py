"""Compare numparam's fills and copies on a CUDA device with the speed of its memory and with other libraries.

It is what `python asv_bench/peers.py --device cuda` runs. Every contender of a row works on arrays of the same size on
the same card in turn, several times between two synchronisations of the whole device, whatever streams a library uses;
the best round counts. Work overlaps with the launches that follow, if it takes longer: use 2**28 elements or more.
Nobody has run it yet on a GPU: the README's column says so.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from comparison import SIGMA, draws

CALLS = 20  # between two synchronisations, so that waiting costs nothing
Call = Callable[[], object]
FILLS = (
    ("uniform", "float32"), ("normal", "float32"), ("normal", "bfloat16"), ("normal", "float16"),
    ("truncated normal", "float32"), ("constant", "float32"),
)  # fmt: skip
COPIES = {  # how the source of a square array is looked at, and both dtypes
    "contiguous": ("whole", "float32", "float32"),
    "float32 to bfloat16": ("whole", "float32", "bfloat16"),
    "bfloat16 to float32": ("whole", "bfloat16", "float32"),
    "float32 to float16": ("whole", "float32", "float16"),
    "an eighth of the columns": ("columns", "float32", "float32"),
    "transpose": ("transpose", "float32", "float32"),
    "transpose to bfloat16": ("transpose", "float32", "bfloat16"),
}
VIEWS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda array: array,
    "columns": lambda array: array[:, array.shape[1] // 4 : array.shape[1] * 3 // 8],
    "transpose": lambda array: array.T,
}
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def driver_version() -> str:
    """Return the version of the driver, as its package calls it where the system tells, and of its CUDA."""
    from cuda.bindings import driver

    told = Path("/proc/driver/nvidia/version")
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", told.read_text()) if told.exists() else None
    _, number = driver.cuDriverGetVersion()
    cuda = f"CUDA {number // 1000}.{number % 1000 // 10}"
    return f"driver {found[0]}, {cuda}" if found else cuda


# --------------------------------------------------------------------------- fills


def memset(draw: str, dtype: str, elements: int) -> Call:
    buffer, stream = _buffer(elements * DTYPE_BYTES[dtype])
    return lambda: buffer.fill(1, stream=stream)


def numparam(draw: str, dtype: str, elements: int) -> Call:
    from numparam.dtypes import as_dtype
    from numparam.kernels.array import DeviceArray

    fill, out = draws()[draw], DeviceArray.empty((elements,), as_dtype(dtype), 0)
    return lambda: fill(out)


def torch(draw: str, dtype: str, elements: int) -> Call | None:
    import torch

    if not torch.cuda.is_available():
        return None
    tensor = torch.empty(elements, dtype=getattr(torch, dtype), device="cuda")
    return {
        "uniform": lambda: tensor.uniform_(-1.0, 1.0),
        "normal": lambda: tensor.normal_(0.0, SIGMA),
        "truncated normal": lambda: torch.nn.init.trunc_normal_(tensor, 0.0, SIGMA, -2 * SIGMA, 2 * SIGMA),
        "constant": lambda: tensor.fill_(1.5),
    }[draw]


def cupy(draw: str, dtype: str, elements: int) -> Call | None:
    import cupy

    if dtype != "float32":
        return None
    random, out = cupy.random.default_rng(7), cupy.empty(elements, dtype)
    return {
        "uniform": lambda: random.random(out=out, dtype=dtype),
        "normal": lambda: random.standard_normal(out=out, dtype=dtype),
        "constant": lambda: out.fill(1.5),
    }.get(draw)


def jax(draw: str, dtype: str, elements: int) -> Call | None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes the memory of the others
    import jax

    if jax.default_backend() != "gpu":
        return None
    make = {
        "uniform": lambda key: jax.random.uniform(key, (elements,), dtype, -1.0, 1.0),
        "normal": lambda key: SIGMA * jax.random.normal(key, (elements,), dtype),
        "truncated normal": lambda key: SIGMA * jax.random.truncated_normal(key, -2.0, 2.0, (elements,), dtype),
        "constant": lambda _: jax.numpy.full((elements,), 1.5, dtype),
    }[draw]
    compiled, key = jax.jit(make), jax.random.key(7)
    return lambda: compiled(key)


FILLERS = {call.__name__: call for call in (memset, numparam, torch, cupy, jax)}

# --------------------------------------------------------------------------- copies


def memcpy(view: str, source: str, target: str, side: int) -> Call:
    nbytes = _moved(view, source, target, side) // 2
    (to, stream), (origin, _) = _buffer(nbytes), _buffer(nbytes)
    return lambda: to.copy_from(origin, stream=stream)


def numparam_copy(view: str, source: str, target: str, side: int) -> Call:
    from numparam.dtypes import as_dtype
    from numparam.kernels.array import DeviceArray
    from numparam.kernels.copy import copy

    seen = DeviceArray.empty((side, side), as_dtype(source), 0).arranged(VIEWS[view])
    to = DeviceArray.empty(seen.shape, as_dtype(target), 0)
    return lambda: copy(to, seen)


def torch_copy(view: str, source: str, target: str, side: int) -> Call | None:
    import torch

    if not torch.cuda.is_available():
        return None
    seen = VIEWS[view](torch.ones((side, side), dtype=getattr(torch, source), device="cuda"))
    to = torch.empty(seen.shape, dtype=getattr(torch, target), device="cuda")
    return lambda: to.copy_(seen)


def cupy_copy(view: str, source: str, target: str, side: int) -> Call | None:
    import cupy

    if "bfloat16" in (source, target):
        return None
    seen = VIEWS[view](cupy.ones((side, side), source))
    to = cupy.empty(seen.shape, target)
    return lambda: cupy.copyto(to, seen, casting="unsafe")


COPIERS = {"memcpy": memcpy, "numparam": numparam_copy, "torch": torch_copy, "cupy": cupy_copy}


def _moved(view: str, source: str, target: str, side: int) -> int:
    """Count the bytes read and written."""
    return side * side * (DTYPE_BYTES[source] + DTYPE_BYTES[target]) // (8 if view == "columns" else 1)


# --------------------------------------------------------------------------- measuring


def _buffer(nbytes: int) -> tuple[Any, Any]:
    from cuda.core import LEGACY_DEFAULT_STREAM, Device

    device = Device(0)
    device.set_current()
    return device.allocate(nbytes, stream=LEGACY_DEFAULT_STREAM), LEGACY_DEFAULT_STREAM


def synchronise(made: Any) -> None:
    """Wait for all streams of the device, and for what JAX has not queued yet."""
    from cuda.bindings import driver

    if hasattr(made, "block_until_ready"):
        made.block_until_ready()
    (status,) = driver.cuCtxSynchronize()
    if status:
        raise RuntimeError(f"the device reports {status!r}")


def best_seconds(call: Call, rounds: int) -> float:
    best = float("inf")
    made = call()  # compiles
    for _ in range(rounds):
        synchronise(made)
        start = perf_counter()
        for _ in range(CALLS):
            made = call()
        synchronise(made)
        best = min(best, (perf_counter() - start) / CALLS)
    return best


def queuing() -> float:
    """Return the seconds it takes to queue a fill, which is what a small one costs; nothing is waited for."""
    fill, best = numparam("normal", "float32", 4), float("inf")
    fill()  # compiles
    for _ in range(20):
        start = perf_counter()
        for _ in range(100):
            fill()
        best = min(best, (perf_counter() - start) / 100)
        synchronise(None)
    return best


Measured = tuple[str, dict[str, float]]
"""The name of a row, and what each contender does in a second: the limit first, numparam second."""


def compare(
    name: str, makers: Mapping[str, Callable[..., Call | None]], row: Sequence[Any], work: int, rounds: int
) -> Measured:
    """Measure all contenders of a row; one that fails is named and left out."""
    print(name, file=sys.stderr)
    speed: dict[str, float] = {}
    for who, make in makers.items():
        try:
            call = make(*row)
            if call is not None:
                speed[who] = work / best_seconds(call, rounds)
        except Exception as error:
            if who == "numparam":
                raise
            print(f"{name}: {who} failed: {type(error).__name__}: {error}", file=sys.stderr)
        call = None  # its arrays go before the next one's come
    return name, speed


def fills(elements: int, rounds: int, peers: list[str]) -> Iterator[Measured]:
    """Yield fills, in elements/s."""
    makers = {name: FILLERS[name] for name in ("memset", "numparam", *peers)}
    for row in FILLS:
        yield compare(f"{row[0]} {row[1]}", makers, (*row, elements), elements, rounds)


def copies(elements: int, rounds: int, peers: list[str]) -> Iterator[Measured]:
    """Yield copies, in bytes/s read and written."""
    side = math.isqrt(elements)
    makers = {name: COPIERS[name] for name in ("memcpy", "numparam", *peers) if name in COPIERS}
    for name, row in COPIES.items():
        yield compare(name, makers, (*row, side), _moved(*row, side), rounds)


def table(kind: str, limit: str, rows: Iterable[Measured], peers: Sequence[str]) -> list[list[str]]:
    """Return the lines of a table: own speed in units of 1e9, its part of the limit, and every peer's."""
    lines = [[kind, "numparam", f"of {limit}", *peers]]
    for name, speed in rows:
        own = speed["numparam"]
        part = f"{own / speed[limit]:.0%}" if limit in speed else "–"
        ratios = [f"{speed[who] / 1e9:.3g} ({own / speed[who]:.3g}×)" if who in speed else "–" for who in peers]
        lines.append([name, f"{own / 1e9:.3g}", part, *ratios])
    return lines
