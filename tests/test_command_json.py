"""``--json`` prints one object with the numbers of the text, and ``init --dry-run`` writes nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import numparam
from numparam import Parameter, save_checkpoint
from numparam.cli import main
from numparam.initializer import initializer


@pytest.fixture
def model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    like, out = tmp_path / "like.safetensors", tmp_path / "model.safetensors"
    save_file({"a.weight": np.zeros((6, 10), np.float32), "b.bias": np.zeros(3, np.float16)}, like)
    assert main(["init", "--like", str(like), "--seed", "7", "-o", str(out)]) == 0
    capsys.readouterr()
    return out


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    assert main([*arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_inspect(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "inspect", str(model), "--stats")
    assert (found["file"], found["bytes"]) == (str(model), 246)
    assert found["metadata"]["numparam.seed"] == "7"
    by_name = {item["name"]: item for item in found["parameters"]}
    weight, values = by_name["a.weight"], load_file(model)["a.weight"].astype(np.float64)
    assert (weight["dtype"], weight["shape"], weight["bytes"]) == ("float32", [6, 10], 240)
    assert (weight["min"], weight["max"], weight["mean"]) == (values.min(), values.max(), pytest.approx(values.mean()))
    assert weight["histogram"] == np.histogram(values, 16)[0].tolist()


def test_inspect_of_values_that_are_not_finite_and_of_recipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"\x1b\u202e": np.array([np.nan], np.float32)}, path)
    (item,) = printed(capsys, "inspect", str(path), "--stats")["parameters"]
    assert (item["name"], item["mean"], item["min"], item["not_finite"]) == ("\x1b\u202e", None, None, 1)
    numparam.set_seed(7)
    save_checkpoint([Parameter(initializer("ones", (2,)), name="w")], path, recipes=True)
    found = printed(capsys, "inspect", str(path))
    assert found["parameters"] == [{"name": "w", "dtype": "float32", "shape": [2], "bytes": 8, "initializer": "One()"}]
    assert printed(capsys, "verify", str(path))["recipes"] == 1


def test_output_is_ascii_whatever_the_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"\x1b\u202e": np.zeros(1, np.float32)}, path)
    assert main(["inspect", str(path), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out


def test_verify(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "verify", str(model)) == {
        "file": str(model),
        "parameters": 2,
        "bytes": 246,
        "seeds": [7],
        "differences": [],
    }
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    found = printed(capsys, "verify", str(model), status=1)
    assert [item["parameter"] for item in found["differences"]] == [
        "b.bias" if list(load_file(model))[-1] == "b.bias" else "a.weight"
    ]


def test_plan(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "plan", "--like", str(model), "--mesh", "4")
    by_name = {item["name"]: item for item in found["parameters"]}
    assert by_name["a.weight"]["slice_shape"] == [6, 3]
    assert found["mesh"] == [4]
    assert sum((run["last"] - run["first"] + 1) * run["bytes"] for run in found["ranks"]) == 240 + 4 * 6
    one = printed(capsys, "plan", "--like", str(model), "--mesh", "4", "--rank", "3", "--parameter", "a.weight")
    assert one == {
        "rank": 3,
        "mesh": [4],
        "parameters": [
            {
                "name": "a.weight",
                "dtype": "float32",
                "shape": [6, 10],
                "slice_shape": [6, 1],
                "slice": [[0, 6], [9, 10]],
                "bytes": 24,
            }
        ],
        "bytes": 24,
    }


def test_init(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    command = ["init", "--like", str(model), "--seed", "7", "--shard", "1/2", "-o", str(out)]
    planned = printed(capsys, *command, "--dry-run")
    assert not out.exists()
    written = printed(capsys, *command)
    assert written.pop("bytes") == out.stat().st_size
    assert written.pop("seconds") > 0
    assert planned.pop("bytes") == 6 * 5 * 4 + 2
    assert (planned.pop("written"), written.pop("written")) == (False, True)
    assert planned == written
    assert written["shard"] == {"rank": "1/2", "axes": "auto"}
    by_name = {item["name"]: item for item in written["parameters"]}
    assert by_name["a.weight"] == {
        "name": "a.weight", "dtype": "float32", "shape": [6, 5], "initializer": "normal(sigma=0.02)",
    }  # fmt: skip


@pytest.mark.parametrize(
    "command", ["init", "inspect", "verify", "plan", "fingerprint", "compare", "replay", "selftest"]
)
def test_every_command_takes_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--json" in capsys.readouterr().out


def test_an_error_with_json_prints_nothing_on_the_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tmp_path / "absent.safetensors"), "--json"]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err


def test_a_dry_run_prints_the_table_and_writes_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    before = model.read_bytes()
    for target in (out, model):
        assert main(["init", "--like", str(model), "--seed", "7", "-o", str(target), "--dry-run"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("a.weight") and "normal(sigma=0.02)" in line for line in lines)
        assert lines[-1] == f"would write {target}: 2 parameters, 246 B, seed 7; nothing was written"
    assert not out.exists()
    assert model.read_bytes() == before
