"""Which tests the default run leaves out, marked `slow`: ``pytest -m ""`` runs all of them."""

from __future__ import annotations

import pytest

GRIDS = (
    "test_golden.py",
    "test_fill.py",
    "test_conversion.py",
    "test_initializers.py",
    "test_ptx_conversion.py",
    "test_ptx_fill.py",
)
"""Files whose parametrized tests compile a kernel for each case. A case in which every argument is new to its test, and
one for each argument that is then left, cover all arguments; the other combinations are slow."""

LONG = ("test_ptx_code.py::test_code[copy.cuda_convert", "test_ptx_code.py::test_code[fill.cuda")
"""Tests that compile and link dozens of kernels."""


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
    """Mark what is slow."""
    grids: dict[str, list[pytest.Function]] = {}
    for item in items:
        if any(long in item.nodeid for long in LONG):
            item.add_marker(pytest.mark.slow)
        if item.path.name in GRIDS and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            grids.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in grids.values():
        chosen = representative([case.callspec.params for case in cases])
        for number, case in enumerate(cases):
            if number not in chosen:
                case.add_marker(pytest.mark.slow)
