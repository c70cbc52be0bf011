"""Compare numparam's fills with the speed of memory and with other libraries, all in one run.

`python asv_bench/peers.py --targets` prints Markdown tables in G (10**9) elements per second, warm, the best of several
rounds. In each round, every contender of a row is called once, in turn, so a slower machine affects all of them.
All fill the same array (except JAX, which returns a new one). Each thread count runs in its own process, restricted to
that many cores. Libraries that are not installed are skipped and named; of oneMKL's generators and methods, which use
one core, the table has the fastest. The limit is the faster of libc's memset and a fill with stores that bypass the
caches. The run is recorded in ``asv_bench/latest`` for `standing.py`.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import onemkl
from comparison import (
    LIMITS,
    SIGMA,
    Array,
    Call,
    best_seconds,
    draws,
    heading,
    in_parts,
    judged,
    machine,
    markdown,
    on_cores,
    present,
    record,
    seconds_in_fresh_process,
    with_limit,
)

IN_BRACKETS = "in brackets: numparam is so many times as fast."


@dataclass(frozen=True)
class Row:
    """One fill, and its targets: how much faster than which library."""

    draw: str
    dtype: str
    targets: Mapping[str, float]


# "float32" stands for numparam's own float32 fill in the same draw.
ROWS = (
    Row("uniform", "float32", {"limit": 0.40, "torch": 6}),
    Row("normal", "float32", {"limit": 0.18, "numpy": 9, "torch": 4, "jax": 20, "mindspore": 20}),
    Row("normal", "bfloat16", {"float32": 0.95}),
    Row("normal", "float16", {"float32": 0.95}),
    Row("truncated normal", "float32", {"limit": 0.12, "torch": 40}),
    Row("constant", "float32", {"limit": 0.95}),
)
TWO_THREADS = {"one thread": 1.95}


def numparam(row: Row, out: Array, threads: int) -> Call:
    from numparam.kernels.machine.pool import get_num_threads, set_num_threads

    fill = draws()[row.draw]

    def call() -> None:
        if get_num_threads() != threads:
            set_num_threads(threads)
        fill(out)

    return call


def numpy(row: Row, out: Array, threads: int, bit_generator: Callable[..., Any] = np.random.PCG64) -> Call | None:
    streams = [np.random.Generator(bit_generator(seed)) for seed in np.random.SeedSequence(7).spawn(threads)]
    match row.draw, row.dtype:
        case "uniform", "float32":
            return in_parts(lambda i, part: streams[i].random(out=part, dtype=np.float32), out, threads)
        case "normal", "float32":
            return in_parts(lambda i, part: streams[i].standard_normal(out=part, dtype=np.float32), out, threads)
        case "constant", _:
            return in_parts(lambda _, part: part.fill(1.5), out, threads)
    return None


def randomgen(row: Row, out: Array, threads: int) -> Call | None:
    from randomgen import Philox

    if row.draw == "constant":
        return None  # it would be NumPy again
    return numpy(row, out, threads, partial(Philox, number=4, width=32))


def torch(row: Row, out: Array, threads: int) -> Call:
    import torch

    torch.set_num_threads(threads)
    words = torch.from_numpy(out.view(f"int{8 * out.itemsize}"))
    tensor = words.view(getattr(torch, row.dtype))
    return {
        "uniform": lambda: tensor.uniform_(-1.0, 1.0),
        "normal": lambda: tensor.normal_(0.0, SIGMA),
        "truncated normal": lambda: torch.nn.init.trunc_normal_(tensor, 0.0, SIGMA, -2 * SIGMA, 2 * SIGMA),
        "constant": lambda: tensor.fill_(1.5),
    }[row.draw]


def torch_of_a_key(row: Row, out: Array, threads: int) -> Call | None:
    """Return torch's own fill that is a function of a key, which torch has on CPUs from 2.14 on."""
    import torch
    from torch.func import _random

    try:
        _random.uniform_(_random.key(7), torch.empty(4))
    except NotImplementedError:
        return None
    torch.set_num_threads(threads)
    key, tensor = _random.key(7), torch.from_numpy(out.view(f"int{8 * out.itemsize}")).view(getattr(torch, row.dtype))
    return {
        "uniform": lambda: _random.uniform_(key, tensor, low=-1.0, high=1.0),
        "normal": lambda: _random.normal_(key, tensor, std=SIGMA),
    }.get(row.draw)


