"""Programs written for MindSpore run with the import renamed and print what MindSpore printed."""

import importlib
import pkgutil
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import numparam
import numparam.mindspore as ms
from numparam.mindspore.common import initializer as initializers
from numparam.mindspore.nn.utils import no_init_parameters

HERE = Path(__file__).parent
PROGRAMS = sorted((HERE / "mindspore_programs").glob("*.py"))
PAGE = HERE.parent / "docs" / "mindspore.md"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_programs_print_what_mindspore_2_10_prints(program: Path, tmp_path: Path) -> None:
    renamed, count = re.subn(
        r"^(from|import) mindspore\b", r"\1 numparam.mindspore", program.read_text(), flags=re.MULTILINE
    )
    assert count > 3
    script = tmp_path / program.name
    script.write_text(renamed)
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=HERE.parent)
    assert found.stdout == (HERE / "data" / "mindspore_programs" / f"{program.stem}.txt").read_text()


def modules() -> list[str]:
    found = [item.name for item in pkgutil.walk_packages(ms.__path__, "numparam.mindspore.")]
    return ["numparam.mindspore", *(name for name in found if not name.rpartition(".")[2].startswith("_"))]


@pytest.mark.parametrize("module", modules())
def test_every_name_is_there_and_on_the_page(module: str) -> None:
    importlib.import_module(module)
    found = sys.modules[module]  # common.tensor is a function too
    page = PAGE.read_text()
    assert f"`{module.removeprefix('numparam.')}`" in page
    for name in found.__all__:
        assert isinstance(getattr(found, name), ModuleType) or f"`{name}`" in page


