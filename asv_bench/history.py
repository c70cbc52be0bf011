"""Measure the history of main into ``asv_bench/results``, on one quiet machine: ``python asv_bench/history.py``.

Commits spread evenly over the first parents of main run a subset of the benchmarks, less than a minute each. What was
measured before is skipped, so the same command continues after an interruption or the end of ``--minutes``; the order
of the commits lets an unfinished history cover its full length. It needs the dependency group ``bench``.
"""

from __future__ import annotations

import argparse
import platform
import signal
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent.resolve()
FIRST = "66020eb"
"""The oldest commit that has every operation of the subset."""

SUBSET = (
    r"fill\.Fill\.time_warm\('(uniform|normal|truncated normal|constant)', 'float32'\)",
    r"fill\.Fill\.time_warm\('normal', 'bfloat16'\)",
    r"slicing\.Slice\.time_warm\('columns of 8 KB'\)",
    r"slicing\.Lazy\.time_read\('(element|block)'\)",
    r"copying\.Copy\.time_warm\('(contiguous|float32 to bfloat16|bfloat16 to float32|transpose)'\)",
    r"imports\.Import\.timeraw_import\('numparam'\)",
    r"imports\.FirstUse\.timeraw_warm_cache\('normal'\)",
    r"parameters\.Tree\.time_(make|init_data)$",
    r"checkpoints\.Large\.time_(save|load_all)$",
    r"checkpoints\.Many\.time_load_into_net",
)


def spread(commits: list[str], count: int) -> list[str]:
    """Return `count` commits at equal distances: the ends, then the middle, then what halves the gaps."""
    chosen = [commits[round(k * (len(commits) - 1) / (count - 1))] for k in range(count)]
    step, order = count, [count - 1]
    while step:
        order += [k for k in range(0, count, step) if k not in order]
        step //= 2
    return [chosen[k] for k in dict.fromkeys([*order, *range(count)])]


def main() -> int:
    """Run asv on the chosen commits; return its exit status, or 1 if time ran out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=16)
    parser.add_argument("--first", default=FIRST)
    parser.add_argument("--last", default="main")
    parser.add_argument("--minutes", type=float, default=18.0)
    parser.add_argument("--machine", default=platform.node(), help="the name of this machine on the page")
    options = parser.parse_args()
    revisions = ["git", "rev-list", "--first-parent", "--reverse", f"{options.first}^..{options.last}"]
    listed = subprocess.run(revisions, cwd=BENCH, check=True, capture_output=True, text=True)
    commits = spread(listed.stdout.split(), options.commits)
    asv = [sys.executable, "-m", "asv"]
    subprocess.run([*asv, "machine", "--yes", "--machine", options.machine], cwd=BENCH, check=True)
    subset = [option for pattern in SUBSET for option in ("--bench", pattern)]
    command = [*asv, "run", "--machine", options.machine, "--skip-existing-successful", "--show-stderr"]
    with subprocess.Popen(
        [*command, "--attribute", "rounds=1", *subset, "HASHFILE:-"], cwd=BENCH, stdin=subprocess.PIPE, text=True
    ) as run:
        try:
            run.communicate("\n".join(commits), timeout=60 * options.minutes)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGINT)
            print(f"history.py: {options.minutes:g} minutes are over; the same command continues", file=sys.stderr)
            run.wait()
            return 1
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