def jax(row: Row, out: Array, threads: int) -> Call:
    import jax

    shape, dtype = out.shape, row.dtype
    draw = jax.jit(
        {
            "uniform": lambda key: jax.random.uniform(key, shape, dtype, -1.0, 1.0),
            "normal": lambda key: SIGMA * jax.random.normal(key, shape, dtype),
            "truncated normal": lambda key: SIGMA * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype),
            "constant": lambda _: jax.numpy.full(shape, 1.5, dtype),
        }[row.draw]
    )
    key = jax.random.key(7)
    return lambda: draw(key).block_until_ready()


def mindspore(row: Row, out: Array, threads: int) -> Call | None:
    from mindspore.common.initializer import Constant, Normal, TruncatedNormal, Uniform

    if row.dtype == "bfloat16":
        return None  # MindSpore 2.10 refuses NumPy 2's bfloat16
    initializer = {
        "uniform": Uniform(1.0),
        "normal": Normal(SIGMA),
        "truncated normal": TruncatedNormal(SIGMA, 0.0, -2 * SIGMA, 2 * SIGMA),
        "constant": Constant(1.5),
    }[row.draw]
    return lambda: initializer(out)


PEERS = {peer.__name__: peer for peer in (numpy, randomgen, torch, jax, mindspore)}
PEERS["torch.func._random"] = torch_of_a_key


def measure(threads: int, elements: int, rounds: int, peers: Iterable[str]) -> list[dict[str, float]]:
    """Return for each of `ROWS` the elements per second of every contender, on `threads` cores."""
    from benchmarks.common import touched

    measured = []
    for row in ROWS:
        print(f"{row.draw} {row.dtype}, {threads} threads", file=sys.stderr)
        out = touched(elements, row.dtype)
        calls: dict[str, Call | None] = {name: PEERS[name](row, out, threads) for name in peers if name in PEERS}
        calls |= {name: write(out, threads) for name, write in LIMITS.items()}
        calls["numparam"] = numparam(row, out, threads)
        if "float32" in row.targets:
            calls["float32"] = numparam(row, touched(elements), threads)
        if threads == 2:
            calls["one thread"] = numparam(row, out, 1)
        if threads == 1 and "mkl" in peers:
            calls |= onemkl.fills(row.draw, out, SIGMA)
        seconds = best_seconds({name: call for name, call in calls.items() if call}, rounds)
        speeds = {name: elements / time for name, time in seconds.items()}
        if ways := [speed for name, speed in speeds.items() if name.startswith("mkl ")]:
            speeds["mkl"] = max(ways)
        measured.append(with_limit(speeds))
    return measured


def speed_table(measured: Mapping[int, list[dict[str, float]]], peers: list[str], with_targets: bool) -> str:
    header = ["fill", "threads", "numparam", "of one thread", "of limit", *peers] + ["targets"] * with_targets
    lines = []
    for threads, rows in measured.items():
        for row, speed in zip(ROWS, rows, strict=True):
            own = speed["numparam"]
            scaling = f"{own / speed['one thread']:.2f}×" if threads > 1 else "–"
            line = [f"{row.draw} {row.dtype}", str(threads), f"{own / 1e9:.3g}", scaling]
            line += [f"{own / speed['limit']:.0%}"]
            line += [f"{speed[p] / 1e9:.2g} ({own / speed[p]:.3g}×)" if p in speed else "–" for p in peers]
            if with_targets:
                line.append(judged(speed, row.targets if threads == 1 else TWO_THREADS))
            lines.append(line)
    return markdown([header, *lines])


