"""What a save must not touch, what it must not mix, and what it removes after others."""

import json
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from killed_process import needs_kill
from numparam import (
    Cell,
    Parameter,
    load_checkpoint,
    load_distributed_checkpoint,
    save_checkpoint,
    save_distributed_checkpoint,
    write_index,
)
from numparam.checkpoint import atomic_file, loading
from numparam.checkpoint.atomic_file import replacing
from numparam.checkpoint.attempt import remove_former
from numparam.cli import main
from numparam.errors import ArgumentValueError, CheckpointError, MissingFileError
from numparam.initializer import Constant, initializer

INDEX = ".safetensors.index.json"
THREE = {name: np.ones(9, np.float32) for name in "abc"}


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("shards", [None, 40])
def test_a_second_writer_is_refused_while_the_first_is_at_work(shards: int | None, tmp_path: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def wait(_: int) -> None:
        inside.set()
        assert leave.wait(60)

    save_checkpoint(THREE, tmp_path / "m", max_shard_bytes=shards)
    first = threading.Thread(
        target=save_checkpoint, args=(THREE, tmp_path / "m"), kwargs={"max_shard_bytes": shards, "progress": wait}
    )
    first.start()
    assert inside.wait(60)
    try:
        for max_shard_bytes in (None, 40):
            with pytest.raises(CheckpointError, match=r"cannot write .*another process is writing it; wait for it"):
                save_checkpoint({"z": np.zeros(99)}, tmp_path / "m", max_shard_bytes=max_shard_bytes)
        save_checkpoint(THREE, tmp_path / "other", max_shard_bytes=shards)
    finally:
        leave.set()
        first.join()
    loaded = load_checkpoint(tmp_path / f"m{'.safetensors' if shards is None else INDEX}")
    assert set(loaded) == set("abc")


def test_many_writers_at_once_give_the_checkpoint_of_one(tmp_path: Path) -> None:
    done = []

    def save(number: int) -> None:
        try:
            save_checkpoint(dict.fromkeys("abc", np.full(9, number)), tmp_path / "m", max_shard_bytes=80)
            done.append(number)
        except CheckpointError as error:
            assert "another process is writing it" in str(error)  # noqa: PT017

    for _ in range(5):
        threads = [threading.Thread(target=save, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done
        found = load_checkpoint(tmp_path / f"m{INDEX}")
        assert len({float(number) for tensor in found.values() for number in tensor.asnumpy()}) == 1
        assert len(files(tmp_path)) == 4
        done.clear()


def test_a_save_that_ends_late_leaves_the_files_of_the_next(tmp_path: Path) -> None:
    index = tmp_path / f"m{INDEX}"
    save_checkpoint(THREE, tmp_path / "m", max_shard_bytes=40)
    content = {name: np.zeros(9, np.float32) for name in "abc"}

    def removal_of_the_first(_: int) -> None:
        thread = threading.Thread(target=remove_former, args=(index, 0))
        thread.start()
        thread.join()

    save_checkpoint(content, tmp_path / "m", max_shard_bytes=40, progress=removal_of_the_first)
    assert load_checkpoint(index)["a"].asnumpy().tolist() == [0] * 9
    assert len(files(tmp_path)) == 4


def test_files_of_another_library_stay(tmp_path: Path) -> None:
    weight_map = {}
    for number, name in enumerate("abc", 1):
        weight_map[name] = f"m-{number:05}-of-00003.safetensors"
        save_file({name: np.zeros(9, np.float32)}, tmp_path / weight_map[name])
    (tmp_path / f"m{INDEX}").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    save_checkpoint(THREE, tmp_path / "m", max_shard_bytes=40)
    assert set(weight_map.values()) < files(tmp_path)
    assert len(files(tmp_path)) == 7


def test_files_that_another_index_names_stay(tmp_path: Path) -> None:
    save_checkpoint(THREE, tmp_path / "m", max_shard_bytes=40)
    link = json.loads((tmp_path / f"m{INDEX}").read_text())
    (tmp_path / f"best{INDEX}").write_text(json.dumps(link))
    save_checkpoint({name: np.zeros(9, np.float32) for name in "abc"}, tmp_path / "m", max_shard_bytes=40)
    assert load_checkpoint(tmp_path / f"best{INDEX}")["a"].asnumpy().tolist() == [1] * 9
    assert load_checkpoint(tmp_path / f"m{INDEX}")["a"].asnumpy().tolist() == [0] * 9
    (tmp_path / f"best{INDEX}").write_text("{")  # may name any of them
    save_checkpoint(THREE, tmp_path / "m", max_shard_bytes=40)
    assert len(files(tmp_path)) == 2 + 9


def test_an_index_may_name_what_no_save_wrote(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("precious")
    save_file({"a": np.ones(1)}, tmp_path / "precious.safetensors")
    for text in ('{"weight_map": {"a": "precious.txt"}}', '{"weight_map": {"a": "precious.safetensors"}}'):
        (tmp_path / f"m{INDEX}").write_text(text)
        save_checkpoint(THREE, tmp_path / "m", max_shard_bytes=40)
        assert {"precious.txt", "precious.safetensors"} < files(tmp_path)


def test_a_file_and_an_index_of_one_name_are_refused(tmp_path: Path) -> None:
    save_checkpoint(THREE, tmp_path / "m", max_shard_bytes=40)
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=r"m.safetensors.index.json is a checkpoint of the same name; remove it"):
        save_checkpoint(THREE, tmp_path / "m")
    assert main(["init", "--like", "minilm-l6", "-o", str(tmp_path / "m.safetensors")]) == 2
    assert files(tmp_path) == before
    save_checkpoint(THREE, tmp_path / "n")
    for save in (
        lambda: save_checkpoint(THREE, tmp_path / "n", max_shard_bytes=40),
        lambda: save_distributed_checkpoint(THREE, tmp_path / "n"),
    ):
        with pytest.raises(CheckpointError, match=r"n.safetensors is a checkpoint of the same name; remove it"):
            save()
    assert files(tmp_path) == before | {"n.safetensors"}


@pytest.mark.parametrize("name", ["x.safetensors.index.json", "x.ckpt"])
def test_init_writes_no_file_that_nobody_could_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--like", "minilm-l6", "-o", str(tmp_path / name)]) == 2
    assert "not the name of a safetensors file; use .safetensors" in capsys.readouterr().err
    assert files(tmp_path) == set()


def test_init_replaces_no_file_of_the_index_that_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(THREE, tmp_path / "m", max_shard_bytes=40)
    (tmp_path / "link.safetensors").symlink_to("m-00002-of-00003.safetensors")
    for like, output in (
        (f"m{INDEX}", "m-00001-of-00003.safetensors"),
        (f"m{INDEX}", "link.safetensors"),
    ):
        before = (tmp_path / output).read_bytes()
        assert main(["init", "--like", str(tmp_path / like), "-o", str(tmp_path / output)]) == 2
        assert "is a file of --like" in capsys.readouterr().err
        assert (tmp_path / output).read_bytes() == before


def test_files_of_two_attempts_are_not_joined(tmp_path: Path) -> None:
    save_distributed_checkpoint(THREE, tmp_path / "m", rank=0, ranks=2, attempt="step 5, job 1")
    save_distributed_checkpoint(THREE, tmp_path / "m", rank=1, ranks=2, attempt="step 5, job 2")
    with pytest.raises(CheckpointError, match=r"rank-00000.* and .*rank-00001.* are of two attempts to save"):
        write_index(tmp_path / "m")
    save_distributed_checkpoint(THREE, tmp_path / "m", rank=0, ranks=2, attempt="step 5, job 2")
    index = write_index(tmp_path / "m")
    assert set(load_checkpoint(index)) == set("abc")
    with pytest.raises(TypeError, match="attempt is a str, found 5"):
        save_distributed_checkpoint(THREE, tmp_path / "m", attempt=5)  # type: ignore[arg-type]


def test_an_index_does_not_follow_the_files_of_another_save(tmp_path: Path) -> None:
    save_checkpoint(THREE, tmp_path / "m", max_shard_bytes=40)
    old = {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if INDEX not in name}
    save_checkpoint({name: np.zeros(9, np.float32) for name in "abc"}, tmp_path / "m", max_shard_bytes=40)
    named = sorted(set(json.loads((tmp_path / f"m{INDEX}").read_text())["weight_map"].values()))
    (tmp_path / named[1]).write_bytes(old[sorted(old)[1]])
    with pytest.raises(CheckpointError, match="it is of another save than its index"):
        load_checkpoint(tmp_path / f"m{INDEX}")


KILLED = """
import os, sys
import numpy as np
from numparam import save_checkpoint, save_distributed_checkpoint
def kill(_):
    os._exit(9)
values, path = {name: np.ones(9, np.float32) for name in "abc"}, sys.argv[1]
if sys.argv[2] == "single":
    save_checkpoint(values, path, progress=kill)
elif sys.argv[2] == "sharded":
    save_checkpoint(values, path, max_shard_bytes=40, progress=kill)
else:
    save_distributed_checkpoint(values, path, rank=1, ranks=2, progress=kill)
"""


@needs_kill
@pytest.mark.parametrize("kind", ["single", "sharded", "distributed"])
def test_the_next_writer_removes_what_the_dead_left(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path / "m", kind], check=False)
    litter = {name for name in files(tmp_path) if name.endswith(".partial")}
    assert len(litter) == (1 if kind == "single" else 2)  # what keeps others out, and that of a file
    with replacing(tmp_path / "other"):
        assert litter < files(tmp_path)
    with caplog.at_level("WARNING", "numparam"):
        save_checkpoint(THREE, tmp_path / "m")
    assert files(tmp_path) == {"m.safetensors", "other"}
    assert caplog.text.count("a partial file of a process that had ended") == len(litter)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions_and_owner_stay(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(THREE, path)
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    before = path.stat()
    save_checkpoint({"a": np.zeros(1)}, path)
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    path.chmod(0o444)
    with pytest.raises(CheckpointError, match=r"read-only \(mode 0444\)"):
        save_checkpoint(THREE, path)
    assert set(load_checkpoint(path)) == {"a"}
    assert len(files(tmp_path)) == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everything")
def test_the_file_of_another_user_is_not_replaced() -> None:
    with pytest.raises(PermissionError), replacing(Path("/etc/passwd")):
        pass


def test_an_owner_that_cannot_be_kept_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "m.safetensors"
    save_checkpoint(THREE, path)

    class Other:
        def __init__(self, found: Any) -> None:
            self.found = found

        def __getattr__(self, name: str) -> Any:
            return self.found.st_uid + 1 if name == "st_uid" else getattr(self.found, name)

    monkeypatch.setattr(atomic_file.os, "fchown", refuse)
    monkeypatch.setattr(atomic_file, "_replaceable", lambda target, _: Other(target.stat()))
    with pytest.raises(CheckpointError, match=r"it belongs to user .*, which a new file cannot keep"):
        save_checkpoint({"a": np.zeros(1)}, path)
    assert set(load_checkpoint(path)) == set("abc")


def test_a_missing_folder_and_a_folder_for_a_file(tmp_path: Path) -> None:
    for error in (FileNotFoundError, ValueError, MissingFileError):
        with pytest.raises(error, match=r"cannot write .*no.*m.safetensors: No such file or directory"):
            save_checkpoint(THREE, tmp_path / "no" / "m")
        with pytest.raises(error, match=r"cannot write .*no.*m.safetensors.index.json: No such file or directory"):
            save_checkpoint(THREE, tmp_path / "no" / "m", max_shard_bytes=40)
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(OSError, match="it exists and is not a regular file"):
        save_checkpoint(THREE, tmp_path / "d")
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    for name, words in (("loop", "symbolic links"), ("x" * 300, "name too long")):
        with pytest.raises(CheckpointError, match=words):
            save_checkpoint(THREE, tmp_path / name)
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint(tmp_path / f"{name}.safetensors")
    assert main(["init", "--like", "minilm-l6", "-o", "a\0b"]) == 2
    assert main(["inspect", "a\0b"]) == 2
    for wrong in ("a\0b", ""):
        for call in (lambda name: save_checkpoint(THREE, name), load_checkpoint, write_index):
            with pytest.raises(ValueError, match="is not empty and has no NUL"):
                call(wrong)


def test_the_space_for_all_shards_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2000})())
    save_checkpoint(THREE, tmp_path / "m", max_shard_bytes=40)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(CheckpointError, match="it takes 108 bytes and the disk has 100 left"):
        save_checkpoint(THREE, tmp_path / "n", max_shard_bytes=40)
    assert len(files(tmp_path)) == 4


