"""Safetensors files: a good one is read as it is, a bad one gives one sentence, a new one is whole or absent."""

import errno
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from numparam.checkpoint import header, writing
from numparam.checkpoint.atomic_file import replacing
from numparam.checkpoint.opening import Checkpoint, open_checkpoint
from numparam.checkpoint.writing import write_checkpoint
from numparam.entry import BUFFER_BYTES, Block, Entry
from numparam.errors import CheckpointError

F32 = np.dtype(np.float32)


def raw(table: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a file with any header whatever."""
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def item(shape: Any, offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def constant_blocks(entry: Entry) -> Iterator[Block]:
    yield Block(entry.shape, lambda out: out.fill(len(entry.name)))


def test_reads_what_the_safetensors_library_wrote(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.arange(3).astype(ml_dtypes.bfloat16),
        "eight": np.arange(5).astype(ml_dtypes.float8_e4m3fn),
        "flags": np.array([True, False]),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 4), np.int16),
    }
    save_file(tensors, path, {"format": "pt"})
    checkpoint = open_checkpoint(path)
    assert checkpoint.metadata == {"format": "pt"}
    assert checkpoint.entries.keys() == tensors.keys()
    for name, array in tensors.items():
        assert checkpoint[name].dtype == array.dtype
        np.testing.assert_array_equal(checkpoint[name], array)
        assert not checkpoint[name].flags.writeable or not array.size


def test_the_safetensors_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    entries = [
        Entry("bb", (3,), np.dtype(np.int8)),
        Entry("a", (2, 2), F32),
        Entry("ccc", (), np.dtype(np.float64)),
        Entry("none", (0,), np.dtype(ml_dtypes.bfloat16)),
    ]
    told: list[int] = []
    nbytes = write_checkpoint(path, entries, {"key": "ümlaut"}, constant_blocks, told.append)
    assert nbytes == path.stat().st_size
    assert sum(told) == 3 + 16 + 8
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"key": "ümlaut"}
    found = load_file(path)
    assert {name: array.tolist() for name, array in found.items() if name != "none"} == {
        "bb": [2, 2, 2],
        "a": [[1, 1], [1, 1]],
        "ccc": 3,
    }
    head = header.read(path)
    assert all(head.begins[entry.name] % entry.dtype.itemsize == 0 for entry in entries)


def test_values_larger_than_the_buffers_arrive_in_order(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    length = BUFFER_BYTES // 4 - 1000

    def blocks(entry: Entry) -> Iterator[Block]:
        for start in range(0, entry.size, length):
            stop = min(start + length, entry.size)
            yield Block((stop - start,), lambda out, start=start: np.copyto(out, np.arange(start, start + len(out))))

    entries = [Entry("long", (4 * length + 5,), np.dtype(np.int32)), Entry("short", (7,), np.dtype(np.int32))]
    write_checkpoint(path, entries, {}, blocks)
    found = load_file(path)
    np.testing.assert_array_equal(found["long"], np.arange(4 * length + 5))
    np.testing.assert_array_equal(found["short"], np.arange(7))


def test_the_bytes_do_not_depend_on_how_the_system_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry("odd", (5_000_001,), F32), Entry("b", (3,), np.dtype(np.int8))]

    def blocks(entry: Entry) -> Iterator[Block]:
        for start in range(0, entry.size, 2**20 + 3):
            shape = (min(2**20 + 3, entry.size - start),)
            yield Block(shape, lambda out, start=start: np.copyto(out, (np.arange(len(out)) + start) % 99))

    def write(name: str) -> bytes:
        path = tmp_path / name
        told: list[int] = []
        write_checkpoint(path, entries, {"k": "v"}, blocks, told.append)
        assert sum(told) == 20_000_007
        return path.read_bytes()

    expected = write("direct")
    np.testing.assert_array_equal(load_file(tmp_path / "direct")["odd"], np.arange(5_000_001) % 99)
    monkeypatch.setattr(writing, "_DIRECT", 0)
    assert write("cached") == expected
    monkeypatch.undo()
    monkeypatch.setattr(writing.threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("the end")))
    assert write("alone") == expected


BAD_FILES = {
    "empty": (b"", "not a safetensors file, or truncated: a header length takes 8, the file has 0"),
    "no header": (b"\0" * 7, "not a safetensors file, or truncated: a header length takes 8, the file has 7"),
    "length beyond the file": (raw({}, length=99), "its header claims 99 bytes, the file has 10"),
    "length of 2**64 - 1": (raw({}, length=2**64 - 1), "its header claims 18446744073709551615 bytes"),
    "not JSON": (raw(b"hello"), "its JSON cannot be read: Expecting value"),
    "not UTF-8": (raw(b'{"\xff": 1}'), "its JSON cannot be read: 'utf-8' codec can't decode byte 0xff"),
    "not an object": (raw([1]), "its JSON must be an object, found [1]"),
    "deep": (raw(b"[" * 100_000), "its JSON is nested too deeply"),
    "NaN": (raw(b'{"a": NaN}'), "NaN is not a JSON number"),
    "huge integer": (raw(b'{"a": ' + b"1" * 5000 + b"}"), "its JSON cannot be read"),
    "a name twice": (raw(b'{"a": 1, "b": 1, "a": 2}'), "'a' is a duplicate in one object"),
    "metadata of numbers": (raw({"__metadata__": {"a": 1}}), "__metadata__ must map names to text, found {'a': 1}"),
    "metadata list": (raw({"__metadata__": []}), "__metadata__ must map names to text, found []"),
    "no object": (raw({"a": 3}), "parameter 'a': expected dtype, shape and data_offsets, found 3"),
    "a key missing": (raw({"a": {"dtype": "F32"}}), "parameter 'a': expected dtype, shape and data_offsets"),
    "a key too many": (raw({"a": item([], [0, 4]) | {"x": 1}}, b"1234"), "expected dtype, shape and data_offsets"),
    "negative shape": (raw({"a": item([-1], [0, 4])}, b"1234"), "a shape is a list of natural numbers, found [-1]"),
    "bool shape": (raw({"a": item([True], [0, 4])}, b"1234"), "a shape is a list of natural numbers, found [True]"),
    "float shape": (raw({"a": item([1.0], [0, 4])}, b"1234"), "a shape is a list of natural numbers, found [1.0]"),
    "shape of text": (raw({"a": item("1", [0, 4])}, b"1234"), "a shape is a list of natural numbers, found '1'"),
    "huge shape": (raw({"a": item([2**40, 2**40], [0, 4])}, b"1234"), "is larger than any file"),
    "long shape": (raw({"a": item([1] * 65, [0, 4])}, b"1234"), "a shape has at most 64 axes, found 65"),
    "one offset": (raw({"a": item([1], [4])}, b"1234"), "data_offsets are [begin, end], found [4]"),
    "offsets reversed": (raw({"a": item([1], [4, 0])}, b"1234"), "data_offsets are [begin, end], found [4, 0]"),
    "offset of text": (raw({"a": item([1], ["0", 4])}, b"1234"), "data_offsets are [begin, end], found ['0', 4]"),
    "unknown dtype": (raw({"a": item([1], [0, 4], "F99")}, b"1234"), "numparam does not know the dtype 'F99'"),
    "dtype list": (raw({"a": item([1], [0, 4], ["F32"])}, b"1234"), "numparam does not know the dtype ['F32']"),
    "wrong span": (
        raw({"a": item([2], [0, 4])}, b"1234"),
        "shape [2] of F32 takes 8 bytes, its data_offsets [0, 4] span 4",
    ),
    "overlap": (
        raw({"a": item([1], [0, 4]), "b": item([1], [0, 4])}, b"1234"),
        "parameter 'b' overlaps the values before it: it begins at byte 0, not 4",
    ),
    "hole": (
        raw({"a": item([1], [0, 4]), "b": item([1], [8, 12])}, b"1" * 12),
        "parameter 'b' leaves a hole before it: it begins at byte 8, not 4",
    ),
    "cut short": (raw({"a": item([2], [0, 8])}, b"1234"), "truncated: the values need 8 bytes, found 4"),
    "too long": (raw({"a": item([1], [0, 4])}, b"123456"), "longer than its header describes: the values need 4 bytes"),
    "half a pair": (raw(b'{"\\ud800": 1}'), "half a surrogate pair in its JSON"),
    "half a pair in a good entry": (
        raw(b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', b"1234"),
        "half a surrogate pair in its JSON is not Unicode text",
    ),
}


@pytest.mark.parametrize("content, message", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_gives_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_header_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 10**8 + 1))
        file.truncate(2 * 10**8)
    with pytest.raises(CheckpointError, match="its header claims 100000001 bytes; safetensors allows 100000000"):
        open_checkpoint(path)


def test_every_prefix_of_a_good_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            open_checkpoint(path)


def test_no_change_of_one_byte_crashes_or_opens_what_the_safetensors_library_refuses(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.int8)}, path, {"k": "v"})
    good = path.read_bytes()
    opened = 0
    for place in range(len(good) - 28):
        for change in (1, 2, 16, 128):
            content = bytearray(good)
            content[place] ^= change
            path.write_bytes(content)
            try:
                checkpoint = open_checkpoint(path)
            except CheckpointError:
                continue
            opened += 1
            with safe_open(path, "numpy") as file:
                assert set(file.keys()) == checkpoint.entries.keys()
    assert opened


def test_folders_and_absent_files_are_named(tmp_path: Path) -> None:
    for kind in (CheckpointError, IsADirectoryError):
        with pytest.raises(kind, match=r"not a regular file$"):
            open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"No such file or directory$"):
        open_checkpoint(tmp_path / "absent.safetensors")


def test_a_file_that_shrinks_gives_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros(1000, np.float32)}, path)
    checkpoint = open_checkpoint(path)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 4)
    with (
        checkpoint.reading("a") as fill,
        pytest.raises(CheckpointError, match="truncated while parameter 'a' was read"),
    ):
        fill(np.empty(1000, np.float32))


def sharded(folder: Path, weight_map: dict[str, Any]) -> Path:
    save_file({"a": np.zeros(2, np.float32)}, folder / "one.safetensors")
    save_file({"b": np.ones((2, 2), np.float16)}, folder / "two.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 16}, "weight_map": weight_map}))
    return index


def test_an_index_joins_its_files(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sharded(tmp_path, {"b": "two.safetensors", "a": "one.safetensors"}))
    assert list(checkpoint.entries) == ["b", "a"]
    assert checkpoint.nbytes == 16
    assert checkpoint["b"].tolist() == [[1, 1], [1, 1]]
    with checkpoint.reading("a") as fill:
        out = np.ones(2, np.float32)
        fill(out)
    assert out.tolist() == [0, 0]
    with pytest.raises(CheckpointError, match="no parameter is called 'c'"):
        checkpoint["c"]


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", "x/y", "..", "", "C:x", "a\\b", "a\0b"])
def test_an_index_names_only_files_of_its_own_folder(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "one.safetensors")
    with pytest.raises(CheckpointError, match="is not a plain file name in the folder of the index"):
        open_checkpoint(sharded(inner, {"a": name}))


@pytest.mark.parametrize(
    "weight_map, message",
    [
        ({"a": "two.safetensors"}, "'two.safetensors' should hold parameter 'a' and does not"),
        ({"a": "three.safetensors"}, "three.safetensors: No such file"),
        ({"a": "model.safetensors.index.json"}, "not a safetensors file, or truncated"),
        ({"a": 3}, "an index needs a weight_map from parameter names to file names"),
        ([], "an index needs a weight_map from parameter names to file names"),
    ],
)
def test_a_bad_index_gives_one_sentence(tmp_path: Path, weight_map: Any, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(sharded(tmp_path, weight_map))
    assert message in str(caught.value)


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")

    def failing(entry: Entry) -> Iterator[Block]:
        yield Block(entry.shape, lambda out: out.fill(0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, [Entry("a", (3,), F32)], {}, failing)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_meanwhile_gives_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numparam.checkpoint.atomic_file.os.fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*model\.safetensors: No space left on device$"):
        write_checkpoint(path, [Entry("a", (3,), F32)], {}, constant_blocks)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_noticed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"it takes \d+ bytes and the disk has \d+ left"):
        write_checkpoint(path, [Entry("a", (2**58,), F32)], {}, constant_blocks)
    assert list(tmp_path.iterdir()) == []


def test_replacing_follows_links_and_keeps_permissions(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    with replacing(link) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old"
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_replacing_refuses_what_is_no_regular_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="it exists and is not a regular file"), replacing(tmp_path):
        pass


def test_opening_loads_no_values(tmp_path: Path) -> None:
    """A sparse file of 1 TiB opens at once."""
    path = tmp_path / "huge.safetensors"
    head, _ = header.encode([Entry("a", (2**38,), F32)], {})
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 2**40)
    checkpoint: Checkpoint = open_checkpoint(path)
    assert checkpoint.nbytes == 2**40
    assert checkpoint["a"][2**37] == 0
