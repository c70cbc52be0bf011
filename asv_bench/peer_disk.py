"""Compare the rate at which checkpoints reach a disk with ``dd conv=fsync``: ``python asv_bench/peer_disk.py FOLDER``.

`dd`, ``numparam init`` and `save_checkpoint` write files of the same size to the same disk, in turn, in processes of
their own on one core and on two. The bytes are random normals, which are generated on the way, and a ready array. The
last table says what it costs that what is reported as written survives a loss of power.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SAVE = """
import sys, numpy, numparam
from numparam.initializer import initializer
rows, ready = int(sys.argv[2]) >> 18, sys.argv[3] == "ready"
values = {}
for i in range(16):
    shape = (rows // 16, 1 << 16)
    one = numpy.broadcast_to(numpy.arange(1 << 16, dtype="f4"), shape) if ready else initializer("normal", shape)
    values[f"layer.{i}.weight"] = numparam.Parameter(one, name=f"layer.{i}.weight") if not ready else one
numparam.save_checkpoint(values, sys.argv[1])
"""
SYNCED = """
import os, sys, time, numpy, numparam
folder, synced = sys.argv[1], sys.argv[2] == "1"
if not synced:
    os.fsync = os.fstat
for nbytes, shard, count in ((4096, None, 200), (1 << 20, None, 100), (1 << 26, None, 5), (1 << 26, 1 << 20, 3)):
    value = {str(i): numpy.ones(nbytes // 256, "f4") for i in range(64)}
    numparam.save_checkpoint(value, f"{folder}/s", max_shard_bytes=shard)
    start = time.perf_counter()
    for _ in range(count):
        numparam.save_checkpoint(value, f"{folder}/s", max_shard_bytes=shard)
    print((time.perf_counter() - start) / count)
    for each in os.listdir(folder):
        os.unlink(f"{folder}/{each}")
"""


class Run(NamedTuple):
    """Hold the seconds, the seconds of the processor, in the system too, and the largest memory of a process."""

    seconds: float
    user: float
    system: float
    memory: int


def measured(command: list[str], cores: set[int]) -> Run:
    """Run a command on some cores, and wait for it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMPARAM_NUM_THREADS": str(len(cores))}
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # which the child inherits
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    os.sched_setaffinity(0, usable)
    if status:
        raise SystemExit(f"status {status}: {command}")
    return Run(seconds, usage.ru_utime, usage.ru_stime, usage.ru_maxrss << 10)


def commands(folder: Path, nbytes: int) -> dict[str, list[str]]:
    """Return what writes a file of so many bytes, by name."""
    shapes = ", ".join(f'["layer.{i}.weight", [{nbytes >> 22}, {1 << 16}]]' for i in range(16))
    specification = folder / "specification.json"
    specification.write_text(f'{{"title": "t", "source": "s", "dtype": "float32", "parameters": [{shapes}]}}')
    rules = folder / "rules.toml"
    rules.write_text('[[rules]]\nglob = "*"\ninit = "normal"\n')
    out = str(folder / "out.safetensors")
    init = ["-m", "numparam", "init", "--like", str(specification), "--rules", str(rules), "--seed", "1", "-o", out]
    return {
        "dd conv=fsync": ["dd", "if=/dev/zero", f"of={out}", "bs=1M", f"count={nbytes >> 20}", "conv=fsync"],
        "numparam init": [sys.executable, *init],
        "save_checkpoint, normal": [sys.executable, "-c", SAVE, out, str(nbytes), "lazy"],
        "save_checkpoint, ready": [sys.executable, "-c", SAVE, out, str(nbytes), "ready"],
    }


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("folder", type=Path, help="on the disk")
    parser.add_argument("--bytes", type=int, default=4 << 30, help="of a file; by default 4 GiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="*", default=[1, 2])
    arguments = parser.parse_args()
    usable = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        chosen = commands(folder, arguments.bytes)
        for count in arguments.cores:
            runs: dict[str, list[Run]] = defaultdict(list)
            for _ in range(arguments.rounds):
                for what, command in chosen.items():
                    runs[what].append(measured(command, set(usable[:count])))
                    (folder / "out.safetensors").unlink()
            print(f"\n| {count} core(s) | MB/s, median of {arguments.rounds} | all | of dd | user s | system s | MiB |")
            print("|---|---|---|---|---|---|---|")
            base = statistics.median(run.seconds for run in runs["dd conv=fsync"])
            for what, found in runs.items():
                seconds, user, system, memory = (statistics.median(each) for each in zip(*found, strict=True))
                every = ", ".join(f"{arguments.bytes / 1e6 / run.seconds:.0f}" for run in found)
                print(
                    f"| {what} | {arguments.bytes / 1e6 / seconds:.0f} | {every} | {base / seconds:.2f} "
                    f"| {user:.1f} | {system:.1f} | {memory / 2**20:.0f} |"
                )
        columns = []
        for synced in "01":
            done = subprocess.run(
                [sys.executable, "-c", SYNCED, name, synced], check=True, capture_output=True, text=True
            )
            columns.append([float(line) * 1e3 for line in done.stdout.split()])
        print("\n| a save of | ms without syncs | ms with |\n|---|---|---|")
        rows = ("4 KiB", "1 MiB", "64 MiB", "64 MiB in 64 files")
        for what, without, with_ in zip(rows, *columns, strict=True):
            print(f"| {what} | {without:.1f} | {with_:.1f} |")


if __name__ == "__main__":
    main()
