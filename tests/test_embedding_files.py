"""Tables on a disk: what was acknowledged is there after any end, and what is damaged is named."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from numparam import Embedding
from numparam.checkpoint import atomic_file
from numparam.embedding import log
from numparam.embedding.mapped import Mapped
from numparam.errors import ArgumentValueError, CheckpointError, CheckpointFileError
from numparam.initializer import Normal
from numparam.optim import Adagrad, Adam

KEYS = 500


def table(path: Path | None, keys: int | None = KEYS, **options: Any) -> Embedding:
    return Embedding(
        keys, 4, **{"name": "items", "seed": 7, "path": path, "optimizer": lambda rows: Adam(rows, 0.1), **options}
    )


def change(target: Any, step: int) -> None:
    """Change a table in a way that the number of a step decides."""
    rng = np.random.default_rng(step)
    ids = rng.integers(0, KEYS, 20)
    target.update(ids, rng.normal(size=(20, 4)).astype(np.float32))
    if step % 3 == 2:
        target.evict(7)
        target.erase(ids[:3])
        target.find_or_insert(rng.integers(0, KEYS, 5))


@pytest.mark.parametrize("keys", [KEYS, None])
def test_table_in_lmdb_goes_on_where_it_was(keys: int | None, tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    replay = table(None, keys, admit=2, max_rows=60)
    for step in range(6):
        kept = table(tmp_path, keys, admit=2, max_rows=60, storage="lmdb")
        assert_same(kept, replay)
        change(kept, step)
        change(replay, step)
        kept.close()
    with pytest.raises(ArgumentValueError, match="holds a table of storage 'lmdb', found 'file'"):
        table(tmp_path, keys)


def abandon(target: Any) -> None:
    """Leave the files of a table as the end of its process would."""
    target._store._guard.close()


def assert_same(first: Any, second: Any) -> None:
    keys = first.export().keys
    assert (keys == second.export().keys).all()
    for a, b in zip(first.columns(keys), second.columns(keys), strict=True):
        assert (a == b).all()
    assert (first.step, len(first)) == (second.step, len(second))


@pytest.mark.parametrize("keys", [KEYS, None])
@pytest.mark.parametrize("is_closed", [True, False])
def test_table_goes_on_where_it_was(keys: int | None, is_closed: bool, tmp_path: Path) -> None:
    replay = table(None, keys, admit=2, max_rows=60)
    for step in range(9):
        kept = table(tmp_path, keys, admit=2, max_rows=60)
        assert_same(kept, replay)
        change(kept, step)
        change(replay, step)
        (Embedding.close if is_closed else abandon)(kept)


def test_seed_of_the_files_is_taken(tmp_path: Path) -> None:
    table(tmp_path, seed=11).close()
    with table(tmp_path, seed=None) as again:
        assert (again.find(5) == table(None, seed=11).find(5)).all()


def test_untouched_rows_take_no_room(tmp_path: Path) -> None:
    with Embedding(2**31, 64, path=tmp_path, name="huge") as huge:
        huge.accumulate([0, 2**31 - 1], np.ones((2, 64), np.float32))
        assert sum(path.stat().st_blocks for path in tmp_path.iterdir()) * 512 < 1 << 20
    with Embedding(2**31, 64, path=tmp_path, name="huge") as huge:
        assert huge.export().keys.tolist() == [0, 2**31 - 1]


# --------------------------------------------------------------------------- ends and damage

CHILD = """
import sys, pathlib
sys.path.insert(0, {tests!r})
from test_embedding_files import change, table
kept = table(pathlib.Path(sys.argv[1]), {keys})
for step in range(kept.step, 10**9):
    change(kept, step)
    print(step, flush=True)
