"""Logs of steps: the bits of the run on any layout, a crash at any byte, other bases, the command line."""

from __future__ import annotations

import errno
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import numparam
import ranks
from killed_process import needs_kill
from numparam import Layout, Parameter
from numparam.cli import main
from numparam.errors import CheckpointError, StateError
from numparam.perturb import Replay, perturb_, perturbed, snap_, unperturb_
from ranks import MPIEXEC, needs_mpi

EXAMPLE = Path(__file__).parent.parent / "examples" / "zeroth_order.py"
SHAPE = (12, 50)
OPTIONS: list[dict[str, Any]] = [{}, {"noise": "rademacher"}, {"rank": 3}, {"reach": 8.0}, {"reach": 8.0, "rank": 2}]


def model(dtype: Any = np.float32) -> dict[str, Parameter]:
    random = np.random.default_rng(3)
    parameters = {
        name: Parameter((random.standard_normal(SHAPE) * 0.1).astype(np.float32).astype(dtype), name=name)
        for name in ("w", "v")
    }
    if dtype == np.float32:
        snap_(parameters.values())
    return parameters


def bits(x: Any) -> bytes:
    return bytes((x.asnumpy() if isinstance(x, numparam.Tensor) else x).tobytes())


def trained(path: Path, dtype: Any = np.float32, steps: int = 30, **options: Any) -> dict[str, Parameter]:
    parameters = model(dtype)
    log = Replay.create(path, parameters.values(), **options)
    for step in range(steps):
        log.step(parameters.values(), step, 1e-3 * (-1) ** step)
    return parameters


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_any_slice_has_the_bits_of_the_run(options: dict[str, Any], tmp_path: Path) -> None:
    run, base = trained(tmp_path / "log", **options), tmp_path / "base.safetensors"
    numparam.save_checkpoint(model(), base)
    log = Replay.open(tmp_path / "log")
    assert len(log) == 30
    for name, parameter in log.parameters(base).items():
        assert parameter.has_init
        for index in [np.s_[3:9:2, ::-1], np.s_[5], np.s_[2:4, 7:30]]:
            assert bits(parameter[index]) == bits(run[name].asnumpy()[index].copy())
        assert bits(parameter) == bits(run[name])
    for name, parameter in model().items():
        layout = Layout({"dp": 2, "tp": 2}, ("dp", "tp"))
        for rank in range(4):
            lazy = log.parameters(base)[name].init_data(layout, rank=rank)
            part = Parameter(lazy.region.take(parameter.asnumpy()).copy(), name=name)
            part._region = lazy.region
            log.apply([part], check=False)
            assert bits(part) == bits(lazy) == bits(lazy.region.take(run[name].asnumpy()).copy())


def test_16_bits_are_rounded_in_each_step(tmp_path: Path) -> None:
    run = trained(tmp_path / "log", ml_dtypes.bfloat16)
    one_by_one = model(ml_dtypes.bfloat16)["w"]
    for step in range(30):
        one_by_one = perturbed(one_by_one, step, 1e-3 * (-1) ** step)
    assert bits(one_by_one) == bits(run["w"])
    again = model(ml_dtypes.bfloat16)
    Replay.open(tmp_path / "log").apply(again.values())
    assert bits(again["v"]) == bits(run["v"])


def test_a_thousand_steps_are_a_small_file(tmp_path: Path) -> None:
    log = Replay.create(tmp_path / "log", model())
    log.append(range(1000), [0.1] * 1000)
    assert (tmp_path / "log").stat().st_size < 100_000
    assert Replay.open(tmp_path / "log").seeds == list(range(1000))


def test_a_crash_at_any_byte_loses_the_step_alone(tmp_path: Path) -> None:
    trained(tmp_path / "log", steps=3)
    content = (tmp_path / "log").read_bytes()
    for lost in range(1, 41):
        (tmp_path / "torn").write_bytes(content[:-lost])
        log = Replay.open(tmp_path / "torn")
        assert len(log) == 3 - (lost + 19) // 20
        log.append(99, 1.0)
        assert Replay.open(tmp_path / "torn").seeds == [*range(len(log) - 1), 99]
    (tmp_path / "torn").write_bytes(content[:-20] + bytes(20))  # the length was written, the bytes were not
    assert len(Replay.open(tmp_path / "torn")) == 2


