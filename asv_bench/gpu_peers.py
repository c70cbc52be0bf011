"""Compare numparam's fills on a CUDA device with the speed of its memory and with other libraries, all in one run.

It is what `python asv_bench/peers.py --device cuda` runs. Every contender of a row fills an array of the same size on
the same card in turn, several times between two synchronisations of the whole device, whatever streams a library uses;
the best round counts. Fills overlap with the launches that follow, if they take longer: use 2**28 elements or more.
Nobody has run it yet on a GPU: the README's column says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

SIGMA = 0.02
CALLS = 20  # between two synchronisations, so that waiting costs nothing
Call = Callable[[], object]
ROWS = (
    ("uniform", "float32"), ("normal", "float32"), ("normal", "bfloat16"), ("normal", "float16"),
    ("truncated normal", "float32"), ("constant", "float32"),
)  # fmt: skip
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def memset(draw: str, dtype: str, elements: int) -> Call:
    from cuda.core import LEGACY_DEFAULT_STREAM, Device

    device = Device(0)
    device.set_current()
    buffer = device.allocate(elements * DTYPE_BYTES[dtype], stream=LEGACY_DEFAULT_STREAM)
    return lambda: buffer.fill(1, stream=LEGACY_DEFAULT_STREAM)


def numparam(draw: str, dtype: str, elements: int) -> Call:
    from benchmarks.common import DRAWS, DTYPES
    from numparam.kernels.device_array import DeviceArray

    out = DeviceArray.empty((elements,), DTYPES[dtype], 0)
    return lambda: DRAWS[draw](out)  # type: ignore[arg-type]


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


CONTENDERS = {call.__name__: call for call in (memset, numparam, torch, cupy, jax)}


def synchronise(made: Any) -> None:
    """Wait for all streams of the device, and for what JAX has not queued yet."""
    from cuda.core import Device

    if hasattr(made, "block_until_ready"):
        made.block_until_ready()
    Device(0).sync()


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


def rows(elements: int, rounds: int, peers: list[str]) -> list[list[str]]:
    """Return a table: G elements/s, part of the write limit, and every peer's speed and how many times it is beaten."""
    table: list[list[str]] = [["fill", "numparam", "of memset", *peers]]
    for draw, dtype in ROWS:
        print(f"{draw} {dtype}", file=sys.stderr)
        speed: dict[str, Any] = {}
        for name in ("memset", "numparam", *peers):
            call = CONTENDERS[name](draw, dtype, elements)
            if call is not None:
                speed[name] = elements / best_seconds(call, rounds)
            del call  # one array at a time
        own = speed["numparam"]
        line = [f"{draw} {dtype}", f"{own / 1e9:.3g}", f"{own / speed['memset']:.0%}"]
        line += [f"{speed[name] / 1e9:.3g} ({own / speed[name]:.3g}×)" if name in speed else "–" for name in peers]
        table.append(line)
    return table
