"""The commands take specifications of one's own, and folders where they take files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from numparam import Parameter, save_checkpoint
from numparam.cli import main
from numparam.initializer import initializer
from numparam.model import specification

MINE = {
    "dtype": "float16",
    "parameters": [
        ["embed.weight", [10, 4]],
        ["position_ids", [1, 5], "int64"],
        {"repeat": 2, "as": "{i}", "from": 3, "parameters": [["layers.{i}.weight", [4, 4]], ["layers.{i}.bias", [4]]]},
    ],
}


def written(folder: Path, content: Any) -> str:
    path = folder / "mine.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_a_specification_of_ones_own_is_initialised(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert main(["init", "--like", written(tmp_path, MINE), "--seed", "7", "-o", str(out)]) == 0
    assert {name: (array.shape, array.dtype.name) for name, array in load_file(out).items()} == {
        "embed.weight": ((10, 4), "float16"),
        "position_ids": ((1, 5), "int64"),
        "layers.3.weight": ((4, 4), "float16"),
        "layers.3.bias": ((4,), "float16"),
        "layers.4.weight": ((4, 4), "float16"),
        "layers.4.bias": ((4,), "float16"),
    }
    assert main(["verify", str(out)]) == 0


@pytest.mark.parametrize("name", specification.names())
def test_a_copy_of_a_shipped_specification_is_the_same(name: str, tmp_path: Path) -> None:
    shipped = Path(specification.__file__).parent / "specifications" / f"{name}.json"
    copy = tmp_path / "copy.json"
    copy.write_bytes(shipped.read_bytes())
    assert specification.resolve(str(copy)).entries == specification.load(name).entries


@pytest.mark.parametrize(
    "content, sentence",
    [
        ({"parameters": []}, "not a specification: 'dtype' is missing"),
        ({"dtype": "float32"}, "not a specification: 'parameters' is missing"),
        ({"dtype": "f99", "parameters": []}, "not a specification: no dtype 'f99'; known: "),
        ({"dtype": ["f4"], "parameters": []}, "not a specification: a dtype is a name such as 'float32', found ['f4']"),
        ({"dtype": "float32", "parameters": {}}, "not a specification: expected a list, found {}"),
        ({"dtype": "float32", "parameters": []}, "there are 0 parameters: its list of parameters is empty"),
        ({"dtype": "float32", "parameters": [["w"]]}, "not a specification: "),
        ({"dtype": "float32", "parameters": [[1, [2]]]}, "not a specification: a parameter is [name, shape] or "),
        ({"dtype": "float32", "parameters": [["w", [-1]]]}, "not a specification: its list: parameter 'w': a shape is"),
        ({"dtype": "float32", "parameters": [["w", [1]], ["w", [2]]]}, "duplicate parameter name 'w'"),
        (
            {"dtype": "float32", "parameters": [{"repeat": 2, "as": "{i}", "parameters": [["w", [1]]]}]},
            "duplicate parameter name 'w'",
        ),
        (
            {"dtype": "float32", "parameters": [{"repeat": 10**12, "as": "{i}", "parameters": [["{i}", [1]]]}]},
            "not a specification: a model has at most 1048576 parameters",
        ),
        (
            {"dtype": "float32", "parameters": [{"repeat": -1, "as": "{i}", "parameters": [["{i}", [1]]]}]},
            "not a specification: a repeat has a count",
        ),
        (
            {"dtype": "float32", "parameters": [{"repeat": 10**12, "as": "{i}", "parameters": []}]},
            "not a specification: a model has at most 1048576 parameters",
        ),
        ([], "its JSON must be an object, found []"),
    ],
)
def test_a_wrong_specification_is_one_sentence(
    content: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, content)
    assert main(["plan", "--like", path, "--mesh", "2"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"numparam: {path}: {sentence}")
    assert printed.count("\n") == 1


def test_a_specification_is_not_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path, MINE)
    before = Path(path).read_bytes()
    assert main(["init", "--like", path, "-o", path]) == 2
    assert Path(path).read_bytes() == before


def test_a_folder_with_one_file_or_one_index_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    single, sharded = tmp_path / "single", tmp_path / "sharded"
    single.mkdir()
    sharded.mkdir()
    assert main(["init", "--like", written(tmp_path, MINE), "--seed", "7", "-o", str(single / "m.safetensors")]) == 0
    for number in (1, 2):
        save_file({f"w{number}": np.zeros((2, number), np.float32)}, sharded / f"m-{number}.safetensors")
    index = {"weight_map": {"w1": "m-1.safetensors", "w2": "m-2.safetensors"}}
    (sharded / "m.safetensors.index.json").write_text(json.dumps(index))
    assert main(["verify", str(single)]) == 0
    capsys.readouterr()
    for folder, count in ((single, 6), (sharded, 2)):
        assert main(["inspect", str(folder)]) == 0
        assert f"{folder}: {count} parameters, " in capsys.readouterr().out
        assert main(["plan", "--like", str(folder), "--mesh", "2"]) == 0
        assert main(["init", "--like", str(folder), "-o", str(tmp_path / f"{count}.safetensors")]) == 0
        assert len(load_file(tmp_path / f"{count}.safetensors")) == count
        assert main(["compare", str(folder), str(folder)]) == 0
        capsys.readouterr()


@pytest.mark.parametrize("count", [0, 2])
def test_a_folder_with_no_or_several_files_is_refused(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(count):
        save_file({"w": np.zeros(2, np.float32)}, tmp_path / f"{number}.safetensors")
    assert main(["inspect", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"numparam: {tmp_path}: a folder needs one index or one safetensors file, found 0 and {count}; name the file\n"
    )


def test_recipes_have_the_fingerprints_of_their_values(tmp_path: Path) -> None:
    weight = Parameter(initializer("normal", (30, 4)), name="w")
    values, recipes = tmp_path / "values.safetensors", tmp_path / "recipes.safetensors"
    save_checkpoint([weight], recipes, recipes=True)
    save_checkpoint([weight], values)
    assert main(["compare", str(values), str(recipes)]) == 0


def test_a_file_without_parameters_has_no_fingerprints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.safetensors"
    save_file({}, path)
    assert main(["fingerprint", str(path)]) == 2
    assert capsys.readouterr().err == f"numparam: {path}: there are 0 parameters to take fingerprints of\n"


def test_a_shard_is_not_taken_for_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = tmp_path / "shard.safetensors"
    assert main(["init", "--like", "minilm-l6", "--shard", "1/4", "--filter", "*.bias", "-o", str(shard)]) == 0
    capsys.readouterr()
    for command in (["init", "-o", str(tmp_path / "out")], ["plan", "--mesh", "2"]):
        assert main([*command, "--like", str(shard)]) == 2
        assert f"{shard}: it holds shard '1/4' of each parameter" in capsys.readouterr().err
