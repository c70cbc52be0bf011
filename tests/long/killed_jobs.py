"""Kill and stop ranks of jobs with servers for some minutes: ``python tests/long/killed_jobs.py MINUTES [SERVERS]``.

No update that was acknowledged may be lost, and the table equals a serial replay to the bit.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "mpi"))

import server as script

from numparam.embedding import load_table
from ranks import start

WORKERS = 3


def check(folder: Path, steps: int, servers: int) -> None:
    """Compare the table of a job that has ended with a serial replay."""
    options = {"max_rows": 400} if servers == 1 else {}
    expected, found = script.serial(steps, WORKERS, **options), script.serial(0, WORKERS, **options)
    load_table(found, sorted(folder.glob("snapshot-*")))
    assert found.step == steps, (found.step, steps)
    if servers == 1:
        for a, b in zip(found.export(), expected.export(), strict=True):
            assert a.shape == b.shape
            assert (a == b).all()


def main(minutes: float, servers: int) -> None:
    """Run jobs that are killed or stopped, and then one that is not, until the time is over."""
    end, ended, checks = time.monotonic() + 60 * minutes, {"server": 0, "worker": 0, "stop": 0}, 0
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as name:
            folder, steps = Path(name), random.randint(20, 80)
            ways = random.choices([*ended], k=random.randint(1, 4))
            for way in [*ways, "none"]:
                timeout = "3" if way == "stop" else "60"
                arguments = "goes_on", str(servers), timeout, name, str(steps), way
                done = start("server.py", WORKERS + servers, *arguments, seconds=120)
                if way == "none":
                    assert done.returncode == 0, done.stdout + done.stderr
                elif done.returncode:
                    ended[way] += 1
            acknowledged = [int(line) for line in (folder / "acknowledged").read_text().split()]
            assert max(acknowledged) == steps
            check(folder, steps, servers)
            checks += 1
    print(f"{checks} tables equal to a replay, after {sum(ended.values())} jobs that ended early: {ended}")
    assert checks
    assert any(ended.values())


if __name__ == "__main__":
    try:
        main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    except subprocess.TimeoutExpired as error:
        sys.exit(f"a job did not end: {error}")
