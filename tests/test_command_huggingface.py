"""The command line and Hugging Face: models from a config.json, files that from_pretrained and torch's readers take."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import numparam
from numparam import Layout, Parameter, load_checkpoint, save_distributed_checkpoint, write_index
from numparam.checkpoint.atomic_file import holding
from numparam.cli import main
from numparam.initializer import initializer
from numparam.model import huggingface, specification

SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", **SIZES}


def folder(path: Path, **changes: Any) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**CONFIG, **changes}), encoding="utf-8")
    return path


def file_names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


@pytest.fixture
def transformers() -> Any:
    return pytest.importorskip("transformers")


@pytest.mark.usefixtures("transformers")
def test_a_config_gives_the_parameters_of_the_model(tmp_path: Path) -> None:
    like = folder(tmp_path / "llama")
    found = specification.resolve(str(like)).entries
    assert found == specification.resolve(str(like / "config.json")).entries
    by_name = {entry.name: (entry.shape, entry.dtype.name) for entry in found}
    assert len(by_name) == 21
    assert by_name["model.layers.1.mlp.up_proj.weight"] == ((64, 32), "bfloat16")
    tied = specification.resolve(str(folder(tmp_path / "tied", tie_word_embeddings=True))).entries
    assert {entry.name for entry in found} - {entry.name for entry in tied} == {"lm_head.weight"}


def test_from_pretrained_reads_files_of_a_limited_size(
    tmp_path: Path, transformers: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    like, out = folder(tmp_path / "llama"), tmp_path / "out"
    command = ["init", "--like", str(like), "--seed", "7", "-o", str(out), "--max-shard-size", "30KB"]
    assert main([*command, "--dry-run"]) == 0
    assert not out.exists()
    assert main(command) == 0
    assert f"wrote {out / 'model.safetensors.index.json'}: " in capsys.readouterr().out
    names = file_names(out)
    count = len(names) - 2
    shards = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    assert count > 2
    assert names == ["config.json", *shards, "model.safetensors.index.json"]
    assert all((out / shard).stat().st_size < 33_000 for shard in shards)

    model, report = transformers.LlamaForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report.values())
    assert str(model.dtype) == "torch.bfloat16"
    numparam.set_seed(7)
    name = "model.layers.1.mlp.up_proj.weight"
    expected = Parameter(initializer(numparam.initializer.Normal(0.02), (64, 32), "bfloat16"), name=name)
    assert model.get_parameter(name).float().tolist() == expected.asnumpy().astype("f4").tolist()
    capsys.readouterr()
    assert main(["verify", str(out)]) == 0
    assert "every value matches seed 7" in capsys.readouterr().out


def described_by_config(name: str, path: Path) -> Any:
    """Return a small model on meta, whose config.json is in the folder."""
    import torch

    from torch_models import MODELS

    with torch.device("meta"):
        model = MODELS[name]()
    model.config.architectures = [name.split(maxsplit=1)[0]]
    model.config.save_pretrained(path)
    return model


def same_values(path: Path, model: Any) -> None:
    state = model.state_dict()
    for name, values in load_file(path).items():
        np.testing.assert_array_equal(values, state[name].float().numpy(), err_msg=name)


DRAWN = ("GPT2LMHeadModel", "BertForMaskedLM", "BloomForCausalLM")
COMPUTED = ("Qwen3NextForCausalLM", "WhisperForConditionalGeneration", "Mamba2ForCausalLM", "CLIPModel")
OTHERS = (
    *("LlamaForCausalLM", "LlamaForCausalLM tied", "MixtralForCausalLM", "Qwen3MoeForCausalLM", "Wav2Vec2ForCTC"),
    *("T5ForConditionalGeneration", "ViTForImageClassification", "MambaForCausalLM", "Gemma2ForCausalLM"),
    *("Gemma3ForCausalLM", "DeepseekV3ForCausalLM", "GptOssForCausalLM", "Dinov2Model", "SwinModel", "ResNetModel"),
    *("FalconForCausalLM", "GPTNeoXForCausalLM", "SamModel"),
)


@pytest.mark.usefixtures("transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*DRAWN, *COMPUTED, *[pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]])
def test_a_model_starts_as_its_own_code_starts_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the bit, with draws that are repeated, rows of padding, other scales than the general rules, and tables."""
    from numparam.torch import init_

    model, out = described_by_config(name, tmp_path), tmp_path / "out.safetensors"
    command = ["init", "--like", str(tmp_path), "--seed", "7", "-o", str(out)]
    assert main(command) == 0
    assert main(["verify", str(out)]) == 0
    init_(model, seed=7, device="cpu")
    same_values(out, model)
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\nglob = "*.weight"\ninit = "zeros"\n', encoding="utf-8")
    capsys.readouterr()
    assert main([*command, "--rules", str(rules)]) == 0
    assert not capsys.readouterr().err
    assert not any(values.any() for key, values in load_file(out).items() if key.endswith(".weight"))