def test_what_is_written_reaches_the_disk_before_what_depends_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}

    def name_of(path: Any) -> str:
        return "partial" if Path(path).name.endswith(".partial") else Path(path).name

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append(f"sync {'folder' if path.is_dir() else name_of(path)}")
        real["fsync"](descriptor)

    def replace(source: Any, target: Any, **_: Any) -> None:
        calls.append(f"rename {name_of(target)}")
        real["replace"](source, target)

    def unlink(path: Any, **_: Any) -> None:
        calls.append(f"remove {name_of(path)}")
        real["unlink"](path)

    save_checkpoint({"a": np.ones(9), "b": np.ones(9)}, tmp_path / "m", max_shard_bytes=80)
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "unlink", unlink)
    save_checkpoint({"a": np.ones(9), "b": np.ones(9)}, tmp_path / "m", max_shard_bytes=80)
    named = sorted(set(json.loads((tmp_path / f"m{INDEX}").read_text())["weight_map"].values()))
    assert calls[:9] == [
        *(f"{what}" for name in named for what in ("sync partial", f"rename {name}", "sync folder")),
        *("sync partial", f"rename m{INDEX}", "sync folder"),
    ]
    assert sorted(calls[9:-1]) == ["remove m-00001-of-00002.safetensors", "remove m-00002-of-00002.safetensors"]
    assert calls[-1] == "remove partial"  # the lock that keeps other writers out meanwhile
    calls.clear()
    save_checkpoint({"a": np.ones(9)}, tmp_path / "n")
    assert calls == ["sync partial", "rename n.safetensors", "sync folder"]


