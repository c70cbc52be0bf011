"""``numparam completion`` prints a script of the shell, which knows every command and option."""

import subprocess
import sys

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


def test_an_absent_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "zsh"]) == 2
    assert capsys.readouterr().err.endswith("not installed: pip install 'numparam[completion]'\n")
