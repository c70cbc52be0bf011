"""The thread pool that kernels run on, and how work is split over it.

Kernels release the GIL, so plain Python threads run them in parallel. The pool is created at its first use, grows on
demand, and is forgotten in a forked child, where its threads do not exist. Numba's own threading layers are not used:
one kills a forked child, another aborts when two threads call it at once. Nor are Python's executors: a Ctrl-C inside
one of their conditions, which are written in Python, leaves its lock taken, and the process waits for ever at its end.
What is used here are operations that a signal cannot tear apart.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import mmap
import os
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Handing a piece to another thread costs about 44 us, the time in which one core writes 256 KiB of normal values.
BYTES_PER_PIECE = 1 << 20

_BYTES_OF_THREAD = 16 << 20  # its stack takes 8 MiB

SECONDS_AFTER_ERROR = 5
"""How long an error waits for the pieces that other threads have begun."""

_lock = threading.Lock()
_tasks: SimpleQueue[Task | None] = SimpleQueue()  # None ends the thread that gets it, and is handed on
_ends: list[threading.Lock] = []  # one for each thread of the pool, held until it ends
_is_ended = False
_num_threads: int | None = None
_share: int | None = None  # of the cores, when others work on this machine too


def get_num_threads() -> int:
    """Return how many threads one operation may use: set, or from ``NUMPARAM_NUM_THREADS``, or one for each core.

    The ranks of an MPI job share the cores of their machine.
    """
    if _num_threads is not None:
        return _num_threads
    text = os.environ.get("NUMPARAM_NUM_THREADS")
    if text:
        if not text.isdecimal() or int(text) == 0:
            raise ValueError(f"NUMPARAM_NUM_THREADS must be a positive integer, found {text!r}")
        return int(text)
    return _share or len(cores())


def cores() -> set[int]:
    """Return the cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {*range(os.cpu_count() or 1)}


def set_share(count: int | None) -> None:
    """Set how many of the cores are for this process, by default all that it may run on."""
    global _share  # noqa: PLW0603
    _share = count


def set_num_threads(count: int) -> None:
    """Set how many threads, at least 1, one operation may use; values do not depend on it."""
    global _num_threads  # noqa: PLW0603
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"the number of threads must be an integer, found {count!r}")
    if count < 1:
        raise ValueError(f"the number of threads must be at least 1, found {count}")
    _num_threads = int(count)


def run(work: Callable[[int, int], None], count: int, item_bytes: int, multiple: int) -> None:
    """Call ``work(start, stop)`` on consecutive ranges that cover ``range(count)``, on several threads when it pays.

    Ranges start at multiples of `multiple`. `work` allows concurrent calls and empty ranges, and keeps what it reads
    and writes alive. An error, or an interrupt, drops the ranges that have not begun.
    """
    threads = count * item_bytes // BYTES_PER_PIECE
    if threads > 1:
        threads = min(threads, get_num_threads())
    if threads <= 1:
        work(0, count)
        return
    work(0, 0)  # loads the kernel, so that no thread waits for another that is interrupted meanwhile
    # Four pieces a thread, taken as threads become free: a core that is busy elsewhere delays the end less.
    pieces = min(4 * threads, count * item_bytes // BYTES_PER_PIECE)
    size = -(-count // pieces // multiple) * multiple
    for_each(lambda start: work(start, min(start + size, count)), range(0, count, size), threads)


def for_each(call: Callable[[int], object], numbers: range, threads: int) -> None:
    """Make a call with each number, on as many threads as can be had; an error, or an interrupt, drops the rest."""
    rest = iter(numbers)

    def take() -> None:
        try:
            for number in rest:  # a range iterator hands each value to one thread only
                call(number)
        except BaseException:
            drop()
            raise

    def drop() -> None:
        for _ in rest:
            pass

    others: list[Task] = []
    try:
        _submit(take, threads - 1, others)
        take()
        _wait(others)
    except BaseException:
        drop()
        _wait(others, SECONDS_AFTER_ERROR)
        raise
    for other in others:
        if other.error is not None:
            raise other.error


def begin(call: Callable[[], Any]) -> Task:
    """Let a thread make a call while the caller goes on; its `result` is made by the caller if none was free."""
    begun: list[Task] = []
    _submit(call, 1, begun, get_num_threads())
    return begun[0] if begun else Task(call)


def can_start(threads: int = 1) -> bool:
    """Return whether there is memory for more threads; Python waits for ever for one that finds none as it begins."""
    return has_memory(max(threads, 1) * _BYTES_OF_THREAD)


def has_memory(nbytes: int) -> bool:
    """Return whether the system gives memory, for what cannot be refused it later."""
    try:
        mmap.mmap(-1, nbytes).close()
    except (OSError, ValueError, MemoryError):
        return False
    return True


class Task:
    """A call that a thread of the pool makes, unless the caller takes it back first."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self._owner = call, dict[str, str]()
        self._value: Any = None
        self.error: BaseException | None = None
        self._is_done, self._end = False, threading.Lock()
        self._end.acquire()

    def run(self) -> None:
        """Make the call, and keep its error."""
        if self._owner.setdefault("is", "pool") != "pool":
            return
        try:
            self._value = self._call()
        except BaseException as error:
            self.error = error
        self._is_done = True
        self._end.release()

    def take_back(self) -> bool:
        """Return whether the call has not begun, and never will."""
        return self._owner.setdefault("is", "caller") == "caller"

    def wait(self, seconds: float = -1) -> None:
        """Wait for the end of a call that was not taken back."""
        if not self._is_done:
            self._end.acquire(timeout=seconds)

    def result(self) -> Any:
        """Return what the call returns or raise its error, once; make it here if no thread has begun."""
        if self.take_back():
            return self._call()
        self.wait()
        if self.error is not None:
            raise self.error
        return self._value


def _submit(call: Callable[[], Any], workers: int, submitted: list[Task], threads: int = 0) -> None:
    """Give a call to this many threads of the pool, or to fewer at the end of the interpreter, or without memory."""
    with contextlib.suppress(RuntimeError):  # no thread can be started
        _grow(max(workers, threads))
    for _ in range(min(workers, len(_ends))):
        submitted.append(task := Task(call))
        _tasks.put(task)


def _wait(tasks: list[Task], timeout: float | None = None) -> None:
    """Wait for the tasks that have begun; the others have nothing to do."""
    until = None if timeout is None else time.monotonic() + timeout
    for task in [task for task in tasks if not task.take_back()]:
        task.wait(-1 if until is None else max(until - time.monotonic(), 0))


def _grow(workers: int) -> None:
    if len(_ends) >= workers:
        return
    with _lock:
        if _is_ended or len(_ends) >= workers or not can_start(workers):
            return
        if not _ends:
            atexit.register(_stop)
        while len(_ends) < workers:
            end = threading.Lock()
            end.acquire()
            _thread.start_new_thread(_serve, (_tasks, end))
            _ends.append(end)


def _serve(tasks: SimpleQueue[Task | None], end: threading.Lock) -> None:
    try:
        while (task := tasks.get()) is not None:
            task.run()
            del task  # and what it reads and writes
        tasks.put(None)
    finally:
        end.release()


def _stop() -> None:
    """End the threads before the interpreter does; whoever still has work does it alone."""
    global _is_ended  # noqa: PLW0603
    _is_ended = True
    if _ends:
        _tasks.put(None)
    while _ends:
        _ends.pop().acquire()


def _forget_pool() -> None:
    global _tasks, _ends, _lock
    _tasks, _ends, _lock = SimpleQueue(), [], threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