def test_readers_see_the_old_or_the_new_checkpoint_while_it_is_replaced(tmp_path: Path) -> None:
    def save(number: int) -> None:
        order = "abc" if number % 2 else "cba"
        save_checkpoint({name: np.full(9, number) for name in order}, tmp_path / "m", max_shard_bytes=80)
        save_checkpoint({name: np.full(9, number) for name in order}, tmp_path / "s")

    def write() -> None:
        for number in range(1, 40):
            save(number)

    save(0)
    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        for name in (f"m{INDEX}", "s.safetensors"):
            found = load_checkpoint(tmp_path / name)
            assert len({float(number) for tensor in found.values() for number in tensor.asnumpy()}) == 1
    writer.join()


def test_a_mesh_that_is_replaced_while_it_is_loaded_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(number: int) -> None:
        for rank in range(2):
            part = Parameter(initializer(Constant(number), (8, 3))[4 * rank : 4 * rank + 4], name="w")
            save_distributed_checkpoint([part], tmp_path / "m", rank=rank, ranks=2, attempt=str(number))
        write_index(tmp_path / "m")

    save(0)
    net = Cell()
    net.w = Parameter(initializer("unset", (8, 3)), name="w")
    real, numbers = loading.load_checkpoint, iter([1, 2])

    def replaced(path: Path) -> Any:
        found = real(path)
        for number in numbers:
            save(number)
            break
        return found

    monkeypatch.setattr(loading, "load_checkpoint", replaced)
    load_distributed_checkpoint(net, tmp_path / f"m{INDEX}")
    assert set(net.w.asnumpy().ravel()) == {2}
    late = real(tmp_path / f"m{INDEX}")
    save(3)
    with pytest.raises(CheckpointError, match=r"No such file or directory|of another save"):
        late["w"].asnumpy()


