"""What an installation and a source distribution hold, and what a type checker finds in them."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOT_SOURCES = (
    "__pycache__",
    "build",
    "dist",
    "node_modules",
    "*.egg-info",
    ".*cache",
    ".hypothesis",
    ".git",
    ".venv*",
    ".asv",
    "env",
    "*.safetensors",  # the README's first command leaves one
)
SHIPPED = {
    ".".join([name, *path.parent.relative_to(folder).parts]): path.parent
    for name, folder in {"numparam": ROOT / "numparam", "numparam.kernels": ROOT / "kernels"}.items()
    for path in folder.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


def test_every_folder_is_a_declared_package() -> None:
    assert set(SHIPPED) == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_file_beside_the_modules_is_declared_package_data() -> None:
    declared = PROJECT["tool"]["setuptools"]["package-data"]
    data = {
        (name, path.name)
        for name, folder in SHIPPED.items()
        for path in folder.iterdir()
        if path.is_file() and path.suffix != ".py"
    }
    assert ("numparam", "py.typed") in data
    assert data == {
        (name, path.name)
        for name, patterns in declared.items()
        for pattern in patterns
        for path in SHIPPED[name].glob(pattern)
    }


def test_installed_version_and_command() -> None:
    installed = importlib.metadata.distribution("numparam")
    assert installed.version == PROJECT["project"]["version"]
    (command,) = installed.entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("numparam", "numparam.__main__:main")


def test_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    released = re.findall(r"^## \[?(\d[^\] ]*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[:1] in ([], [version])
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


# --------------------------------------------------------------------------- distributions


def build(project: Path, kind: str, folder: Path) -> Path:
    """Build a "wheel", an "editable" wheel or an "sdist" with the setuptools that is installed."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    folder.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the project that a test may change."""
    return Path(
        shutil.copytree(ROOT, tmp_path / "checkout", symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    )


def modules_of(wheel: Path) -> Counter[str]:
    with zipfile.ZipFile(wheel) as file:
        return Counter(name for name in file.namelist() if ".dist-info/" not in name)


def test_a_wheel_holds_every_file_once_and_no_deleted_one(checkout: Path, tmp_path: Path) -> None:
    stale, old = checkout / "kernels/fill/stale.py", checkout / "build/lib/numparam/kernels/fill/old.py"
    old.parent.mkdir(parents=True)
    for module in (stale, old):
        module.touch()
    assert modules_of(build(checkout, "wheel", tmp_path / "first"))["numparam/kernels/fill/stale.py"] == 1
    stale.unlink()
    expected = {
        f"{name.replace('.', '/')}/{path.name}" for name, folder in SHIPPED.items() for path in folder.iterdir()
        if path.is_file()
    }  # fmt: skip
    assert modules_of(build(checkout, "wheel", tmp_path / "second")) == Counter(expected)


def test_pypi_gets_absolute_links(checkout: Path, tmp_path: Path) -> None:
    wheel = build(checkout, "wheel", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("METADATA"))
        text = file.read(name).decode()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert [link for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text) if "/blob/" in link] == []


@pytest.fixture
def unpacked(checkout: Path, tmp_path: Path) -> Path:
    """Return the folder of an unpacked source distribution."""
    with tarfile.open(build(checkout, "sdist", tmp_path / "sdist")) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (folder,) = (tmp_path / "unpacked").iterdir()
    return folder


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_source_distribution_holds_what_its_tests_need(checkout: Path, unpacked: Path) -> None:
    missing = files_of(checkout) - files_of(unpacked)
    assert {name for name in missing if not name.startswith((".git", "numparam.egg-info"))} == set()


@pytest.mark.slow
def test_a_source_distribution_runs_its_tests(unpacked: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    two = "test_house.py or test_import.py"  # which run after all have been collected
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", two],
        cwd=unpacked, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d{2,} passed, .*\b\d{4,} deselected", done.stdout, re.MULTILINE), done.stdout


# --------------------------------------------------------------------------- type checkers


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where mypy keeps what it knows of NumPy and others, which all installs share."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "editable"])
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_resolve_the_kernels(
    kind: str, checker: str, checkout: Path, known: Path, tmp_path: Path
) -> None:
    """On a plain and on an editable install, from a folder that is not the checkout."""
    pytest.importorskip(checker)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    with zipfile.ZipFile(build(checkout, kind, tmp_path / "built")) as file:
        file.extractall(packages)
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(here))
    (tmp_path / "script").mkdir()
    script = tmp_path / "script/script.py"
    script.write_text(
        "import numparam\nfrom numparam.kernels.array import DeviceArray\n"
        "def shape(array: DeviceArray) -> tuple[int, ...]:\n    return array.shape\n"
        "reveal_type(shape)\nreveal_type(numparam.get_seed)\n"
    )
    python = venv / "bin/python"
    options = {
        "mypy": ["--python-executable", python, "--strict", "--cache-dir", known],
        "pyright": ["--pythonpath", python],
    }[checker]
    done = subprocess.run(
        [sys.executable, "-m", checker, *options, script],
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DeviceArray" in done.stdout