"""


@pytest.mark.parametrize("keys", [None, KEYS])
def test_killed_process_loses_nothing_that_it_acknowledged(keys: int | None, tmp_path: Path) -> None:
    code = CHILD.format(tests=str(Path(__file__).parent), keys=keys)
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    line = child.stdout.readline()
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    lines = [line, *child.stdout.readlines()]
    child.stdout.close()
    child.wait()
    acknowledged = int([line for line in lines if line.endswith("\n")][-1])
    kept, replay = table(tmp_path, keys), table(None, keys)
    # The step that was under way may have ended in any of its calls, or between the last one and its line.
    assert acknowledged < kept.step <= acknowledged + 2
    for step in range(acknowledged + 1):
        change(replay, step)
    if kept.step > replay.step:
        change(replay, acknowledged + 1)
    if (acknowledged + 1) % 3 != 2:  # no rows were being removed
        assert_same(kept, replay)
    abandon(kept)


def test_second_owner_is_refused(tmp_path: Path) -> None:
    with table(tmp_path), pytest.raises(CheckpointFileError, match=r"table 'items' in .* is open in another process"):
        table(tmp_path)
    table(tmp_path).close()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"seed": 8}, "seed 7, found 8"),
        ({"init": Normal(1.0)}, r"init 'Normal\(sigma=0.01, mean=0.0\)', found"),
        ({"keys": KEYS + 1}, f"vocab_size {KEYS}, found {KEYS + 1}"),
        ({"name": "others"}, "name 'items', found 'others'"),
        ({"dtype": "float16"}, "dtype 'float32', found 'float16'"),
        ({"optimizer": Adagrad}, "optimizer 'Adam .*', found 'Adagrad"),
    ],
)
def test_files_of_another_table_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    table(tmp_path).close()
    with pytest.raises(ArgumentValueError, match=f"holds a table of {words}.*; open it as it was"):
        table(tmp_path, **options)
    table(tmp_path).close()


def test_log_that_ends_in_the_middle_of_a_record_loses_that_record_only(tmp_path: Path) -> None:
    kept, replay = table(tmp_path), table(None)
    ends = []
    for step in range(2):
        change(kept, step)
        ends.append((tmp_path / "log").stat().st_size)
    change(replay, 0)
    abandon(kept)
    content = (tmp_path / "log").read_bytes()
    for cut in (ends[0], ends[0] + 3, ends[1] - 1):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        for name in ("table.json", "log.begin"):
            (folder / name).write_bytes((tmp_path / name).read_bytes())
        (folder / "log").write_bytes(content[:cut])
        with table(folder) as again:
            assert_same(again, replay)


def test_damage_in_the_middle_of_the_log_is_named(tmp_path: Path) -> None:
    kept = table(tmp_path)
    ends = []
    for step in range(3):
        change(kept, step)
        ends.append((tmp_path / "log").stat().st_size)
    abandon(kept)
    content = bytearray((tmp_path / "log").read_bytes())
    content[ends[0] + 100] ^= 1
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=f"record at byte {ends[0]} is damaged, and another follows it at byte {ends[1]}"
    ):
        table(tmp_path)


@pytest.mark.parametrize("is_closed", [True, False])
def test_lost_beginning_of_the_log_is_named(is_closed: bool, tmp_path: Path) -> None:
    kept = table(tmp_path)
    change(kept, 0)
    (Embedding.close if is_closed else abandon)(kept)
    (tmp_path / "log.begin").unlink()
    with pytest.raises(CheckpointError, match="there are rows, but no log" if is_closed else "log.begin is missing"):
        table(tmp_path)


def test_full_disk_is_named_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with table(tmp_path) as kept, table(None) as replay:
        change(kept, 0)
        change(replay, 0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=4096))
            with pytest.raises(
                CheckpointFileError, match=r"no room on the disk of .* for \d+ new rows: .* nothing was"
            ):
                kept.update(np.arange(KEYS - 20, KEYS), np.ones((20, 4), np.float32))
        with monkeypatch.context() as patch:
            write = os.pwritev

            def breaks(descriptor: int, buffers: Any, at: int) -> int:
                write(descriptor, [bytes(buffers[0])[:5]], at)
                raise OSError(28, "No space left on device")

            patch.setattr(os, "pwritev", breaks)
            with pytest.raises(
                CheckpointFileError, match=r"cannot write to the log .*No space left.*nothing was changed"
            ):
                change(kept, 1)
        assert_same(kept, replay)
        change(kept, 1)
        change(replay, 1)
        assert_same(kept, replay)


def test_log_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from numparam.embedding import store

    monkeypatch.setattr(store, "_LOG_BYTES", 20_000)
    kept, replay = table(tmp_path, None), table(None, None)
    for step in range(30):
        change(kept, step)
        change(replay, step)
        assert (tmp_path / "log").stat().st_size < 40_000
    abandon(kept)
    with table(tmp_path, None) as again:
        assert_same(again, replay)


@pytest.mark.parametrize("place", ["before", "after"])
def test_log_whose_restart_is_interrupted_keeps_what_is_acknowledged_later(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def interrupted(path: Path) -> Iterator[Any]:
        with atomic_file.replacing(path) as file:
            yield file
            if place == "before":
                raise OSError(errno.EIO, "Input/output error")
        raise KeyboardInterrupt

    replay, kept = table(None), table(tmp_path)
    for step in range(4):
        change(kept, step)
        change(replay, step)
        if step == 1:
            monkeypatch.setattr(log, "replacing", interrupted)
            with pytest.raises((OSError, KeyboardInterrupt)):
                kept._store.checkpoint()
            monkeypatch.undo()
    abandon(kept)
    assert_same(table(tmp_path), replay)


def test_open_key_space_is_recovered_from_rows_that_were_half_written(tmp_path: Path) -> None:
    """What followed a checkpoint may have reached the file in any part: here the keys of the slots did not."""
    kept, replay = table(tmp_path, None), table(None, None)
    for step in range(6):
        change(kept, step)
        change(replay, step)
        if step == 2:
            kept.checkpoint()
            rows: Mapped = kept._store.rows
            assert rows._keys is not None
            before = rows._keys[:KEYS].copy()
    rows._keys[:KEYS:2] = before[::2]
    abandon(kept)
    with table(tmp_path, None) as again:
        assert_same(again, replay)
