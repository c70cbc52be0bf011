"""Compare numparam's copies, conversions and slices with memcpy, NumPy, torch and oneMKL, all in one run.

`python asv_bench/peer_copies.py --targets` prints Markdown tables in GB/s, bytes read and written, warm, the best of
several rounds. The contenders of a row are called in turn, as in `peers.py`, and share its arrays. ``asv_bench/latest``
keeps the run for `standing.py`.
"""

import argparse
import ctypes
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import onemkl
from comparison import (
    Array,
    Call,
    best_seconds,
    heading,
    in_parts,
    judged,
    machine,
    markdown,
    on_cores,
    present,
    record,
)

# For one thread. "memcpy" is libc's on 256 MiB, counted in bytes as the row is.
TARGETS: Mapping[str, Mapping[str, float]] = {
    "contiguous": {"memcpy": 0.95},
    "rows": {"memcpy": 0.95},
    "columns of 8 KB": {"memcpy": 0.90},
    "columns of 4 KB": {},
    "columns of 64 bytes": {},
    "every fourth column": {},
    "columns in reverse": {},
    "float32 to float16": {"memcpy": 0.90, "numpy": 8},
    "float16 to float32": {"memcpy": 0.90},
    "float32 to bfloat16": {"memcpy": 0.90},
    "bfloat16 to float32": {"memcpy": 0.90},
    "float32 to float8_e4m3fn": {},
    "float64 to float32": {},
    "float64 to bfloat16": {},
    "transpose": {"memcpy": 0.60, "numpy": 10, "torch": 10},
    "transpose of odd sides": {},
    "transpose of bytes": {},
    "axes 0 2 1 3": {},
    "axes 3 2 1 0": {},
    "transpose to float16": {},
}
TWO_THREADS = {"contiguous": {"torch": 0.95}, "rows": {"torch": 0.95}}
PEERS = ("numpy", "torch")
TORCH_WORDS = {"bfloat16": "int16"}  # torch reads the bits, NumPy cannot hand over the dtype


def torch_copy(target: Array, source: Array) -> Call | None:
    import torch

    if "float8" in f"{target.dtype}{source.dtype}" or any(step < 0 for step in source.strides):
        return None

    def tensor(array: Array) -> Any:
        words = TORCH_WORDS.get(array.dtype.name)
        return torch.from_numpy(array) if words is None else torch.from_numpy(array.view(words)).view(torch.bfloat16)

    to, origin = tensor(target), tensor(source)
    return lambda: to.copy_(origin)


def measure(threads: int, rounds: int, names: Iterable[str], peers: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return for each row the bytes per second of every contender, on `threads` cores."""
    from benchmarks import copying, slicing
    from numparam.kernels import copy
    from numparam.kernels.machine.pool import set_num_threads

    set_num_threads(threads)
    if "torch" in peers:
        import torch

        torch.set_num_threads(threads)
    libc_memcpy = ctypes.CDLL(None).memcpy
    libc_memcpy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    fresh, old = np.ones(2**28, np.uint8), np.ones(2**28, np.uint8)
    distance = old.ctypes.data - fresh.ctypes.data
    memcpy = in_parts(
        lambda _, part: libc_memcpy(part.ctypes.data, part.ctypes.data + distance, part.nbytes), fresh, threads
    )
    measured = {}
    for name in names:
        print(f"{name}, {threads} threads", file=sys.stderr)
        target, source = (copying.LAYOUTS | slicing.SLICES)[name](2)
        calls: dict[str, Call | None] = {
            "memcpy": memcpy,
            "numparam": lambda: copy.copy(target, source),  # noqa: B023
        }
        if "numpy" in peers:
            calls["numpy"] = lambda: np.copyto(target, source, casting="unsafe")  # noqa: B023
        if "torch" in peers:
            calls["torch"] = torch_copy(target, source)
        if threads == 1 and "mkl" in peers:
            calls["mkl"] = onemkl.transpose(target, source)
        seconds = best_seconds({who: call for who, call in calls.items() if call}, rounds)
        moved = target.size * (target.itemsize + source.itemsize)
        measured[name] = {who: (2 * fresh.nbytes if who == "memcpy" else moved) / time for who, time in seconds.items()}
    return measured


def table(measured: Mapping[int, Mapping[str, Mapping[str, float]]], peers: list[str], with_targets: bool) -> str:
    header = ["copy", "threads", "numparam", "of memcpy", *peers] + ["targets"] * with_targets
    lines = []
    for threads, rows in measured.items():
        for name, speed in rows.items():
            own = speed["numparam"]
            line = [name, str(threads), f"{own / 1e9:.3g}", f"{own / speed['memcpy']:.0%}"]
            line += [f"{speed[p] / 1e9:.2g} ({own / speed[p]:.3g}×)" if p in speed else "–" for p in peers]
            if with_targets:
                line.append(judged(speed, TARGETS[name] if threads == 1 else TWO_THREADS.get(name, {})))
            lines.append(line)
    return markdown([header, *lines])


def small_copies() -> str:
    """Measure what a small copy costs over NumPy's."""
    from benchmarks import copying, slicing

    copies, index = copying.Small(), slicing.Index()
    copies.setup()
    index.setup("integer")
    calls = {"numparam": copies.time_numparam, "numpy": copies.time_numpy}
    calls |= {"read": lambda: index.time_read("integer"), "write": lambda: index.time_write("integer")}
    seconds = best_seconds(calls, 20_000)
    over = seconds["numparam"] - seconds["numpy"]
    return (
        f"A copy of 1 KiB takes {over * 1e6:.2f} µs more than NumPy's {seconds['numpy'] * 1e6:.2f} µs (target: 3); "
        f"a row of a tensor is read in {seconds['read'] * 1e6:.1f} µs and written in {seconds['write'] * 1e6:.1f} µs."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="warm rounds, of which the best counts, 6 by default")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    parser.add_argument("--rows", nargs="+", default=list(TARGETS), choices=list(TARGETS), metavar="ROW")
    parser.add_argument("--targets", action="store_true", help="add a column that judges each row by its targets")
    arguments = parser.parse_args()

    peers, absent = present(PEERS)
    (peers if onemkl.library() else absent).append("mkl")
    measured = on_cores(arguments.threads, measure, arguments.rounds, arguments.rows, peers)
    print(
        heading(
            machine(),
            ["numparam", "numba", *peers],
            absent,
            f"Copies, warm, best of {arguments.rounds} rounds, in GB/s, bytes read and written;",
            "in brackets: numparam copies so many times as fast.",
        )
    )
    print(table(measured, peers, arguments.targets), end="\n\n")
    print(small_copies())
    rows = [
        {
            "work": name,
            "threads": threads,
            "speeds": speeds | {"limit": speeds["memcpy"]},
            "targets": dict(TARGETS[name] if threads == 1 else TWO_THREADS.get(name, {})),
        }
        for threads, found in measured.items()
        for name, speeds in found.items()
    ]
    record("peer_copies", "bytes/s", ["numparam", "numba", *peers], rows)


if __name__ == "__main__":
    main()
