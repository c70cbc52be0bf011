"""What is reported as written survives a loss of power: the order of the calls that a child makes of the system."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from savers import KINDS

pytestmark = pytest.mark.slow
CALLS = "openat,write,pwrite64,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
SAVES = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from savers import KINDS
from numparam.checkpoint import writing
writing.CHUNK_BYTES = 64  # which threads write
for kind, save in KINDS.items():
    for number in range(3):
        save(Path(sys.argv[1]) / kind / "m", number)
        os.write(1, b"reported")
"""
TABLE = """
import os, sys
import numpy as np
import numparam
table = numparam.Embedding(50, 4, name="t", path=f"{sys.argv[1]}/new/table", sync=True)
os.write(1, b"reported")
for _ in range(2):
    table.update([1, 2], np.ones((2, 4), np.float32))
    os.write(1, b"reported")
table.close()
os.write(1, b"reported")
"""


Event = tuple[bool, str, list[str]]
"""Whether a call ends or begins, its name, and the files that it names."""


def traced(program: str, folder: Path) -> list[Event]:
    """Run a program; return the calls on files in a folder, and the reports, in their order."""
    log = folder.with_name("calls")
    command = ["strace", "-f", "-y", "-qq", "-s", "16", "-e", f"trace={CALLS}", "-o", str(log)]
    if shutil.which("strace") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("strace is not installed, or no process may be traced here")
    child = [sys.executable, "-c", program, str(folder), str(Path(__file__).parent)]
    subprocess.run([*command, *child], check=True, timeout=300, stdout=subprocess.DEVNULL)
    return list(_events(log.read_text(), str(folder)))


def _events(text: str, folder: str) -> Iterator[Event]:
    begun: dict[str, Event] = {}
    for line in text.splitlines():
        process, call = line.split(maxsplit=1)
        if "resumed>" in call:
            event = begun.pop(process, None)
        else:
            paths = re.findall(rf'[<"]({re.escape(folder)}[^>"]*)[>"]', call)
            event = (False, call.partition("(")[0], ["reported"] if '"reported"' in call else paths)
            if not event[2] or ("openat" in call and "O_CREAT" not in call):
                continue
            yield event
            if call.endswith("<unfinished ...>"):
                begun[process] = event
                continue
        if event is not None and not re.search(r"\) += -1 E", call):
            yield (True, *event[1:])


def check(events: list[Event]) -> tuple[int, int]:
    """Raise if a file takes its name, is removed or is reported before the disk has what it depends on.

    Returns
    -------
    tuple of int
        The reports, and the files that took their names.
    """
    contents: set[str] = set()  # files whose content may be lost
    folders: set[str] = set()  # folders whose names may be lost
    files: set[str] = set()
    syncing: set[str] = set()
    reports = names = 0
    for ends, call, paths in events:
        path, folder = paths[0], paths[-1].rpartition("/")[0]
        if path == "reported":
            reports += not ends
            assert not contents | folders
        elif "write" in call:
            contents.add(path)
            syncing.discard(path)  # it may be too late for that
        elif "sync" in call:
            if not ends:
                syncing.add(path)
            elif path in syncing:
                contents.discard(path)
                folders.discard(path)
        elif "rename" in call:
            names += not ends
            assert path not in contents, f"{path} was renamed before its content was on the disk"
            assert ends or not paths[-1].endswith("index.json") or not folders
            folders.add(folder)
        elif "unlink" in call:
            assert path.endswith(".partial") or not folders, f"{path} was removed before others had their names"
        elif not path.endswith(".partial") and path not in files:
            files.add(path)
            folders.add(folder)
    return reports, names


def test_no_save_reports_or_removes_what_a_loss_of_power_could_bring_back(tmp_path: Path) -> None:
    for kind in KINDS:
        (tmp_path / "saves" / kind).mkdir(parents=True)
    # Of three saves, a single file takes one name, three shards take four, two ranks three.
    assert check(traced(SAVES, tmp_path / "saves")) == (3 * len(KINDS), 3 * (4 + 4 + 3))


def test_what_a_table_acknowledges_is_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    events = traced(TABLE, tmp_path / "tables")
    assert check(events)[0] == 4
    assert any("fdatasync" in call for _, call, _ in events)


def test_a_missing_sync_is_noticed(tmp_path: Path) -> None:
    save, file = f"{tmp_path}/f", f"{tmp_path}/f/m"
    good = [
        f'1 pwrite64(3<{file}.partial>, "a", 1, 0 <unfinished ...>',
        "2 <... pwrite64 resumed>) = 1",
        f"1 fsync(3<{file}.partial>) = 0",
        f'1 rename("{file}.partial", "{file}") = 0',
        f"1 fsync(3<{save}>) = 0",
        '1 write(1<pipe>, "reported", 8) = 8',
    ]
    assert check(list(_events("\n".join(good), save))) == (1, 1)
    for line in (2, 4):
        with pytest.raises(AssertionError):
            check(list(_events("\n".join(good[:line] + good[line + 1 :]), save)))
