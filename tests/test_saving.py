"""What is saved is loaded again: values, recipes, flags and texts, in one file or several, or not at all."""

import copy
import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import numparam
from killed_process import killed, needs_kill
from numparam import Cell, CellList, Parameter, Tensor, load_checkpoint, load_param_into_net, save_checkpoint
from numparam.initializer import (
    Constant,
    Dirac,
    Normal,
    Sparse,
    TruncatedNormal,
    VarianceScaling,
    initializer,
)
from ramp import Ramp


class Dense(Cell):
    def __init__(self, inputs: int, outputs: int, init: Any = "xavier_uniform") -> None:
        super().__init__()
        self.weight = Parameter(initializer(init, (outputs, inputs)))
        self.bias = Parameter(initializer("zeros", outputs))


class Net(Cell):
    def __init__(self, init: Any = "xavier_uniform") -> None:
        super().__init__()
        self.layers = CellList([Dense(4, 6, init), Dense(6, 2, init)])
        self.scales = [Parameter([1.0, 2.0], requires_grad=False)]
        self.register_buffer("steps", Tensor([3, 4]))


NAMES = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "Parameter$1", "steps"]


def values(net: Cell) -> dict[str, Any]:
    return {name: tensor.asnumpy() for name, tensor in net.state_dict().items()}


def test_other_libraries_read_the_file(tmp_path: Path) -> None:
    net = Net()
    save_checkpoint(net, tmp_path / "net")
    assert net.layers[0].weight.has_init
    found = load_file(tmp_path / "net.safetensors")
    assert sorted(found) == sorted(NAMES)
    for name, array in values(net).items():
        np.testing.assert_array_equal(found[name], array)


def test_round_trip_into_a_net(tmp_path: Path) -> None:
    net, other = Net(), Net("zeros")
    save_checkpoint(net, str(tmp_path / "net.safetensors"))
    told: list[int] = []
    loaded = load_checkpoint(str(tmp_path / "net.safetensors"), other, strict_load=True, progress=told.append)
    assert sum(told) == sum(array.nbytes for array in values(net).values())
    for name, array in values(net).items():
        np.testing.assert_array_equal(values(other)[name], array)
    loaded["layers.0.weight"].asnumpy()[...] = 9
    np.testing.assert_array_equal(values(other)["layers.0.weight"], values(net)["layers.0.weight"])
    assert other.uninitialized() == []
    assert {row[-1] for row in other.summary().rows} == {f"checkpoint {tmp_path / 'net.safetensors'}"}


def test_flags_come_back(tmp_path: Path) -> None:
    parameter = Parameter([1.0], "w", False, True, False)
    parameter.comm_fusion, parameter.key, parameter.cache_shape = 3, 5, [2, 3]
    parameter.cache_enable = parameter.sliced = parameter.unique = parameter.parallel_optimizer_comm_recompute = True
    parameter.set_param_ps(init_in_server=True)
    save_checkpoint([parameter], tmp_path / "w")
    twin = load_checkpoint(tmp_path / "w.safetensors")["w"]
    flags = [
        *("requires_grad", "layerwise_parallel", "parallel_optimizer", "comm_fusion", "key", "cache_shape", "sliced"),
        *("cache_enable", "unique", "parallel_optimizer_comm_recompute", "is_param_ps", "init_in_server"),
    ]
    assert [getattr(twin, flag) for flag in flags] == [getattr(parameter, flag) for flag in flags]


def test_numbers_and_texts_that_are_appended(tmp_path: Path) -> None:
    extra = {"epoch": 2**40, "lr": 0.1, "done": True, "note": "hällo\n", "moment": Tensor([1.5])}
    save_checkpoint({"w": np.ones(2)}, tmp_path / "w", append_dict=extra)
    loaded = load_checkpoint(tmp_path / "w.safetensors")
    assert loaded["note"] == "hällo\n"
    assert [loaded[name].asnumpy().tolist() for name in ("w", "epoch", "lr", "done", "moment")] == [
        [1, 1],
        2**40,
        0.1,
        True,
        [1.5],
    ]


def test_a_file_without_anything_else_keeps_its_texts(tmp_path: Path) -> None:
    save_checkpoint({}, tmp_path / "t", append_dict={"note": "x"})
    assert load_checkpoint(tmp_path / "t.safetensors") == {"note": "x"}


