"""Walk over runs: the pieces of memory in which both sides of a copy are consecutive.

`walker` makes the loop, `copy_run` is what it does to a run that is copied as it is. Everything is counted in bytes
and addressed by numbers, so one compiled loop copies every dtype.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numparam.kernels._compile import formula, kernel
from numparam.kernels._memory import LINE, access, prefetch, prefetch_to_write

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


# --------------------------------------------------------------------------- loops


def walker(identity: str, target_bytes: int, source_bytes: int, do_run: Any) -> Any:
    """Make the loop that calls ``do_run(target, source, count, past_caches, following)`` on whole and cut runs.

    Its arguments are the addresses of both sides, the flat range of items, the outer axes as `locate` takes them, the
    items of a run and whether to write past the caches.
    """

    @kernel(identity)
    def walk(target: Any, source: Any, start: Any, stop: Any, axes: Any, run: Any, past_caches: Any) -> None:
        inner = axes.shape[0] - 1
        length, target_step, source_step = axes[inner, 0], axes[inner, 1], axes[inner, 2]
        ahead = source_step * max(1, AHEAD // (run * source_bytes))
        at = start
        while at < stop:
            index, skip = at // run, at % run
            to, origin = locate(index, axes, target, source)
            if skip > 0 or stop - at < run:
                count = min(run - skip, stop - at)
                do_run(to + skip * target_bytes, origin + skip * source_bytes, count, past_caches, origin + source_step)
                at += count
            else:
                rows = min(length - index % length, (stop - at) // run)
                for _ in range(rows):
                    # A store that waits for its line holds up those behind it: the lines that a run shares with its
                    # neighbours are asked for a run earlier.
                    prefetch_to_write(to + target_step)
                    prefetch_to_write(to + run * target_bytes)
                    do_run(to, origin, run, past_caches, origin + ahead)
                    to += target_step
                    origin += source_step
                at += rows * run

    return walk


@cache
def copying() -> Any:
    """Make the loop over runs that are copied as they are; an item is one byte."""
    return walker("copy runs", 1, 1, copy_run)
