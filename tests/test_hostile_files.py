"""Whatever a file says: an answer within it, or one sentence; never a crash, a huge allocation or another file."""

import json
import struct
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numparam import Parameter, Tensor, load_checkpoint, save_distributed_checkpoint, write_index
from numparam.checkpoint import header
from numparam.errors import CheckpointError
from numparam.indexing.region import Region

MUTATIONS = 100_000


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


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Change a file as chance, disks and attackers do."""
    out = bytearray(content)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(0, len(out) + 1))
        match random.integers(0, 8):
            case 0:
                out[place : place + 1] = bytes([random.integers(0, 256)])
            case 1:
                del out[place : place + int(random.integers(1, 9))]
            case 2:
                out[place:place] = random.bytes(int(random.integers(1, 9)))
            case 3:
                del out[place:]
            case 4:
                numbers = [
                    "-1",
                    "0",
                    "18446744073709551616",
                    "9223372036854775807",
                    "1e400",
                    "NaN",
                    "true",
                    "null",
                    "1.5",
                ]
                digits = [at for at in range(8, len(out)) if chr(out[at]).isdigit()]
                if digits:
                    at = int(random.choice(digits))
                    out[at : at + 1] = random.choice(numbers).encode()
            case 5:
                out[:8] = struct.pack("<Q", int(random.integers(0, 2**63)) >> int(random.integers(0, 63)))
            case 6:
                signs = b'{}[]":,\\'
                out[place : place + 1] = bytes([signs[random.integers(0, len(signs))]])
            case 7:
                start = int(random.integers(0, len(out) + 1))
                out[place:place] = out[start : start + int(random.integers(1, 40))]
    if random.random() < 0.5 and len(out) >= 8:  # else nearly all fail at the length, and nothing behind it is reached
        end = bytes(out).rfind(b"}") + 1
        out[:8] = struct.pack("<Q", max(end - 8, 0))
    return bytes(out)


@dataclass
class InMemory:
    """The bytes of a file, without the file."""

    content: bytes
    path: Path = Path("f")

    @property
    def nbytes(self) -> int:
        return len(self.content)

    def read(self, begin: int, count: int) -> bytes:
        return self.content[begin : begin + count]


def answered(content: bytes) -> header.Header | str:
    try:
        return header.decode(InMemory(content))  # type: ignore[arg-type]
    except CheckpointError as error:
        return str(error)


@pytest.mark.slow
def test_mutated_headers_give_a_sound_header_or_one_sentence() -> None:
    random = np.random.default_rng(7)
    originals = seeds()
    kinds: Counter[str] = Counter()
    tracemalloc.start()
    try:
        for number in range(MUTATIONS):
            if number == MUTATIONS // 20:  # it makes everything three times slower
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
            content = mutated(originals[number % len(originals)], random)
            answer = answered(content)
            if isinstance(answer, str):
                assert answer.startswith("f: ")
                assert "\n" not in answer
                assert len(answer) < 1000
                kinds["refused"] += 1
                continue
            kinds["read"] += 1
            assert answer.file.nbytes == len(content)
            assert sum(entry.nbytes for entry in answer.entries) <= len(content)
            assert all(8 <= answer.begins[e.name] <= len(content) - e.nbytes for e in answer.entries)
    finally:
        tracemalloc.stop()
    assert kinds["read"] > 1000
    assert kinds["refused"] > 50_000
    assert peak < 2**21


def part_of(index: Path) -> Any:
    try:
        return load_checkpoint(index)["w"][2:4, ::-1].asnumpy()
    except (CheckpointError, KeyError, IndexError) as error:  # the name and the number of axes may be others
        return str(error)


@pytest.mark.slow
def test_mutated_indexes_of_pieces_give_what_their_files_hold_or_one_sentence(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    values = np.arange(35.0).reshape(7, 5)
    for rank in range(4):
        part = Parameter(Tensor(values[2 * rank : 2 * rank + 2]), name="w")
        part._region = Region.full((7, 5))[2 * rank : 2 * rank + 2]
        save_distributed_checkpoint([part], tmp_path / "m", rank=rank, ranks=4)
    index = write_index(tmp_path / "m")
    good = index.read_bytes()
    kinds: Counter[str] = Counter()
    for _ in range(MUTATIONS // 10):
        index.write_bytes(mutated(bytes(8) + good, random)[8:])
        answer = part_of(index)
        kinds["refused" if isinstance(answer, str) else "read"] += 1
        if isinstance(answer, str):
            assert "\n" not in answer
            assert len(answer) < 1000
        elif answer.size:  # a shape with a 0 has no values that could be wrong
            np.testing.assert_array_equal(answer, values[2:4, ::-1])
    assert kinds["read"] > 500
    assert kinds["refused"] > 5_000


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
