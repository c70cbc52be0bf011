"""Walk over runs: the pieces of memory in which both sides of a copy are consecutive.

`walker` makes the loop, `copy_runs` is what it does to runs that are copied as they are. Everything is counted in bytes
and addressed by numbers, so one compiled loop copies every dtype.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.memory import LINE, access, prefetch

_ACCESSES = {
    1: access("u32", 1, 1), 2: access("u32", 1, 2), 4: access("u32", 1), 8: access("u64", 1), 16: access("u64", 2),
    32: access("u64", 4), LINE: access("u64", 8),
}  # fmt: skip
"""How so many bytes are loaded, stored and stored past the caches."""
_load_line, _store_line, _stream_line = _ACCESSES[LINE]

# Past the caches, so many runs are written at once, so many lines of each in turn: a processor reads faster from many
# places. Against one run after the other, runs of 8 KB gain 12 % and casts of float32 10 %. With fewer lines in turn,
# targets whose runs begin a power of two apart take up to twice as long.
ABREAST, BURST = 4, 8
# Longer runs are split into pieces of this size, to have as many.
CUT_BYTES = 1 << 16
# Shorter runs are copied by `copy_short_runs`, at half as many bytes a second.
SHORT = 512


def _part(size: int, shorter: Any) -> Any:
    """Make the formula that copies less than twice `size` bytes; fewer than `size` are for `shorter`."""
    load, store, _ = _ACCESSES[size]

    @formula
    def copy(target: Any, source: Any, count: Any) -> None:
        if count >= size:  # both pieces may cover a byte
            last = load(source + count - size)
            store(target, load(source))
            store(target + count - size, last)
        else:
            shorter(target, source, count)

    return copy


copy_part_of_line = formula(lambda target, source, count: None)  # noqa: ARG005
for _size in (1, 2, 4, 8, 16, 32):
    copy_part_of_line = _part(_size, copy_part_of_line)


class Line(NamedTuple):
    """How items are copied or converted by the line of the target, and how many bytes they have on both sides."""

    keep: Any  # formula of (target, source)
    stream: Any  # the same past the caches
    part: Any  # formula of (target, source, count), for less than a line
    target_bytes: int = 1
    source_bytes: int = 1


def one_run(line: Line) -> Any:
    """Make the formula that does consecutive items; past the caches, whole lines of the target are not read first."""
    keep, stream, part, target_bytes, source_bytes = line
    items, source_line = LINE // target_bytes, LINE // target_bytes * source_bytes

    # Counted loops: LLVM drops what follows a `while` loop over these addresses when it can tell that it never runs.
    @formula
    def do_run(target: Any, source: Any, count: Any, past_caches: Any) -> None:
        if past_caches and count >= 2 * items and target % target_bytes == 0:
            head = (-target & (LINE - 1)) // target_bytes
            part(target, source, head)
            target, source, count = target + head * target_bytes, source + head * source_bytes, count - head
            for at in range(count // items):
                stream(target + at * LINE, source + at * source_line)
        else:
            for at in range(count // items):
                keep(target + at * LINE, source + at * source_line)
        done = count // items * items
        if done < count:
            part(target + done * target_bytes, source + done * source_bytes, count - done)

    return do_run


@formula
def _keep_line(target: Any, source: Any) -> None:
    _store_line(target, _load_line(source))


@formula
def _stream_copied_line(target: Any, source: Any) -> None:
    _stream_line(target, _load_line(source))


_COPIED = Line(_keep_line, _stream_copied_line, copy_part_of_line)
copy_bytes = one_run(_COPIED)


@formula
def locate(position: Any, axes: Any, target: Any, source: Any) -> Any:
    """Return the addresses at the flat `position` of axes given as rows (length, step of target, step of source)."""
    for axis in range(axes.shape[0] - 1, -1, -1):
        length = axes[axis, 0]
        target += position % length * axes[axis, 1]
        source += position % length * axes[axis, 2]
        position //= length
    return target, source


def _short_runs(size: int, shorter: Any) -> Any:
    """Make the formula for runs of at least `size` bytes, whose last piece may cover bytes of the one before it.

    Shorter runs are for `shorter`. A run takes few instructions: the time goes into waiting for lines of the source,
    and a processor waits for as many of them at once as it meets in the few hundred instructions that it looks ahead.
    """
    load, store, _ = _ACCESSES[size]

    @formula
    def copy(target: Any, source: Any, rows: Any, run: Any, target_step: Any, source_step: Any) -> None:
        if run < size:
            shorter(target, source, rows, run, target_step, source_step)
            return
        last = run - size
        for row in range(rows):
            to, origin = target + row * target_step, source + row * source_step
            for done in range(0, last, size):
                prefetch(origin + source_step + done)
                store(to + done, load(origin + done))
            store(to + last, load(origin + last))

    return copy


copy_short_runs = formula(lambda target, source, rows, run, target_step, source_step: None)  # noqa: ARG005
for _size in _ACCESSES:
    copy_short_runs = _short_runs(_size, copy_short_runs)


def each_run(line: Line) -> Any:
    """Make the formula that does runs a step apart on both sides, several at once."""
    do_run = one_run(line)
    _, stream, part, target_bytes, source_bytes = line
    items, source_line = LINE // target_bytes, LINE // target_bytes * source_bytes

    @formula
    def do_runs(
        target: Any, source: Any, rows: Any, run: Any, target_step: Any, source_step: Any, past_caches: Any
    ) -> None:
        lines = 0
        if past_caches and (target | target_step) % target_bytes == 0:
            lines = max(0, run // items - 1) // BURST * BURST
        for first in range(0, rows, ABREAST):
            last = min(first + ABREAST, rows)
            for at in range(0, lines, BURST):
                for row in range(first, last):
                    to, origin = target + row * target_step, source + row * source_step
                    skip = (-to & (LINE - 1)) // target_bytes + at * items
                    to, origin = to + skip * target_bytes, origin + skip * source_bytes
                    for i in range(BURST):
                        stream(to + i * LINE, origin + i * source_line)
            for row in range(first, last):
                to, origin = target + row * target_step, source + row * source_step
                done = 0
                if lines > 0:
                    head = (-to & (LINE - 1)) // target_bytes
                    part(to, origin, head)
                    done = head + lines * items
                # The prefetchers of a processor stop where a run ends.
                for i in range(BURST):
                    prefetch(origin + ABREAST * source_step + i * LINE)
                do_run(to + done * target_bytes, origin + done * source_bytes, run - done, past_caches)

    return do_runs


_copy_long_runs = each_run(_COPIED)


@formula
def copy_runs(
    target: Any, source: Any, rows: Any, run: Any, target_step: Any, source_step: Any, past_caches: Any
) -> None:
    """Copy runs of any length as they are."""
    if run < SHORT:
        copy_short_runs(target, source, rows, run, target_step, source_step)
    else:
        _copy_long_runs(target, source, rows, run, target_step, source_step, past_caches)


def walker(identity: str, target_bytes: int, source_bytes: int, do_runs: Any) -> Any:
    """Make the loop that calls `do_runs`, such as `each_run` makes, on full and split runs.

    Its arguments are the addresses of both sides, the flat range of items, the outer axes as `locate` takes them, the
    items of a run and whether to write past the caches.
    """
    cut = CUT_BYTES // target_bytes

    @kernel(identity)
    def walk(target: Any, source: Any, start: Any, stop: Any, axes: Any, run: Any, past_caches: Any) -> None:
        inner = axes.shape[0] - 1
        length, at = axes[inner, 0], start
        while at < stop:
            index, skip = at // run, at % run
            to, origin = locate(index, axes, target, source)
            target_step, source_step = axes[inner, 1], axes[inner, 2]
            rows, count = min(length - index % length, (stop - at) // run), run
            if skip > 0 or stop - at < run:
                rows, count = 1, min(run - skip, stop - at)
            to, origin = to + skip * target_bytes, origin + skip * source_bytes
            if rows < ABREAST and count >= ABREAST * cut:
                rows, count, target_step, source_step = ABREAST, cut, cut * target_bytes, cut * source_bytes
            do_runs(to, origin, rows, count, target_step, source_step, past_caches)
            at += rows * count

    return walk


@cache
def copying() -> Any:
    """Make the loop over runs that are copied as they are; an item is one byte."""
    return walker("copy runs", 1, 1, copy_runs)
