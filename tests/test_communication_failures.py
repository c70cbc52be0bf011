"""A rank that fails ends the whole job, which says which rank it was and where."""

import subprocess

import pytest

from ranks import needs_mpi, start

pytestmark = [needs_mpi, pytest.mark.timeout(120)]


def fail(what: str, timeout: float = 60, ranks: int = 4) -> tuple[str, subprocess.CompletedProcess[str]]:
    """Return what the failing job said. It ends by itself: other ranks would sleep for longer than they are given."""
    done = start("failing.py", ranks, what, str(timeout), seconds=55)
    assert done.returncode != 0
    return done.stdout + done.stderr, done


def test_exception_ends_the_job_with_its_traceback_and_the_rank() -> None:
    said, _ = fail("raises")
    assert 'raise KeyError("no such layer")' in said
    assert "numparam: rank 2 of 4 ended with KeyError: 'no such layer'; this ends the whole job" in said


def test_exception_while_the_others_wait_ends_them() -> None:
    said, _ = fail("raises_in_the_middle")
    assert "rank 1 of 4 ended with DtypeError" in said


def test_killed_rank_ends_the_job() -> None:
    said, done = fail("is_killed")
    assert done.returncode == 9 or "KILLED BY SIGNAL: 9" in said


def test_rank_that_exits_is_named_by_those_who_wait() -> None:
    said, _ = fail("exits")
    assert "came ranks 0, 2-3: all_reduce (sum) of float32 (1000,); rank 1: the end of the program" in said


def test_late_rank_is_named_with_the_operation_and_the_time() -> None:
    said, _ = fail("is_stopped", timeout=2)
    assert "LateRankError" in said
    assert "rank 2 did not come to operation 2 of all ranks, all_reduce (sum) of float32 (1000,), within 2 s" in said
    assert "after ranks 0-1, 3" in said


def test_rank_that_stops_in_the_middle_is_named() -> None:
    said, _ = fail("stops_in_the_middle", timeout=2)
    assert "all_reduce (sum) of float32 (1000,): nothing came from rank 2 for 2 s, in the middle of operation 2" in said


def test_rank_that_does_not_start_ends_the_job() -> None:
    said, _ = fail("comes_late_to_init", timeout=2, ranks=2)
    assert "Timeout (0:00:02)!" in said
    assert "in _start_mpi_with_all_ranks" in said


def test_other_operation_is_named() -> None:
    said, _ = fail("calls_another")
    assert (
        "as operation 2 of all ranks came ranks 0-2: all_reduce (sum) of float32 (1000,); "
        "rank 3: broadcast from 0 of float32 (1000,)"
    ) in said


def test_other_shape_is_named() -> None:
    said, _ = fail("brings_another_shape")
    assert "came rank 0: all_reduce (sum) of float32 (10,); ranks 1-3: all_reduce (sum) of float32 (1000,)" in said


def test_nothing_goes_on_after_a_late_rank() -> None:
    said, _ = fail("goes_on_after_an_error", timeout=1, ranks=2)
    assert "barrier: ranks 0-1 cannot talk any more, for before this: rank 1 did not come to operation 2" in said
    assert "numparam: the job cannot end well, for before this: rank 1 did not come" in said


def test_member_that_ends_is_named_by_those_who_wait_in_a_group() -> None:
    said, _ = fail("waits_in_a_group", ranks=3)
    assert "as operation 1 of group 'first' (ranks 0-1) came rank 0: barrier; rank 1: the end of the program" in said


def test_forgotten_init_is_told() -> None:
    said, _ = fail("forgets_init", ranks=2)
    assert "this process is one of 2; call numparam.communication.init() first" in said
