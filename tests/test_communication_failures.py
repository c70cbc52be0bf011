"""A rank that fails ends the whole job, which says which rank it was and where."""

import os
import subprocess
import sys
import threading

import pytest

from numparam.communication.watcher import Watched
from ranks import needs_mpi, start

pytestmark = [needs_mpi, pytest.mark.timeout(120)]


# Ranks of one machine meet in memory; others exchange messages.
both_ways = pytest.mark.parametrize("way", ["memory", pytest.param("messages", marks=pytest.mark.slow)])


def fail(
    what: str, *arguments: str, timeout: float = 60, ranks: int = 4, way: str = "memory"
) -> tuple[str, subprocess.CompletedProcess[str]]:
    """Return what the failing job said. It ends by itself: other ranks would sleep for longer than they are given."""
    environment = {"BY_MESSAGES": "1"} if way == "messages" else {}
    done = start("failing.py", ranks, what, str(timeout), *arguments, seconds=55, **environment)
    assert done.returncode != 0 or arguments == ("0",)
    return done.stdout + done.stderr, done


def test_exception_ends_the_job_with_its_traceback_and_the_rank() -> None:
    said, _ = fail("raises")
    assert 'raise KeyError("no such layer")' in said
    assert "numparam: rank 2 of 4 ended with KeyError: 'no such layer'; this ends the whole job" in said


def test_exception_while_the_others_wait_ends_them() -> None:
    said, _ = fail("raises_in_the_middle")
    assert "rank 1 of 4 ended with DtypeError" in said


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_rank_that_a_signal_ends_is_named(how: str) -> None:
    said, _ = fail("is_killed", how)
    assert (
        "numparam: rank 1 of 4 ended without release(), by os._exit, a signal or a crash; this ends the whole job"
        in said
    )


@pytest.mark.parametrize("status", ["0", "5"])
def test_rank_that_exits_at_once_is_named(status: str) -> None:
    said, done = fail("exits_at_once", status, ranks=3)
    assert said.count("ended without release()") == said.count("numparam: rank 0 of 3 ended without release()") == 1
    assert status == "0" or done.returncode != 0


def test_exception_in_a_thread_ends_the_job() -> None:
    said, _ = fail("raises_in_a_thread", ranks=2)
    assert "numparam: rank 1 of 2 ended with KeyError in thread 'loader': 'no such file'" in said


@both_ways
def test_rank_that_exits_is_named_by_those_who_wait(way: str) -> None:
    said, _ = fail("exits", way=way)
    assert "ranks 0, 2-3 reached all_reduce of float32[1000], sum; rank 1 reached the end of its program" in said


@both_ways
def test_late_rank_is_named_with_the_operation_and_the_time(way: str) -> None:
    said, _ = fail("is_stopped", timeout=5, way=way)
    assert "LateRankError" in said
    assert (
        "rank 2 did not reach operation 3 (all_reduce of float32[1000], sum) within 5 s, but ranks 0-1, 3 did" in said
    )


@both_ways
def test_rank_that_stops_in_the_middle_is_named(way: str) -> None:
    said, _ = fail("stops_in_the_middle", timeout=5, way=way)
    assert "rank 2 sent nothing for 5 s in operation 3 (all_reduce of float32[262144], sum), which" in said


def test_rank_that_leaves_in_the_middle_is_named() -> None:
    said, _ = fail("leaves_in_the_middle")
    assert "DisagreementError: rank 2 left operation 2 (all_reduce of float32[262144], sum), which all" in said


def test_interrupt_ends_a_rank_that_waits() -> None:
    said, _ = fail("is_interrupted", ranks=2)
    assert "rank 1 of 2 ended with KeyboardInterrupt" in said


def test_rank_that_does_not_start_ends_the_job() -> None:
    said, _ = fail("comes_late_to_init", timeout=2, ranks=2)
    assert "Timeout (0:00:02)!" in said
    assert "in _start_mpi_with_all_ranks" in said


@both_ways
def test_other_operation_is_named(way: str) -> None:
    said, _ = fail("calls_another", way=way)
    assert (
        "operation 2 differs: ranks 0-2 reached all_reduce of float32[1000], sum; "
        "rank 3 reached broadcast of float32[1000], from rank 0; all ranks must call the same"
    ) in said


def test_other_shape_is_named() -> None:
    said, _ = fail("brings_another_shape")
    assert "rank 0 reached all_reduce of float32[10], sum; ranks 1-3 reached all_reduce of float32[1000], sum;" in said


def test_nothing_goes_on_after_a_late_rank() -> None:
    said, _ = fail("goes_on_after_an_error", timeout=1, ranks=2)
    assert "barrier: ranks 0-1 cannot communicate after an earlier failure: rank 1 did not reach operation 3" in said
    assert "numparam: the job cannot end well after an earlier failure: rank 1 did not reach" in said


def test_member_that_ends_is_named_by_those_who_wait_in_a_group() -> None:
    said, _ = fail("waits_in_a_group", ranks=3)
    assert "operation 1 of group 'first' (ranks 0-1) differs: rank 0 reached barrier; rank 1 reached the end" in said


def test_forgotten_init_is_told() -> None:
    said, _ = fail("forgets_init", ranks=2)
    assert "this process is one of 2; call numparam.communication.init() first" in said


@pytest.mark.skipif(sys.platform != "linux", reason="the watcher needs Linux")
def test_a_rank_that_others_see_before_it_has_ended_is_found() -> None:
    watched = object.__new__(Watched)
    with subprocess.Popen(["sleep", "60"]) as ending:
        watched.processes = {0: os.getpid(), 5: ending.pid}
        timer = threading.Timer(0.1, ending.kill)
        timer.start()
        assert watched.dead() == [5]
        timer.join()
