"""Kill writers of every kind at random instants: the old checkpoint or the new one is there, and the litter goes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from itertools import count as numbers_from
from pathlib import Path

from numparam.checkpoint import writing
from savers import KINDS, Interrupt, number_in, stems

FULL, LEAST = 5_000, 24
LINE = """{kills} kills of writers of 6 kinds: {old} left the old checkpoint, {new} the new one, none lost or mixed;
{partial} partial files were left, and removed by the next save"""
_ROUNDS = 10  # kills between two saves that must remove what they left
_fork = multiprocessing.get_context("fork")


def _write(path: Path, kind: str, number: int, line: int, reports: int) -> None:
    """Save for ever, or until a line of the saving modules is reached."""
    if line >= 0:
        interrupt = Interrupt(line, lambda: os.kill(os.getpid(), signal.SIGKILL))
        sys.settrace(interrupt.line)
    for current in numbers_from(number):
        KINDS[kind](path, current)
        os.write(reports, b".")


def prove(count: int, seed: int, folder: Path) -> Counter[str]:
    """Kill `count` writers; raise for the first checkpoint that is lost or mixed."""
    chance, counts = random.Random(seed), Counter[str]()
    logging.getLogger("numparam").setLevel("ERROR")  # each partial file that is removed is a warning
    os.fsync = os.fstat  # type: ignore[assignment]  # what a kill cannot undo
    writing.CHUNK_BYTES = 64  # the files are of several chunks, which threads write
    kinds = list(KINDS)
    took, lines = {}, {}
    for kind in kinds:
        (folder / kind).mkdir()
        path = folder / kind / "m"
        KINDS[kind](path, 1)
        start = time.perf_counter()
        KINDS[kind](path, 2)
        took[kind] = time.perf_counter() - start
        interrupt = Interrupt(sys.maxsize, lambda: None)
        sys.settrace(interrupt.line)
        KINDS[kind](path, 3)
        sys.settrace(None)
        lines[kind] = interrupt.seen
    expected = {kind: len(stems(folder / kind)) for kind in kinds}
    numbers = dict.fromkeys(kinds, 3)
    for kill in range(count):
        kind = kinds[kill % len(kinds)]
        path, old = folder / kind / "m", numbers[kind]
        line = chance.randrange(2 * lines[kind]) if chance.random() < 0.5 else -1
        reports, reporting = os.pipe()
        child = _fork.Process(target=_write, args=(path, kind, old + 1, line, reporting))
        child.start()
        os.close(reporting)
        if line < 0:
            time.sleep(0.005 + chance.uniform(0, 3) * took[kind])
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, f"{kind}: the writer ended with {child.exitcode}"
        done = old
        while reported := os.read(reports, 65536):
            done += len(reported)
        os.close(reports)
        child.close()
        found = number_in(path, kind)
        assert found in (done, done + 1), f"{kind}: save {done} was reported, save {found} is there"
        counts["old" if found == done else "new"] += 1
        counts["partial"] += sum(name.endswith(".partial") for name in stems(path.parent))
        numbers[kind] = found
        if kill // len(kinds) % _ROUNDS == _ROUNDS - 1 or kill >= count - len(kinds):
            numbers[kind] += 1
            KINDS[kind](path, numbers[kind])
            left = stems(path.parent)
            assert len(left) == expected[kind], f"{kind}: a save left {left}"
    counts["kills"] = count
    return counts