def test_names_that_the_page_calls_absent_are_absent() -> None:
    rows = re.findall(r"^\| `(mindspore[\w.]*)`.*\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) > 10
    for module, absent in rows:
        importlib.import_module(f"numparam.{module}")
        assert not set(re.findall(r"`(\w+)`", absent)) & set(sys.modules[f"numparam.{module}"].__all__), module


def test_modules_are_attributes_as_in_mindspore() -> None:
    assert ms.nn.utils.no_init_parameters is no_init_parameters
    assert ms.nn.cell.Cell is ms.nn.Cell
    assert ms.__version__ == "2.10.0"


def test_the_core_does_not_import_it() -> None:
    code = "import numparam, sys; assert 'mindspore' in dir(numparam); print('numparam.mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    assert numparam.mindspore is ms


def test_contexts_are_kept_and_given_back() -> None:
    before = {key: ms.get_context(key) for key in ("mode", "device_target", "save_graphs", "jit_config")}
    assert before == {"mode": ms.PYNATIVE_MODE, "device_target": "CPU", "save_graphs": 0, "jit_config": {}}
    try:
        ms.set_context(mode=ms.GRAPH_MODE, save_graphs=True, max_device_memory="8.5GB")
        ms.set_device("Ascend", 3)
        assert [ms.get_context(key) for key in ("mode", "save_graphs", "device_target", "device_id")] == [
            0, 1, "Ascend", 3,
        ]  # fmt: skip
    finally:
        ms.set_context(**before, device_id=0, max_device_memory="1024GB")
    ms.set_ps_context(enable_ps=True)
    assert ms.get_ps_context("enable_ps")
    ms.reset_ps_context()
    assert not ms.get_ps_context("enable_ps")


@pytest.mark.parametrize(
    "options, error",
    [
        ({"mode": 5}, ValueError),
        ({"mode": "x"}, TypeError),
        ({"device_target": "TPU"}, ValueError),
        ({"device_target": 5}, TypeError),
        ({"device_id": 4096}, ValueError),
        ({"device_id": "a"}, TypeError),
        ({"nope": 1}, ValueError),
        ({"save_graphs": 5}, ValueError),
        ({"save_graphs": "yes"}, TypeError),
        ({"deterministic": "X"}, ValueError),
        ({"max_call_depth": 0}, ValueError),
        ({"max_device_memory": 5}, TypeError),
        ({"max_device_memory": "8"}, ValueError),
        ({"enable_graph_kernel": 1}, TypeError),
        ({"jit_config": 5}, TypeError),
    ],
    ids=str,
)
def test_wrong_contexts_change_nothing(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ms.set_context(**{"mode": ms.GRAPH_MODE, "max_call_depth": 7} | options)
    assert (ms.get_context("mode"), ms.get_context("max_call_depth")) == (ms.PYNATIVE_MODE, 1000)


def test_small_functions() -> None:
    array = np.zeros(3, np.float32)
    shared = ms.from_numpy(array)
    array[0] = 5
    assert shared.tolist() == [5, 0, 0]
    assert (ms.is_tensor(shared), ms.is_tensor(array)) == (True, False)
    assert (ms.tensor([1.0]).dtype, ms.tensor(3).dtype) == (ms.float32, ms.int64)
    assert ms.dtype_to_nptype(ms.float32) is np.float32
    assert (ms.dtype_to_pytype(ms.bfloat16), ms.dtype_to_pytype(ms.uint8)) == (float, int)
    assert (ms.pytype_to_dtype(bool), ms.pytype_to_dtype(np.float16)) == (ms.bool_, ms.float16)
    with pytest.raises(TypeError, match="found <class 'str'>"):
        ms.pytype_to_dtype(str)
    assert initializers._calculate_fan_in_and_fan_out((3, 4, 5, 5)) == (100, 75)
    assert [initializers._calculate_correct_fan((3, 4), mode) for mode in ("fan_in", "FAN_OUT")] == [4, 3]
    with pytest.raises(ValueError, match="two axes or more"):
        initializers._calculate_fan_in_and_fan_out((3,))
    with pytest.raises(ValueError, match="mode is one of fan_in, fan_out"):
        initializers._calculate_correct_fan((3, 4), "fan")
    with no_init_parameters():
        assert ms.Parameter(initializers.initializer("normal", (2,))).has_init


def test_operators_that_are_here() -> None:
    ops = ms.ops
    one, two = ms.Tensor([[1.0, 2.0]]), ops.ones((1, 2))
    assert ops.matmul(one, ops.transpose(two, (1, 0))).tolist() == [[3]]
    assert ops.concat([one, two], 1).tolist() == [[1, 2, 1, 1]]
    assert ops.stack([one, two]).shape == (2, 1, 2)
    assert ops.reshape(ops.zeros((2, 3), ms.int8), (3, -1)).dtype == ms.int8
    assert ops.cast(one, ms.float16).dtype == ms.float16


def test_a_checkpoint_has_the_suffix_of_mindspore(tmp_path: Path) -> None:
    ms.save_checkpoint({"w": np.ones(1)}, str(tmp_path / "net"))
    assert [path.name for path in tmp_path.iterdir()] == ["net.ckpt"]


def test_functions_to_compile_run_as_they_are() -> None:
    @ms.jit
    def double(x: int) -> int:
        return 2 * x

    @ms.jit(jit_level="O1")
    def triple(x: int) -> int:
        return 3 * x

    @ms.jit_class
    class Scale:
        factor = 4

    assert (double(1), triple(1), Scale().factor) == (2, 3, 4)


def test_messages_go_to_logging(caplog: pytest.LogCaptureFixture) -> None:
    from numparam.mindspore import log as logger

    for name in ("info", "warning", "error", "critical"):
        getattr(logger, name)("%s of %d", name, 4)
    assert caplog.messages == ["info of 4", "warning of 4", "error of 4", "critical of 4"]
    assert {(record.name, record.funcName) for record in caplog.records} == {
        ("numparam.mindspore", "test_messages_go_to_logging")
    }
    with caplog.at_level("ERROR"):
        assert (logger.get_level(), ms.get_level()) == ("3", "3")


@pytest.mark.parametrize("module, name", [("nn", "Dense"), ("ops", "relu"), ("train", "Model"), ("", "grad")])
def test_what_is_absent_is_explained(module: str, name: str) -> None:
    found = getattr(ms, module) if module else ms
    with pytest.raises(AttributeError, match=f"{found.__name__} has no '{name}': it covers parameters"):
        getattr(found, name)
    assert not hasattr(found, name)


def test_all_arguments_of_a_save_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "net.ckpt"
    ms.save_checkpoint({"w": np.ones(1)}, path, incremental=False, global_step_num=3, remove_redundancy=False)
    assert ms.load_checkpoint(path)["w"].tolist() == [1]
    with pytest.raises(ValueError, match="map parameters"):
        ms.save_checkpoint({"w": np.zeros(1)}, path, incremental=True)
    with pytest.raises(TypeError, match="init is an Initializer, found 'ones'"):
        ms.Tensor(shape=(2,), dtype=ms.float32, init="ones")


def test_checkpoints_are_converted_to_the_other_format_and_back(tmp_path: Path) -> None:
    import ml_dtypes

    values = {"fc.w": np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3), "n": np.array(3, np.int8)}
    for rank in range(2):
        (tmp_path / f"rank_{rank}").mkdir()
        ms.save_checkpoint(values, tmp_path / f"rank_{rank}" / "net.ckpt", append_dict={"text": "é"})
    ms.ckpt_to_safetensors(tmp_path / "rank_0" / "net.ckpt")
    ms.ckpt_to_safetensors(tmp_path, tmp_path / "new", {"n": "step"}, "net")
    ms.safetensors_to_ckpt(tmp_path / "new", tmp_path / "back", {"step": "n"}, processes_num=2)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("net.*")) == [
        *("back/rank_0/net.ckpt", "back/rank_1/net.ckpt", "new/rank_0/net.safetensors", "new/rank_1/net.safetensors"),
        *("rank_0/net.ckpt", "rank_0/net.safetensors", "rank_1/net.ckpt"),
    ]
    assert list(ms.load_checkpoint(tmp_path / "new" / "rank_1" / "net.safetensors")) == ["fc.w", "step", "text"]
    for path in ("rank_0/net.safetensors", "back/rank_0/net.ckpt", "back/rank_1/net.ckpt"):
        found = ms.load_checkpoint(tmp_path / path)
        assert found.pop("text") == "é"
        assert found.keys() == values.keys()
        for name, array in values.items():
            assert found[name].asnumpy().tobytes() == array.tobytes()
            assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (("missing",), FileNotFoundError, "missing: no such file or folder"),
        (("missing",), ValueError, "missing: no such file or folder"),
        ((5,), TypeError, "a str or a path, found 5"),
        (("other",), ValueError, r"there is no .ckpt file in the folders rank\*"),
        (("rank_0/x.safetensors",), ValueError, "there is no .ckpt file here"),
        (("rank_0/x.ckpt", "a.b"), ValueError, "save_path is a folder, found 'a.b'"),
        (("rank_0/x.ckpt", None, 5), TypeError, "name_map is a dict, found 5"),
        (("rank_0/x.ckpt", None, {"a": "b"}), ValueError, "two parameters would have one name; change name_map"),
        (("rank_0/x.ckpt", None, None, "z"), ValueError, "no .ckpt file here that file_name_regex 'z' finds"),
        (("rank_0/x.ckpt", None, None, "["), ValueError, r"file_name_regex '\[': unterminated"),
        ((".", None, None, None, 0), ValueError, "processes_num is at least 1, found 0"),
    ],
)
def test_conversions_that_are_refused_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("rank_0", "other"):
        Path(folder).mkdir()
    ms.save_checkpoint({"a": np.ones(1), "b": np.ones(1)}, "rank_0/x.ckpt")
    Path("rank_0/x.safetensors").touch()
    before = set(tmp_path.rglob("*"))
    with pytest.raises(error, match=words):
        ms.ckpt_to_safetensors(*arguments)
    assert set(tmp_path.rglob("*")) == before
    assert not Path("rank_0/x.safetensors").stat().st_size


