"""A save that is interrupted, or that the system fails, at any instant leaves the old checkpoint or the new one."""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from numparam import (
    Parameter,
    Tensor,
    load_checkpoint,
    save_checkpoint,
    save_distributed_checkpoint,
    write_index,
)
from numparam.indexing.region import Region
from numparam.initializer import Constant, initializer

Save = Callable[[Path, int], object]
SAVERS = (
    "saving",
    "writing",
    "atomic_file",
    "attempt",
    "distributed_saving",
    "distributed_index",
    "names",
    "contextlib",
)


def single(path: Path, number: int) -> None:
    save_checkpoint({name: np.full(9, number, np.float32) for name in "abc"}, path)


def sharded(path: Path, number: int) -> None:
    save_checkpoint({name: np.full(9, number, np.float32) for name in "abc"}, path, max_shard_bytes=40)


def recipes(path: Path, number: int) -> None:
    save_checkpoint([Parameter(initializer(Constant(number), (3, 3)), name=name) for name in "abc"], path, recipes=True)


def distributed(path: Path, number: int) -> None:
    for rank in range(2):
        part = Parameter(Tensor(np.full((2, 3), number, np.float32)), name="a")
        part._region = Region.full((4, 3))[2 * rank : 2 * rank + 2]
        save_distributed_checkpoint([part], path, rank=rank, ranks=2, attempt=f"attempt {number}")
    write_index(path, 2)


KINDS = {"single": single, "sharded": sharded, "recipes": recipes, "distributed": distributed}


def number_in(path: Path, kind: str) -> float:
    """Return the number that all values have; of two saves there would be two."""
    found = load_checkpoint(path.with_name(path.name + (".safetensors" if kind in ("single", "recipes") else INDEX)))
    numbers = {float(number) for tensor in found.values() for number in np.unique(tensor.asnumpy())}
    assert len(found) == (1 if kind == "distributed" else 3)
    [number] = numbers
    return number


INDEX = ".safetensors.index.json"


class Interrupt:
    """Raise an error at the n-th instant of what is called; count the instants."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.seen, self.error, self.raised = at, 0, error, False

    def _instant(self) -> None:
        if self.seen == self.at:
            self.raised = True
            self.seen += 1
            raise self.error
        self.seen += 1

    def line(self, frame: FrameType, event: str, _: Any) -> Any:
        """Trace each line of the modules that save."""
        if event == "call" and Path(frame.f_code.co_filename).stem not in SAVERS:
            return None
        if event == "line" and not self.raised:
            self._instant()
        return self.line

    def system_call(self, _frame: FrameType, event: str, function: Any) -> None:
        """Trace the system before and after it does something."""
        name = getattr(function, "__qualname__", "")
        if event in ("c_call", "c_return") and not self.raised and name in SYSTEM_CALLS:
            self._instant()


SYSTEM_CALLS = {
    *("fsync", "replace", "unlink", "fchmod", "fchown", "flock", "open", "close", "listdir", "scandir", "statvfs"),
    *("FileIO.write", "FileIO.close", "FileIO.fileno", "preadv"),
}


def stems(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("cause", ["ctrl-c", "io error"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_at_every_instant(kind: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", os.fstat)  # the disk would take the time
    save, path = KINDS[kind], tmp_path / "m"
    foreign = tmp_path / "m-00001-of-00009.safetensors"
    save_file({"x": np.ones(1)}, foreign)
    (tmp_path / f"other{INDEX}").write_text(json.dumps({"weight_map": {"x": foreign.name}}))
    before = foreign.read_bytes()
    save(path, 0)
    expected, instant, number = stems(tmp_path), 0, 0
    while True:
        old = number
        number += 1
        error: BaseException = KeyboardInterrupt() if cause == "ctrl-c" else OSError(errno.EIO, "Input/output error")
        interrupt = Interrupt(instant, error)
        install, hook = (sys.settrace, interrupt.line) if cause == "ctrl-c" else (sys.setprofile, interrupt.system_call)
        install(hook)
        try:
            save(path, number)
        except (KeyboardInterrupt, OSError):
            assert interrupt.raised
        finally:
            install(None)
        assert number_in(path, kind) in (old, number), instant
        if not interrupt.raised:
            break
        assert foreign.read_bytes() == before
        number += 1
        save(path, number)  # no lock stays
        assert number_in(path, kind) == number
        # The names of shards alternate; everything else that the interrupted save left is gone.
        assert len(stems(tmp_path)) == len(expected), (instant, stems(tmp_path))
        instant += STEP
    assert instant > (15 if kind in ("single", "recipes") else 50)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that interrupt")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_at_random_instants(kind: str, tmp_path: Path) -> None:
    save, path = KINDS[kind], tmp_path / "m"
    random = np.random.default_rng(11)

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    save(path, 0)
    expected, old = len(stems(tmp_path)), 0
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(1, 2 * INTERRUPTS, 2):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2e-2))
                save(path, number)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            assert number_in(path, kind) in (old, number)
            old = number + 1
            save(path, old)
            assert number_in(path, kind) == old
            assert len(stems(tmp_path)) == expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


INTERRUPTS = int(os.environ.get("NUMPARAM_INTERRUPTS", "15"))  # the long proof takes 10,000
STEP = int(os.environ.get("NUMPARAM_SWEEP_STEP", "31"))  # the long proof takes 1