def damaged(path: Path, place: int) -> Replay:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    return Replay.open(path)


def other(name: str) -> dict[str, Parameter]:
    parameters = model()
    parameters[name].asnumpy()[0, 0] += 1.0
    return parameters


def rows_of(full: Parameter) -> Parameter:
    part = Parameter(full.asnumpy()[:6].copy(), name=full.name)
    part._region, part.sliced = full.region[:6], True
    return part


@needs_mpi
@pytest.mark.slow
def test_shards_are_compared_with_the_base_together(tmp_path: Path) -> None:
    run = trained(tmp_path / "log")
    numparam.save_checkpoint(list(run.values()), tmp_path / "end.safetensors")
    assert ranks.run("replay.py", 3, str(tmp_path)).count("done") == 3


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda log: log.parameters(other("v")), RuntimeError, "parameter 'v' is not the base of this log"),
        (lambda log: log.apply(other("v").values()), RuntimeError, "parameter 'v' is not the base of this log"),
        (lambda log: log.parameters({"w": model()["w"]}), RuntimeError, "the base has no parameter 'v'"),
        (lambda log: log.step([Parameter([1.0], name="x")], 7, 1.0), RuntimeError, "the log has no parameter 'x'"),
        (
            lambda log: log.step([Parameter([1.0], name="w")], 7, 1.0),
            RuntimeError,
            r"'w': the base had float32 of shap",
        ),
        (
            lambda log: log.apply([rows_of(model()["w"])]),
            RuntimeError,
            "hold a part of parameter 'w', and full parameters",
        ),
        (lambda log: log.append([7, -1], [1.0, 1.0]), ValueError, "a seed is an int from 0"),
        (lambda log: log.append(7, float("nan")), ValueError, "scale must be finite"),
        (lambda log: Replay.create(log.path, model()), ValueError, "exists; open it with Replay.open"),
        (lambda log: damaged(log.path, -30), ValueError, "step 1 of 3 is damaged"),
        (lambda log: damaged(log.path, 3), ValueError, "not a log of numparam"),
        (lambda log: damaged(log.path, 19), ValueError, "its header is damaged"),
    ],
)
def test_errors_name_the_parameter_and_change_nothing(call: Any, error: Any, words: str, tmp_path: Path) -> None:
    trained(tmp_path / "log", steps=3)
    log = Replay.open(tmp_path / "log")
    with pytest.raises(error, match=words):
        call(log)
    assert len(log) == 3


def test_a_log_that_another_process_extended_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "log", steps=3)
    first, second = Replay.open(tmp_path / "log"), Replay.open(tmp_path / "log")
    first.append([1, 2], [1.0, 2.0])
    with pytest.raises(RuntimeError, match="has changed since it was opened"):
        second.append(3, 1.0)
    assert len(Replay.open(tmp_path / "log")) == 5


