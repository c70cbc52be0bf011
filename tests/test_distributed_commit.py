"""A checkpoint of many ranks is the old one or the new one, whatever happens to them."""

import errno
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from killed_process import killed, needs_kill
from meshes import MESHES, SHAPES, save, shard
from numparam import (
    load_checkpoint,
    save_checkpoint,
    save_distributed_checkpoint,
    write_index,
)
from numparam.checkpoint import distributed_index
from numparam.checkpoint.atomic_file import FCNTL
from numparam.checkpoint.names import digest_of
from numparam.errors import CheckpointError
from ramp import ramp


def test_files_count_for_nothing_until_the_index_is_written(tmp_path: Path) -> None:
    layout, path = MESHES["rows"], tmp_path / "m"
    index = save(path, layout)
    old = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for rank in range(3):
        save_distributed_checkpoint([shard("w", (7, 5), layout, rank, "ones")], path, rank=rank, ranks=3)
    assert {file: file.read_bytes() for file in old} == old
    np.testing.assert_array_equal(load_checkpoint(index)["w"].asnumpy(), ramp((7, 5)))
    write_index(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *(f"m-2-rank-0000{rank}-of-00003.safetensors" for rank in range(3)),
        "m.safetensors.index.json",
    ]
    np.testing.assert_array_equal(load_checkpoint(index)["w"].asnumpy(), np.ones((7, 5)))


def test_an_index_that_cannot_be_written_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    index = save(tmp_path / "m", MESHES["rows"])
    for rank in range(2):
        save_distributed_checkpoint({"w": np.zeros(3)}, tmp_path / "m", rank=rank, ranks=2)
    monkeypatch.setattr("numparam.checkpoint.atomic_file.os.fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*m.safetensors.index.json: No space left on device"):
        write_index(tmp_path / "m")
    np.testing.assert_array_equal(load_checkpoint(index)["w"].asnumpy(), ramp((7, 5)))


def test_a_save_that_was_broken_off_is_replaced_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save(path, MESHES["rows"])
    for rank in range(3):  # of four ranks that began
        save_distributed_checkpoint({"w": np.ones(3)}, path, rank=rank, ranks=4)
    with pytest.raises(CheckpointError, match=r"not complete: .*rank-00003-of-00004.safetensors is missing"):
        write_index(path)
    for rank in range(2):
        save_distributed_checkpoint({"w": np.zeros(3)}, path, rank=rank, ranks=2)
    with pytest.raises(CheckpointError, match="found save 2 of 2 ranks and save 2 of 4 ranks; remove"):
        write_index(path)
    loaded = load_checkpoint(write_index(path, ranks=2))
    assert loaded["w"].asnumpy().tolist() == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 3
    assert load_checkpoint(write_index(path))["w"].asnumpy().tolist() == [0, 0, 0]
    with pytest.raises(CheckpointError, match="one new save are needed, found none"):
        write_index(tmp_path / "other")


def test_a_lost_index_is_written_anew(tmp_path: Path) -> None:
    index = save(tmp_path / "m", MESHES["optimizer"])
    text = index.read_text()
    index.unlink()
    assert write_index(tmp_path / "m").read_text() == text


def test_it_takes_the_place_of_an_ordinary_checkpoint_and_back(tmp_path: Path) -> None:
    save_checkpoint({"a": np.ones(9), "b": np.ones(9)}, tmp_path / "m", max_shard_bytes=80)
    (tmp_path / "m-2-rank-00000-of-00001.txt").write_text("mine")
    index = save(tmp_path / "m", MESHES["rows"])
    assert len(list(tmp_path.iterdir())) == 5
    assert set(load_checkpoint(index)) == set(SHAPES)
    save_checkpoint({"a": np.ones(9), "b": np.ones(9)}, tmp_path / "m", max_shard_bytes=80)
    assert len(list(tmp_path.iterdir())) == 4
    assert set(load_checkpoint(index)) == {"a", "b"}


@needs_kill
def test_a_kill_leaves_the_old_or_the_new_checkpoint_whole(tmp_path: Path) -> None:
    code = f"""
import numpy as np
import numparam
number = 0
while True:
    for rank in range(2):
        lazy = numparam.initializer.initializer(numparam.initializer.Constant(number), (400, 250))
        part = numparam.Parameter(lazy[200 * rank : 200 * rank + 200], name="w")
        numparam.save_distributed_checkpoint([part], {str(tmp_path / "m")!r}, rank=rank, ranks=2)
    numparam.write_index({str(tmp_path / "m")!r})
    number += 1
    print(number, flush=True)
"""
    for _ in killed(code):
        values = np.unique(load_checkpoint(tmp_path / "m.safetensors.index.json")["w"].asnumpy())
        assert len(values) == 1


def part(path: Path, rank: int, number: int, progress: Callable[[int], None] | None = None) -> None:
    save_distributed_checkpoint(
        {"w": np.full(3, number), "b": np.full(3, number)},
        path, rank=rank, ranks=2, attempt=f"job {number}", progress=progress,
    )  # fmt: skip


def commit(path: Path, number: int) -> None:
    part(path, 0, number)
    part(path, 1, number)
    write_index(path)


