"""Prove under fire what `docs/reliability.md` promises: ``python tests/long``, of which each proof prints one line.

    python tests/long                     # everything, at full size: hours
    python tests/long kills --scale 0.01  # a hundredth of one proof

A proof is a file here with a function ``prove(count, seed, folder)``, which raises where a promise is broken and
returns counts; `FULL` is how much it does at ``--scale 1``, and `LINE` what it prints. The work is shared out over
processes that are forked from this one, once all is imported.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numparam  # noqa: E402

PROOFS = ("kills", "mutations", "interruptions", "arguments", "processes", "memory", "places", "jobs", "killed_jobs")
_fork = multiprocessing.get_context("fork")


def _work(proof: Any, count: int, seed: int, folder: Path, connection: Connection) -> None:
    try:
        result = proof.prove(count, seed, folder)
    except BaseException:
        result = f"with --seed {seed}\n{traceback.format_exc()}"
    connection.send(result)
    os._exit(0)


def share(proof: Any, count: int, seed: int, processes: int, folder: Path) -> Counter[str]:
    """Let several processes prove a part each; return the sums of their counts."""
    share, total, failures = max(count // processes, 1), Counter[str](), []
    started = []
    for number in range(min(processes, count)):
        receiving, sending = _fork.Pipe(duplex=False)
        own = folder / str(number)
        own.mkdir()
        process = _fork.Process(target=_work, args=(proof, share, seed + number, own, sending))
        process.start()
        sending.close()
        started.append((process, receiving))
    for process, receiving in started:
        try:
            result = receiving.recv()
        except EOFError:
            process.join()
            result = f"a process ended with {process.exitcode}"
        process.join()
        if isinstance(result, str):
            failures.append(result)
        else:
            longest = max(total.pop("slowest", 0), result.pop("slowest", 0))
            total += result
            total["slowest"] = longest
    if failures:
        raise AssertionError("\n".join(failures))
    return total


def told(line: str, counts: Counter[str]) -> str:
    """Put the counts, 0 where there is none, in the places that a line has for them."""
    return re.sub(r"\{(\w+)\}", lambda name: f"{counts[name[1]]:,}", " ".join(line.split()))


def main() -> int:
    """Run the proofs that the arguments name; return 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python tests/long", description=__doc__.partition(":")[0])
    parser.add_argument("proofs", nargs="*", metavar="PROOF", help=f"by default all: {', '.join(PROOFS)}")
    parser.add_argument("--scale", type=float, default=1, help="a fraction of the full size, which is 1")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="where files are written; by default a temporary one")
    arguments = parser.parse_args()
    if unknown := set(arguments.proofs) - set(PROOFS):
        parser.error(f"no proof {min(unknown)!r}; there are {', '.join(PROOFS)}")
    for init in ("normal", "orthogonal"):  # loaded once, for all processes
        numparam.initializer.initializer(init, (3, 3)).asnumpy()
    failed = False
    for name in arguments.proofs or PROOFS:
        proof: Any = importlib.import_module(name)
        count = max(round(proof.FULL * arguments.scale), getattr(proof, "LEAST", 1))
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            try:
                processes = getattr(proof, "PROCESSES", arguments.processes)
                counts = share(proof, count, arguments.seed, processes, Path(folder))
                said = told(proof.LINE, counts)
            except AssertionError as error:
                said, failed = f"FAILED {error}", True
        print(f"{name}: {said} ({time.perf_counter() - start:.0f} s)", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
