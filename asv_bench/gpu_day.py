"""Measure all that can be said of a GPU in under eight minutes, and write it to ``gpu_day/``.

Parts run one after another in processes of their own, each with a time limit; one that fails or is late is reported and
the next one starts. ``result.json`` holds every number, ``result.md`` the tables, and ``PART.log`` what a part printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).parent.parent
LIMITS = {"machine": 30, "compile": 110, "bits": 170, "fills": 75, "copies": 75, "queue": 15}
"""Seconds of each part; 475 together."""
PEERS = ("torch", "cupy")
DRIVER = ROOT / "tests/software_driver.py"


# --------------------------------------------------------------------------- parts, each in a process of its own


def describe() -> None:
    """Print a JSON object with the card and the versions."""
    import numparam
    from comparison import machine, version_of
    from gpu_peers import driver_version

    card = numparam.devices()[1]
    libraries = ("numpy", "numba", "numba_cuda", *(name for name in PEERS if importlib.util.find_spec(name)))
    versions = {name: version_of(name) for name in libraries}
    print(
        json.dumps({"card": card.name, "bytes": card.total, "driver": driver_version(), "host": machine(), **versions})
    )


def compile_kernels(share: str) -> None:
    """Compile every kernel of a share such as "3/16" for the card, and keep it on disk."""
    from cuda.core import Device

    from test_ptx_code import COMPARED, PROVEN, kernels_of

    number, count = map(int, share.split("/"))
    major, minor = Device(0).compute_capability
    kernels = [kernel for maker in (*PROVEN, *COMPARED) for kernel in kernels_of(maker)]
    for kernel in kernels[number::count]:
        kernel.cubin(f"{major}{minor}")
        print(kernel.name, flush=True)


def measure(part: str, elements: int, rounds: int) -> None:
    """Print a JSON array [row, {contender: speed}] for each row, as soon as it is known."""
    import gpu_peers

    if part == "queue":
        print(json.dumps(["queue a fill", {"seconds": gpu_peers.queuing()}]))
        return
    peers = [name for name in PEERS if importlib.util.find_spec(name)]
    for row in getattr(gpu_peers, part)(elements, rounds, peers):
        print(json.dumps(row), flush=True)


# --------------------------------------------------------------------------- the day


def run(part: str, commands: list[list[str]], log: Path, limit: float) -> str:
    """Run commands side by side; return "done", or how it ended."""
    environment = dict(os.environ)
    paths = [str(ROOT), str(ROOT / "tests"), str(ROOT / "asv_bench"), environment.get("PYTHONPATH", "")]
    if importlib.util.find_spec("pytest") is None:
        paths.append(str(ROOT / "tests/plain"))
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "NUMPARAM_REQUIRE_GPU": "1"}
    # In a rehearsal every process needs the driver in software.
    prefix = [str(DRIVER)] if "NUMPARAM_SOFTWARE_DRIVER" in environment else []
    end, outcome = perf_counter() + limit, "done"
    with log.open("wb") as file:
        started = [
            subprocess.Popen(
                [sys.executable, *prefix, *command], stdout=file, stderr=file, env=environment, start_new_session=True
            )
            for command in commands
        ]
        for process in started:
            try:
                if process.wait(max(0.0, end - perf_counter())):
                    outcome = f"failed with exit status {process.returncode}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                outcome = f"stopped after {limit:.0f} s"
    print(f"{part}: {outcome}, {perf_counter() - end + limit:.0f} s", flush=True)
    return outcome


def rows_of(log: Path) -> list[Any]:
    """Return the lines of JSON in what a part printed."""
    rows = []
    for line in log.read_text(errors="replace").splitlines():
        if line[:1] in "[{":
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows


def counts_of(log: Path) -> dict[str, Any]:
    """Return how many tests passed, failed and were skipped, and which failed."""
    lines = re.findall(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)", log.read_text(errors="replace"), re.MULTILINE)
    counts: dict[str, Any] = {
        word: sum(found == word for _, found in lines) for word in ("PASSED", "FAILED", "SKIPPED")
    }
    return {**counts, "which failed": [name for name, found in lines if found in ("FAILED", "ERROR")]}


def report(result: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    from comparison import markdown
    from gpu_peers import table

    where = result["machine"][0] if result["machine"] else {}
    peers = [name for name in PEERS if name in where]
    ends = [[part, outcome] for part, outcome in result["outcomes"].items()]
    texts = ["; ".join(f"{name} {value}" for name, value in where.items()), markdown([["part", "outcome"], *ends])]
    bits = result["bits"]
    texts.append(f"Tests of bits: {bits['PASSED']} passed, {bits['FAILED']} failed, {bits['SKIPPED']} skipped.")
    texts += [f"- failed: `{name}`" for name in bits["which failed"]]
    for kind, limit, unit in (("fills", "memset", "G elements/s"), ("copies", "memcpy", "GB/s read and written")):
        if result[kind]:
            texts += [f"{kind.capitalize()} of {result['elements']} elements, {unit}:"]
            texts += [markdown(table(kind, limit, result[kind], peers))]
    texts += [f"Queuing a fill takes {row['seconds'] * 1e6:.1f} µs." for _, row in result["queue"]]
    return "\n\n".join(texts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_day"), help="folder of the results")
    parser.add_argument("--elements", type=int, help="length of the arrays that are measured: 2**28, rehearsed 4096")
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts")
    parser.add_argument("--only", help='run only the tests with these words: "normal or copies"')
    parser.add_argument("--scale", type=float, default=1.0, help="of the time limits")
    parser.add_argument("--rehearse", action="store_true", help="on a driver in software; needs a C compiler")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--share", default="0/1", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.elements = options.elements or (2**12 if options.rehearse else 2**28)
    if options.part:
        if options.part == "machine":
            describe()
        elif options.part == "compile":
            compile_kernels(options.share)
        else:
            measure(options.part, options.elements, options.rounds)
        return 0

    if options.rehearse:
        with tempfile.TemporaryDirectory() as directory:
            sys.path.append(str(DRIVER.parent))
            import software_driver

            software_driver.compile_driver(Path(directory))
            os.environ.update(software_driver.environment(Path(directory)))
            return the_day(options)
    return the_day(options)


def the_day(options: argparse.Namespace) -> int:
    """Run all parts and write the results; return the exit status."""
    options.out.mkdir(parents=True, exist_ok=True)
    numbers = ["--elements", str(options.elements), "--rounds", str(options.rounds)]
    workers = os.cpu_count() or 1
    commands = {part: [[__file__, "--part", part, *numbers]] for part in LIMITS}
    commands["compile"] = [[*commands["compile"][0], "--share", f"{number}/{workers}"] for number in range(workers)]
    tests = [str(ROOT / "tests" / name) for name in ("test_gpu.py", "test_torch_gpu.py")]
    chosen = ["-k", options.only] if options.only else []
    commands["bits"] = [["-m", "pytest", "-v", "-o", "addopts=", "-p", "no:cacheprovider", *chosen, *tests]]
    outcomes: dict[str, str] = {}
    result: dict[str, Any] = {"elements": options.elements, "rounds": options.rounds}
    for part, limit in LIMITS.items():
        log = options.out / f"{part}.log"
        outcomes[part] = run(part, commands[part], log, limit * options.scale)
        result[part] = counts_of(log) if part == "bits" else rows_of(log)
        result["outcomes"] = outcomes
        (options.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    text = report(result)
    (options.out / "result.md").write_text(text)
    print(text)
    return int(any(outcome != "done" for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
