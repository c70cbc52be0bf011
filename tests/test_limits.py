"""What a file asks for is bounded, and what it says is safe to print."""

import json
import logging
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from numparam import Cell, Fingerprint, Parameter, load_checkpoint, load_param_into_net
from numparam.checkpoint import header, limits
from numparam.cli import main
from numparam.errors import CheckpointError, NumparamError, StateError
from numparam.text import printable, shown

EVIL = "w\x1b[2J\u202e\nnumparam: all is well\x07"


def one_line(text: str) -> bool:
    return text.removesuffix("\n").isprintable()


@pytest.mark.parametrize("text", [EVIL, "\ud800", "a\r\tb\x7f\x9b", "\u2066\u2028\u200f"], ids=ascii)
def test_whatever_is_shown_obeys_nobody(text: str) -> None:
    assert one_line(printable(text))
    assert one_line(shown(text))
    assert one_line(shown([{text: text}]))
    assert str(NumparamError(f"{text}\nb")).count("\n") == text.count("\n") + 1
    assert one_line(str(NumparamError(text)).replace("\n", ""))


def test_what_is_shown_is_short() -> None:
    for value in ("x" * 10**7, [[]] * 10**6, {"a": "b" * 10**6}, 10**4000, 10**5000, [[[[[[[[[]]]]]]]]]):
        assert len(shown(value)) <= 80
    assert len(str(NumparamError("x" * 10**6))) <= 4000


@pytest.mark.parametrize("command", ["inspect", "verify", "init"])
def test_names_from_files_do_not_reach_the_terminal_raw(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, index = tmp_path / "m.safetensors", tmp_path / "n.safetensors.index.json"
    save_file({EVIL: np.ones(2, np.float32)}, file, {EVIL: EVIL, "numparam.seed": EVIL, "numparam.stream": EVIL})
    index.write_text(json.dumps({"weight_map": {"w": EVIL}}))
    rules = tmp_path / "rules.toml"
    rules.write_text(f"defaults = false\n[[rules]]\nglob = {json.dumps(EVIL)}\ninit = {json.dumps(EVIL)}\n")
    for path in (file, index):
        arguments = [command, str(path)]
        if command == "init":
            arguments = ["init", "--like", str(path), "-o", str(tmp_path / "o"), "--rules", str(rules)]
        main(arguments)
        out, err = capsys.readouterr()
        assert all(one_line(line) for line in (out + err).split("\n")), out + err
        assert "numparam: all is well" not in [line for line in (out + err).split("\n") if line.startswith("numparam")]


def test_reports_logs_and_reprs_of_strange_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file({EVIL: np.ones(2, np.float32)}, tmp_path / "m.safetensors")
    net = Cell()
    net.v = Parameter([1.0])
    with caplog.at_level(logging.WARNING, "numparam"):
        report = load_checkpoint(tmp_path / "m.safetensors", net)
    assert "\x1b" not in caplog.text + str(report)
    many = load_param_into_net(net, {f"p{number}": Parameter([1.0]) for number in range(20_000)})
    assert len(str(many)) < 10_000
    with pytest.raises(RuntimeError) as caught:
        load_param_into_net(net, {f"p{number}": Parameter([1.0]) for number in range(20_000)}, strict_load=True)
    assert len(str(caught.value)) <= 10_000


def written(path: Path, text: bytes, data: int = 0) -> Path:
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    return path


def entry(shape: Any, nbytes: int = 0) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, nbytes]}


HOSTILE = {
    "lists": (b'{"a": [' + b"[]," * 9_000_000 + b"[]]}", "more than 8000000 lists and objects"),
    "a long name": (json.dumps({"x" * 5_000_000: entry([0])}).encode(), "a name has at most 1024 characters"),
    "a huge empty array": (json.dumps({"x": entry([0, 2**62, 2**62])}).encode(), "larger than any file"),
    "many axes": (json.dumps({"x": entry([1] * 10_000, 4)}).encode(), "at most 64 axes, found 10000"),
    "a long list": (json.dumps({"x": list(range(10**6))}).encode(), "expected dtype, shape and data_offsets"),
    "a long number": (b'{"x": ' + b"9" * 10**6 + b"}", "its JSON cannot be read"),
    "a long dtype": (json.dumps({"x": entry([1], 4) | {"dtype": "F" * 10**6}}).encode(), "does not know the dtype"),
}


