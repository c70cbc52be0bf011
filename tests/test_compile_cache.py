"""Compiled kernels are kept on disk, are never stale, and are never needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from package_copy import copy_package, replace_once, run_python

FILL = """
import numpy as np
from numparam.kernels import {imports} fill
{before}
out = np.empty(1000, np.float32)
fill.uniform(out, fill.Key(1, 2, 3), -1.0, 1.0)
{after}
print(out[6])
"""


def program(imports: str = "", before: str = "", after: str = "") -> str:
    return FILL.format(imports=imports and imports + ",", before=before, after=after)


def files(folder: Path) -> dict[str, int]:
    """Return the kernels in a folder and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix == ".kernel"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package whose sources and cache a test may change."""
    copy_package(tmp_path / "package")
    return tmp_path / "package"


def test_second_process_compiles_nothing(package: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    first = run_python("-c", program(), package=package, NUMBA_CACHE_DIR=cache)
    written = files(tmp_path / "cache")
    assert len(written) == 1
    refuse = (
        "from numba.core import compiler\n"
        "def refuse(*_, **__): raise AssertionError('compiled')\n"
        "compiler.compile_extra = refuse"
    )
    assert run_python("-c", program(before=refuse), package=package, NUMBA_CACHE_DIR=cache) == first
    assert files(tmp_path / "cache") == written


def test_kernels_lie_beside_their_sources(package: Path) -> None:
    run_python("-c", program(), package=package, NUMBA_CACHE_DIR="")
    assert [path.parent.name for path in package.rglob("*.kernel")] == ["__pycache__"]


@pytest.mark.parametrize(
    "source, old, new",
    [
        ("distributions.py", "fma(to_float32(signed(a)), scale, middle)", "fma(to_float32(signed(b)), scale, middle)"),
        ("random_bits.py", "0xD2511F53", "0xD2511F51"),
    ],
)
def test_an_edit_of_any_source_compiles_again(package: Path, source: str, old: str, new: str) -> None:
    """The edited formula lies in another file than the loop that calls it: Numba's own cache would not notice."""
    before = run_python("-c", program(), package=package, NUMBA_CACHE_DIR="")
    (kernel,) = files(package)
    replace_once(package / "numparam/kernels" / source, old, new)
    after = run_python("-c", program(), package=package, NUMBA_CACHE_DIR="")
    assert after != before
    (edited,) = files(package)  # the kernel of the old source is gone
    assert edited != kernel


def test_an_edit_while_the_process_runs_is_not_mistaken_for_its_code(package: Path) -> None:
    source = package / "numparam/kernels/random_bits.py"
    edit = f"import pathlib; p = pathlib.Path({str(source)!r}); p.write_text(p.read_text().replace('0xD2511F53', '3'))"
    before = run_python("-c", program(before=edit), package=package, NUMBA_CACHE_DIR="")
    after = run_python("-c", program(), package=package, NUMBA_CACHE_DIR="")
    assert after != before


@pytest.mark.parametrize("damage", ["emptied", "zeroed", "one bit"])
def test_a_damaged_file_is_written_again(package: Path, tmp_path: Path, damage: str) -> None:
    cache = str(tmp_path / "cache")
    expected = run_python("-c", program(), package=package, NUMBA_CACHE_DIR=cache)
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
    assert run_python("-c", program(), package=package, NUMBA_CACHE_DIR=cache) == expected
    assert len(path.read_bytes()) == len(content)
    assert run_python("-c", program(), package=package, NUMBA_CACHE_DIR=cache) == expected


def test_no_cache_is_needed(package: Path, tmp_path: Path) -> None:
    """Nothing is writable: no candidate can be a folder, for one of its parents is a file."""
    (tmp_path / "file").touch()
    nowhere = (
        f"from pathlib import Path\n_compile._candidates = lambda: [Path({str(tmp_path / 'file')!r}) / n for n in 'ab']"
    )
    check = "assert _compile._cache_directory() is None"
    found = run_python("-c", program("_compile", nowhere, check), package=package)
    assert found == run_python("-c", program(), package=package, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert not files(package)


def test_the_next_candidate_is_taken_when_one_is_not_writable(package: Path, tmp_path: Path) -> None:
    (package / "numparam/kernels/__pycache__").touch()  # in the place of the folder
    run_python("-c", program(), package=package, NUMBA_CACHE_DIR="", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert len(files(tmp_path / "cache/numparam")) == 1


def test_no_space_costs_a_compilation_only(package: Path, tmp_path: Path) -> None:
    full = "def full(*_, **__): raise OSError(28, 'No space left on device')\n_compile.tempfile.mkstemp = full"
    cache = str(tmp_path / "cache")
    found = run_python("-c", program("_compile", full), package=package, NUMBA_CACHE_DIR=cache)
    assert not files(tmp_path / "cache")
    assert run_python("-c", program(), package=package, NUMBA_CACHE_DIR=cache) == found


def test_processes_share_a_cache_without_locks(package: Path, tmp_path: Path) -> None:
    import os

    environment = {**os.environ, "PYTHONPATH": str(package), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    processes = [
        subprocess.Popen([sys.executable, "-P", "-c", program()], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    printed = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(printed) == 1
    assert len(files(tmp_path / "cache")) == 1
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".kernel"]


def test_processors_do_not_share_kernels(package: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    own = run_python("-c", program(), package=package, NUMBA_CACHE_DIR=cache)
    other = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
    if "x86" not in run_python("-c", "import platform; print(platform.machine())"):
        pytest.skip("compiles for an x86 processor")
    assert run_python("-c", program(), package=package, NUMBA_CACHE_DIR=cache, **other) == own
    assert len(files(tmp_path / "cache")) == 2
