"""Which tests the default run leaves out, marked `slow`, and how workers share the rest: ``pytest -m ""`` runs all."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

GRIDS = (
    "test_golden.py",
    "test_fill.py",
    "test_conversion.py",
    "test_copy.py",
    "test_initializers.py",
    "test_layout.py",
    "test_optim.py",
    "test_perturb.py",
    "test_ptx_conversion.py",
    "test_ptx_copy.py",
    "test_ptx_fill.py",
    "test_ptx_perturb.py",
    "test_ptx_update.py",
)
"""Files whose parametrized tests compile a kernel for each case. A case in which every argument is new to its test, and
one for each argument that is then left, cover all arguments; the other combinations are slow."""

LONG = tuple(
    f"tests/{line}"
    for line in (Path(__file__).parent / "slow.txt").read_text().splitlines()
    if not line.startswith("#")
)


LONGEST = (
    "test_server.py",
    "test_communication_failures.py",
    "test_communication.py",
    "test_docs.py",
    "test_ptx_update.py",
    "test_ptx_code.py",
    "test_ptx_fill.py",
    "test_ptx_conversion.py",
    "test_parallel.py",
    "test_golden.py",
    "test_fill.py",
    "test_conversion.py",
    "test_ptx_copy.py",
    "test_ptx_perturb.py",
    "test_parallel_optimizer.py",
    "test_saving_interrupted.py",
    "test_packaging.py",
    "test_command_init.py",
    "test_torch_ranks.py",
    "test_compile_cache.py",
    "test_durability.py",
)
"""The files that take longest, slow tests included. They come first, so that all workers end together."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Start three workers on two cores: each waits for ranks, other processes and deadlines a third of its time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return max(1, len(os.sched_getaffinity(0)) * 3 // 2)


def representative(cases: list[dict[str, object]]) -> set[int]:
    """Return the positions of few cases that hold every value of every argument."""
    seen: set[tuple[str, str]] = set()
    chosen = set()
    for enough in (all, any):
        for number, case in enumerate(cases):
            values = {(name, str(value)) for name, value in case.items()}
            if enough(value not in seen for value in values):
                chosen.add(number)
                seen |= values
    return chosen


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files, and mark what is slow."""
    counts = Counter(item.path.name for item in items)
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path.name, len(places)), -counts[item.path.name]))
    grids: dict[str, list[pytest.Function]] = {}
    for item in items:
        if item.nodeid.startswith(LONG):
            item.add_marker(pytest.mark.slow)
        if item.path.name in GRIDS and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            grids.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in grids.values():
        chosen = representative([case.callspec.params for case in cases])
        for number, case in enumerate(cases):
            if number not in chosen:
                case.add_marker(pytest.mark.slow)