def process_table(with_torch: bool) -> str:
    """Measure the start-up of a process and the memory that a fill takes in addition to its array."""
    from benchmarks import common, imports

    code = {name: f"import {name}" for name in ("numpy", "numparam", "torch")} | {"first": imports.NORMAL}
    if not with_torch:
        del code["torch"]
    seconds = dict.fromkeys(code, float("inf"))
    for _ in range(8):
        for name, text in code.items():
            seconds[name] = min(seconds[name], seconds_in_fresh_process(text))

    out = common.touched(2**26)
    common.DRAWS["normal"](out)
    extra = common.extra_memory(lambda: common.DRAWS["normal"](out))
    huge = common.lazy((2**20, 2**20))

    def read() -> None:
        huge[777_777, 12_345].asnumpy()

    element = best_seconds({"element": read}, 1000)["element"]

    torch_too = f"import torch alone takes {seconds['torch']:.2f} s" if with_torch else "torch is absent"
    ratio = seconds["numparam"] / seconds["numpy"]
    return markdown(
        [
            ["what", "measured", "target"],
            ["`import numparam`", f"{seconds['numparam']:.3f} s, {ratio:.2f}× `import numpy`", "under 1.2×"],
            ["fresh process to a first 2**20 normals", f"{seconds['first']:.2f} s; {torch_too}", "under 1 s and torch"],
            ["extra memory of a 256 MiB normal fill", f"{extra / 1024:.0f} KiB", "under 1 MiB"],
            ["one element of a 2**40-element parameter", f"{element * 1e6:.1f} µs", "under 20 µs"],
        ]
    )


def compare_on_gpu(elements: int, rounds: int, wanted: Iterable[str]) -> None:
    import gpu_peers
    import numparam

    try:
        card = numparam.devices()[numparam.device("cuda").index + 1]
    except numparam.errors.DeviceError as error:
        sys.exit(f"peers.py: {error}")
    peers, absent = present([name for name in ("torch", "cupy", "jax") if name in (*wanted, "cupy")])
    print(
        heading(
            f"{card.name}, {card.total / 2**30:.0f} GiB, {gpu_peers.driver_version()}",
            ["numparam", "numba-cuda", *peers],
            absent,
            f"Arrays of {elements} elements, warm, best of {rounds} rounds: fills in G elements/s, copies in GB/s read",
            f"and written; {IN_BRACKETS}",
        )
    )
    fills, copies = gpu_peers.fills(elements, rounds, peers), gpu_peers.copies(elements, rounds, peers)
    print(markdown(gpu_peers.table("fill", "memset", fills, peers)), end="\n\n")
    print(markdown(gpu_peers.table("copy", "memcpy", copies, [peer for peer in peers if peer != "jax"])), end="\n\n")
    print(f"Queuing a fill takes {gpu_peers.queuing() * 1e6:.1f} µs.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--elements", type=int, help="array length; by default 2**26, on a GPU 2**28")
    parser.add_argument("--rounds", type=int, default=5, help="warm rounds, of which the best counts, 5 by default")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    names = [*PEERS, "mkl"]
    parser.add_argument("--peers", nargs="+", default=names, choices=names)
    parser.add_argument("--targets", action="store_true", help="add a column that judges each row by its targets")
    arguments = parser.parse_args()

    if arguments.device == "cuda":
        compare_on_gpu(arguments.elements or 2**28, arguments.rounds, arguments.peers)
        return
    elements = arguments.elements or 2**26
    peers, absent = present([name for name in arguments.peers if name != "mkl"])
    if "mkl" in arguments.peers:
        (peers if onemkl.library() else absent).append("mkl")
    measured = on_cores(arguments.threads, measure, elements, arguments.rounds, peers)
    print(
        heading(
            machine(),
            ["numparam", "numba", *peers],
            absent,
            f"Fills of {elements} elements, warm, best of {arguments.rounds} rounds, in G elements/s;",
            IN_BRACKETS,
        )
    )
    print(speed_table(measured, peers, arguments.targets), end="\n\n")
    rows = [
        {
            "work": f"{row.draw} {row.dtype}",
            "threads": threads,
            "speeds": speeds,
            "targets": dict(row.targets if threads == 1 else TWO_THREADS),
        }
        for threads, found in measured.items()
        for row, speeds in zip(ROWS, found, strict=True)
    ]
    record("peers", "elements/s", ["numparam", "numba", *peers], rows)
    print(process_table(with_torch="torch" in peers))


if __name__ == "__main__":
    main()
