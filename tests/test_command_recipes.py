"""The commands see and follow recipes, and refuse a file that holds nothing."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import numparam
from numparam import Parameter, save_checkpoint
from numparam.cli import main
from numparam.initializer import Normal, initializer


@pytest.fixture
def weight() -> Parameter:
    numparam.set_seed(7)
    return Parameter(initializer(Normal(0.5), (40, 6), "float16"), name="a.weight")


@pytest.fixture
def recipes(tmp_path: Path, weight: Parameter) -> str:
    path = tmp_path / "recipes.safetensors"
    save_checkpoint([weight, Parameter(initializer("zeros", (3,)), name="b.bias")], path, recipes=True)
    return str(path)


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The words of every line, cells being two blanks apart."""
    return [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]


def test_inspect_lists_recipes(recipes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--all", recipes]) == 0
    found = lines(capsys)
    assert found[:3] == [
        ["parameter", "dtype", "shape", "bytes", "initializer"],
        ["a.weight", "float16", "(40, 6)", "recipe", "Normal(sigma=0.5, mean=0.0)"],
        ["b.bias", "float32", "(3,)", "recipe", "Zero()"],
    ]
    assert found[-1] == [f"{recipes}: 2 parameters (2 from recipes), 243 values, 492 B"]
    assert not any(line[0].startswith("numparam.recipes") for line in found)


def test_the_statistics_are_those_of_the_values_a_recipe_gives(
    recipes: str, weight: Parameter, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", recipes, "--stats"]) == 0
    header, row = lines(capsys)[:2]
    values = weight.asnumpy().astype(np.float64)
    found = dict(zip(header, row, strict=False))
    assert found["mean"] == f"{values.mean():.4g}"
    assert (found["min"], found["max"]) == (f"{values.min():.4g}", f"{values.max():.4g}")


def test_init_and_plan_take_names_shapes_and_dtypes_of_recipes(
    recipes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    assert main(["init", "--like", recipes, "--seed", "7", "-o", str(out)]) == 0
    assert {name: (array.shape, array.dtype.name) for name, array in load_file(out).items()} == {
        "a.weight": ((40, 6), "float16"),
        "b.bias": ((3,), "float32"),
    }
    capsys.readouterr()
    assert main(["plan", "--like", recipes, "--mesh", "2"]) == 0
    assert ["a.weight", "1", "float16", "(40/2, 6)", "(20, 6)", "240 B"] in lines(capsys)


def test_verify_says_what_of_recipes_it_can_verify(
    recipes: str, tmp_path: Path, weight: Parameter, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", recipes]) == 0
    printed = capsys.readouterr().out
    assert printed == f"{recipes}: 2 recipes for 492 B: each can be followed; there are no values to compare\n"
    mixed = tmp_path / "mixed.safetensors"
    save_checkpoint([weight, Parameter(np.zeros(2), name="v")], mixed, recipes=True)
    assert main(["verify", str(mixed)]) == 2
    assert "1 recipe can be followed, but 1 parameter with values cannot be verified" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["inspect"], ["verify"], ["plan", "--mesh", "2", "--like"]])
def test_a_recipe_that_cannot_be_followed_is_one_sentence(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.safetensors"
    save_file({}, path, {"numparam.recipes": '{"w": {"init": "Nonsense"}}', "numparam.stream": "1"})
    assert main([*command, str(path)]) == 2
    assert f"{path}: parameter 'w': its recipe cannot be followed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["inspect"], ["verify"], ["plan", "--mesh", "2", "--like"], ["init", "-o", "out.safetensors", "--like"]]
)
def test_a_file_without_parameters_is_an_error(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({}, "empty.safetensors", {"format": "pt"})
    assert main([*command, "empty.safetensors"]) == 2
    assert capsys.readouterr().err == (
        "numparam: empty.safetensors: there are 0 parameters: its header lists no values and its metadata no recipes\n"
    )
    assert not Path("out.safetensors").exists()