def test_names_that_no_parameter_has_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ms.save_checkpoint({"a": np.ones(1)}, tmp_path / "x.ckpt")
    ms.ckpt_to_safetensors(tmp_path / "x.ckpt", name_map={"a": "c", "b": "d"})
    assert "no parameter is called 'b', which name_map has" in caplog.text


def test_the_status_of_a_save_under_way(tmp_path: Path) -> None:
    assert ms.async_ckpt_thread_status() is False
    gate = threading.Event()
    saving = ms.save_checkpoint(
        {"w": np.ones(1)},
        tmp_path / "x.safetensors",
        async_save=True,
        format="safetensors",
        progress=lambda _: gate.wait(),
    )
    assert saving is not None
    assert ms.async_ckpt_thread_status() is True
    gate.set()
    saving.join()
    assert ms.async_ckpt_thread_status() is False


def test_options_of_the_compiler_are_checked_and_kept() -> None:
    plain = {
        "jit_level": "",
        "exc_mode": "auto",
        "jit_syntax_level": "",
        "debug_level": "RELEASE",
        "infer_boost": "off",
    }
    config = ms.JitConfig("O1", "sink", x=3)
    assert ms.JitConfig().jit_config_dict == plain
    assert config.jit_config_dict == plain | {"x": 3, "jit_level": "O1", "exc_mode": "sink", "backend": "ms_backend"}
    assert ms.JitConfig("O2").jit_config_dict == plain | {"jit_level": "O2", "backend": "GE"}
    for wrong in ({"jit_level": "O5"}, {"jit_level": 3}, {"exc_mode": ""}, {"debug_level": ""}, {"infer_boost": None}):
        with pytest.raises(ValueError, match=f"JitConfig: {next(iter(wrong))} is one of"):
            ms.JitConfig(**wrong)
    net = ms.nn.Cell()
    assert net.jit_config_dict == {}
    net.set_jit_config(config)
    net.set_jit_config(ms.JitConfig())
    assert net.jit_config_dict is config.jit_config_dict
    with pytest.raises(TypeError, match="jit_config is a JitConfig, found 'O1'"):
        net.set_jit_config("O1")


def test_a_missing_file_is_what_mindspore_raises_and_an_oserror(tmp_path: Path) -> None:
    for error in (ValueError, FileNotFoundError):
        with pytest.raises(error, match=r"missing.ckpt: No such file"):
            ms.load_checkpoint(tmp_path / "missing.ckpt")
