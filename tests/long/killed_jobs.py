"""Kill and stop ranks of jobs with parameter servers: no acknowledged update is lost, all equals a replay."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "mpi"))

import server as script

from ranks import start

FULL, PROCESSES = 600, 1  # seconds
LINE = """{jobs} jobs of 3 workers and 1 or 2 servers ended early, {kill} of them by kill -9 and {stop} by SIGSTOP, and
{replays} went on to their end, {asynchronous} of these asynchronous: no acknowledged update was lost, all tables and
parameters are equal to a replay"""
WORKERS = 3


def prove(count: int, seed: int, folder: Path) -> Counter[str]:
    """Run jobs that are killed or stopped, and then one that is not, for `count` seconds."""
    chance, counts, end, turn = random.Random(seed), Counter[str](), time.monotonic() + count, 0
    while time.monotonic() < end:
        turn += 1
        servers, is_asynchronous, steps = 1 + turn % 2, chance.random() < 0.3, chance.randint(20, 80)
        path = folder / str(turn)
        path.mkdir()
        ways = chance.choices(["kill", "kill", "stop"], k=chance.randint(1, 4))
        for way in [*ways, "none"]:
            rank = chance.randrange(WORKERS + servers)
            done = start(
                "server.py", WORKERS + servers, "goes_on", str(servers), "2" if is_asynchronous else "none",
                "3" if way == "stop" else "60", str(path), str(steps), way, str(rank), seconds=120,
            )  # fmt: skip
            if way == "none":
                assert done.returncode == 0, done.stdout + done.stderr
            elif done.returncode:
                counts.update(["jobs", way])
        for worker in range(WORKERS):
            acknowledged = [int(line) for line in (path / f"acknowledged-{worker}").read_text().split()]
            assert max(acknowledged) == steps
        script.check_snapshots(path, steps, WORKERS, servers, is_asynchronous)
        counts.update(replays=1, asynchronous=int(is_asynchronous))
    assert counts["jobs"]
    return counts
