"""Jobs with parameter servers have the bits of one process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from numparam.embedding import load_table
from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.server import ParameterServer, get_ps_context, reset_ps_context, set_ps_context
from numparam.server.job import owners
from ranks import SCRIPTS, needs_mpi, run, start

sys.path.insert(0, str(SCRIPTS))


@needs_mpi
@pytest.mark.parametrize("servers, ranks, in_server", [(1, 3, True), pytest.param(2, 4, False, marks=pytest.mark.slow)])
def test_job_equals_a_serial_run(servers: int, ranks: int, in_server: bool) -> None:
    said = run("server.py", ranks, "equals_serial", str(servers), "60", str(in_server), seconds=100)
    assert said.count("equal") == ranks - servers


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("servers", [1, 2])
def test_four_workers_with_eviction_and_kills_equal_a_serial_run(servers: int, tmp_path: Path) -> None:
    import server as script

    steps = 40
    for kills in ("server", "worker", "none"):
        ended = start(
            "server.py", 4 + servers, "goes_on", str(servers), "60", str(tmp_path), str(steps), kills, seconds=100
        )
        assert (ended.returncode == 0) or kills != "none", ended.stdout + ended.stderr
    acknowledged = [int(line) for line in (tmp_path / "acknowledged").read_text().split()]
    assert max(acknowledged) == steps
    if servers == 1:
        expected, found = (script.serial(count, 4, max_rows=400) for count in (steps, 0))
        load_table(found, sorted(tmp_path.glob("snapshot-*")))
        assert (found.step, len(found)) == (steps, len(expected))
        for a, b in zip(found.export(), expected.export(), strict=True):
            assert (a == b).all()
    else:  # each server evicts among its own rows
        found = script.serial(0, 4)
        load_table(found, sorted(tmp_path.glob("snapshot-*")))
        assert found.step == steps


@needs_mpi
@pytest.mark.slow
def test_example_prints_that_it_equals_one_process() -> None:
    pytest.importorskip("sklearn")
    example = str(Path(__file__).parents[1] / "examples" / "ratings.py")
    said = run(example, 3, "1", seconds=100)
    assert "equal to one process, bit for bit: True" in said


@needs_mpi
def test_workers_that_disagree_are_named() -> None:
    said = start("server.py", 3, "disagrees", "1", "20", seconds=55)
    assert said.returncode
    assert "workers disagree: rank 0 asked for step of 0; rank 1 asked for find of 0" in said.stdout + said.stderr


@needs_mpi
def test_stopped_worker_is_named() -> None:
    said = start("server.py", 3, "is_silent", "1", "2", seconds=55)
    assert "rank 1 sent nothing for 2 s in operation" in said.stdout + said.stderr


def test_keys_are_spread_over_servers() -> None:
    counts = np.bincount(owners(np.arange(30_000), 3), minlength=3)
    assert counts.min() > 9_500


def test_context_is_checked() -> None:
    try:
        with pytest.raises(ArgumentValueError, match="has no option 'servers'; known: enable_ps, server_num"):
            set_ps_context(servers=1)
        with pytest.raises(ArgumentTypeError, match="enable_ps is True or False, found 1"):
            set_ps_context(enable_ps=1)
        with pytest.raises(ArgumentValueError, match="server_num is at least 1, found 0"):
            set_ps_context(enable_ps=True, server_num=0)
        assert get_ps_context("enable_ps") is False
        from numparam import Cell

        with pytest.raises(StateError, match="no parameter servers; call set_ps_context"):
            ParameterServer(Cell())
        set_ps_context(enable_ps=True)
        with pytest.raises(StateError, match="needs at least 2 ranks, found 1"):
            ParameterServer(Cell())
    finally:
        reset_ps_context()