def test_what_is_saved_when_the_interpreter_ends_is_there(tmp_path: Path) -> None:
    code = """
import atexit, sys
import numpy as np
import numparam
from numparam.initializer import initializer
lazy = numparam.Parameter(initializer("normal", (3000, 3000)), name="w")
def save():
    numparam.save_checkpoint([lazy], sys.argv[1])
    for rank in range(2):
        numparam.save_distributed_checkpoint({"b": np.ones(3)}, sys.argv[2], rank=rank, ranks=2)
    numparam.write_index(sys.argv[2])
atexit.register(save)
"""
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "m", tmp_path / "n"], capture_output=True, check=True)
    assert ran.stderr == b""
    assert load_checkpoint(tmp_path / "m.safetensors")["w"].asnumpy().std() > 0.009
    assert load_checkpoint(tmp_path / f"n{INDEX}")["b"].asnumpy().tolist() == [1, 1, 1]


def test_arrays_are_saved_without_a_copy(tmp_path: Path) -> None:
    values = np.ones(2**21)
    save_checkpoint({"w": values}, tmp_path / "first")  # what is imported for it takes memory too
    tracemalloc.start()
    save_checkpoint({"w": values, "swapped": np.ones(3, ">f4"), "text": np.float32(2)}, tmp_path / "m")
    assert tracemalloc.get_traced_memory()[1] < values.nbytes // 2
    tracemalloc.stop()
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    assert [loaded[name].asnumpy().sum() for name in ("w", "swapped", "text")] == [2**21, 3, 2]


@pytest.mark.parametrize("name", ["a\nb", "\u202egnp", "a\\b", "C:x"], ids=ascii)
def test_an_index_that_could_not_name_its_files_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentValueError, match="printable names"):
        save_checkpoint(THREE, tmp_path / name, max_shard_bytes=40)
    with pytest.raises(ArgumentValueError, match="printable names"):
        save_distributed_checkpoint(THREE, tmp_path / name, rank=0, ranks=1)
    for folder in (tmp_path / "\ud800", tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=r"surrogates|No such file"):
            save_distributed_checkpoint(THREE, folder / "m", rank=0, ranks=1)
    with pytest.raises(MissingFileError) as caught:
        load_checkpoint(tmp_path / "missing\n.safetensors")
    assert str(caught.value).isprintable()
    assert files(tmp_path) == set()
    save_checkpoint(THREE, tmp_path / name)
    assert load_checkpoint(tmp_path / f"{name}.safetensors").keys() == THREE.keys()
