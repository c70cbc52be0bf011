"""Fills work in forked children and from any number of Python threads at once."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from numparam.kernels import fill
from numparam.kernels.fill import Key
from numparam.kernels.machine import pool
from package_copy import run_python

SIZE = 3 << 20  # enough for several threads


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = pool._num_threads
    pool.set_num_threads(4)
    yield
    pool._num_threads = before


def drawn(stream: int) -> np.ndarray:
    out = np.empty(SIZE, np.float32)
    fill.uniform(out, Key(1, stream, 0), -1.0, 1.0)
    return out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_fills_with_threads_of_its_own() -> None:
    """The pool's threads do not exist in the child, and the lock of the pool may be held by one of them."""
    expected = drawn(1)
    assert pool._ends
    with pool._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks beside threads
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if not pool._ends and np.array_equal(drawn(1), expected) else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(drawn(1), expected)


def test_fills_of_many_threads_do_not_disturb_each_other() -> None:
    streams = range(12)
    expected = [drawn(stream) for stream in streams]
    barrier = threading.Barrier(6)

    def draw(stream: int) -> bool:
        if stream < 6:
            barrier.wait()
        pool.set_num_threads(1 + stream % 7)  # pools grow while others use them
        return np.array_equal(drawn(stream), expected[stream])

    with ThreadPoolExecutor(6) as executor:
        assert all(executor.map(draw, streams))


def test_the_first_fills_may_come_together() -> None:
    """Several threads compile or load one kernel at once."""
    script = (
        "import numpy as np\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from numparam.kernels import fill\n"
        "def draw(_):\n"
        "    out = np.empty(1 << 20, np.float32)\n"
        "    fill.uniform(out, fill.Key(1, 2, 3), 0.0, 1.0)\n"
        "    return out.tobytes()\n"
        "with ThreadPoolExecutor(5) as pool:\n"
        "    assert len(set(pool.map(draw, range(10)))) == 1\n"
    )
    run_python("-c", script)


def test_an_error_in_one_piece_is_raised() -> None:
    def fail(start: int, _stop: int) -> None:
        if start > 0:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        pool.run(fail, 64 << 20, 1, 1)


def test_an_error_drops_the_pieces_that_have_not_begun() -> None:
    pool.set_num_threads(2)
    begun = []

    def fail(start: int, stop: int) -> None:
        if stop > start:
            begun.append(start)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.run(fail, 64 << 20, 1, 1)
    assert len(begun) <= 2


def test_an_error_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    pool.set_num_threads(2)
    monkeypatch.setattr(pool, "SECONDS_AFTER_ERROR", 0.05)
    caller, begun, end = threading.get_ident(), threading.Event(), threading.Event()

    def work(start: int, stop: int) -> None:
        if stop == start:
            return
        if threading.get_ident() == caller:
            begun.wait()
            raise KeyboardInterrupt
        begun.set()
        end.wait()

    try:
        with pytest.raises(KeyboardInterrupt):
            pool.run(work, 64 << 20, 1, 1)
    finally:
        end.set()


def test_the_kernel_is_loaded_before_work_is_shared_out() -> None:
    found = []
    pool.run(lambda start, stop: found.append((threading.get_ident(), start, stop)), 64 << 20, 1, 1)
    assert found[0] == (threading.get_ident(), 0, 0)
    assert all(start < stop for _, start, stop in found[1:])


@pytest.mark.parametrize("when", ["atexit.register(draw)", "threading.Thread(target=late).start()"])
def test_fills_at_the_end_of_the_interpreter_need_no_threads(when: str) -> None:
    script = (
        "import atexit, threading\n"
        "import numpy as np\n"
        "from numparam.kernels import fill\n"
        "from numparam.kernels.machine import pool\n"
        "pool.set_num_threads(4)\n"
        "def draw():\n"
        f"    out = np.empty({SIZE}, np.float32)\n"
        "    fill.uniform(out, fill.Key(1, 1, 0), -1.0, 1.0)\n"
        "    print(out.sum(dtype=np.float64))\n"
        "def late():\n"
        "    threading.main_thread().join()\n"
        "    draw()\n"
        f"{when}\n"
    )
    assert run_python("-c", script) == f"{drawn(1).sum(dtype=np.float64)}\n"


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("items, item_bytes, multiple", [(0, 4, 32), (1, 4, 32), (9_999_999, 4, 32), (5 << 20, 1, 64)])
def test_pieces_cover_everything_once(count: int, items: int, item_bytes: int, multiple: int) -> None:
    pool.set_num_threads(count)
    pieces = []
    pool.run(lambda start, stop: pieces.append((start, stop)), items, item_bytes, multiple)
    pieces.sort()
    assert [start for start, _ in pieces] == [0] + [stop for _, stop in pieces[:-1]]
    assert pieces[-1][1] == items
    assert all(start % multiple == 0 for start, _ in pieces)


@pytest.mark.parametrize("count", [0, -3])
def test_at_least_one_thread(count: int) -> None:
    with pytest.raises(ValueError, match=f"the number of threads must be at least 1, found {count}"):
        pool.set_num_threads(count)


@pytest.mark.parametrize("count", [1.0, "2", None, True])
def test_threads_are_counted_in_integers(count: object) -> None:
    with pytest.raises(TypeError, match="the number of threads must be an integer"):
        pool.set_num_threads(count)  # type: ignore[arg-type]


def test_numpy_integers_count_threads() -> None:
    pool.set_num_threads(np.int64(3))  # type: ignore[arg-type]
    assert pool.get_num_threads() == 3


def test_the_environment_counts_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_num_threads", None)
    monkeypatch.setenv("NUMPARAM_NUM_THREADS", "3")
    assert pool.get_num_threads() == 3
    pool.set_num_threads(2)
    assert pool.get_num_threads() == 2


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", " 2"])
def test_wrong_environment_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_num_threads", None)
    monkeypatch.setenv("NUMPARAM_NUM_THREADS", text)
    with pytest.raises(ValueError, match=f"NUMPARAM_NUM_THREADS must be a positive integer, found '{text}'"):
        pool.get_num_threads()


def test_all_usable_cores_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_num_threads", None)
    monkeypatch.setenv("NUMPARAM_NUM_THREADS", "")
    assert 1 <= pool.get_num_threads() <= (os.cpu_count() or 1)


def test_an_interrupt_at_any_line_leaves_nothing_locked() -> None:
    """The next call is done by all threads, and the interpreter ends."""
    script = (
        "import itertools, sys, threading\n"
        "from numparam.kernels.machine import pool\n"
        "pool.set_num_threads(3)\n"
        "def run():\n"
        "    found = []\n"
        "    pool.run(lambda start, stop: found.append((start, stop)), 8 << 20, 1, 1)\n"
        "    return sorted(found)\n"
        "expected = run()\n"
        "def interrupt(frame, event, argument):\n"
        "    global left\n"
        "    left -= event == 'line'\n"
        "    if left == 0:\n"
        "        raise KeyboardInterrupt\n"
        "    return interrupt\n"
        "for number in itertools.count(1):\n"
        "    left = number\n"
        "    sys.settrace(interrupt)\n"
        "    try:\n"
        "        run()\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
        "    sys.settrace(None)\n"
        "    assert run() == expected\n"
        "    if left > 0:\n"
        "        break\n"
        "print(number > 50)\n"
    )
    assert run_python("-c", script) == "True\n"
