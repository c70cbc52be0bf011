"""Whatever a file says: an answer within it, or one sentence; never a crash, a huge allocation or another file."""

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from numparam import load_checkpoint
from numparam.errors import CheckpointError


def seeds() -> list[bytes]:
    """A few sound files with everything that a header can have."""
    tables: list[tuple[dict[str, Any], int]] = [
        ({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, 24),
        (
            {
                "__metadata__": {"format": "pt", "numparam.seed": "7"},
                "encoder.0.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [8, 16]},
                "bias": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]},
                "empty": {"dtype": "BOOL", "shape": [0, 7], "data_offsets": [16, 16]},
            },
            16,
        ),
        ({}, 0),
    ]
    return [
        struct.pack("<Q", len(text)) + text + bytes(size)
        for table, size in tables
        for text in (json.dumps(table).encode(),)
    ]


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**40, 2**62, 2**63, 2**64 - 1])
def test_claimed_lengths_cost_nothing(length: int, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"f\.safetensors"):
        load_checkpoint(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "file",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "sub/secret.safetensors",
        "sub\\secret.safetensors",
        "C:secret.safetensors",
        "..",
        ".",
        "",
        "a\0b",
        "missing.safetensors",
    ],
    ids=ascii,
)
def test_an_index_reaches_no_file_outside_its_folder(file: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    content = next(iter(seeds()))
    for place in (tmp_path / "secret.safetensors", tmp_path / "sub" / "secret.safetensors"):
        place.write_bytes(content)
    index = tmp_path / "sub" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": file}}))
    with pytest.raises(CheckpointError):
        load_checkpoint(index)


@pytest.mark.parametrize(
    "text, words",
    [
        ("[]", "must be an object"),
        ("{", "cannot be read"),
        ("{}", "needs a weight_map"),
        ('{"weight_map": []}', "needs a weight_map"),
        ('{"weight_map": {"a": 3}}', "needs a weight_map"),
        ('{"weight_map": {"a": "f.safetensors", "a": "f.safetensors"}}', "'a' is a duplicate"),
        ('{"weight_map": {"b": "f.safetensors"}}', "should hold parameter 'b' and does not"),
        ('{"weight_map": {}}', "no parameter is left"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=lambda value: value[:40],
)
def test_wrong_indexes(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "f.safetensors").write_bytes(seeds()[0])
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(index)


def test_a_file_that_is_truncated_after_its_header_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from numparam.checkpoint import loading

    path = tmp_path / "f.safetensors"
    path.write_bytes(seeds()[0])
    opened = loading.open_checkpoint(path)
    path.write_bytes(seeds()[0][:-1])
    monkeypatch.setattr(loading, "open_checkpoint", lambda _: opened)
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(path)
