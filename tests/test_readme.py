"""Every example of README.md runs as printed, and gives what is printed."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_python_examples_print_what_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "\n".join(blocks("python"))
    example = doctest.DocTestParser().get_doctest(source, {}, "README", "README.md", 0)
    assert example.examples
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert result.failed == 0, "".join(report)


def test_command_line_examples_succeed(tmp_path: Path) -> None:
    """Each `$ numparam ...` line of the tour, in order, in a folder that holds the rules shown before."""
    (tmp_path / "rules.toml").write_text("\n".join(blocks("toml")), encoding="utf-8")
    commands = re.findall(r"^\$ numparam (.*)$", "\n".join(blocks("console")), re.MULTILINE)
    assert commands
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    for command in commands:
        line = f'"{sys.executable}" -m numparam {command}'
        ran = subprocess.run(
            line, check=False, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, f"numparam {command}\n{ran.stdout}{ran.stderr}"


@pytest.mark.parametrize("number", [0, 1])
def test_each_of_the_two_commands_is_one_line(number: int) -> None:
    commands = blocks("sh")
    assert len(commands) == 2
    assert commands[number].count("\n") == 1


def test_links_into_the_repository_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (Path(__file__).parent.parent / link).exists()] == []
