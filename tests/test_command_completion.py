"""``numparam completion`` prints a script of the shell, which knows every command and option."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from numparam.cli import main


def test_bash_completes_commands_options_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    words = "numparam plan --like gpt2 --opt", "numparam in", "numparam plan --optimizer adam"
    for line, expected in zip(words, ({"--optimizer"}, {"init", "inspect"}, {"adam", "adamw"}), strict=True):
        complete = f"""
            COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE="{line}"
            COMP_POINT=${{#COMP_LINE}}; _shtab_numparam; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        ran = subprocess.run(["bash", "-c", script + complete], check=True, capture_output=True, text=True)
        assert set(ran.stdout.split()) == expected


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_completes_commands_options_and_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", "fish"]) == 0
    (tmp_path / "numparam.fish").write_text(capsys.readouterr().out)
    lines = "numparam in", "numparam plan --opt", "numparam plan --optimizer adamw"
    asked = [f"complete -C '{line}'" for line in lines]
    ran = subprocess.run(
        ["fish", "-N", "-c", "; ".join(["source numparam.fish", *asked])],
        check=True, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert [line.split("\t")[0] for line in ran.stdout.splitlines()] == ["init", "inspect", "--optimizer", "adamw"]
    assert "Write a safetensors file with freshly initialised parameters" in ran.stdout


def test_an_absent_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "zsh"]) == 2
    assert capsys.readouterr().err.endswith("not installed: pip install 'numparam[completion]'\n")