@pytest.mark.parametrize("text, words", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_refused_before_the_work(text: bytes, words: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m.safetensors", text)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert one_line(str(caught.value))
    assert len(str(caught.value)) < 1000
    assert peak < 12 * len(text) + 2**20


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.mark.parametrize("packed", [True, False])
def test_a_ckpt_file_with_many_dimensions_is_refused_at_once(packed: bool, tmp_path: Path) -> None:
    dims = field(1, b"\x01" * 10**7) if packed else b"\x08\x01" * 10**6
    path = tmp_path / "m.ckpt"
    path.write_bytes(field(1, field(1, b"w") + field(2, dims + field(2, b"Float32") + field(3, b"1234"))))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="parameter 'w' has more than 64 axes"):
        load_checkpoint(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_ckpt_file_has_a_limited_number_of_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numparam.checkpoint.mindspore_file.MAX_FIELDS", 1000)
    (tmp_path / "m.ckpt").write_bytes(b"\x28\x01" * 2000)
    with pytest.raises(CheckpointError, match="it has more than 1000 fields"):
        load_checkpoint(tmp_path / "m.ckpt")


def test_a_record_says_what_it_needs_before_it_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {
        "numparam.parameters": "1",
        "numparam.rules": json.dumps([{"init": "orthogonal"}]),
        "numparam.seed": "7",
        "numparam.stream": "1",
        "numparam.shard": "0/400",
        "numparam.axes": "0",
        "numparam.shapes": json.dumps({"w": [400, 400]}),
    }
    file, recipe = tmp_path / "m.safetensors", tmp_path / "r.safetensors"
    save_file({"w": np.zeros((1, 400), np.float32)}, file, record)
    content = {"init": "Orthogonal", "args": {"gain": "1.0"}, "seed": 7, "stream": "w", "shape": [400, 400]}
    recipes = {name: content | {"dtype": "float32", "index": [0]} for name in "vw"}
    save_file({}, recipe, {"numparam.recipes": json.dumps(recipes), "numparam.stream": "1"})
    assert load_checkpoint(recipe).keys() == {"v", "w"}
    for limit, value in (("MAX_FULL_BYTES", 400 * 400 * 4 - 1), ("MAX_FULL_WORK", 2 * 4 * 400**3 - 1)):
        monkeypatch.setattr(limits, limit, value)
        with pytest.raises(CheckpointError, match=r"'[vw]': its \(400,\) slice of \(400, 400\) Ortho.* 2.6e\+08 op"):
            load_checkpoint(recipe)
        assert main(["inspect", str(recipe)]) == 0
        assert main(["fingerprint", str(recipe)]) == 2
        assert "--any-cost" in capsys.readouterr().err
        assert main(["fingerprint", "--any-cost", str(recipe)]) == 0
        assert load_checkpoint(recipe, any_cost=True)["w"].asnumpy().shape == (400,)
        monkeypatch.undo()
    monkeypatch.setattr(limits, "MAX_FULL_WORK", 4 * 400**3 - 1)
    assert main(["verify", str(file)]) == 2
    assert main(["verify", "--any-cost", str(file)]) == 1
    full = {"w": content | {"dtype": "float32"}}
    save_file({}, recipe, {"numparam.recipes": json.dumps(full), "numparam.stream": "1"})
    assert load_checkpoint(recipe)["w"].shape == (400, 400)


@pytest.mark.parametrize("name", ["a\ud800b", "a\0b", "x" * 5000])
def test_indexes_with_names_that_no_file_has(name: str, tmp_path: Path) -> None:
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(index)
    assert len(str(caught.value)) < 10_000
    assert one_line(str(caught.value))


@pytest.mark.parametrize("key", ["numparam.recipes", "numparam.flags", "numparam.texts", "free text"])
def test_half_a_surrogate_pair_in_the_metadata_is_refused(key: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m.safetensors", json.dumps({"__metadata__": {key: '{"a": "\ud800"}'}}).encode())
    with pytest.raises(CheckpointError, match=r"half a surrogate pair in its JSON is not Unicode text"):
        load_checkpoint(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
@pytest.mark.parametrize(
    "arguments",
    [
        ["init", "--like", "minilm-l6", "-o", "never", "--rules", "/dev/zero"],
        ["fingerprint", "no.safetensors", "--key-file", "/dev/zero"],
        ["inspect", "/dev/zero"],
        ["init", "--like", "/dev/zero", "-o", "never"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_file_without_an_end_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "/dev/zero" in capsys.readouterr().err


@pytest.mark.parametrize(
    "shape, boxes", [([10**30], None), ([2**62, 4], None), ([9], [[[0, 10**30, 1]]]), ([True], None)]
)
def test_a_fingerprint_of_what_cannot_be_is_refused(shape: Any, boxes: Any) -> None:
    found = {"shape": shape, "dtype": "float32", "fingerprint": "0" * 32}
    with pytest.raises(ValueError, match="the fingerprint of parameter 'w' has a shape"):
        Fingerprint.from_dict(found if boxes is None else found | {"boxes": boxes}, name="w")


def test_many_boxes_of_a_fingerprint_take_no_time() -> None:
    boxes = [[[2 * n, 2 * n + 1, 1], [0, 9, 1]] for n in range(5000)]
    content = {"shape": [10_000, 9], "dtype": "float32", "fingerprint": "0" * 32, "boxes": boxes}
    with pytest.raises(StateError, match=r"\[1:2, 0:9\] is missing first"):
        Fingerprint.from_dict(content).require_complete()


@pytest.mark.parametrize("flag", [1, 0, "yes", None])
def test_flags_are_flags(flag: Any, tmp_path: Path) -> None:
    save_file({"w": np.ones(1)}, tmp_path / "m.safetensors")
    with pytest.raises(TypeError, match="strict_load is True or False"):
        load_checkpoint(tmp_path / "m.safetensors", Cell(), flag)
    with pytest.raises(TypeError, match="strict_load is True or False"):
        load_param_into_net(Cell(), {}, flag)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "redirection, arguments, status",
    [
        (">&-", "plan --like minilm-l6 --mesh 8", 0),
        ("2>&-", "plan --like minilm-l6 --mesh 8", 0),
        (">&- 2>&-", "plan --like minilm-l6 --mesh 8", 0),
        (">/dev/full", "plan --like minilm-l6 --mesh 8", 2),
        (">/dev/full", "--help", 2),
        (">/dev/full", "inspect --help", 2),
        (">/dev/full", "--version", 2),
        (">&-", "verify nothing", 2),
        ("2>&-", "verify nothing", 2),
        ("2>/dev/full", "verify nothing", 2),
        ("2>/dev/full", "verify", 2),
        ("<&- >&- 2>&-", "init --like minilm-l6 --seed 1 -o o.safetensors", 0),
    ],
)
def test_streams_that_are_closed_or_full_keep_the_documented_statuses(
    redirection: str, arguments: str, status: int, tmp_path: Path
) -> None:
    command = f"exec {sys.executable} -m numparam {arguments} {redirection}"
    root = str(Path(__file__).parents[1])
    ran = subprocess.run(command, shell=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, check=False)
    assert ran.returncode == status
    if "init" in arguments:
        assert main(["verify", str(tmp_path / "o.safetensors")]) == 0


def test_the_limits_are_those_of_the_page() -> None:
    text = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text()
    for name, value in vars(limits).items():
        if name.startswith("MAX_") and name != "MAX_FILE_BYTES":
            assert f"{value:,}" in text, name
    assert header.MAX_NAME == limits.MAX_NAME
