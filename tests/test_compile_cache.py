"""Compiled kernels are kept on disk, are never stale, and are never needed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from numparam.kernels.machine import compile as _compile
from package_copy import copy_package, replace_once, run_python

FILL = """
import numpy as np
from numparam.kernels import fill
{before}
out = np.empty(1000, np.float32)
fill.uniform(out, fill.Key(1, 2, 3), -1.0, 1.0)
print(out[6])
"""
# What a kernel computes does not matter to the cache, and a fill takes five times as long to compile.
SMALL = """
import numpy as np
from numparam.kernels.machine import compile as _compile
{before}
@_compile.kernel("small")
def small(out, step):
    for i in range(out.size):
        out[i] = i * step
out = np.empty(4, np.float32)
small(out, 0.5)
{after}
print(out[3])
"""
EXPECTED = "1.5\n"


def small(package: Path, before: str = "", after: str = "", **environment: str) -> str:
    """Compile or load the small kernel in a process of its own; return what it prints."""
    return run_python("-c", SMALL.format(before=before, after=after), package=package, **environment)


def fill(package: Path, before: str = "") -> str:
    return run_python("-c", FILL.format(before=before), package=package, NUMBA_CACHE_DIR="")


def files(folder: Path) -> dict[str, int]:
    """Return the kernels in a folder and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix == ".kernel"}


class Compiled(NamedTuple):
    """A copy of the package with one kernel of a fill in it, which lies beside its sources, and what that printed."""

    package: Path
    printed: str


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    package = tmp_path_factory.mktemp("compiled")
    copy_package(package)
    return Compiled(package, fill(package))


@pytest.fixture
def edited(compiled: Compiled, tmp_path: Path) -> Path:
    """A copy of the package and its kernel, whose sources a test may change."""
    return Path(shutil.copytree(compiled.package, tmp_path / "package"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that nobody changes."""
    folder = tmp_path_factory.mktemp("package")
    copy_package(folder)
    return folder


def test_kernels_lie_beside_their_sources_and_no_second_process_compiles(compiled: Compiled) -> None:
    written = files(compiled.package)
    assert [path.parent.name for path in compiled.package.rglob("*.kernel")] == ["__pycache__"]
    refuse = (
        "from numba.core import compiler\n"
        "def refuse(*_, **__): raise AssertionError('compiled')\n"
        "compiler.compile_extra = refuse"
    )
    assert fill(compiled.package, refuse) == compiled.printed
    assert files(compiled.package) == written


def test_an_edit_of_another_source_compiles_again(compiled: Compiled, edited: Path) -> None:
    """The edited formula lies in another file than the loop that calls it: Numba's own cache would not notice."""
    (kernel,) = files(edited)
    old = "fma(to_float32(signed(a)), scale, middle)"
    replace_once(edited / "numparam/kernels/formula/distributions.py", old, old.replace("(a)", "(b)"))
    assert fill(edited) != compiled.printed
    (new,) = files(edited)  # the kernel of the old source is gone
    assert new != kernel


def test_an_edit_while_the_process_runs_is_not_mistaken_for_its_code(compiled: Compiled, edited: Path) -> None:
    source = edited / "numparam/kernels/formula/philox.py"
    edit = f"import pathlib; p = pathlib.Path({str(source)!r}); p.write_text(p.read_text().replace('0xD2511F53', '3'))"
    for path in edited.rglob("*.kernel"):
        path.unlink()
    assert fill(edited, edit) == compiled.printed
    assert fill(edited) != compiled.printed


@pytest.mark.parametrize("damage", ["emptied", "zeroed", "one bit"])
def test_a_damaged_file_is_written_again(package: Path, tmp_path: Path, damage: str) -> None:
    cache = str(tmp_path / "cache")
    assert small(package, NUMBA_CACHE_DIR=cache) == EXPECTED
    (path,) = (tmp_path / "cache").rglob("*.kernel")
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "emptied": b"",
            "zeroed": content[:middle] + bytes(len(content) - middle),
            "one bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        }[damage]
    )
    assert small(package, NUMBA_CACHE_DIR=cache) == EXPECTED
    assert len(path.read_bytes()) == len(content)
    assert small(package, NUMBA_CACHE_DIR=cache) == EXPECTED


def test_no_cache_is_needed(package: Path, tmp_path: Path) -> None:
    """Nothing is writable: no candidate can be a folder, for one of its parents is a file."""
    (tmp_path / "file").touch()
    nowhere = (
        f"from pathlib import Path\n_compile._candidates = lambda: [Path({str(tmp_path / 'file')!r}) / n for n in 'ab']"
    )
    assert small(package, nowhere, "assert _compile._cache_directory() is None") == EXPECTED
    assert not files(package)


def test_the_next_candidate_is_taken_when_one_is_not_writable(tmp_path: Path) -> None:
    copy_package(tmp_path / "package")
    (tmp_path / "package/numparam/kernels/__pycache__").touch()  # in the place of the folder
    small(tmp_path / "package", NUMBA_CACHE_DIR="", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert len(files(tmp_path / "cache/numparam")) == 1


def test_no_space_costs_a_compilation_only(package: Path, tmp_path: Path) -> None:
    full = "def full(*_, **__): raise OSError(28, 'No space left on device')\n_compile.tempfile.mkstemp = full"
    assert small(package, full, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == EXPECTED
    assert not files(tmp_path / "cache")


def test_processes_share_a_cache_without_locks(package: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(package), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    program = SMALL.format(before="", after="")
    processes = [
        subprocess.Popen([sys.executable, "-P", "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert {process.communicate()[0] for process in processes} == {EXPECTED}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(files(tmp_path / "cache")) == 1
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".kernel"]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compiles for an x86 processor")
def test_processors_do_not_share_kernels(package: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    for other in ({}, {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}):
        assert small(package, NUMBA_CACHE_DIR=cache, **other) == EXPECTED
    assert len(files(tmp_path / "cache")) == 2


def test_code_for_gpus_of_another_release_of_cuda_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_compile, "_cache_directory", lambda: tmp_path)
    monkeypatch.setattr(_compile, "version", lambda name: name)
    kernel = _compile.CudaKernel("any", lambda: None, ())
    for release in (b"one", b"another"):
        monkeypatch.setattr(_compile, "_toolkit", release.decode)
        assert kernel._kept("ptx", lambda: release) == release  # noqa: B023
        assert kernel._kept("ptx", lambda: b"made again") == release
