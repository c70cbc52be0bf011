"""``numparam init``: the values are those of the Python API, shards are slices, and a failure leaves nothing behind."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import numparam
from numparam.cli import main
from numparam.initializer import Normal, initializer
from numparam.layout.sharding import Shard

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture
def like(tmp_path: Path) -> str:
    path = tmp_path / "like.safetensors"
    tensors = {
        "embed.weight": np.zeros((50, 12), np.float32),
        "layers.0.norm.weight": np.zeros(12, np.float32),
        "layers.0.proj.weight": np.zeros((12, 30), np.float16),
        "layers.0.proj.bias": np.zeros(30, BF16),
        "layers.1.proj.weight": np.zeros((7, 5, 3), np.float64),
        "position_ids": np.zeros((1, 9), np.int64),
    }
    save_file(tensors, path)
    return str(path)


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "numpy") as file:
        return dict(file.metadata())


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def run(*arguments: str, folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "numparam", *arguments]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, **options
    )


def test_the_values_are_those_of_parameters_of_the_same_names(
    like: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    assert main(["init", "--like", like, "--seed", "7", "-o", str(out)]) == 0
    found = load_file(out)
    numparam.set_seed(7)
    for name, init in {
        "embed.weight": Normal(0.02),
        "layers.0.norm.weight": "ones",
        "layers.0.proj.weight": Normal(0.02),
        "layers.0.proj.bias": "zeros",
        "layers.1.proj.weight": Normal(0.02),
    }.items():
        original = load_file(like)[name]
        expected = numparam.Parameter(initializer(init, original.shape, original.dtype), name=name).asnumpy()
        assert found[name].dtype == original.dtype
        assert found[name].tobytes() == expected.tobytes()
    assert found["position_ids"].tolist() == [list(range(9))]
    printed = capsys.readouterr().out
    assert f"wrote {out}: 6 parameters" in printed
    assert "seed 7" in printed


def test_the_record_says_all_that_is_needed(like: str, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    main(["init", "--like", like, "--seed", "18446744073709551615", "-o", str(out)])
    record = metadata(out)
    assert record["numparam.seed"] == "18446744073709551615"
    assert record["numparam.stream"] == "1"
    assert record["numparam.parameters"] == "6"
    assert record["format"] == "pt"
    assert json.loads(record["numparam.rules"])[-1] == {"init": "normal", "min_ndim": 2, "sigma": 0.02}
    assert "numparam.shard" not in record


def test_the_same_command_writes_the_same_bytes(like: str, tmp_path: Path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    for out in (first, second):
        main(["init", "--like", like, "--seed", "7", "-o", str(out)])
    assert first.read_bytes() == second.read_bytes()


def test_without_a_seed_one_is_drawn_printed_and_recorded(
    like: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = set()
    for name in ("1.safetensors", "2.safetensors"):
        main(["init", "--like", like, "-o", str(tmp_path / name)])
        seed = metadata(tmp_path / name)["numparam.seed"]
        assert f"seed {seed}" in capsys.readouterr().out
        seeds.add(seed)
    assert len(seeds) == 2


def test_dtype_changes_the_floating_parameters_alone(like: str, tmp_path: Path) -> None:
    out, narrow = tmp_path / "out.safetensors", tmp_path / "narrow.safetensors"
    main(["init", "--like", like, "--seed", "7", "-o", str(out)])
    main(["init", "--like", like, "--seed", "7", "--dtype", "bfloat16", "-o", str(narrow)])
    found = load_file(narrow)
    assert {name: str(array.dtype) for name, array in found.items() if array.dtype != BF16} == {"position_ids": "int64"}
    np.testing.assert_array_equal(found["embed.weight"], load_file(out)["embed.weight"].astype(BF16))


@pytest.mark.parametrize(
    "mesh, ranks, axis",
    [("4", 4, "auto"), ("3", 3, "0"), ("5", 5, "1"), ("2x3", 6, "auto"), ("3x2", 6, "1,0"), ("40", 40, "0")],
)
def test_the_shards_together_are_the_whole(like: str, tmp_path: Path, mesh: str, ranks: int, axis: str) -> None:
    out, part = tmp_path / "out.safetensors", tmp_path / "part.safetensors"
    main(["init", "--like", like, "--seed", "7", "-o", str(out)])
    whole = load_file(out)
    joined = {name: np.zeros_like(array) for name, array in whole.items()}
    for rank in range(ranks):
        arguments = ["--shard", f"{rank}/{mesh}", "--axis", axis]
        assert main(["init", "--like", like, "--seed", "7", *arguments, "-o", str(part)]) == 0
        for name, array in load_file(part).items():
            index = Shard.parse(f"{rank}/{mesh}", axis).slices(whole[name].shape)
            assert array.tobytes() == whole[name][index].tobytes()
            joined[name][index] = array
    for name, array in whole.items():
        assert joined[name].tobytes() == array.tobytes()


def test_a_shard_of_every_initializer_is_the_slice(tmp_path: Path) -> None:
    like, rules = tmp_path / "like.safetensors", tmp_path / "rules.toml"
    inits = ["uniform", "truncated_normal", "xavier_normal", "he_uniform", "orthogonal", "sparse", "identity"]
    save_file({init: np.zeros((9, 8), np.float32) for init in inits}, like)
    rules.write_text(
        "".join(
            f'[[rules]]\nglob = "{init}"\ninit = "{init}"\n{"sparsity = 0.5" * (init == "sparse")}\n' for init in inits
        )
    )
    out = tmp_path / "out.safetensors"
    arguments = ["init", "--like", str(like), "--rules", str(rules), "--seed", "7", "-o", str(out)]
    assert main(arguments) == 0
    whole = load_file(out)
    assert main([*arguments, "--shard", "1/2", "--axis", "1"]) == 0
    for name, array in load_file(out).items():
        np.testing.assert_array_equal(array, whole[name][:, 4:])
    assert main(["verify", str(out)]) == 0


def test_a_rule_that_decides_nothing_is_pointed_out(
    like: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\nglob = "embde.*"\ninit = "zeros"\n')
    assert main(["init", "--like", like, "--rules", str(rules), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == (f"numparam: {rules}: rule 1, for 'embde.*', decides for no parameter: zeros()\n")


def test_an_existing_file_is_replaced(like: str, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    assert main(["init", "--like", like, "-o", str(out)]) == 0
    assert len(load_file(out)) == 6
    assert leftovers(tmp_path) == []


def test_the_model_itself_may_be_the_output(like: str, tmp_path: Path) -> None:
    assert main(["init", "--like", like, "--seed", "7", "-o", like]) == 0
    assert main(["verify", like]) == 0
    assert leftovers(tmp_path) == []


def test_errors_are_one_sentence_and_leave_nothing(
    like: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    bad = tmp_path / "bad.toml"
    bad.write_text('[[rules]]\ninit = "nromal"')
    integers = tmp_path / "integers.toml"
    integers.write_text('[[rules]]\nglob = "position_ids"\ninit = "normal"')
    large = tmp_path / "large.toml"
    large.write_text('[[rules]]\nglob = "layers.0.norm.weight"\ninit = "normal"\nsigma = 1e300')
    tri = tmp_path / "tri.toml"
    tri.write_text('[[rules]]\nglob = "*norm*"\ninit = "xavier_uniform"')
    cases = {
        (
            "--like",
            "gpt3",
        ): "'gpt3' is neither a file nor a model specification; known: gpt2, kimi-k2, llama-3-8b, minilm-l6",
        ("--like", str(bad)): f"{bad}: not a safetensors file, or truncated: its header claims",
        ("--rules", str(bad)): f"{bad}: rule 1: no initializer is called 'nromal'; did you mean 'normal'?",
        ("--rules", str(tmp_path / "none")): f"{tmp_path / 'none'}: No such file or directory",
        ("--rules", str(integers)): "parameter 'position_ids' gets normal(): Normal(sigma=0.01, mean=0.0) draws real",
        (
            "--rules",
            str(large),
        ): "parameter 'layers.0.norm.weight': normal values of float32 are drawn in float32, whose",
        ("--rules", str(tri)): "parameter 'layers.0.norm.weight' gets xavier_uniform(): XavierUniform(gain=1.0) needs",
        ("--seed", "-1"): "a seed is an int from 0 to 2**64 - 1, found -1",
        ("--shard", "4/4"): "ranks count from 0: 0/4 to 3/4; found rank 4",
        ("--axis", "0"): "--axis needs --shard K/N, which is missing",
        ("-o", str(tmp_path / "no" / "out")): f"cannot write {tmp_path / 'no' / 'out'}: No such file or directory",
    }
    for arguments, sentence in cases.items():
        assert main(["init", "--like", like, "-o", str(out), *arguments]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(f"numparam: {sentence}")
        assert printed.err.count("\n") == 1
        assert "wrote" not in printed.out
        assert not out.exists()
        assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            ["init"],
            "numparam init: the following arguments are required: --like, -o/--output; see numparam init --help",
        ),
        (["init", "--seed", "x"], "numparam init: argument --seed: invalid int value: 'x'; see numparam init --help"),
        (
            ["init", "--dtype", "int8"],
            "numparam init: argument --dtype: random values need a floating dtype, not 'int8'",
        ),
        (["init", "--dtype", "f99"], "numparam init: argument --dtype: no dtype 'f99'; known: float16, float32"),
        (["init", "--dtype", "BF16"], "numparam init: argument --dtype: no dtype 'BF16'; did you mean 'bf16'? known: "),
        (["init", "--dtype", "bfloat"], "numparam init: argument --dtype: no dtype 'bfloat'; did you mean 'bfloat16'?"),
        (["init", "--dtype", "(3,"], "numparam init: argument --dtype: no dtype '(3,'; known: float16, float32"),
        ([], "numparam: the following arguments are required: COMMAND; see numparam --help"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(sentence)
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "spelling, name",
    [
        ("bf16", "bfloat16"),
        ("fp16", "float16"),
        ("fp32", "float32"),
        ("fp64", "float64"),
        ("fp8", "float8_e4m3fn"),
    ],
)
def test_short_spellings_of_dtypes_give_the_same_file(like: str, tmp_path: Path, spelling: str, name: str) -> None:
    short, full = tmp_path / "short.safetensors", tmp_path / "full.safetensors"
    for dtype, out in ((spelling, short), (name, full)):
        assert main(["init", "--like", like, "--dtype", dtype, "--seed", "7", "-o", str(out)]) == 0
    assert short.read_bytes() == full.read_bytes()


def test_an_interrupt_leaves_the_old_file(
    like: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Normal, "fill", interrupted)
    assert main(["init", "--like", like, "-o", str(out)]) == 130
    assert capsys.readouterr().err == "numparam: stopped by SIGINT\n"
    assert out.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_middle_of_writing_leaves_the_old_file(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    # 500 MB, so that the signal comes long before the end.
    command = [sys.executable, "-m", "numparam", "init", "--like", "llama-3-8b", "--shard", "0/32", "-o", str(out)]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    # A job in the background ignores SIGINT, and so would its children.
    unignored = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=unignored) as process:  # noqa: PLW1509
        deadline = time.monotonic() + 60
        while not any((tmp_path / name).stat().st_size > 2**20 for name in leftovers(tmp_path)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert errors == f"numparam: stopped by {number.name}\n"
    assert process.returncode == 128 + number
    assert out.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_file_that_may_not_grow_leaves_the_old_file(tmp_path: Path) -> None:
    """The system refuses to write on, as it does when a disk is full or a quota used up."""
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    ran = run("init", "--like", "minilm-l6", "-o", "out.safetensors", folder=tmp_path, preexec_fn=limit)
    assert ran.returncode == 2
    assert ran.stderr == "numparam: cannot write out.safetensors: File too large\n"
    assert out.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A shard of 250 MB takes hardly more memory than one of 125 MB."""
    script = (
        "import resource, sys; from numparam.cli import main; status = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    peaks = []
    for shard in ("0/128", "0/64"):
        command = [
            "init",
            "--like",
            "llama-3-8b",
            "--shard",
            shard,
            "--axis",
            "0",
            "-o",
            str(tmp_path / "out.safetensors"),
        ]
        ran = subprocess.run([sys.executable, "-P", "-c", script, *command], check=True, capture_output=True, text=True)
        peaks.append(int(ran.stdout.splitlines()[-1]))
    assert (tmp_path / "out.safetensors").stat().st_size > 250_000_000
    assert peaks[1] - peaks[0] < 16 * 1024  # KiB


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -P -m numparam plan --like llama-3-8b --mesh 8 --rank 0 | head -n 1'
    ran = subprocess.run(command, check=True, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.startswith("parameter")
    assert ran.stderr == ""


def test_the_table_is_printed_before_anything_is_written_and_its_reader_may_leave(like: str, tmp_path: Path) -> None:
    command = f'"{sys.executable}" -P -m numparam init --like {like} --seed 7 -o {{}}'
    ran = subprocess.run(f"{command.format('/nowhere/out')}", check=False, shell=True, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.count("\n")) == (2, 7)
    out = tmp_path / "out.safetensors"
    subprocess.run(f"{command.format(out)} | true", check=True, shell=True, cwd=tmp_path, capture_output=True)
    assert len(load_file(out)) == 6


def test_help_and_plans_import_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from numparam.cli import main; main(['plan', '--like', 'gpt2', '--mesh', '8']); "
        "print({'numba', 'safetensors', 'scipy'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", script], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.endswith("set()\n")
    script = "import sys, numparam; print({'rich', 'numparam.cli', 'numparam.rules', 'tomllib'} & sys.modules.keys())"
    ran = subprocess.run([sys.executable, "-P", "-c", script], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout == "set()\n"


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    ran = run("--help", folder=tmp_path)
    assert ran.returncode == 0
    assert all(command in ran.stdout for command in ("init", "inspect", "verify", "plan"))
    assert run("--version", folder=tmp_path).stdout == f"numparam {numparam.__version__}\n"
