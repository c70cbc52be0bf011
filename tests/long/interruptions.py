"""Interrupt saves of every kind at all their instants, by Ctrl-C and by errors of the system."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from numparam.checkpoint import writing
from savers import INDEX, KINDS, Interrupt, number_in, stems

FULL, LEAST = 10_000, 36
LINE = """{interrupts} interrupted saves of 6 kinds ({lines} Ctrl-C at a line, {calls} errors of a system call, {timer}
Ctrl-C at a random time): {old} left the old checkpoint, {new} the new one, none was lost or mixed, no file left over"""
CAUSES = {"lines": sys.settrace, "calls": sys.setprofile, "timer": None}


def press(*_: Any) -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise OSError(errno.EIO, "Input/output error")


def attempt(path: Path, kind: str, number: int, cause: str, at: int) -> int:
    """Save, interrupted at an instant; return how many instants were seen."""
    interrupt = Interrupt(at, press if cause == "lines" else fail)
    install: Any = CAUSES[cause]
    with contextlib.suppress(KeyboardInterrupt, OSError):
        try:
            if install is None:
                signal.setitimer(signal.ITIMER_REAL, at / 1e9)
            else:
                install(interrupt.line if cause == "lines" else interrupt.system_call)
            KINDS[kind](path, number)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if install is not None:
                install(None)
    return interrupt.seen


def prove(count: int, seed: int, folder: Path) -> Counter[str]:
    """Interrupt `count` saves; raise for the first checkpoint that is lost or mixed, or the first file left over."""
    logging.getLogger("numparam").setLevel("ERROR")  # each partial file that is removed is a warning
    os.fsync = os.fstat  # type: ignore[assignment]  # the disk would take the time
    writing.CHUNK_BYTES = 64  # the files are of several chunks, which threads write
    sys.unraisablehook = lambda _: None  # of files that an interrupt left to the garbage collector
    signal.signal(signal.SIGALRM, press)
    chance, counts = random.Random(seed), Counter[str](interrupts=count)
    foreign, instants, expected = {}, [], {}
    for kind in KINDS:
        path = folder / kind / "m"
        path.parent.mkdir()
        foreign[kind] = path.with_name("m-00001-of-00009.safetensors")
        save_file({"x": np.ones(1)}, foreign[kind])
        path.with_name(f"other{INDEX}").write_text(json.dumps({"weight_map": {"x": foreign[kind].name}}))
        KINDS[kind](path, 0)
        start = time.perf_counter_ns()
        KINDS[kind](path, 0)
        nanoseconds = time.perf_counter_ns() - start
        expected[kind] = len(stems(path.parent))
        for cause in ("lines", "calls"):
            instants += [(kind, cause, at) for at in range(attempt(path, kind, 0, cause, sys.maxsize))]
        instants += [(kind, "timer", chance.randrange(10_000, 2 * nanoseconds)) for _ in range(100)]
    before, numbers = foreign["single"].read_bytes(), dict.fromkeys(KINDS, 0)
    chance.shuffle(instants)
    for number in range(count):
        kind, cause, at = instants[number % len(instants)]
        path, old = folder / kind / "m", numbers[kind]
        attempt(path, kind, old + 1, cause, at)
        found = number_in(path, kind)
        assert found in (old, old + 1), f"{kind} {cause} {at}: of save {old} and {old + 1}, save {found} is there"
        assert foreign[kind].read_bytes() == before, f"{kind} {cause} {at}: a foreign file was changed"
        counts["old" if found == old else "new"] += 1
        counts[cause] += 1
        gc.collect(0)
        numbers[kind] = old + 2
        KINDS[kind](path, old + 2)
        assert number_in(path, kind) == old + 2
        left = stems(path.parent)
        assert len(left) == expected[kind], f"{kind} {cause} {at}: files were left over: {left}"
    return counts
