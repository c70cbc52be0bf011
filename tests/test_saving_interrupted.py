"""A save that is interrupted, or that the system fails, at an instant leaves the old checkpoint or the new one.

The long proof `tests/long/interruptions.py` does this at all instants.
"""

import errno
import gc
import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from numparam.checkpoint import writing
from savers import INDEX, KINDS, Interrupt, number_in, stems

STEP = 31


@pytest.mark.parametrize("cause", ["ctrl-c", "io error"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_at_every_thirtieth_instant(kind: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", os.fstat)  # the disk would take the time
    save, path = KINDS[kind], tmp_path / "m"
    foreign = tmp_path / "m-00001-of-00009.safetensors"
    save_file({"x": np.ones(1)}, foreign)
    (tmp_path / f"other{INDEX}").write_text(json.dumps({"weight_map": {"x": foreign.name}}))
    before = foreign.read_bytes()
    save(path, 0)
    expected, instant, number = stems(tmp_path), 0, 0
    error: BaseException = KeyboardInterrupt() if cause == "ctrl-c" else OSError(errno.EIO, "Input/output error")

    def fail() -> None:
        raise error

    while True:
        old = number
        number += 1
        interrupt = Interrupt(instant, fail)
        install, hook = (sys.settrace, interrupt.line) if cause == "ctrl-c" else (sys.setprofile, interrupt.system_call)
        install(hook)
        try:
            save(path, number)
        except (KeyboardInterrupt, OSError):
            assert interrupt.done
        finally:
            install(None)
            error.__traceback__ = None
        assert number_in(path, kind) in (old, number), instant
        if not interrupt.done:
            break
        assert foreign.read_bytes() == before
        number += 1
        save(path, number)  # no lock stays
        assert number_in(path, kind) == number
        # The names of shards alternate; everything else that the interrupted save left is gone.
        assert len(stems(tmp_path)) == len(expected), (instant, stems(tmp_path))
        instant += STEP
    gc.collect()  # closes here, where the warning is expected, a file that an instant left open
    assert instant > (50 if kind in ("sharded", "distributed") else 15)


def test_ctrl_c_while_a_thread_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Starting(threading.Thread):
        ident = 1  # it runs, and has not said so yet

        def start(self) -> None:
            raise KeyboardInterrupt

    KINDS["single"](tmp_path / "m", 0)
    monkeypatch.setattr(writing, "CHUNK_BYTES", 64)
    monkeypatch.setattr(threading, "Thread", Starting)
    with pytest.raises(KeyboardInterrupt):
        KINDS["single"](tmp_path / "m", 1)
    assert number_in(tmp_path / "m", "single") == 0
    assert stems(tmp_path) == ["m.safetensors"]