def test_steps_that_the_disk_does_not_take_are_not_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    log = Replay.create(tmp_path / "run", [Parameter([1.0], name="w")])
    log.append(1, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            log.append([2, 3], [0.5, 0.5])
        with pytest.raises(OSError, match="Input/output"):
            Replay.create(tmp_path / "other", [Parameter([1.0], name="w")])
    log.append(4, 0.5)
    assert Replay.open(log.path).seeds == [1, 4]
    assert not (tmp_path / "other").exists()


def test_the_end_of_steps_that_a_loss_of_power_left_without_bytes_is_dropped(tmp_path: Path) -> None:
    log = Replay.create(tmp_path / "run", [Parameter([1.0], name="w")])
    log.append(1, 0.5)
    with log.path.open("r+b") as file:
        file.truncate(log.path.stat().st_size + 75)
    again = Replay.open(log.path)
    again.append([2, 3], [0.5, 0.5])
    assert Replay.open(log.path).seeds == [1, 2, 3]
    with pytest.raises(CheckpointError, match="it is not a regular file"):
        Replay.open(os.devnull)


def test_processes_that_append_at_once_lose_no_step(tmp_path: Path) -> None:
    log = Replay.create(tmp_path / "run", [Parameter([1.0], name="w")])
    done = []

    def work(number: int) -> None:
        for step in range(20):
            while True:
                try:
                    Replay.open(log.path).append(100 * number + step, 0.5)
                except StateError:
                    continue
                done.append(100 * number + step)
                break

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(Replay.open(log.path).seeds) == sorted(done)


def test_the_commands_rebuild_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, base, out = trained(tmp_path / "run.log"), tmp_path / "base.safetensors", tmp_path / "new" / "out.safetensors"
    out.parent.mkdir()
    numparam.save_checkpoint(model(), base)
    run_log = tmp_path / "run.log"
    assert main(["replay", str(base), str(run_log), "-o", str(out)]) == 0
    loaded = numparam.load_checkpoint(out)
    assert {name: bits(loaded[name]) for name in run} == {name: bits(each) for name, each in run.items()}
    assert main(["verify", str(out)]) == 2
    assert "its record names '../base.safetensors', which is not in its folder" in capsys.readouterr().err
    assert main(["verify", "--elsewhere", str(out)]) == 0
    assert "every value matches 30 steps" in capsys.readouterr().out
    capsys.readouterr()
    beside = str(tmp_path / "beside.safetensors")
    assert main(["replay", str(base), str(run_log), "-o", beside, "--json"]) == 0
    nbytes = sum(each.nbytes for each in run.values())
    assert json.loads(capsys.readouterr().out) == {
        "file": beside, "parameters": len(run), "bytes": nbytes, "steps": 30,
    }  # fmt: skip
    assert main(["verify", str(tmp_path / "beside.safetensors")]) == 0
    damaged = {"numparam.texts": '{"numparam.replay.base": '}
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "damaged.safetensors", damaged)
    assert main(["verify", str(tmp_path / "damaged.safetensors")]) == 2
    content = bytearray(out.read_bytes())
    content[-1] ^= 1
    out.write_bytes(content)
    assert main(["verify", "--elsewhere", str(out)]) == 1
    assert "differs first at index (11, 49)" in capsys.readouterr().out
    numparam.save_checkpoint(other("w"), base)
    assert main(["replay", str(base), str(tmp_path / "run.log"), "-o", str(out)]) == 2
    assert "parameter 'w' is not the base of this log" in capsys.readouterr().err


def test_zeroth_order_steps_are_undone_on_the_lattice(tmp_path: Path) -> None:
    parameters = model()
    log = Replay.create(tmp_path / "log", parameters.values(), reach=8.0)
    for step in range(10):
        perturb_(parameters.values(), step, 1e-2)
        unperturb_(parameters.values(), step, 1e-2)
        log.step(parameters.values(), step, 1e-3)
    found = log.parameters(model())
    assert all(bits(found[name]) == bits(each) for name, each in parameters.items())


def train(folder: Path, *arguments: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    return [sys.executable, str(EXAMPLE), str(folder), *arguments]


@needs_kill
@needs_mpi
def test_the_example_resumes_after_a_kill_and_is_rebuilt_on_three_ranks(tmp_path: Path) -> None:
    environment = os.environ | {"NUMPARAM_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    calm, torn = tmp_path / "calm", tmp_path / "torn"
    done = subprocess.run(train(calm), capture_output=True, text=True, check=True, timeout=120, env=environment)
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines() if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    child = subprocess.Popen(train(torn), stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    while child.stdout.readline().strip() != "step 70":
        assert child.poll() is None
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert 70 <= len(Replay.open(torn / "run.replay")) < 300
    subprocess.run(train(torn), capture_output=True, check=True, timeout=120, env=environment)
    job = [str(MPIEXEC), "-n", "3", *train(torn, "rebuild")]
    subprocess.run(job, capture_output=True, check=True, timeout=120, env=environment)
    files = [calm / "trained.safetensors", torn / "trained.safetensors", torn / "rebuilt.safetensors.index.json"]
    first, *others = [numparam.load_checkpoint(file) for file in files]
    for other_ in others:
        assert {name: bits(each) for name, each in other_.items()} == {name: bits(each) for name, each in first.items()}
    assert runpy.run_path(str(EXAMPLE))["STEPS"] == 300
