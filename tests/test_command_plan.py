"""``numparam plan`` says what a rank would hold, how long that takes to make, and the slices of one parameter."""

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from numparam import Layout
from numparam.cli import main

TRILLION = ["plan", "--like", "kimi-k2", "--mesh", "128x128"]
EXPERT = "model.layers.7.mlp.experts.3.up_proj.weight"


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The words of every line, cells being two blanks apart."""
    return [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]


def test_a_trillion_parameters_on_16384_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TRILLION) == 0
    found = lines(capsys)
    assert [
        "model.layers.*.mlp.experts.*.up_proj.weight",
        "23040",
        "bfloat16",
        "(2048/128, 7168/128)",
        "(16, 56)",
        "1.8 kB",
    ] in found
    assert ["0 to 114, 128 to 242, 256 to 370, ...", "14,720", "125.3 MB", "125,313,712"] in found
    assert ["115, 243, 371, ...", "128", "125.3 MB", "125,286,384"] in found
    assert ["largest slice: model.embed_tokens.weight (1280, 56), 143.4 kB"] in found
    assert found[-1] == ["16,384 ranks: at most 125.3 MB each, 2.1 TB together, for a model of 2.1 TB"]
    (time,) = [line[0] for line in found if line[0].startswith("time:")]
    assert re.fullmatch(
        r"time: about [0-9.]+ s for 62,656,676 values of 69,975 parameters at 0.957 billion values a second", time
    )


def test_a_higher_rate_takes_less_time(capsys: pytest.CaptureFixture[str]) -> None:
    times = []
    for rate in ("0.001", "1"):
        assert main(["plan", "--like", "gpt2", "--mesh", "1", "--rate", rate]) == 0
        times += [line[0] for line in lines(capsys) if line[0].startswith("time:")]
    assert times[0].startswith("time: about 2.1 min for 124,439,808 values of 148 parameters at 0.001 billion")
    assert re.match(r"time: about 1[23]\d ms for .* at 1 billion", times[1])


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "fast"])
def test_a_rate_is_a_positive_number(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "--like", "gpt2", "--mesh", "1", f"--rate={rate}"])
    assert f"a rate is a positive number of billions a second, found '{rate}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, each",
    [
        (["--optimizer", "sgd"], 0),
        (["--optimizer", "momentum"], 4),
        (["--optimizer", "adamw"], 8),
        (["--optimizer", "adamw", "--rounding", "master"], 12),
        (["--optimizer", "adamw", "--rounding", "master", "--dtype", "float32"], 8),
    ],
    ids=str,
)
def test_states_of_an_optimizer_are_counted_for_floats(
    options: list[str], each: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": np.zeros((5, 3), ml_dtypes.bfloat16), "ids": np.zeros(7, np.int64)}, path)
    command = ["plan", "--like", str(path), "--mesh", "2", *options]
    assert main(command) == 0
    assert lines(capsys)[-1] == [f"{options[1]}: at most {9 * each} B of states each, {15 * each} B together"]
    assert main([*command, "--json"]) == 0
    ranks = json.loads(capsys.readouterr().out)["ranks"]
    assert [rank["optimizer_bytes"] for rank in ranks] == [9 * each, 6 * each]


def test_slices_of_one_parameter_on_one_rank(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRILLION, "--parameter", EXPERT, "--rank", "16383"]) == 0
    assert lines(capsys)[1:] == [
        [EXPERT, "bfloat16", "(2048, 7168)", "[2032:2048, 7112:7168]", "1.8 kB"],
        ["rank 16383/128x128: 1.8 kB"],
    ]


def test_slices_of_one_parameter_on_all_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--like", "gpt2", "--mesh", "2x3", "--parameter", "wte.weight"]) == 0
    printed = capsys.readouterr().out
    picture = Layout({"0": 2, "1": 3}, ("0", "1")).picture((50257, 768))
    assert printed.startswith(picture + "\n")
    table = [re.split(r" {2,}", line.strip()) for line in printed.removeprefix(picture).splitlines()[1:]]
    assert table[:3] == [
        ["rank", "slice", "bytes"],
        ["0", "[0:25129, 0:256]", "25.7 MB"],
        ["1", "[0:25129, 256:512]", "25.7 MB"],
    ]
    assert table[-1] == ["5", "[25129:50257, 512:768]", "25.7 MB"]
    assert len(table) == 1 + 6


def test_ranks_with_the_same_slice_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--like", "gpt2", "--mesh", "2x3", "--parameter", "ln_f.bias"]) == 0
    assert lines(capsys)[-2:] == [["0 to 2", "[0:384]", "1.5 kB"], ["3 to 5", "[384:768]", "1.5 kB"]]


def test_slices_of_many_ranks_are_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--like", "gpt2", "--mesh", "50", "--parameter", "wte.weight"]) == 0
    assert lines(capsys)[-1] == ["... and 10 more ranks; --rank shows one"]


def test_an_unknown_parameter_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRILLION, "--parameter", "lm_head"]) == 2
    assert capsys.readouterr().err.startswith("numparam: the model has no parameter 'lm_head'; ")


def test_parameters_without_values_have_slices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": np.zeros((0, 3), np.int8), "s": np.zeros((), np.int8)}, path)
    assert main(["plan", "--like", str(path), "--mesh", "2"]) == 0
    capsys.readouterr()
    for name, bounds in (("w", "[0:0, 0:2]"), ("s", "[]")):
        assert main(["plan", "--like", str(path), "--mesh", "2", "--parameter", name, "--rank", "0"]) == 0
        assert lines(capsys)[1][3] == bounds