LAZY = {
    "normal": initializer(Normal(0.1, 3.0), (7, 5), "float64"),
    "truncated": initializer(TruncatedNormal(0.3, 0.1, -0.5, float("inf")), (7, 5)),
    "scaling": initializer(VarianceScaling(0.3, "fan_out", "uniform"), (7, 5), "bfloat16"),
    "sparse": initializer(Sparse(0.5), (7, 5)),
    "dirac": initializer(Dirac(2), (4, 2, 3)),
    "constant": initializer(Constant(np.float32(0.1)), (3,), "float64"),
    "integer": initializer(Constant(2**62 + 1), (3,), "int64"),
    "bool": initializer(Constant(True), (3,), "bool"),
    "orthogonal": initializer("orthogonal", (5, 5)),
    "slice": initializer("normal", (9, 9))[1::3, None, ::-2],
    "column": initializer("normal", (9, 9))[:, 3],
    "scalar": initializer("normal", ()),
    "empty": initializer("normal", (0, 3)),
}


@pytest.mark.parametrize("name", LAZY)
def test_recipes_give_back_every_bit(name: str, tmp_path: Path) -> None:
    lazy = Parameter(LAZY[name], name=name)
    save_checkpoint([lazy], tmp_path / "r", recipes=True)
    assert (tmp_path / "r.safetensors").stat().st_size < 700
    numparam.set_seed(99)  # the seed of a recipe is its own
    twin = load_checkpoint(tmp_path / "r.safetensors")[name]
    assert twin.has_init
    assert (twin.shape, twin.dtype) == (lazy.shape, lazy.dtype)
    assert twin.asnumpy().tobytes() == lazy.asnumpy().tobytes()


def test_recipe_of_another_name_stays_that_of_the_original(tmp_path: Path) -> None:
    lazy = Parameter(initializer("normal", (3, 3)), name="w")
    save_checkpoint({"renamed": lazy}, tmp_path / "r", recipes=True)
    twin = load_checkpoint(tmp_path / "r.safetensors")["renamed"]
    np.testing.assert_array_equal(twin.asnumpy(), lazy.asnumpy())


def test_what_no_recipe_can_say_is_saved_with_its_values(tmp_path: Path) -> None:
    given = {
        "own": Parameter(initializer(Ramp(), (3, 3)), name="own"),
        "unnamed": initializer("normal", (3, 3)),
        "made": Parameter([1.0], name="made"),
    }
    save_checkpoint(given, tmp_path / "r", recipes=True)
    assert sorted(load_file(tmp_path / "r.safetensors")) == ["made", "own", "unnamed"]
    assert given["own"].has_init
    for name, twin in load_checkpoint(tmp_path / "r.safetensors").items():
        np.testing.assert_array_equal(twin.asnumpy(), given[name].asnumpy())


def test_recipes_into_a_net_stay_lazy(tmp_path: Path) -> None:
    net = Net()
    save_checkpoint(net, tmp_path / "r", recipes=True)
    numparam.set_seed(99)
    other = Net("ones")
    load_checkpoint(tmp_path / "r.safetensors", other, strict_load=True)
    assert other.layers[0].weight.has_init
    assert other.uninitialized() == []
    assert other.layers[0].weight.origin == f"recipe {tmp_path / 'r.safetensors'}"
    for name, array in values(net).items():
        np.testing.assert_array_equal(values(other)[name], array)


