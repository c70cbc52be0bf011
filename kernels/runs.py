"""Walk over runs: the pieces of memory in which both sides of a copy are consecutive.

`walker` makes the loop, `copy_runs` is what it does to runs that are copied as they are. Everything is counted in bytes
and addressed by numbers, so one compiled loop copies every dtype.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numparam.kernels._compile import formula, kernel
from numparam.kernels._memory import LINE, access, prefetch, prefetch_to_write, stack

_load_line, _store_line, _stream_line = access("u64", 8)
_load_32, _store_32, _ = access("u64", 4)
_load_16, _store_16, _ = access("u64", 2)
_load_8, _store_8, _ = access("u64", 1)
_load_4, _store_4, _ = access("u32", 1)
_load_2, _store_2, _ = access("u32", 1, 2)
_load_1, _store_1, _ = access("u32", 1, 1)

# The prefetchers of a processor stop where a run ends. Asking for the beginning of the next run while the end of this
# one is copied takes runs of 8 KB from 0.8 to 1.0, and runs of 4 KB from 0.6 to 1.0 of the speed of one long copy.
AHEAD = 32 * LINE
# Shorter runs are copied by `copy_short_runs`: four times as fast at 64 bytes, as fast at 1 KiB.
SHORT = 1024
# Of runs that follow each other in the target: half as many as of others, and both figures are the best for theirs.
JOINED_LINES_AHEAD = 16


# --------------------------------------------------------------------------- formulas


@formula
def copy_part_of_line(target: Any, source: Any, count: Any) -> None:
    """Copy less than a line, by two loads and stores of the largest size that fits; they may cover a byte twice."""
    if count >= 32:
        last = _load_32(source + count - 32)
        _store_32(target, _load_32(source))
        _store_32(target + count - 32, last)
    elif count >= 16:
        last = _load_16(source + count - 16)
        _store_16(target, _load_16(source))
        _store_16(target + count - 16, last)
    elif count >= 8:
        last = _load_8(source + count - 8)
        _store_8(target, _load_8(source))
        _store_8(target + count - 8, last)
    elif count >= 4:
        last = _load_4(source + count - 4)
        _store_4(target, _load_4(source))
        _store_4(target + count - 4, last)
    elif count >= 2:
        last = _load_2(source + count - 2)
        _store_2(target, _load_2(source))
        _store_2(target + count - 2, last)
    elif count == 1:
        _store_1(target, _load_1(source))


@formula
def copy_bytes(target: Any, source: Any, count: Any, past_caches: Any) -> None:
    """Copy consecutive bytes; past the caches, the whole lines of the target are written without being read."""
    # Counted loops: LLVM drops what follows a `while` loop over these addresses when it can tell that it never runs.
    if past_caches and count >= 2 * LINE:
        head = -target & (LINE - 1)
        if head > 0:
            copy_part_of_line(target, source, head)
            target, source, count = target + head, source + head, count - head
        for line in range(count // LINE):
            _stream_line(target + line * LINE, _load_line(source + line * LINE))
    else:
        for line in range(count // LINE):
            _store_line(target + line * LINE, _load_line(source + line * LINE))
    done = count // LINE * LINE
    if done < count:
        copy_part_of_line(target + done, source + done, count - done)


@formula
def copy_run(target: Any, source: Any, count: Any, past_caches: Any, following: Any) -> None:
    """Copy as `copy_bytes` does, and ask for what will be read next: it begins at the address `following`."""
    far = max(0, (target + count - AHEAD) // LINE * LINE - target)  # to the end of a line
    copy_bytes(target, source, far, past_caches)
    for line in range((count - far) // LINE):
        prefetch(following + line * LINE)
    copy_bytes(target + far, source + far, count - far, past_caches)


@formula
def locate(position: Any, axes: Any, target: Any, source: Any) -> Any:
    """Return the addresses at the flat `position` of axes given as rows (length, step of target, step of source)."""
    for axis in range(axes.shape[0] - 1, -1, -1):
        length = axes[axis, 0]
        target += position % length * axes[axis, 1]
        source += position % length * axes[axis, 2]
        position //= length
    return target, source


def _short_runs(size: int, load: Any, store: Any) -> Any:
    """Make the formula for runs of at least `size` bytes, whose last piece may cover bytes of the one before it."""

    @formula
    def copy(target: Any, source: Any, rows: Any, run: Any, target_step: Any, source_step: Any) -> None:
        last = run - size
        for row in range(rows):
            to, origin = target + row * target_step, source + row * source_step
            for done in range(0, last, size):
                prefetch(origin + source_step + done)
                store(to + done, load(origin + done))
            store(to + last, load(origin + last))

    return copy


_runs_of_lines = _short_runs(LINE, _load_line, _store_line)
_runs_of_32 = _short_runs(32, _load_32, _store_32)
_runs_of_16 = _short_runs(16, _load_16, _store_16)
_runs_of_8 = _short_runs(8, _load_8, _store_8)
_runs_of_4 = _short_runs(4, _load_4, _store_4)
_runs_of_2 = _short_runs(2, _load_2, _store_2)
_runs_of_1 = _short_runs(1, _load_1, _store_1)


@formula
def copy_short_runs(target: Any, source: Any, rows: Any, run: Any, target_step: Any, source_step: Any) -> None:
    """Copy runs in few instructions each.

    The time goes into waiting for lines of the source, and a processor waits for as many of them at once as it meets
    in the few hundred instructions that it looks ahead.
    """
    if run >= LINE:
        _runs_of_lines(target, source, rows, run, target_step, source_step)
    elif run >= 32:
        _runs_of_32(target, source, rows, run, target_step, source_step)
    elif run >= 16:
        _runs_of_16(target, source, rows, run, target_step, source_step)
    elif run >= 8:
        _runs_of_8(target, source, rows, run, target_step, source_step)
    elif run >= 4:
        _runs_of_4(target, source, rows, run, target_step, source_step)
    elif run >= 2:
        _runs_of_2(target, source, rows, run, target_step, source_step)
    else:
        _runs_of_1(target, source, rows, run, target_step, source_step)


# --------------------------------------------------------------------------- loops


def each_run(do_run: Any, target_bytes: int, source_bytes: int) -> Any:
    """Make the formula that calls ``do_run(target, source, count, past_caches, following)`` on runs a step apart."""

    @formula
    def do_runs(
        target: Any, source: Any, rows: Any, run: Any, target_step: Any, source_step: Any, past_caches: Any
    ) -> None:
        ahead = source_step * max(1, AHEAD // (run * source_bytes))
        for _ in range(rows):
            # A store that waits for its line holds up those behind it: the lines that a run shares with its
            # neighbours are asked for a run earlier.
            prefetch_to_write(target + target_step)
            prefetch_to_write(target + run * target_bytes)
            do_run(target, source, run, past_caches, source + ahead)
            target += target_step
            source += source_step

    return do_runs


_copy_long_runs = each_run(copy_run, 1, 1)
_reserve_line = stack(LINE)


@formula
def _copy_joined_runs(target: Any, source: Any, rows: Any, run: Any, source_step: Any) -> None:
    """Copy long runs that follow each other in the target, past the caches.

    The line that two of them share is put together before it is written: to write a part of it, a processor reads it.
    """
    line, held = _reserve_line(), target & (LINE - 1)  # how much of a line comes before the run
    to = target - held
    for row in range(rows):
        origin, left = source + row * source_step, run
        if held > 0:
            part = LINE - held
            copy_part_of_line(line + held, origin, part)
            if row > 0:
                _stream_line(to, _load_line(line))
            else:  # the rest of the line is not of this copy
                copy_part_of_line(to + held, origin, part)
            to, origin, left = to + LINE, origin + part, left - part
        lines = left // LINE
        far = max(0, lines - JOINED_LINES_AHEAD)
        for at in range(far):
            _stream_line(to + at * LINE, _load_line(origin + at * LINE))
        for at in range(JOINED_LINES_AHEAD):
            prefetch(source + (row + 1) * source_step + at * LINE)
        for at in range(far, lines):
            _stream_line(to + at * LINE, _load_line(origin + at * LINE))
        to, origin, held = to + lines * LINE, origin + lines * LINE, left - lines * LINE
        copy_part_of_line(line, origin, held)
    copy_part_of_line(to, line, held)


@formula
def copy_runs(
    target: Any, source: Any, rows: Any, run: Any, target_step: Any, source_step: Any, past_caches: Any
) -> None:
    """Copy runs of any length as they are."""
    if run < SHORT:
        copy_short_runs(target, source, rows, run, target_step, source_step)
    elif past_caches and target_step == run:
        _copy_joined_runs(target, source, rows, run, source_step)
    else:
        _copy_long_runs(target, source, rows, run, target_step, source_step, past_caches)


def walker(identity: str, target_bytes: int, source_bytes: int, do_runs: Any) -> Any:
    """Make the loop that calls `do_runs`, which `each_run` describes, on whole and cut runs.

    Its arguments are the addresses of both sides, the flat range of items, the outer axes as `locate` takes them, the
    items of a run and whether to write past the caches.
    """

    @kernel(identity)
    def walk(target: Any, source: Any, start: Any, stop: Any, axes: Any, run: Any, past_caches: Any) -> None:
        inner = axes.shape[0] - 1
        length, target_step, source_step = axes[inner, 0], axes[inner, 1], axes[inner, 2]
        at = start
        while at < stop:
            index, skip = at // run, at % run
            to, origin = locate(index, axes, target, source)
            rows, count = min(length - index % length, (stop - at) // run), run
            if skip > 0 or stop - at < run:
                rows, count = 1, min(run - skip, stop - at)
            to, origin = to + skip * target_bytes, origin + skip * source_bytes
            do_runs(to, origin, rows, count, target_step, source_step, past_caches)
            at += rows * count

    return walk


@cache
def copying() -> Any:
    """Make the loop over runs that are copied as they are; an item is one byte."""
    return walker("copy runs", 1, 1, copy_runs)
