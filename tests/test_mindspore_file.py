"""MindSpore's .ckpt files are read as it reads them; a damaged one gives one sentence."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from numparam import Cell, Parameter, Tensor, load_checkpoint, save_checkpoint
from numparam.errors import CheckpointError
from numparam.initializer import initializer

RECORDED = Path(__file__).parent / "data" / "mindspore_2_10.ckpt"
"""Written by ``save_checkpoint`` with ``append_dict={"epoch": 3, "lr": 0.1, "note": "hällo"}, crc_check=True``."""


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(name: str, dims: list[int], dtype: str, content: bytes) -> bytes:
    tensor = b"".join(field(1, length) for length in dims) + field(2, dtype.encode()) + field(3, content)
    return field(1, field(1, name.encode()) + field(2, tensor))


def test_file_of_mindspore_2_10() -> None:
    loaded = load_checkpoint(RECORDED, crc_check=True)
    found = {
        name: value if isinstance(value, str) else (value.dtype.name, value.asnumpy().tolist())
        for name, value in loaded.items()
    }
    assert found == {
        "fc.weight": ("float32", [[0, 1, 2], [3, 4, 5]]),
        "mask": ("bool", [True, False, True]),
        "small": ("int8", [-1, 2]),
        "half": ("float16", [0.5, -2]),
        "scalar": ("float32", 2.5),
        "权重": ("int64", [1, 2, 3]),
        "table": ("float32", [[1, 1], [1, 1]]),
        "epoch": ("int64", 3),
        "lr": ("float32", 0.10000000149011612),
        "note": "hällo",
    }
    assert loaded["mask"].origin == f"checkpoint {RECORDED}"


def test_tensor_in_pieces_and_packed_dims(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    pieces = [entry("w", [2, 3], "Float32", values[row : row + 1].tobytes()) for row in range(2)]
    tensor = field(1, varint(2) + varint(300)) + field(2, b"Int8") + field(3, bytes(600))
    packed = field(1, field(1, b"packed") + field(2, tensor) + field(9, b"unknown") + field(8, 5))
    path = tmp_path / "f.ckpt"
    path.write_bytes(b"".join(pieces) + packed)
    found = load_checkpoint(path)
    np.testing.assert_array_equal(found["w"].asnumpy(), values)
    assert found["packed"].shape == (2, 300)


def test_keys_of_an_embedding_cache(tmp_path: Path) -> None:
    path = tmp_path / "f.ckpt"
    path.write_bytes(entry("table.__param_key__7", [1], "Float32", bytes(4)))
    found = load_checkpoint(path)
    assert list(found) == ["table"]
    assert (found["table"].cache_enable, found["table"].key) == (True, 7)


def test_what_is_written_is_what_mindspore_writes(tmp_path: Path) -> None:
    path = tmp_path / "again.ckpt"
    loaded = load_checkpoint(RECORDED)
    save_checkpoint(loaded, path, crc_check=True)
    assert path.read_bytes() == RECORDED.read_bytes()


def test_round_trip_through_a_ckpt(tmp_path: Path) -> None:
    net = Cell()
    net.lazy = Parameter(initializer("normal", (300, 400)))
    net.half = Parameter(initializer("normal", (5,), "bfloat16"))
    net.scalar = Parameter(2.5)
    net.empty = Parameter(np.zeros((0, 3), np.int8))
    net.table = Parameter([1.0])
    net.table.cache_enable, net.table.key = True, 7
    assert save_checkpoint(net, tmp_path / "n.ckpt", append_dict={"note": "hällo", "empty note": "", "step": 3}) is None
    assert [path.name for path in tmp_path.iterdir()] == ["n.ckpt"]
    assert net.lazy.has_init
    found = load_checkpoint(tmp_path / "n.ckpt")
    assert (found.pop("note"), found.pop("empty note"), found.pop("step").item()) == ("hällo", "", 3)
    for name, value in found.items():
        np.testing.assert_array_equal(value.asnumpy(), getattr(net, name).asnumpy())
    assert (found["table"].cache_enable, found["table"].key) == (True, 7)


def test_a_large_tensor_is_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numparam.checkpoint.mindspore_file._PIECE_BYTES", 16 * 2**20)
    path = tmp_path / "f.ckpt"
    large = Parameter(initializer("normal", (10, 2**20)), name="w")
    save_checkpoint({"w": large, "v": np.ones(1)}, path, crc_check=True)
    assert path.read_bytes().count(b"Float32") == 3
    np.testing.assert_array_equal(load_checkpoint(path, crc_check=True)["w"].asnumpy(), large.asnumpy())


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "float8_e5m2"])
def test_dtypes_that_mindspore_does_not_read_are_refused(dtype: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f".ckpt files do not hold {dtype}, the dtype of parameter 'w'; convert it"):
        save_checkpoint({"w": Tensor([1.0]).astype(dtype)}, tmp_path / "w.ckpt")
    assert list(tmp_path.iterdir()) == []


GOOD = entry("w", [2], "Float32", bytes(8))
BAD: dict[str, tuple[bytes, str]] = {
    "text": (b"hello, this is no checkpoint", "not a MindSpore checkpoint or damaged at byte"),
    "cut short": (GOOD[:-1], r"a field of \d+ bytes where \d+ are left"),
    "endless number": (b"\xff" * 20, "a number of more than ten bytes"),
    "ends in a number": (b"\x0a\x80", "it ends within a number"),
    "group": (b"\x0b", "wire type 3"),
    "no name": (field(1, field(2, b"")), "a value without a name or a tensor"),
    "no tensor": (field(1, field(1, b"w")), "a value without a name or a tensor"),
    "value is a number": (field(1, 5), "a value without a name or a tensor"),
    "map parameter": (field(1, field(1, b"w") + field(3, b"")), "'w' is a map parameter"),
    "name not UTF-8": (field(1, field(1, b"\xff") + field(2, b"")), "a name is not UTF-8"),
    "unknown dtype": (entry("w", [2], "Int4", b"12"), "parameter 'w': numparam does not know the dtype 'Int4'"),
    "wrong size": (entry("w", [3], "Float32", bytes(8)), r"shape \(3,\) of Float32 takes 12 bytes, found 8"),
    "huge shape": (entry("w", [2**40, 2**40], "Float32", bytes(8)), "'w' does not have a shape"),
    "negative shape": (entry("w", [2**64 - 1], "Float32", bytes(8)), "parameter 'w' does not have a shape"),
    "many axes": (entry("w", [1] * 65, "Float32", bytes(4)), "parameter 'w' has more than 64 axes"),
    "two shapes": (GOOD + entry("w", [3], "Float32", bytes(12)), "'w' is a duplicate, with another shape"),
    "the same twice": (GOOD + GOOD, r"shape \(2,\) of Float32 takes 8 bytes, found 16"),
    "bad text": (entry("w", [0], "str", b"\xff\xff\xff\xff"), "parameter 'w': its text cannot be read"),
    "content is a number": (
        field(1, field(1, b"w") + field(2, field(1, 2) + field(2, b"Float32") + field(3, 8))),
        r"takes 8 bytes, found 0",
    ),
    "empty": (b"", "no parameter is left to load"),
}


@pytest.mark.parametrize("content, words", BAD.values(), ids=BAD)
def test_bad_files(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "f.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"f.ckpt.*{words}"):
        load_checkpoint(path)


def test_checksum(tmp_path: Path) -> None:
    path = tmp_path / "f.ckpt"
    path.write_bytes(GOOD + b"crc_num" + zlib.crc32(GOOD).to_bytes(10, "big"))
    assert list(load_checkpoint(path, crc_check=True)) == ["w"]
    path.write_bytes(GOOD + b"crc_num" + (zlib.crc32(GOOD) ^ 1).to_bytes(10, "big"))
    assert list(load_checkpoint(path)) == ["w"]
    with pytest.raises(CheckpointError, match="do not give the checksum"):
        load_checkpoint(path, crc_check=True)
    path.write_bytes(GOOD)
    with pytest.raises(CheckpointError, match="no checksum to compare"):
        load_checkpoint(path, crc_check=True)