def test_unset_parameters_cannot_be_saved(tmp_path: Path) -> None:
    unset = Parameter(initializer("unset", (3,)), name="w")
    for recipes in (False, True):
        with pytest.raises(RuntimeError, match="parameter 'w' holds no values yet"):
            save_checkpoint([unset], tmp_path / "w", recipes=recipes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"init": "Nothing"}, "no initializer is called 'Nothing'"),
        ({"init": 3}, "the name of an initializer is a str"),
        ({"args": {"x": "1"}}, "unexpected keyword argument"),
        ({"args": {"sigma": "-1"}}, "sigma is a finite number of at least 0"),
        ({"args": {"sigma": "nan"}}, "sigma is a finite number"),
        ({"args": 3}, "has no attribute"),
        ({"seed": -1}, "a seed is an int from 0"),
        ({"stream": 3}, "the stream of a recipe is a name"),
        ({"shape": [2**40, 2**40]}, "fewer than 2"),
        ({"shape": [-1]}, "length 0 or more"),
        ({"dtype": "int8"}, "draws real numbers"),
        ({"dtype": "object"}, "no dtype"),
        ({"index": [5, 5]}, "out of bounds"),
        ({"index": [[0, 1]]}, "an index holds"),
        ({"index": [[0, 1, 0], 0]}, "slice step cannot be zero"),
        ({"index": "x"}, "an index holds"),
        ({"index": [True]}, "an index holds"),
    ],
    ids=str,
)
def test_wrong_recipes(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    good = {
        "init": "Normal",
        "args": {"sigma": "0.01", "mean": "0.0"},
        "seed": 7,
        "stream": "w",
        "shape": [3, 3],
        "dtype": "float32",
    }
    for number, content in enumerate([good, good | change]):
        metadata = {"numparam.recipes": json.dumps({"w": content}), "numparam.stream": "1"}
        save_file({"x": np.ones(1)}, tmp_path / f"{number}.safetensors", metadata)
    assert load_checkpoint(tmp_path / "0.safetensors")["w"].shape == (3, 3)
    with pytest.raises(ValueError, match=f"1.safetensors: parameter 'w': its recipe cannot be followed: .*{words}"):
        load_checkpoint(tmp_path / "1.safetensors")


@pytest.mark.parametrize(
    "metadata, words",
    [
        ({"numparam.recipes": "[]"}, "numparam.recipes: its JSON must be an object"),
        ({"numparam.recipes": "{"}, "its JSON cannot be read"),
        ({"numparam.recipes": '{"w": {}}', "numparam.stream": "2"}, "for random stream '2'"),
        ({"numparam.recipes": '{"x": {}}', "numparam.stream": "1"}, "'x' has both values and a recipe"),
        ({"numparam.flags": '{"x": 3}'}, "'x' does not have flags such as 3"),
        ({"numparam.flags": '{"x": {"name": "y"}}'}, "'x' does not have flags"),
        ({"numparam.flags": '{"x": {"comm_fusion": -1}}'}, "comm_fusion is at least 0"),
        ({"numparam.texts": '{"x": "y"}'}, "'x' is not a text, or is a duplicate"),
        ({"numparam.texts": '{"y": 3}'}, "'y' is not a text"),
    ],
    ids=str,
)
def test_wrong_records(metadata: dict[str, str], words: str, tmp_path: Path) -> None:
    save_file({"x": np.ones(1)}, tmp_path / "f.safetensors", metadata)
    with pytest.raises(ValueError, match=words):
        load_checkpoint(tmp_path / "f.safetensors")


def test_shards_and_their_index(tmp_path: Path) -> None:
    net = Net()
    told: list[int] = []
    save_checkpoint(net, tmp_path / "model", max_shard_bytes=100, progress=told.append)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [*(f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)), "model.safetensors.index.json"]
    index = json.loads((tmp_path / files[-1]).read_text())
    assert index["metadata"]["total_size"] == sum(told) == sum(array.nbytes for array in values(net).values())
    loaded = load_checkpoint(tmp_path / files[-1], Net("zeros"), strict_load=True)
    for name, file in index["weight_map"].items():
        np.testing.assert_array_equal(load_file(tmp_path / file)[name], values(net)[name])
        assert loaded[name].origin_file == str(tmp_path / file)
    assert not loaded["Parameter$1"].requires_grad


@pytest.mark.parametrize("stem", ["model", "model[1]"])
def test_new_shards_replace_the_old_ones_only_when_they_are_complete(stem: str, tmp_path: Path) -> None:
    save_checkpoint(Net(), tmp_path / stem, max_shard_bytes=np.int64(100))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    broken = Net()
    broken.last = Parameter(initializer("unset", (50,)))
    with pytest.raises(RuntimeError, match="'last' holds no values yet"):
        save_checkpoint(broken, tmp_path / stem, max_shard_bytes=100)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    fresh = Net("ones")
    save_checkpoint(fresh, tmp_path / stem, max_shard_bytes=100)
    assert len(list(tmp_path.iterdir())) == 4
    loaded = load_checkpoint(tmp_path / f"{stem}.safetensors.index.json")
    np.testing.assert_array_equal(loaded["layers.0.weight"].asnumpy(), np.ones((6, 4)))


