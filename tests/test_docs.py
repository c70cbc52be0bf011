"""Every example of README.md and of docs/*.md runs as printed, and gives what is printed."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from numparam.cli import main

ROOT = Path(__file__).parent.parent
PAGES = {
    path.stem: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
BINARIES = Path(sys.executable).parent
# In place of the name of a program, what runs it in this environment.
LAUNCHERS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run"],
    "mpiexec": [str(BINARIES / "mpiexec")],
    "python": [sys.executable],
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


def having(language: str) -> list[str]:
    return [page for page in PAGES if blocks(page, language)]


# A program that is on two pages runs once.
NAMED = {program: f"{page}-{number}" for page in reversed(PAGES) for number, program in enumerate(blocks(page, "py"))}
PROGRAMS = [
    pytest.param(program, id=name, marks=[pytest.mark.slow] if "from transformers" in program else [])
    for program, name in NAMED.items()
]


LIBRARIES = {
    "torch": r"\b(?:import|from) (?:numparam\.)?torch\b|\bnumparam\.torch\b",
    "jax": r"\b(?:import|from) (?:numparam\.)?jax\b|\bnumparam\.jax\b",
    "mpi4py": r"\bmpiexec\b",
    "transformers": r"\b(?:import|from) transformers\b",
    "flax": r"\b(?:import|from) flax\b",
}


def skip_without_libraries(text: str) -> None:
    for library, use in LIBRARIES.items():
        if re.search(use, text) and find_spec(library) is None:
            pytest.skip(f"{library} is not installed")


@pytest.mark.parametrize("page", having("python"))
def test_sessions_print_what_the_page_says(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_libraries(PAGES[page])
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestParser().get_doctest("\n".join(blocks(page, "python")), {}, page, page, 0)
    assert example.examples
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert result.failed == 0, "".join(report)


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run(program: str, tmp_path: Path) -> None:
    """Run each complete program: with the command in its first line, or else with Python alone."""
    skip_without_libraries(program)
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    found = re.match(r"# ((?:torchrun|mpiexec) .*\.py)\n", program)
    command = shlex.split(re.sub(r"\S+\.py$", "program.py", found[1]) if found else "python program.py")
    launched = [word for part in command for word in LAUNCHERS.get(part, [part])]
    ran = run(launched, tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("page", having("console"))
def test_command_lines_succeed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run each `$ numparam ...` line of a page, in order, in a folder that holds the page's rules."""
    (tmp_path / "rules.toml").write_text("\n".join(blocks(page, "toml")), encoding="utf-8")
    commands = re.findall(r"^\$ numparam (.*)$", "\n".join(blocks(page, "console")), re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert main(shlex.split(command)) == 0, f"numparam {command}\n{capsys.readouterr()}"


@pytest.mark.parametrize("page", PAGES)
def test_links_into_the_repository_exist(page: str) -> None:
    folder = ROOT if page == "README" else ROOT / "docs"
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGES[page]) if "://" not in link]
    assert [link for link in links if not (folder / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_code_block_is_of_a_kind_that_a_test_runs(page: str) -> None:
    kinds = set(re.findall(r"^```(\S+)$", PAGES[page], re.MULTILINE))
    assert kinds <= {"python", "py", "console", "toml", "sh", "{math}", "{toctree}", "text"}


def test_the_readme_is_short_and_begins_with_two_commands() -> None:
    """Each is one line, because .ci/run runs them."""
    assert PAGES["README"].count("\n") <= 130
    commands = blocks("README", "sh")
    assert [command.count("\n") for command in commands] == [1, 1]
    assert "numparam verify" in commands[0]
    assert "pytest" in commands[1]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "NUMPARAM_NUM_THREADS": "1"}
    return subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
