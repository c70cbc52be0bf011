"""Kill, pause and end a rank of a job at random instants of every collective: the job ends and names the rank."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from ranks import MPIEXEC, start

sys.path.insert(0, str(Path(__file__).parent.parent / "mpi"))

FULL, PROCESSES = 420, 1
LINE = """{jobs} jobs of 3 ranks, one of which was killed, stopped, paused or ended by an exception in one of 7
collectives: each ended within {slowest} ms and named the rank"""
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "barrier", "small", "parameters")
WAYS = ("SIGKILL", "SIGSTOP", "os._exit", "exception", "SIGTERM", "exit")
RANKS, SECONDS = 3, 90


def named(said: str, late: bool) -> set[int]:
    """Return the ranks that messages name; of a rank that waits for a late one, both are late to the others."""
    found = re.findall(r"\branks? ([0-9][0-9, -]*)" if late else r"\brank ([0-9]+)", said)
    spans = [span.split("-") for each in found for span in re.findall(r"\d+(?:-\d+)?", each)]
    return {rank for span in spans for rank in range(int(span[0]), int(span[-1]) + 1)}


def prove(count: int, seed: int, folder: Path) -> Counter[str]:  # noqa: ARG001
    """Run `count` jobs; raise for the first that does not end, or does not name its rank."""
    chance, counts, slowest = random.Random(seed), Counter[str](), 0.0
    for number in range(count if MPIEXEC.exists() else 0):
        collective, way = COLLECTIVES[number % len(COLLECTIVES)], WAYS[number // len(COLLECTIVES) % len(WAYS)]
        victim, begin = chance.randrange(RANKS), time.perf_counter()
        options = (collective, way, str(victim), str(chance.uniform(0, 0.3)))
        try:
            done = start("ending.py", RANKS, *options, seconds=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{options}: the job did not end: {error.stderr}") from None
        slowest = max(slowest, time.perf_counter() - begin)
        said = done.stdout + done.stderr
        assert victim in named(said, way == "SIGSTOP"), f"{options}: {said}"
        assert done.returncode, options
        counts["jobs"] += 1
    counts["slowest"] = round(1000 * slowest)
    return counts