def test_old_files_outside_the_folder_are_never_removed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "precious.safetensors").write_bytes(b"precious")
    index = {"metadata": {}, "weight_map": {"w": "../precious.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_checkpoint(Net(), folder / "model", max_shard_bytes=100)
    assert (tmp_path / "precious.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "given, error, words",
    [
        (5, TypeError, "a Cell, a list or a dict can be saved, found int"),
        ([5], TypeError, "a list to save holds parameters or dicts with a name and data, found int"),
        ([{"name": "w", "data": [1]}], TypeError, "parameter 'w': a tensor, array or text can be saved"),
        ({1: np.ones(1)}, TypeError, "a str for a name, found 1"),
        ({"w": None}, TypeError, "parameter 'w': a tensor, array or text"),
        ({"w": np.ones(1, complex)}, TypeError, "safetensors files cannot hold complex128"),
        ({"__metadata__": np.ones(1)}, ValueError, "cannot hold a parameter called '__metadata__'"),
        ({"\ud800": np.ones(1)}, ValueError, "cannot hold a parameter called"),
        ({"note": "\ud800"}, ValueError, "cannot hold the text 'note'"),
        ([Parameter(1.0, "w"), Parameter(2.0, "w")], ValueError, "duplicate name 'w' among the parameters to save"),
    ],
    ids=ascii,
)
def test_what_cannot_be_saved(given: Any, error: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        save_checkpoint(given, tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="the name of a checkpoint is a str or a path, found 5"):
        save_checkpoint({}, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="format of a checkpoint is 'ckpt' or 'safetensors', found 'npz'"):
        save_checkpoint({}, tmp_path / "w", format="npz")
    for folder in (".", "..", f"{tmp_path}/"):
        with pytest.raises(IsADirectoryError, match="a checkpoint is a file, found the folder"):
            save_checkpoint({}, folder)
    for name, options, words in (
        ("w", {"enc_key": b"k"}, "checkpoints are not encrypted: enc_key is None, found bytes"),
        ("w", {"crc_check": True}, "only .ckpt files have a checksum"),
        ("w.ckpt", {"recipes": True}, "only safetensors files have recipes and shards"),
        ("w.ckpt", {"max_shard_bytes": 9}, "only safetensors files have recipes and shards"),
        ("w", {"async_save": "later"}, "async_save is a bool, 'thread' or 'process', found 'later'"),
    ):
        with pytest.raises(ValueError, match=words):
            save_checkpoint({"w": np.ones(1)}, tmp_path / name, **options)  # type: ignore[arg-type]
    for flag in ("integrated_save", "crc_check", "remove_redundancy"):
        with pytest.raises(TypeError, match=f"{flag} is True or False, found 1"):
            save_checkpoint({}, tmp_path / "w", **{flag: 1})  # type: ignore[arg-type]
    for wrong, error in ((0, ValueError), (True, TypeError), (1.5, TypeError)):
        with pytest.raises(error, match=r"max_shard_bytes is (an int|at least 1), found"):
            save_checkpoint({}, tmp_path / "w", max_shard_bytes=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="duplicate name 'w' among the parameters to save"):
        save_checkpoint({"w": np.ones(1)}, tmp_path / "w", append_dict={"w": 1})
    with pytest.raises(TypeError, match="append_dict maps names to what is saved too, found list"):
        save_checkpoint({"w": np.ones(1)}, tmp_path / "w", append_dict=[1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot write"):
        save_checkpoint({"w": np.ones(1)}, tmp_path / "nowhere" / "w")


def test_a_name_that_no_parameter_can_have_is_an_error_of_its_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a name has at most 1024 characters, found 1025"):
        save_checkpoint({"x" * 1025: np.ones(1)}, tmp_path / "w")
    save_file({"x" * 1025: np.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w.safetensors: .*a name has at most 1024 characters, found 1025"):
        load_checkpoint(tmp_path / "w.safetensors")


def test_choice_of_names(tmp_path: Path) -> None:
    net = Net()
    save_checkpoint(net, tmp_path / "n", choice_func=lambda name: name.startswith("layers"))
    path = tmp_path / "n.safetensors"
    assert set(load_checkpoint(path)) == set(NAMES[:4])
    assert set(load_checkpoint(path, specify_prefix="layers.0")) == set(NAMES[:2])
    assert set(load_checkpoint(path, specify_prefix=["layers.0", "layers.1"], filter_prefix="layers.1.b")) == {
        *NAMES[:3]
    }
    assert set(load_checkpoint(path, choice_func=lambda name: name.endswith("bias"))) == {NAMES[1], NAMES[3]}
    with pytest.raises(ValueError, match="no parameter is left to load"):
        load_checkpoint(path, filter_prefix="layers")
    for wrong, error in ((5, TypeError), ([1], TypeError), ("", ValueError), ([], ValueError), (["a", ""], ValueError)):
        with pytest.raises(error, match="filter_prefix"):
            load_checkpoint(path, filter_prefix=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.ckpt", "missing.safetensors.index.json", "x.bin"])
def test_missing_and_foreign_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=name):
        load_checkpoint(tmp_path / name)
    with pytest.raises(TypeError, match="a str or a path"):
        load_checkpoint(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="net is a Cell"):
        load_checkpoint(tmp_path / name, 5)  # type: ignore[arg-type]


def test_strict_loading_names_everything_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint({"a": np.ones((2, 3), np.float32), "b": np.ones(2), "x": np.ones(1)}, path)
    net = Cell()
    net.a = Parameter(np.zeros((3, 2), np.float32))
    net.b = Parameter(np.zeros(2, np.float32))
    net.c = Parameter(1.0)
    with pytest.raises(RuntimeError) as caught:
        load_checkpoint(path, net, strict_load=True)
    for line in (
        f"parameter 'a': expected shape (3, 2), {path} has shape (2, 3)",
        f"parameter 'b': expected dtype float32, {path} has dtype float64",
        "parameter 'c': no values were given for it",
        "parameter 'x': the Cell has no such parameter",
    ):
        assert line in str(caught.value)
    assert net.b.asnumpy().tolist() == [0, 0]


def test_loose_loading_reports_what_it_left_out_and_why(caplog: pytest.LogCaptureFixture) -> None:
    net = Cell()
    net.a, net.b, net.c = Parameter(np.zeros((3, 2))), Parameter([1, 2]), Parameter([0.0])
    given = {"a": Tensor(np.ones((2, 3))), "b": Tensor([1.5, 2.5]), "c": Tensor(np.ones(1)), "d": Tensor([1.0])}
    with pytest.raises(RuntimeError, match=r"(?s)'a': expected shape.*'b': expected dtype.*set ignore_mismatched"):
        load_param_into_net(net, given)
    assert net.c.asnumpy().tolist() == [0]
    with caplog.at_level(logging.WARNING, "numparam"):
        report = load_param_into_net(net, given, ignore_mismatched=True)
    param_not_load, ckpt_not_load = report
    assert (param_not_load, ckpt_not_load) == (["a", "b"], ["a", "b", "d"])
    for twin in (copy.deepcopy(report), pickle.loads(pickle.dumps(report))):
        assert (twin, twin.skipped) == (report, report.skipped)
    assert report.skipped == {
        "a": "expected shape (3, 2), found shape (2, 3)",
        "b": "expected dtype int64, found dtype float32",
        "d": "the Cell has no such parameter",
    }
    assert "3 names were left out when loading" in caplog.text
    assert net.c.asnumpy().tolist() == [1]
    assert net.c.origin == "set_data"


@pytest.mark.parametrize(
    "there, given, expected",
    [
        (["weight", "bias"], ["network.weight", "network.bias"], {"weight": "network.weight", "bias": "network.bias"}),
        (["w", "b"], ["net.w", "net.b", "moment.net.w", "moment.net.b"], {"w": "net.w", "b": "net.b"}),
        (["layers.0.weight", "layers.1.weight"], ["0.weight", "1.weight"], {"layers.1.weight": "1.weight"}),
        (["a.0.w", "b.0.w"], ["0.w"], {}),
        (["w"], ["a.w", "b.w"], {}),
        (["weight"], ["overweight"], {}),
    ],
    ids=str,
)
def test_names_are_matched_by_their_ends(there: list[str], given: list[str], expected: dict[str, str]) -> None:
    net = Cell()
    for number, name in enumerate(there):
        net.insert_param_to_cell(f"p{number}", Parameter([0.0], name=name))
    values = {name: Parameter([number + 1.0]) for number, name in enumerate(given)}
    report = load_param_into_net(net, values)
    assert report.renamed.items() >= expected.items()
    assert set(report.renamed) | set(report.param_not_load) == set(there)
    for name, original in report.renamed.items():
        assert net.parameters_dict()[name].asnumpy() == values[original].asnumpy()
        assert f"{name}: loaded from {original!r}" in str(report)
    with pytest.raises(RuntimeError, match="no values were given for it"):
        load_param_into_net(net, values, strict_load=True)


def test_saving_in_the_background_keeps_the_values_of_the_call(tmp_path: Path) -> None:
    net = Net()
    before = {name: value.copy() for name, value in values(net).items()}
    saving = save_checkpoint(net, tmp_path / "n", async_save=True)
    assert saving is not None
    for parameter in net.get_parameters():
        parameter[...] = 0
    saving.join()
    assert saving.done
    for name, value in load_checkpoint(tmp_path / "n.safetensors").items():
        np.testing.assert_array_equal(value.asnumpy(), before[name])


@pytest.mark.parametrize("how", ["join", "save", "load"])
def test_errors_of_the_background_are_raised_once(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saving = save_checkpoint({"w": np.ones(1)}, tmp_path / "nowhere" / "w", async_save="thread")
    assert saving is not None
    later = {
        "join": saving.join,
        "save": lambda: save_checkpoint({"w": np.ones(1)}, tmp_path / "v"),
        "load": lambda: load_checkpoint(tmp_path / "v.safetensors"),
    }
    with pytest.raises(FileNotFoundError, match="cannot write"):
        later[how]()
    saving.join()
    save_checkpoint({"w": np.ones(1)}, tmp_path / "v")
    assert "in the background failed" in caplog.text


def test_wrong_things_to_load() -> None:
    with pytest.raises(TypeError, match="net is a Cell, found int"):
        load_param_into_net(5, {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="parameter_dict maps names to parameters, found list"):
        load_param_into_net(Cell(), [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="parameter 'a': expected a Tensor, found int"):
        load_param_into_net(Cell(), {"a": 5})


def test_mapped_values_are_private_and_survive_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint({"w": np.arange(6.0)}, path)
    first, second = load_checkpoint(path)["w"], load_checkpoint(path)["w"]
    first.asnumpy()[0] = 9
    save_checkpoint({"w": np.zeros(6)}, path)
    assert second.asnumpy().tolist() == [0, 1, 2, 3, 4, 5]
    assert load_checkpoint(path)["w"].asnumpy().tolist() == [0] * 6


def test_opening_a_large_file_reads_only_what_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    head = json.dumps({"w": {"dtype": "F32", "shape": [2**18, 2**20], "data_offsets": [0, 2**40]}}).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        try:
            file.truncate(8 + len(head) + 2**40)
        except OSError:
            pytest.skip("no sparse files of 1 TiB here")
    loaded = load_checkpoint(path)["w"]
    assert loaded.nbytes == 2**40
    assert loaded[-1, 5:8].asnumpy().tolist() == [0, 0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_lazy_parameters_are_saved_in_constant_memory(tmp_path: Path) -> None:
    code = f"""
import re
from pathlib import Path
import numparam
from numparam.initializer import initializer
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def save(rows):
    weight = numparam.Parameter(initializer("zeros", (rows, 2**20)), name="w")
    numparam.save_checkpoint([weight], {str(tmp_path / "w")!r})
save(1)
before = peak()
save(64)
print(peak() - before)
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (tmp_path / "w.safetensors").stat().st_size > 2**28
    assert int(ran.stdout) < 72 * 1024  # three chunks of 16 MiB and what the threads take, of 256 MiB


@needs_kill
@pytest.mark.parametrize("shards", ["None", "300000"])
def test_a_kill_leaves_the_old_or_the_new_checkpoint_whole(shards: str, tmp_path: Path) -> None:
    code = f"""
import numpy as np
import numparam
number = 0
while True:
    values = {{f"w{{i}}": np.full(100_000, number, np.float32) for i in range(4)}}
    numparam.save_checkpoint(values, {str(tmp_path / "w")!r}, max_shard_bytes={shards})
    number += 1
    print(number, flush=True)
"""
    name = "w.safetensors" if shards == "None" else "w.safetensors.index.json"
    for _ in killed(code):
        loaded = load_checkpoint(tmp_path / name)
        numbers = {float(number) for tensor in loaded.values() for number in np.unique(tensor.asnumpy())}
        assert len(loaded) == 4
        assert len(numbers) == 1


def test_progress_may_be_a_bar(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(Net(), tmp_path / "n", progress=True)
    load_checkpoint(tmp_path / "n.safetensors", Net("zeros"), progress=True)
    assert capfd.readouterr() == ("", "")  # no terminal, no bar
