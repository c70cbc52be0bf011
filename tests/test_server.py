"""Jobs with parameter servers have the bits of one process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.server import ParameterServer, get_ps_context, reset_ps_context, set_ps_context
from numparam.server.division import owners
from ranks import SCRIPTS, needs_mpi, run, start

sys.path.insert(0, str(SCRIPTS))


slow = pytest.mark.slow


@needs_mpi
@pytest.mark.parametrize(
    "servers, ranks, in_server, cache_rows",
    [(1, 3, True, 50), pytest.param(2, 4, False, 0, marks=slow), pytest.param(2, 4, True, 50, marks=slow)],
)
def test_job_equals_a_serial_run(servers: int, ranks: int, in_server: bool, cache_rows: int) -> None:
    said = run(
        "server.py", ranks, "equals_serial", str(servers), "none", "60", str(in_server), str(cache_rows), seconds=100
    )
    assert said.count("equal") == ranks - servers


@needs_mpi
@pytest.mark.parametrize(
    "servers, bound, cache_rows", [(1, 2, 0), pytest.param(2, 1, 0, marks=slow), pytest.param(2, 3, 50, marks=slow)]
)
def test_worker_waits_that_is_further_ahead_than_the_bound(servers: int, bound: int, cache_rows: int) -> None:
    arguments = "is_asynchronous", str(servers), str(bound), "30", str(bound), str(cache_rows)
    assert run("server.py", servers + 2, *arguments, seconds=100).count("exact") == 2


@needs_mpi
@slow
@pytest.mark.parametrize("servers", [1, 2])
def test_four_workers_with_eviction_and_kills_equal_a_serial_run(servers: int, tmp_path: Path) -> None:
    import server as script

    steps = 40
    for way, rank in (("kill", 4), ("within", 4), ("kill", 1), ("within", 1), ("none", 0)):
        arguments = "goes_on", str(servers), "none", "60", str(tmp_path), str(steps), way, str(rank)
        ended = start("server.py", 4 + servers, *arguments, seconds=100)
        assert (ended.returncode == 0) or way != "none", ended.stdout + ended.stderr
    for worker in range(4):
        acknowledged = [int(line) for line in (tmp_path / f"acknowledged-{worker}").read_text().split()]
        assert max(acknowledged) == steps
    script.check_snapshots(tmp_path, steps, 4, servers)


@needs_mpi
@slow
def test_killed_and_stopped_jobs_lose_nothing_for_a_minute() -> None:
    long = Path(__file__).parent / "long"
    command = [sys.executable, str(long), "killed_jobs", "--scale", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_mpi
@pytest.mark.slow
def test_example_prints_that_it_equals_one_process() -> None:
    pytest.importorskip("sklearn")
    example = str(Path(__file__).parents[1] / "examples" / "ratings.py")
    said = run(example, 3, "1", seconds=100)
    assert "equal to one process, bit for bit: True" in said


@needs_mpi
def test_rows_are_read_ahead_while_the_server_is_busy() -> None:
    assert "ahead" in run("server.py", 2, "reads_ahead", "1", "none", "20", seconds=55)


@needs_mpi
def test_workers_that_disagree_are_named() -> None:
    said = start("server.py", 3, "disagrees", "1", "none", "20", seconds=55)
    assert said.returncode
    assert "workers disagree: rank 0 asked for update of 0; rank 1 asked for save of 0" in said.stdout + said.stderr


@needs_mpi
@pytest.mark.parametrize("staleness", ["none", pytest.param("0", marks=slow)])
def test_stopped_worker_is_named(staleness: str) -> None:
    said = start("server.py", 3, "is_silent", "1", staleness, "5", seconds=55)
    assert "rank 1 sent nothing for 5 s in operation" in said.stdout + said.stderr


@needs_mpi
@pytest.mark.parametrize(
    "rank, pieces", [(1, 5), *(pytest.param(*case, marks=slow) for case in [(1, 20), (2, 5), (2, 30)])]
)
@pytest.mark.parametrize("sign", [signal.SIGSTOP, pytest.param(signal.SIGKILL, marks=slow)])
def test_rank_that_ends_within_a_transfer_is_named(rank: int, pieces: int, sign: int) -> None:
    said = start("server.py", 3, "ends_within", "1", "none", "5", str(rank), str(int(sign)), str(pieces), seconds=55)
    what = "sent nothing for 5 s in operation" if sign == signal.SIGSTOP else "of 3 ended without release()"
    assert f"rank {rank} {what}" in said.stdout + said.stderr


def test_keys_are_spread_over_servers() -> None:
    counts = np.bincount(owners(np.arange(30_000), 3), minlength=3)
    assert counts.min() > 9_500


def test_context_is_checked() -> None:
    try:
        with pytest.raises(
            ArgumentValueError, match="has no option 'servers'; known: enable_ps, server_num, staleness"
        ):
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
        with pytest.raises(StateError, match="needs a worker and a server, found 0 and 1 among 1 ranks"):
            ParameterServer(Cell())
    finally:
        reset_ps_context()
