"""Compare the speed of numparam's fingerprints with other checks of the same bytes, all in one run.

`python asv_bench/peer_fingerprints.py` prints a Markdown table in GB/s, warm, the best of several rounds, in which all
are called in turn: on one core, except the row that says otherwise. NumPy's XOR of 64-bit words reads about as fast as
memory can. torch, and xxhash from PyPI, are left out where they are not installed.

With ``--identify`` it prints how many seconds of one core `identify` takes to search a model of 70 billion parameters,
the most of several rounds.
"""

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

import numparam
from benchmarks.common import Array, dtype
from benchmarks.fingerprints import CHECKS, ROWS, model_of_70_billion

DTYPES = ("float32", "bfloat16", "float8_e4m3fn")


def on_all_cores(array: Array) -> None:
    """Take a fingerprint with as many threads as there are cores."""
    numparam.set_num_threads(len(os.sched_getaffinity(0)))
    numparam.fingerprint(array)
    numparam.set_num_threads(1)


def calls(array: Array) -> dict[str, Callable[[], object]]:
    """Return a call for each contender."""
    found: dict[str, Callable[[], object]] = {"numparam, all cores": lambda: on_all_cores(array)}
    for name, prepare in CHECKS.items():
        try:
            found[name] = prepare(array)
        except NotImplementedError as reason:
            print(f"{name}: {reason}")
    return found


def table(head: str, names: tuple[str, ...], columns: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {head} | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    lines += [f"| {row} | {' | '.join(f'{found[name]:.2f}' for name in names)} |" for row, found in columns.items()]
    return "\n".join(lines)


def searches(rounds: int) -> str:
    """Return the table of what `identify` takes."""
    names, columns = ("float32", "bfloat16"), {}
    for name in names:
        model = model_of_70_billion(name)
        arrays = {rows: prepare(model) for rows, prepare in ROWS.items()}
        few = dict(list(model.items())[:9])
        for rows, array in arrays.items():
            numparam.identify(array, few)  # loads the kernels
            found = columns.setdefault(rows, {})
            for _ in range(rounds):
                start = time.thread_time()
                numparam.identify(array, model)
                found[name] = max(found.get(name, 0.0), time.thread_time() - start)
    return table("seconds", names, columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=1 << 26)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--identify", action="store_true")
    arguments = parser.parse_args()
    numparam.set_num_threads(1)
    if arguments.identify:
        print(searches(arguments.rounds))
        return
    columns: dict[str, dict[str, float]] = {}
    for name in DTYPES:
        each = calls(np.arange(arguments.bytes // 8, dtype=np.uint64).view(dtype(name)))
        best = dict.fromkeys(each, float("inf"))
        for _ in range(arguments.rounds):
            for peer, call in each.items():
                start = time.perf_counter()
                call()
                best[peer] = min(best[peer], time.perf_counter() - start)
        for peer, seconds in best.items():
            columns.setdefault(peer, {})[name] = arguments.bytes / seconds / 1e9
    print(table("GB/s", DTYPES, columns))


if __name__ == "__main__":
    main()
