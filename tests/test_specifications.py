"""The model specifications that ship with the package describe the real models."""

import math
import re

import pytest

from numparam.errors import SpecificationError
from numparam.model import specification
from numparam.rules import Rules

# The parameters and bytes that the publishers state for their files.
PUBLISHED = {
    "gpt2": (148, 124_439_808, 4 * 124_439_808),
    "kimi-k2": (69_975, 1_026_408_232_448, 2 * 1_026_408_232_448 + 2 * 60 * 384),
    "llama-3-8b": (291, 8_030_261_248, 16_060_522_496),
    "minilm-l6": (104, 22_713_216 + 512, 4 * 22_713_216 + 8 * 512),
}


def test_the_specifications_exist() -> None:
    assert specification.names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_those_of_the_published_files(name: str) -> None:
    entries = specification.load(name).entries
    found = len(entries), sum(entry.size for entry in entries), sum(entry.nbytes for entry in entries)
    assert found == PUBLISHED[name]
    assert len({entry.name for entry in entries}) == len(entries)


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_placeholder_is_left_and_layers_are_numbered_from_zero(name: str) -> None:
    names = [entry.name for entry in specification.load(name).entries]
    assert not any("{" in name for name in names)
    layers = {int(found[1]) for name in names if (found := re.search(r"\.(\d+)\.", f".{name}"))}
    assert layers == set(range({"gpt2": 12, "kimi-k2": 61, "llama-3-8b": 32, "minilm-l6": 6}[name]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_default_rules_cover_every_parameter(name: str) -> None:
    entries = specification.load(name).entries
    assert Rules.from_toml("").assign(entries).keys() == {entry.name for entry in entries}


def test_some_shapes_of_each() -> None:
    shapes = {name: {e.name: e.shape for e in specification.load(name).entries} for name in PUBLISHED}
    assert shapes["gpt2"]["h.11.attn.c_attn.weight"] == (768, 2304)
    assert shapes["gpt2"]["wpe.weight"] == (1024, 768)
    assert shapes["llama-3-8b"]["model.layers.31.self_attn.k_proj.weight"] == (1024, 4096)
    assert shapes["llama-3-8b"]["lm_head.weight"] == (128256, 4096)
    assert shapes["kimi-k2"]["model.layers.60.mlp.experts.383.down_proj.weight"] == (7168, 2048)
    assert "model.layers.0.mlp.gate.weight" not in shapes["kimi-k2"]
    assert shapes["minilm-l6"]["encoder.layer.5.intermediate.dense.weight"] == (1536, 384)
    dtypes = {str(entry.dtype) for entry in specification.load("llama-3-8b").entries}
    assert dtypes == {"bfloat16"}
    assert math.prod(shapes["minilm-l6"]["embeddings.position_ids"]) == 512


def test_an_unknown_name_lists_the_known_ones() -> None:
    known = "known: gpt2, kimi-k2, llama-3-8b, minilm-l6$"
    with pytest.raises(SpecificationError, match=f"^'gpt3' is neither a file nor a model specification; {known}"):
        specification.resolve("gpt3")
    with pytest.raises(SpecificationError, match=f"^no model specification is called '../gpt2'; {known}"):
        specification.load("../gpt2")
