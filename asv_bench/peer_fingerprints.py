"""Compare the speed of numparam's fingerprints with other checks of the same bytes, all in one run.

`python asv_bench/peer_fingerprints.py` prints a Markdown table in GB/s, warm, the best of several rounds, in which all
are called in turn: on one core, except the rows that say otherwise. NumPy's XOR of 64-bit words reads about as fast as
memory can. torch, and xxhash from PyPI, are left out where they are not installed.
"""

import argparse
import hashlib
import os
import time
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import ml_dtypes
import numpy as np

import numparam

DTYPES = ("float32", "bfloat16", "float8_e4m3fn")


def peers(array: np.ndarray[Any, Any]) -> dict[str, Callable[[], object]]:
    """Return a call for each contender."""
    content = array.view(np.uint8)
    matrix, words = array.reshape(4096, -1), array.view(np.uint64)
    found: dict[str, Callable[[], object]] = {
        "numparam": lambda: numparam.fingerprint(array),
        "numparam, transposed": lambda: numparam.fingerprint(matrix.T),
        "numparam, all cores": lambda: on_all_cores(array),
        "read (XOR of NumPy)": lambda: np.bitwise_xor.reduce(words),
        "zlib.crc32": lambda: zlib.crc32(content),
        "SHA-256": lambda: hashlib.sha256(content).digest(),
    }
    if find_spec("xxhash"):
        import xxhash

        found["xxhash.xxh3_128"] = lambda: xxhash.xxh3_128(content).digest()
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        if hasattr(torch, "hash_tensor"):
            tensor = torch.from_numpy(array.view(f"i{array.itemsize}"))
            found["torch.hash_tensor"] = lambda: torch.hash_tensor(tensor)
    return found


def on_all_cores(array: np.ndarray[Any, Any]) -> None:
    """Take a fingerprint with as many threads as there are cores."""
    numparam.set_num_threads(len(os.sched_getaffinity(0)))
    numparam.fingerprint(array)
    numparam.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=1 << 26)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    numparam.set_num_threads(1)
    columns: dict[str, dict[str, float]] = {}
    for name in DTYPES:
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        calls = peers(np.arange(arguments.bytes // 8, dtype=np.uint64).view(dtype))
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(arguments.rounds):
            for peer, call in calls.items():
                start = time.perf_counter()
                call()
                best[peer] = min(best[peer], time.perf_counter() - start)
        for peer, seconds in best.items():
            columns.setdefault(peer, {})[name] = arguments.bytes / seconds / 1e9
    print(f"| GB/s | {' | '.join(DTYPES)} |\n| --- |{' ---: |' * len(DTYPES)}")
    for peer, speeds in columns.items():
        print(f"| {peer} | {' | '.join(f'{speeds[name]:.2f}' for name in DTYPES)} |")


if __name__ == "__main__":
    main()
