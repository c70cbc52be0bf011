"""``numparam verify``: every wrong bit is found and named, by the file alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from numparam import Layout, Parameter, save_distributed_checkpoint, write_index
from numparam.cli import main
from numparam.entry import BUFFER_BYTES


@pytest.fixture
def model(tmp_path: Path) -> Path:
    like = tmp_path / "like.safetensors"
    tensors = {
        "a.weight": np.zeros((6, 10), np.float32),
        "b.weight": np.zeros((4, 5), np.float16),
        "c.bias": np.zeros(3, np.float64),
        "d.scale": np.zeros(2, np.float32),
    }
    save_file(tensors, like)
    out = tmp_path / "model.safetensors"
    assert main(["init", "--like", str(like), "--seed", "7", "-o", str(out)]) == 0
    return out


def rewrite(path: Path, change: Any = None, **record: str | None) -> None:
    """Save a file again with changed values, or with other lines in its record."""
    tensors = load_file(path)
    with safe_open(path, "numpy") as file:
        metadata = {**file.metadata(), **{f"numparam.{key}": value for key, value in record.items()}}
    if change is not None:
        change(tensors)
    save_file(tensors, path, {key: value for key, value in metadata.items() if value is not None})


def test_a_right_file_passes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["verify", str(model)]) == 0
    assert capsys.readouterr().out.startswith(f"{model}: 4 parameters, 312 B: every value matches seed 7 (")


def test_a_file_saved_again_by_another_library_passes(model: Path) -> None:
    rewrite(model)
    assert main(["verify", str(model)]) == 0


@pytest.mark.parametrize("index", [(0, 0), (3, 7), (5, 9)])
def test_the_first_difference_is_named(model: Path, index: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    expected = load_file(model)["a.weight"][index]

    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["a.weight"][index] = 0.5
        tensors["a.weight"][5, 9] = 0.5

    rewrite(model, change)
    capsys.readouterr()
    assert main(["verify", str(model)]) == 1
    bits = expected.view(np.uint32)
    assert capsys.readouterr().out == (
        f"parameter 'a.weight' differs first at index {index} (flat {index[0] * 10 + index[1]}): "
        f"found 0.5 (0x3f000000), expected {expected} (0x{bits:08x})\n"
        f"{model}: 1 of 4 parameters differ\n"
    )


def test_every_bit_counts(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["c.bias"][1] = -0.0
        tensors["b.weight"].view(np.uint16)[3, 4] ^= 1

    rewrite(model, change)
    capsys.readouterr()
    assert main(["verify", str(model)]) == 1
    printed = capsys.readouterr().out
    assert (
        "parameter 'c.bias' differs first at index (1,) (flat 1): "
        "found -0.0 (0x8000000000000000), expected 0.0 (0x0000000000000000)" in printed
    )
    assert "parameter 'b.weight' differs first at index (3, 4) (flat 19): " in printed
    assert printed.endswith(f"{model}: 2 of 4 parameters differ\n")


def test_a_difference_beyond_the_first_block_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    like, out = tmp_path / "like.safetensors", tmp_path / "out.safetensors"
    rows = BUFFER_BYTES // 4 // 100 + 50
    save_file({"w.weight": np.zeros((rows, 100), np.float32)}, like)
    main(["init", "--like", str(like), "-o", str(out)])
    assert main(["verify", str(out)]) == 0

    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["w.weight"][rows - 1, 3] = np.nan

    rewrite(out, change)
    capsys.readouterr()
    assert main(["verify", str(out)]) == 1
    assert f"at index ({rows - 1}, 3) (flat {(rows - 1) * 100 + 3}): found nan" in capsys.readouterr().out


def test_in_a_shard_the_index_in_the_whole_is_named_too(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seed", "7", "--shard", "1/2", "--axis", "0"]
    assert main(["init", "--like", str(model), *arguments, "-o", str(model)]) == 0
    assert main(["verify", str(model)]) == 0

    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["a.weight"][1, 2] = 0

    rewrite(model, change)
    capsys.readouterr()
    assert main(["verify", str(model)]) == 1
    assert "differs first at index (1, 2) (flat 12, (4, 2) of the full parameter): found 0.0" in capsys.readouterr().out


def test_every_file_of_an_index_is_verified(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, index = model.with_name("other.safetensors"), model.with_name("both.safetensors.index.json")
    save_file({"e.weight": np.zeros((3, 3), np.float32)}, other)
    assert main(["init", "--like", str(other), "--seed", "8", "-o", str(other)]) == 0
    weight_map = {**dict.fromkeys(load_file(model), model.name), "e.weight": other.name}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    capsys.readouterr()
    assert main(["verify", str(index)]) == 0
    assert f"{index}: 5 parameters, 348 B in 2 files: every value matches seeds 7, 8 (" in capsys.readouterr().out

    rewrite(other, lambda tensors: tensors["e.weight"].__setitem__((1, 2), 0.5))
    assert main(["verify", str(index)]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith(f"{other}: parameter 'e.weight' differs first at index (1, 2) (flat 5): found 0.5")
    assert printed.endswith(f"{index}: 1 of 5 parameters in 2 files differ\n")

    rewrite(other, seed=None)
    assert main(["verify", str(index)]) == 2
    assert capsys.readouterr().err.startswith(f"numparam: {other}: its metadata has no numparam.seed")


def test_an_index_with_a_record_of_its_own_is_verified_over_all_files(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(model)
    with safe_open(model, "numpy") as file:
        record = file.metadata()
    for rank in range(2):  # pieces, whose files have no record
        rows = Layout({"dp": 2}, ("dp",))
        parts = []
        for name, array in tensors.items():
            region = rows.region(array.shape, rank)
            parts.append(Parameter(region.take(array).copy(), name=name))
            parts[-1]._region = region
        save_distributed_checkpoint(parts, model.with_name("m"), rank=rank, ranks=2)
    index = write_index(model.with_name("m"))
    assert main(["verify", str(index)]) == 2
    assert "m-1-rank-00000-of-00002.safetensors: its metadata has no numparam.parameters" in capsys.readouterr().err
    content = json.loads(index.read_text())
    content["metadata"] |= record
    index.write_text(json.dumps(content))
    assert main(["verify", str(index)]) == 0
    assert capsys.readouterr().out.startswith(f"{index}: 4 parameters, 312 B: every value matches seed 7 (")


def test_a_renamed_parameter_differs(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(model, lambda tensors: tensors.update({"z.weight": tensors.pop("a.weight")}))
    capsys.readouterr()
    assert main(["verify", str(model)]) == 1
    assert capsys.readouterr().out.startswith("parameter 'z.weight' differs first at index (0, 0)")


def test_another_seed_in_the_record_differs(model: Path) -> None:
    rewrite(model, seed="8")
    assert main(["verify", str(model)]) == 1


@pytest.mark.parametrize(
    "record, message",
    [
        ({"seed": None}, "its metadata has no numparam.seed: numparam init did not write it"),
        ({"rules": None}, "its metadata has no numparam.rules: numparam init did not write it"),
        ({"stream": "2"}, "it holds values of random stream '2'; this numparam generates stream 1"),
        ({"seed": "x"}, "its record cannot be followed: invalid literal for int() with base 10: 'x'"),
        ({"seed": "-1"}, "its record cannot be followed: a seed is an int from 0 to 2**64 - 1, found -1"),
        ({"rules": "[3]"}, "its record cannot be followed: its rules: rule 1: a rule is a table with an init"),
        ({"rules": "[]"}, "its record cannot be followed: no rule initialises parameter 'c.bias'"),
        ({"rules": "["}, "its record cannot be followed: its rules: the recorded rules are not JSON"),
        ({"parameters": "5"}, "numparam init wrote 5 parameters, found 4"),
        ({"shard": "0/2"}, "its record cannot be followed: 'numparam.axes'"),
        ({"shard": "0/2", "axes": "auto", "shapes": "3"}, "its record cannot be followed: "),
        ({"shard": "0/2", "axes": "auto", "shapes": "{}"}, "its record cannot be followed: 'c.bias'"),
    ],
)
def test_a_record_that_cannot_be_followed_gives_one_sentence(
    model: Path, record: dict[str, str | None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(model, **record)
    capsys.readouterr()
    assert main(["verify", str(model)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"numparam: {model}: {message}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_record_of_other_shapes_gives_one_sentence(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = {name: array.shape for name, array in load_file(model).items()}
    rewrite(model, shard="0/2", axes="0", shapes=json.dumps(shapes))
    capsys.readouterr()
    assert main(["verify", str(model)]) == 2
    assert "parameter 'c.bias' has shape (3,); its record has (2,)" in capsys.readouterr().err


def test_files_that_cannot_be_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = tmp_path / "plain.safetensors", tmp_path / "folder"
    folder.mkdir()
    save_file({"a": np.zeros(1, np.float32)}, path)
    cases = {
        path: "its metadata has no numparam.parameters: numparam init did not write it",
        tmp_path / "absent": "No such file or directory",
        folder: "a folder needs one index or one safetensors file, found 0 and 0; name the file",
    }
    for file, message in cases.items():
        assert main(["verify", str(file)]) == 2
        assert capsys.readouterr().err == f"numparam: {file}: {message}\n"
