"""The thread pool that kernels run on, and how work is split over it.

Kernels release the GIL, so plain Python threads run them in parallel. The pool is created at its first use, grows on
demand, and is forgotten in a forked child, where its threads do not exist. Numba's own threading layers are not used:
one kills a forked child, another aborts when two threads call it at once.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future, ThreadPoolExecutor

# Handing a piece to another thread costs about 44 us, the time in which one core writes 256 KiB of normal values.
BYTES_PER_PIECE = 1 << 20

_BYTES_OF_THREAD = 16 << 20  # its stack takes 8 MiB

SECONDS_AFTER_ERROR = 5
"""How long an error waits for the pieces that other threads have begun."""

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_num_threads: int | None = None


def get_num_threads() -> int:
    """Return how many threads one operation may use: set, or from ``NUMPARAM_NUM_THREADS``, or one for each core."""
    if _num_threads is not None:
        return _num_threads
    text = os.environ.get("NUMPARAM_NUM_THREADS")
    if text:
        if not text.isdecimal() or int(text) == 0:
            raise ValueError(f"NUMPARAM_NUM_THREADS must be a positive integer, found {text!r}")
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    starts = iter(range(0, count, size))

    def take_pieces() -> None:
        try:
            for start in starts:  # a range iterator hands each value to one thread only
                work(start, min(start + size, count))
        except BaseException:
            drop_pieces()
            raise

    def drop_pieces() -> None:
        for _ in starts:
            pass

    others: list[Future[None]] = []
    try:
        _submit(take_pieces, threads - 1, others)
        take_pieces()
        _wait(others)
    except BaseException:
        drop_pieces()
        _wait(others, SECONDS_AFTER_ERROR)
        raise
    for other in others:
        if not other.cancelled():
            other.result()


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


def _submit(task: Callable[[], None], workers: int, submitted: list[Future[None]]) -> None:
    """Give a task to this many threads of the pool, or to fewer at the end of the interpreter, or without memory."""
    with contextlib.suppress(RuntimeError):
        pool = _get_pool(workers)
        if len(pool._threads) < workers and not can_start(workers):
            return
        for _ in range(workers):
            submitted.append(pool.submit(task))  # noqa: PERF401


def _wait(tasks: list[Future[None]], timeout: float | None = None) -> None:
    """Wait for the tasks that have begun; the others have nothing to do."""
    if begun := [task for task in tasks if not task.cancel()]:
        from concurrent.futures import wait

        wait(begun, timeout)


def _get_pool(workers: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    global _pool  # noqa: PLW0603
    with _lock:
        if _pool is None or _pool._max_workers < workers:
            # Another thread may be about to use the smaller pool, so it is left to end with its last reference.
            _pool = ThreadPoolExecutor(workers, thread_name_prefix="numparam")
        return _pool


def _forget_pool() -> None:
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
