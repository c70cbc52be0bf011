"""``numparam inspect`` and ``plan`` print what is in a file, or would be on a rank."""

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from numparam.checkpoint.opening import open_checkpoint
from numparam.cli import main
from numparam.model.statistics import CHUNK_VALUES, statistics


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The words of every line, cells being two blanks apart."""
    return [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]


def test_every_parameter_and_the_totals_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"weight": np.zeros((300, 4), np.float32), "half": np.zeros(3, ml_dtypes.bfloat16)}
    save_file(tensors, path, {"made": "by hand", "long": "x" * 200})
    assert main(["inspect", "--all", str(path)]) == 0
    found = lines(capsys)
    assert found[0] == ["parameter", "dtype", "shape", "bytes"]
    assert sorted(found[1:3]) == [["half", "bfloat16", "(3,)", "6 B"], ["weight", "float32", "(300, 4)", "4.8 kB"]]
    assert sorted(found[3:5]) == [["long: " + "x" * 100 + "..."], ["made: by hand"]]
    assert found[5] == [f"{path}: 2 parameters, 1,203 values, 4.8 kB"]


@pytest.fixture
def layered(tmp_path: Path) -> str:
    path = tmp_path / "model.safetensors"
    layers = {f"layers.{n}.{part}": np.zeros((4, 2), np.float32) for n in range(12) for part in ("up", "down")}
    save_file({**layers, "head": np.zeros(3, np.float32)}, path)
    return str(path)


def test_layers_that_are_alike_share_a_line(layered: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", layered]) == 0
    found = lines(capsys)
    assert found[0] == ["parameter", "count", "dtype", "shape", "bytes each"]
    assert sorted(found[1:4]) == [
        ["head", "1", "float32", "(3,)", "12 B"],
        ["layers.*.down", "12", "float32", "(4, 2)", "32 B"],
        ["layers.*.up", "12", "float32", "(4, 2)", "32 B"],
    ]
    for option in ("--all", "--stats"):
        assert main(["inspect", layered, option]) == 0
        assert len(lines(capsys)) == 1 + 25 + 1


def test_a_filter_leaves_the_parameters_that_match(layered: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", layered, "--all", "--filter", "*.1.up", "--filter", "head"]) == 0
    found = lines(capsys)
    assert sorted(row[0] for row in found[1:3]) == ["head", "layers.1.up"]
    assert found[-1] == [f"{layered}: 2 parameters, 11 values, 44 B"]
    for command in (["inspect", layered], ["plan", "--like", layered, "--mesh", "2"]):
        assert main([*command, "--filter", "head", "--filter", "up"]) == 2
        assert "--filter 'up' matches none of 25 parameters, such as" in capsys.readouterr().err


def test_statistics_are_those_of_numpy(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    generator = np.random.default_rng(7)
    values = generator.normal(1000, 0.1, CHUNK_VALUES * 2 + 17).astype(np.float32)
    tensors = {"w": values, "b": (values[:99] - 1000).astype(ml_dtypes.bfloat16), "i": np.arange(-5, 27)}
    save_file(tensors, path)
    checkpoint = open_checkpoint(path)
    for name, array in tensors.items():
        wide = array.astype(np.float64)
        found = statistics(checkpoint, name)
        assert found.size == found.finite == array.size
        assert found.mean == pytest.approx(wide.mean(), rel=1e-12)
        assert found.std == pytest.approx(wide.std(), rel=1e-9)
        assert (found.low, found.high) == (wide.min(), wide.max())
        np.testing.assert_array_equal(found.bins, np.histogram(wide, 16)[0])


@pytest.mark.parametrize(
    "values, finite, bins",
    [
        ([], 0, {}),
        ([np.nan, np.inf], 0, {}),
        ([1.0, np.nan, -np.inf, 3.0], 2, {0: 1, 15: 1}),
        ([2.0, 2.0, 2.0], 3, {0: 3}),
        ([-1e308, 1e308], 2, {0: 2}),
        ([0.0, 5e-324], 2, {0: 1, 15: 1}),
    ],
)
def test_statistics_of_odd_values(tmp_path: Path, values: list[float], finite: int, bins: dict[int, int]) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": np.array(values)}, path)
    found = statistics(open_checkpoint(path), "w")
    assert (found.size, found.finite) == (len(values), finite)
    assert {int(bin_): int(found.bins[bin_]) for bin_ in np.flatnonzero(found.bins)} == bins


def test_stats_are_printed_with_a_histogram(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    values = np.repeat(np.arange(16, dtype=np.float32), [1, 1, 1, 2, 3, 5, 8, 8, 8, 5, 3, 2, 1, 1, 1, 1])
    save_file({"w": values, "z": np.zeros((0, 3), np.float32)}, path)
    assert main(["inspect", str(path), "--stats"]) == 0
    header, *rows = lines(capsys)[:3]
    assert header[-5:] == ["mean", "std", "min", "max", "from min to max"]
    row = next(row for row in rows if row[0] == "w")
    assert row[-5:-1] == [f"{values.mean():.4g}", f"{values.std():.4g}", "0", "15"]
    assert row[-1] == "▁▁▁▂▃▅███▅▃▂▁▁▁▁"
    save_file({"w": np.array([1, np.nan], np.float32)}, path)
    assert main(["inspect", str(path), "--stats"]) == 0
    header, row = lines(capsys)[:2]
    assert (header[-1], row[-1]) == ("not finite", "1")


def test_names_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"[red]a\x1b[2J\n": np.zeros(1, np.float32)}, path, {"k\x07": "v\x1b"})
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "[red]a\\x1b[2J\\n" in printed
    assert "k\\x07: v\\x1b" in printed
    assert not {"\x1b", "\x07"} & set(printed)


def test_a_plan_shows_slices_and_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--like", "llama-3-8b", "--mesh", "8x4"]) == 0
    found = lines(capsys)
    assert ["lm_head.weight", "1", "bfloat16", "(128256/8, 4096/4)", "(16032, 1024)", "32.8 MB"] in found
    assert [
        "model.layers.*.mlp.down_proj.weight",
        "32",
        "bfloat16",
        "(4096/4, 14336/8)",
        "(1024, 1792)",
        "3.7 MB",
    ] in found
    assert ["0 to 31", "32", "501.9 MB", "501,941,248"] in found
    assert found[-1] == ["32 ranks: at most 501.9 MB each, 16.1 GB together, for a model of 16.1 GB"]


def test_a_plan_of_one_rank_shows_its_exact_slices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--like", "minilm-l6", "--dtype", "float16", "--mesh", "3", "--rank", "2"]) == 0
    found = lines(capsys)
    assert ["embeddings.word_embeddings.weight", "float16", "(30522, 384)", "[20348:30522, 0:384]", "7.8 MB"] in found
    assert found[-1] == ["rank 2/3: 15.1 MB"]


def test_a_plan_of_many_unequal_ranks_is_shortened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    save_file({f"w{n}": np.zeros(n, np.int8) for n in range(200, 300)}, path)
    assert main(["plan", "--like", str(path), "--mesh", "200"]) == 0
    assert any(re.fullmatch(r"\.\.\. and \d+ more sizes; --rank shows one", line[0]) for line in lines(capsys))


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--mesh", "8x"], "a mesh is one to eight positive numbers joined by x, such as 8x4; found '8x'"),
        (["--mesh", "8", "--rank", "8"], "ranks count from 0: 0/8 to 7/8; found rank 8"),
        (["--mesh", "8", "--axis", "0,1"], "the mesh 8 needs 1 different axes, found '0,1'"),
    ],
)
def test_a_bad_plan_gives_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--like", "gpt2", *arguments]) == 2
    assert capsys.readouterr().err == f"numparam: {sentence}\n"
