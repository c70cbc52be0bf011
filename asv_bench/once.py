"""Run every benchmark once, with every parameter, so that a rename cannot break one unseen: `python asv_bench/once.py`.

The functions run in this process and, at the same time, the ``timeraw_`` texts in new processes. Nothing is measured,
and a benchmark that skips itself is listed with its reason. The exit status is 1 if one fails.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KINDS = ("time_", "timeraw_", "mem_", "peakmem_", "track_")


def benchmarks() -> Iterator[tuple[type, str]]:
    """Yield the classes and the names of their benchmarks."""
    for path in sorted((HERE / "benchmarks").glob("[a-z]*.py")):
        module = importlib.import_module(f"benchmarks.{path.stem}")
        for _, owner in inspect.getmembers(module, inspect.isclass):
            if owner.__module__ == module.__name__ and not owner.__name__.startswith("_"):
                yield from ((owner, name) for name in dir(owner) if name.startswith(KINDS))


def combinations(owner: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments that asv gives to the benchmarks of a class."""
    params = getattr(owner, "params", ())
    axes = params if params and isinstance(params[0], tuple | list) else (params,) if params else ()
    return itertools.product(*axes)


def run_once(owner: type, name: str, arguments: tuple[Any, ...]) -> None:
    """Run one benchmark once, as asv does: setup, the benchmark, teardown."""
    instance: Any = owner()
    if hasattr(instance, "setup"):
        instance.setup(*arguments)
    try:
        result = getattr(instance, name)(*arguments)
        if name.startswith("timeraw_"):
            before, code = (result[1], result[0]) if isinstance(result, tuple) else ("", result)
            subprocess.run([sys.executable, "-c", f"{before}\n{code}"], check=True, cwd=HERE, timeout=300)
    finally:
        if hasattr(instance, "teardown"):
            instance.teardown(*arguments)


def main() -> int:
    """Run all benchmarks; return the exit status."""
    sys.path.insert(0, str(HERE))
    started, count, failed = time.monotonic(), 0, 0
    with ThreadPoolExecutor(1) as beside:  # new processes on one core, and this one on another
        runs = [
            (f"{owner.__module__}.{owner.__name__}.{name}{arguments or ''}", name, (owner, name, arguments))
            for owner, name in benchmarks()
            for arguments in combinations(owner)
        ]
        processes = {what: beside.submit(run_once, *run) for what, name, run in runs if name.startswith("timeraw_")}
        for what, _, run in sorted(runs, key=lambda run: run[0] in processes):
            try:
                processes[what].result() if what in processes else run_once(*run)
                count += 1
            except NotImplementedError as reason:
                print(f"{what}: {reason}")
            except Exception:
                failed += 1
                print(f"{what} FAILED")
                traceback.print_exc()
    print(f"{count} benchmarks ran once, {failed} failed, in {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