def number(path: Path) -> int:
    found = load_checkpoint(path.with_name("m.safetensors.index.json"))
    [only] = {float(value) for tensor in found.values() for value in tensor.asnumpy()}
    return int(only)


def test_a_file_of_a_committed_save_is_not_replaced_by_another_job(tmp_path: Path) -> None:
    path = tmp_path / "m"
    commit(path, 1)
    part(path, 0, 2), part(path, 1, 2)
    refused: list[object] = []

    def first_job_commits(_: int) -> None:
        with ThreadPoolExecutor(1) as other:
            refused.append(other.submit(write_index, path).exception())

    part(path, 0, 3, first_job_commits)  # the second job has begun: its file would be in the place of the first's
    assert "m.safetensors.index.json: another process is writing it" in str(refused[0])
    with pytest.raises(CheckpointError, match="are of two attempts"):
        write_index(path)
    assert number(path) == 1
    part(path, 0, 2)
    write_index(path)
    part(path, 1, 3)  # and goes on late: it belongs to the next save, and its job ends here
    assert number(path) == 2
    with pytest.raises(CheckpointError, match="save 3 is not complete"):
        write_index(path)
    commit(path, 4)
    assert number(path) == 4
    assert len(list(tmp_path.iterdir())) == 3


def test_no_rank_writes_while_an_index_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    commit(path, 1)
    part(path, 0, 2), part(path, 1, 2)
    real = distributed_index.write_content

    def write_content(*content: Any) -> None:
        said = "m.safetensors.index.json: another process is writing it"
        with ThreadPoolExecutor(1) as other, pytest.raises(CheckpointError, match=said):
            other.submit(part, path, 1, 3).result()
        real(*content)

    monkeypatch.setattr(distributed_index, "write_content", write_content)
    write_index(path)
    assert number(path) == 2


def test_a_file_that_an_index_names_is_not_replaced_by_a_new_save(tmp_path: Path) -> None:
    path = tmp_path / "m"
    commit(path, 1)
    index = path.with_name("m.safetensors.index.json")
    write_index(path, files=sorted(tmp_path.glob("m-1-*")))
    part(path, 0, 2)
    assert number(path) == 1
    index.rename(tmp_path / "best.safetensors.index.json")
    with pytest.raises(CheckpointError, match=r"m-1-rank-00000-of-00002.safetensors: an index names it; choose"):
        part(path, 0, 3)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_a_writer_that_looks_for_the_dead_is_not_taken_for_one_that_writes(tmp_path: Path) -> None:
    dead = tmp_path / f".numparam-{digest_of('m')}-all.partial"
    dead.touch()
    with dead.open("r+b") as file:
        FCNTL.flock(file, FCNTL.LOCK_EX)
        looking = threading.Timer(0.005, FCNTL.flock, (file, FCNTL.LOCK_UN))
        looking.start()
        save_checkpoint({"w": np.ones(3)}, tmp_path / "m")
        looking.join()
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


# --------------------------------------------------------------------------- ranks that are processes

MPIEXEC = Path(sys.executable).with_name("mpiexec")
JOB = """
import sys
import numpy as np
import numparam
from numparam.communication import get_group_size, get_rank, init
from numparam.initializer import initializer

init(timeout=60)
rank, layout, path = get_rank(), numparam.Layout({"dp": 2, "tp": 2}, ("tp",), optimizer_shard="dp"), sys.argv[1]
for number in range(2):
    part = numparam.Parameter(initializer(numparam.initializer.Constant(number), (7, 5)), name="w").init_data(layout)
    own = {"b": np.full(3, number), "w": part}
    said = open(f"{path}.{rank}.txt", "a")
    if sys.argv[2] == "fail" and number == 1 and rank == 2:
        own = {"b": object()}
    try:
        numparam.save_distributed_checkpoint(own, path)
    except (TypeError, ValueError) as error:
        print(error, file=said)
    net = numparam.Cell()
    net.w = numparam.Parameter(initializer("unset", (7, 5))[2 * rank : 2 * rank + 2], name="w")
    numparam.load_distributed_checkpoint(net, path + ".safetensors.index.json")
    print(np.unique(net.w.asnumpy()).tolist(), file=said)
"""


@pytest.mark.skipif(not MPIEXEC.exists(), reason="no mpiexec beside python: pip install mpi4py mpich")
@pytest.mark.parametrize("case", ["well", "fail"])
def test_ranks_of_a_job_commit_together(case: str, tmp_path: Path) -> None:
    command = [MPIEXEC, "-n", "4", sys.executable, "-c", JOB, tmp_path / "m", case]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    said = [(tmp_path / f"m.{rank}.txt").read_text().splitlines() for rank in range(4)]
    if case == "well":
        assert said == [["[0.0]", "[1.0]"]] * 4
        return
    for rank, lines in enumerate(said):
        words = "parameter 'b': a tensor" if rank == 2 else "saving .*: rank 2 failed and has reported the cause"
        assert re.match(words, lines[1])
        assert [lines[0], lines[2]] == ["[0.0]", "[0.0]"]