@pytest.mark.usefixtures("transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("most", [1, 1 << 28])
def test_what_a_model_computes_is_written_in_any_dtype_and_part(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by one run of its code for each parameter."""
    import torch

    from numparam.torch import init_, traced

    monkeypatch.setattr(traced, "_MOST_BYTES", most)
    model, out = described_by_config("Wav2Vec2ForCTC", tmp_path), tmp_path / "out"
    common = ["init", "--like", str(tmp_path), "--seed", "7", "--dtype", "bf16"]
    assert main([*common, "--max-shard-size", "100KB", "-o", str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    init_(model.to(torch.bfloat16), seed=7, device="cpu")
    state = model.state_dict()
    loaded = load_checkpoint(out / "model.safetensors.index.json")
    assert loaded.keys() == state.keys()
    for name, values in loaded.items():
        np.testing.assert_array_equal(values.asnumpy().astype("f4"), state[name].float().numpy(), err_msg=name)
    parts = [tmp_path / f"{rank}.safetensors" for rank in range(2)]
    for rank, part in enumerate(parts):
        assert main([*common, "--shard", f"{rank}/2", "-o", str(part)]) == 0
    joined = load_checkpoint(write_index(tmp_path / "joined", files=parts))
    assert all((joined[name].asnumpy() == loaded[name].asnumpy()).all() for name in state)
    name = "wav2vec2.masked_spec_embed"
    content = parts[0].read_bytes()
    wrong = bytearray(content)
    start = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])[name]["data_offsets"][0]
    wrong[8 + int.from_bytes(content[:8], "little") + start] ^= 1
    parts[0].write_bytes(wrong)
    capsys.readouterr()
    assert main(["verify", str(parts[0])]) == 1
    assert f"parameter '{name}' has SHA-256 " in capsys.readouterr().out


def test_a_rule_cannot_compute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules, out = tmp_path / "rules.toml", tmp_path / "out.safetensors"
    rules.write_text('[[rules]]\ninit = "computed"\n', encoding="utf-8")
    assert main(["init", "--like", "minilm-l6", "--rules", str(rules), "-o", str(out)]) == 2
    assert "is computed by the code of its model: no rule can" in capsys.readouterr().err
    assert not out.exists()


def test_pieces_become_files_that_from_pretrained_reads(tmp_path: Path, transformers: Any) -> None:
    like, pieces, out = folder(tmp_path / "llama"), tmp_path / "pieces", tmp_path / "out"
    common = ["init", "--like", str(like), "--seed", "7"]
    assert main([*common, "-o", f"{out}/"]) == 0
    pieces.mkdir()
    for rank in range(2):
        assert main([*common, "--shard", f"{rank}/2", "-o", str(pieces)]) == 0
    index = write_index(pieces / "model")
    (pieces / "full").mkdir()
    numparam.save_checkpoint(load_checkpoint(index), pieces / "full" / "model.safetensors")
    (pieces / "full" / "config.json").write_text((like / "config.json").read_text())
    found, expected = (
        transformers.LlamaForCausalLM.from_pretrained(path).state_dict() for path in (pieces / "full", out)
    )
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in found)


def test_a_folder_gets_one_file_without_a_limit(tmp_path: Path, transformers: Any) -> None:
    like, out = folder(tmp_path / "llama", tie_word_embeddings=True), tmp_path / "out"
    assert main(["init", "--like", str(like), "--seed", "7", "-o", f"{out}/"]) == 0
    assert file_names(out) == ["config.json", "model.safetensors"]
    model, report = transformers.LlamaForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report.values())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    # Many files do not take the place of one, whose name from_pretrained looks for first.
    assert main(["init", "--like", str(like), "-o", str(out), "--max-shard-size", "30KB"]) == 2
    assert file_names(out) == ["config.json", "model.safetensors"]


def test_without_transformers_the_weights_say_what_the_model_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface, "find_spec", lambda _: None)
    like = folder(tmp_path / "llama")
    assert main(["init", "--like", str(like), "-o", str(tmp_path / "out.safetensors")]) == 2
    assert "install transformers and torch" in capsys.readouterr().err
    numparam.save_checkpoint({"a": np.zeros((4, 3)), "b": np.zeros(5)}, like / "model.safetensors", max_shard_bytes=99)
    found = specification.resolve(str(like))
    assert [(entry.name, entry.shape) for entry in found.entries] == [("a", (4, 3)), ("b", (5,))]
    assert found.config == like / "config.json"


@pytest.mark.usefixtures("transformers")
@pytest.mark.parametrize(
    "changes, words",
    [
        ({"architectures": ["NoSuchModel"]}, "has no model 'NoSuchModel'"),
        ({"architectures": ["AutoConfig"]}, "has no model 'AutoConfig'"),
        ({"architectures": []}, "names the class of the model"),
        ({"hidden_size": "many"}, "cannot build LlamaForCausalLM"),
    ],
)
def test_configs_that_describe_no_model(
    changes: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    like = folder(tmp_path / "llama", **changes)
    assert main(["init", "--like", str(like), "-o", str(tmp_path / "out.safetensors")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "config.json" in error
    assert file_names(tmp_path) == ["llama"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--max-shard-size", "5"], "a size is a number and a unit, such as 5GB"),
        (["--max-shard-size", "0GB"], "a size is a number and a unit, such as 5GB"),
        (["--max-shard-size", "1MB", "--shard", "0/2"], "--max-shard-size is for a full model"),
    ],
)
def test_sizes_and_shards_that_are_refused(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["init", "--like", "minilm-l6", "-o", str(tmp_path / "out"), *arguments]
    if "--shard" in arguments:
        assert main(command) == 2
    else:
        with pytest.raises(SystemExit, match="2"):
            main(command)
    assert words in capsys.readouterr().err
    assert file_names(tmp_path) == []


# --------------------------------------------------------------------------- shards


def described(path: Path) -> str:
    file = path / "mine.json"
    parameters = [["embed.weight", [10, 4]], ["layers.0.weight", [7, 6]], ["scale", []], ["norm.bias", [5]]]
    file.write_text(json.dumps({"dtype": "float32", "parameters": parameters}), encoding="utf-8")
    return str(file)


RULES = '[[rules]]\nglob = "scale"\ninit = "ones"\n'


@pytest.mark.parametrize("mesh", ["2", "2x2"])
def test_files_of_shards_join_into_an_index(mesh: str, tmp_path: Path) -> None:
    like, rules, out = described(tmp_path), tmp_path / "rules.toml", tmp_path / "out"
    rules.write_text(RULES, encoding="utf-8")
    out.mkdir()
    common = ["init", "--like", like, "--seed", "7", "--rules", str(rules)]
    full = tmp_path / "full.safetensors"
    assert main([*common, "-o", str(full)]) == 0
    ranks = math.prod(map(int, mesh.split("x")))
    for rank in range(ranks):
        assert main([*common, "--shard", f"{rank}/{mesh}", "-o", str(out)]) == 0
        assert main([*common, "--shard", f"{rank}/{mesh}", "-o", str(out / f"part{rank}.safetensors")]) == 0
    files = [out / f"part{rank}.safetensors" for rank in range(ranks)]
    for index in (write_index(out / "model"), write_index(out / "joined", files=files)):
        loaded = load_checkpoint(index)
        for name, expected in load_file(full).items():
            np.testing.assert_array_equal(loaded[name].asnumpy(), expected)
        assert main(["verify", str(index)]) == 0
    other = out / "other.safetensors"
    assert (
        main(["init", "--like", like, "--seed", "8", "--rules", str(rules), "--shard", f"0/{mesh}", "-o", str(other)])
        == 0
    )
    with pytest.raises(ValueError, match="two attempts"):
        write_index(out / "mixed", files=[other, *files[1:]])
    with pytest.raises(ValueError, match=r"no file holds|left it to another"):
        write_index(out / "mixed", files=files[1:])
    with pytest.raises(ValueError, match="lie in the folder of the index"):
        write_index(tmp_path / "mixed", files=files)
    assert not (out / "mixed.safetensors.index.json").exists()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_the_distributed_reader_of_torch_takes_the_shards(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    numparam.set_seed(7)
    full = {
        name: Parameter(initializer("normal", shape), name=name)
        for name, shape in {"w": (7, 6), "b": (5,), "s": ()}.items()
    }
    folders = [tmp_path / "saved", tmp_path / "init"]
    for rank in range(4):
        layout = Layout({"dp": 2, "tp": 2}, ("tp",))
        parts = [Parameter(initializer("normal", (7, 6)), name="w").init_data(layout, rank=rank), full["b"], full["s"]]
        folders[0].mkdir(exist_ok=True)
        save_distributed_checkpoint(parts, folders[0] / "model", rank=rank, ranks=4)
        folders[1].mkdir(exist_ok=True)
        command = [
            "init",
            "--like",
            described(tmp_path),
            "--seed",
            "7",
            "--shard",
            f"{rank}/2x2",
            "-o",
            str(folders[1]),
        ]
        rules = tmp_path / "rules.toml"
        rules.write_text(RULES, encoding="utf-8")
        assert main([*command, "--rules", str(rules)]) == 0
    state = {name: torch.empty(parameter.shape) for name, parameter in full.items()}
    load(state, storage_reader=HuggingFaceStorageReader(str(folders[0])), no_dist=True)
    for name, parameter in full.items():
        np.testing.assert_array_equal(state[name].numpy(), parameter.asnumpy())

    state = {name: torch.empty(shape) for name, shape in {"embed.weight": (10, 4), "layers.0.weight": (7, 6)}.items()}
    load(state, storage_reader=HuggingFaceStorageReader(str(folders[1])), no_dist=True)
    for name, values in state.items():
        numparam.set_seed(7)
        expected = Parameter(initializer(numparam.initializer.Normal(0.02), tuple(values.shape)), name=name)
        np.testing.assert_array_equal(values.numpy(), expected.asnumpy())


def test_a_shard_is_not_written_while_its_index_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["init", "--like", "minilm-l6", "--filter", "*bias", "--shard", "0/2", "-o", str(tmp_path)]
    with holding(tmp_path / "model.safetensors.index.json"), ThreadPoolExecutor(1) as other:
        assert other.submit(main, arguments).result() == 2
    assert "another process is writing it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(arguments) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["model-1-rank-00000-of-00002.safetensors"]
