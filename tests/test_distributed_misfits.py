"""Pieces that do not fit together, and files and indexes that lie, give one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import numparam
from meshes import MESHES, save
from numparam import (
    Parameter,
    load_checkpoint,
    save_distributed_checkpoint,
    write_index,
)
from numparam.cli import main
from numparam.errors import CheckpointError
from numparam.initializer import initializer


@pytest.mark.parametrize(
    "change, words",
    [
        ({1: None}, r"parameter 'w' of shape \(7, 5\): no file holds 3:6 along axis 0"),
        ({2: None}, r"parameter 'w' of shape \(7, 5\): no file holds 6:7 along axis 0"),
        ({1: ((7, 5), np.s_[2:6])}, "'w' .* do not line up along axis 0: .*00000-of.* holds 0:3 and .*00001-of.* 2:6"),
        (
            {1: ((7, 5), np.s_[3:6, :2])},
            r"parameter 'w': no file holds \[0:3, 0:2\] of shape|do not line up along axis 1",
        ),
        ({1: ((8, 5), np.s_[3:6])}, r"'w': .*00000-of.* part of float32 \(7, 5\), .*00001-of.* float32 \(8, 5\)"),
        ({1: ((7, 5), np.s_[3:6], "float16")}, r"'w': .*00000-of.* float32 \(7, 5\), .*00001-of.* float16 \(7, 5\)"),
    ],
    ids=str,
)
def test_pieces_that_do_not_fit_together(change: Any, words: str, tmp_path: Path) -> None:
    parts: dict[int, Any] = {rank: ((7, 5), np.s_[3 * rank : 3 * rank + 3]) for rank in range(3)} | change
    for rank, given_part in parts.items():
        values = []
        if given_part is not None:
            shape, index, *dtype = given_part
            values = [Parameter(initializer("ones", shape, *dtype)[index], name="w")]
        save_distributed_checkpoint(values, tmp_path / "m", rank=rank, ranks=3)
    with pytest.raises(CheckpointError, match=words):
        write_index(tmp_path / "m")
    assert not (tmp_path / "m.safetensors.index.json").exists()


def test_a_parameter_that_the_chosen_rank_lacks_is_not_lost(tmp_path: Path) -> None:
    everything = {"a": np.ones(8), "b": np.ones(8)}
    for rank, values in enumerate([everything, {"a": everything["a"]}]):
        save_distributed_checkpoint(values, tmp_path / "m", rank=rank, ranks=2)
    with pytest.raises(CheckpointError, match=r"'b': .*00000-of-00002.safetensors left it to another rank, and"):
        write_index(tmp_path / "m")


def test_pipeline_stages_hold_parameters_of_their_own(tmp_path: Path) -> None:
    numparam.set_auto_parallel_context(pipeline_stages=2)
    try:
        for rank in range(4):
            values = {f"stage{rank // 2}.{name}": np.full(4, rank // 2) for name in "ab"}
            save_distributed_checkpoint(values, tmp_path / "m", rank=rank, ranks=4)
    finally:
        numparam.reset_auto_parallel_context()
    loaded = load_checkpoint(write_index(tmp_path / "m"))
    assert {name: set(tensor.asnumpy()) for name, tensor in loaded.items()} == {
        **{f"stage0.{name}": {0} for name in "ab"},
        **{f"stage1.{name}": {1} for name in "ab"},
    }


def test_recipes_and_values_do_not_mix(tmp_path: Path) -> None:
    for rank in range(2):
        part = Parameter(initializer("normal", (4, 4))[2 * rank : 2 * rank + 2], name="w")
        if not rank:
            part.init_data()
        save_distributed_checkpoint([part], tmp_path / "m", rank=rank, ranks=2, recipes=True)
    with pytest.raises(CheckpointError, match="'w': some ranks saved its recipe and others its values"):
        write_index(tmp_path / "m")


def test_what_cannot_be_saved_in_pieces(tmp_path: Path) -> None:
    steps = Parameter(initializer("normal", (8, 4))[::2], name="w")
    own = Parameter([1.0], name="w", layerwise_parallel=True)
    for part, words in ((steps, "'w' holds Region.* only a block"), (own, "'w' has layerwise_parallel")):
        with pytest.raises(ValueError, match=words):
            save_distributed_checkpoint([part], tmp_path / "m", rank=0, ranks=2)
    for rank, ranks, words in (
        (2, 2, "count from 0 to 1, found rank 2"),
        (-1, 2, "rank is at least 0"),
        (0, 0, "ranks"),
    ):
        with pytest.raises(ValueError, match=words):
            save_distributed_checkpoint([], tmp_path / "m", rank=rank, ranks=ranks)
    with pytest.raises(TypeError, match="rank is an int, found '0'"):
        save_distributed_checkpoint([], tmp_path / "m", rank="0", ranks=2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the name of a checkpoint"):
        write_index(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nowhere"):
        write_index(tmp_path / "nowhere" / "m")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "m.safetensors.index.json").write_text("{")
    with pytest.raises(ValueError, match="its JSON cannot be read"):
        save_distributed_checkpoint({"w": np.ones(1)}, tmp_path / "m")


def sound_index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads(save(folder / "m", MESHES["rows"], {"w": (7, 5)}).read_text())
    return index


@pytest.mark.parametrize(
    "change, words",
    [
        ({"files": ["../secret.safetensors"] * 3}, "is not a plain file name in the folder of the index"),
        ({"files": ["/etc/passwd"] * 3}, "is not a plain file name in the folder of the index"),
        ({"files": [3]}, "needs a list of files"),
        ({"files": None}, "needs a list of files"),
        ({"parameters": []}, "maps parameter names to their pieces"),
        ({"w": 3}, "expected dtype, shape, cuts and files, found 3"),
        ({"w": {}}, "expected dtype, shape, cuts and files"),
        ({"dtype": "F99"}, "does not know the dtype 'F99'"),
        ({"shape": [-7, 5]}, "a shape is a list of natural numbers"),
        ({"shape": [2**62, 2**62]}, "is larger than any file"),
        ({"shape": [1] * 65}, "at most 64 axes"),
        ({"shape": [7]}, "has a list of cuts for each axis"),
        ({"cuts": [[0, 3, 6], [0], [0]]}, "has a list of cuts for each axis"),
        ({"cuts": [[-1, 3, 6], [0]]}, "the cuts of 7 entries rise from 0"),
        ({"cuts": [[1, 3, 6], [0]]}, "the cuts of 7 entries rise from 0"),
        ({"cuts": [[0, 3, 7], [0]]}, "the cuts of 7 entries rise from 0"),
        ({"cuts": [[0, 6, 3], [0]]}, "the cuts of 7 entries rise from 0"),
        ({"cuts": [[], [0]]}, "the cuts of 7 entries rise from 0"),
        ({"cuts": [[0, 3, True], [0]]}, "the cuts of 7 entries rise from 0"),
        ({"cuts": "xy"}, "has a list of cuts for each axis"),
        ({"w.files": [0, 1]}, "its 3 pieces are in files numbered from 0 to 2"),
        ({"w.files": [0, 1, 3]}, "its 3 pieces are in files numbered from 0 to 2"),
        ({"w.files": [0, 1, -1]}, "its 3 pieces are in files numbered from 0 to 2"),
        ({"w.files": {}}, "its 3 pieces are in files numbered from 0 to 2"),
    ],
    ids=str,
)
def test_hostile_indexes_give_one_sentence(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "secret.safetensors").write_bytes(b"")
    folder = tmp_path / "folder"
    folder.mkdir()
    content = sound_index(folder)
    [(key, value)] = change.items()
    if key in content:
        content[key] = value
    elif key == "w":
        content["parameters"]["w"] = value
    else:
        content["parameters"]["w"][key.removeprefix("w.")] = value
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(index)
    assert str(caught.value).startswith(f"{index}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"dtype": "F16"}, r"rank-00000-of-00003.safetensors: parameter 'w': the index has float16 .* holds float32"),
        ({"shape": [8, 5]}, r"rank-00000.*: 'w'|parameter 'w': the index has .*\(8, 5\), the file holds .*\(7, 5\)"),
        ({"cuts": [[0, 2, 6], [0]]}, r"the index has float32 \[0:2, 0:5\] .* the file holds float32 \[0:3, 0:5\]"),
        ({"files": [1, 0, 2]}, r"rank-00001-of-00003.safetensors: parameter 'w': the index has .* \[0:3, 0:5\]"),
    ],
    ids=str,
)
def test_an_index_that_its_files_contradict(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    content = sound_index(tmp_path)
    content["parameters"]["w"].update(change)
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(index)["w"].asnumpy()
    assert main(["inspect", str(index)]) == 2


@pytest.mark.parametrize(
    "metadata, words",
    [
        ({"numparam.pieces": "[]"}, "must be an object"),
        ({"numparam.pieces": '{"x": {"shape": [2], "start": [0]}}'}, "gives the shape and the start of a tensor"),
        ({"numparam.pieces": '{"w": 5}'}, "gives the shape and the start of a tensor, found 5"),
        (
            {"numparam.pieces": '{"w": {"shape": [4, 4], "start": [0]}}'},
            "shape has a natural number for each of 1 axes",
        ),
        ({"numparam.pieces": '{"w": {"shape": [4], "start": [-1]}}'}, "start has a natural number for each of 1 axes"),
        ({"numparam.pieces": '{"w": {"shape": [4], "start": [3]}}'}, r"\[3:5\] of shape \(4,\) reaches beyond"),
        ({"numparam.names": "3"}, "numparam.names is a list of names, found 3"),
        ({"numparam.names": "["}, "its JSON cannot be read"),
        ({"other": ""}, "it has no numparam.names"),
    ],
    ids=str,
)
def test_hostile_files_of_ranks(metadata: dict[str, str], words: str, tmp_path: Path) -> None:
    save_file({"w": np.ones(2)}, tmp_path / "m-1-rank-00000-of-00001.safetensors", {"numparam.names": "[]"} | metadata)
    if "other" in metadata:
        save_file({"w": np.ones(2)}, tmp_path / "m-1-rank-00000-of-00001.safetensors", metadata)
    with pytest.raises(CheckpointError, match=words):
        write_index(tmp_path / "m")
