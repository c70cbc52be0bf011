"""``numparam fingerprint`` and ``numparam compare``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import numparam
from numparam.__main__ import main
from numparam.fingerprints import Fingerprints, fingerprint
from numparam.initializer import Normal, initializer

ARRAYS = {"up": np.arange(6, dtype=np.float32).reshape(2, 3), "gate": np.zeros((2, 3), np.float32)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_file(ARRAYS, "a.safetensors")
    return tmp_path


def test_a_file_is_printed_as_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fingerprint", "a.safetensors"]) == 0
    assert capsys.readouterr().out == str(fingerprint(folder / "a.safetensors")) + "\n"


def test_equal_files_and_tables_are_equal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "key").write_bytes(b"secret")
    for key in ([], ["--key-file", "key"]):
        assert main(["fingerprint", "a.safetensors", "-o", "a.json", *key]) == 0
        assert main(["compare", "a.json", "a.safetensors", *key]) == 0
        assert capsys.readouterr().out == "a.json: 2 fingerprints\n2 parameters: all are equal\n"
    assert main(["compare", "a.json", "a.safetensors"]) == 2
    assert "fingerprints of one key are compared, found 2 different keys" in capsys.readouterr().err


def test_json_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fingerprint", "a.safetensors", "--json"]) == 0
    assert Fingerprints.from_json(capsys.readouterr().out) == fingerprint(folder / "a.safetensors")
    save_file({"up": ARRAYS["up"], "gate": ARRAYS["up"]}, "b.safetensors")
    assert main(["compare", "a.safetensors", "b.safetensors", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "sent": "a.safetensors",
        "seed": None,
        "arrived": "b.safetensors",
        "parameters": 2,
        "differences": [{"parameter": "gate", "reason": "its values differ, and are the values of 'up'"}],
    }


def test_a_difference_is_named_and_gives_status_1(
    folder: Path,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_file({"up": ARRAYS["gate"], "gate": ARRAYS["up"]}, "b.safetensors")
    assert main(["compare", "a.safetensors", "b.safetensors"]) == 1
    out = capsys.readouterr().out
    assert "parameter 'up': its values differ, and are the values of 'gate'\n" in out
    assert out.endswith("2 differences in 2 parameters\n")


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.json", "wrong.json", "wrong.ckpt"])
def test_what_cannot_be_read_gives_status_2(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("wrong.json", "wrong.ckpt"):
        (folder / wrong).write_text("{}")
    assert main(["compare", "a.safetensors", name]) == 2
    assert name in capsys.readouterr().err


def test_a_file_is_compared_with_a_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = numparam.Parameter(initializer(Normal(0.5), (40, 6)), name="w")
    numparam.save_checkpoint([recipe], "recipe.safetensors", recipes=True)
    numparam.save_checkpoint([recipe], "values.safetensors")
    assert main(["compare", "recipe.safetensors", "values.safetensors"]) == 0
    recipe[39, 5] = 1.0
    numparam.save_checkpoint([recipe], "values.safetensors")
    assert main(["compare", "recipe.safetensors", "values.safetensors"]) == 1
    assert "parameter 'w': its values differ\n" in capsys.readouterr().out
    rules = folder / "rules.toml"
    rules.write_text('[[rules]]\nglob = "*"\ninit = "Normal"\nsigma = 0.5\n')
    assert main(["init", "--like", "a.safetensors", "--seed", "7", "--rules", "rules.toml", "-o", "b.safetensors"]) == 0
    capsys.readouterr()
    assert main(["compare", "b.safetensors", "--seed", "7", "--rules", "rules.toml"]) == 0
    assert capsys.readouterr().out == "2 parameters: all are equal\n"
    assert main(["compare", "b.safetensors", "--seed", "8", "--rules", "rules.toml"]) == 1
    assert (
        main(["compare", "b.safetensors", "--seed", "7", "--rules", "rules.toml", "--like", "recipe.safetensors"]) == 1
    )
    assert "parameter 'w': it is missing\n" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["a.safetensors", "other.txt", "model.safetensors.index.json"])
def test_only_a_json_file_is_written(folder: Path, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "a.safetensors").read_bytes()
    assert main(["fingerprint", "a.safetensors", "-o", output]) == 2
    assert f"--output is a .json file, which numparam compare reads, found {output}" in capsys.readouterr().err
    assert [each.name for each in folder.iterdir()] == ["a.safetensors"]
    assert (folder / "a.safetensors").read_bytes() == before


def test_an_empty_key_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "key").touch()
    assert main(["fingerprint", "a.safetensors", "--key-file", "key"]) == 2
    assert "a key is a secret, found an empty one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["a.safetensors"], "two files are compared, or one with --seed, found 1"),
        (["a.safetensors", "a.safetensors", "--seed", "7"], "two files are compared, or one with --seed, found 2"),
        (["a.safetensors", "a.safetensors", "--like", "a.safetensors"], "need --seed, which is missing"),
    ],
    ids=["one file", "too many", "without a seed"],
)
def test_a_comparison_with_arguments_missing_is_one_sentence(
    folder: Path,  # noqa: ARG001
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", *arguments]) == 2
    assert words in capsys.readouterr().err
