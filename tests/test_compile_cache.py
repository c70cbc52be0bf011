"""Compiled kernels are kept on disk, never stale, never from another user, and never needed."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from numparam.kernels.machine import cache
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
from numparam.kernels.machine import cache, compile as _compile
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
    cache_home = str(package / "cache")
    return run_python("-c", FILL.format(before=before), package=package, NUMBA_CACHE_DIR="", XDG_CACHE_HOME=cache_home)


def files(folder: Path) -> dict[str, int]:
    """Return the kernels in a folder and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix == ".kernel"}


class Compiled(NamedTuple):
    """A folder with a copy of the package and a cache with one kernel, of a fill, and what the fill printed."""

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


def test_kernels_lie_in_the_cache_of_the_user_and_no_second_process_compiles(compiled: Compiled) -> None:
    written = files(compiled.package / "cache/numparam")
    assert len(written) == 1
    assert files(compiled.package) == written  # an uninstalled package leaves none behind
    refuse = (
        "from numba.core import compiler\n"
        "def refuse(*_, **__): raise AssertionError('compiled')\n"
        "compiler.compile_extra = refuse"
    )
    assert fill(compiled.package, refuse) == compiled.printed
    assert set(files(compiled.package)) == set(written)


@pytest.mark.slow
def test_an_edit_of_another_source_compiles_again(compiled: Compiled, edited: Path) -> None:
    """The edited formula lies in another file than the loop that calls it: Numba's own cache would not notice."""
    (kernel,) = files(edited)
    old = "fma(to_float32(signed(a)), scale, middle)"
    replace_once(edited / "numparam/kernels/formula/distributions.py", old, old.replace("(a)", "(b)"))
    assert fill(edited) != compiled.printed
    assert len(files(edited)) == 2  # another installation may still use the other one
    assert kernel in files(edited)


@pytest.mark.slow
def test_a_move_of_a_source_compiles_again(package: Path, tmp_path: Path) -> None:
    edited = Path(shutil.copytree(package, tmp_path / "package"))
    small(edited, NUMBA_CACHE_DIR=str(tmp_path))
    kernels = edited / "numparam/kernels"
    (kernels / "orthogonal.py").rename(kernels / "machine/orthogonal.py")
    small(edited, NUMBA_CACHE_DIR=str(tmp_path))
    assert len(files(tmp_path)) == 2


@pytest.mark.slow
def test_an_edit_while_the_process_runs_is_not_mistaken_for_its_code(compiled: Compiled, edited: Path) -> None:
    source = edited / "numparam/kernels/formula/philox.py"
    edit = f"import pathlib; p = pathlib.Path({str(source)!r}); p.write_text(p.read_text().replace('0xD2511F53', '3'))"
    for path in edited.rglob("*.kernel"):
        path.unlink()
    assert fill(edited, edit) == compiled.printed
    assert fill(edited) != compiled.printed


@pytest.mark.parametrize(
    "damage",
    [pytest.param("emptied", marks=pytest.mark.slow), pytest.param("zeroed", marks=pytest.mark.slow), "one bit"],
)
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


@pytest.mark.parametrize("home", ["a file in its place", "a link", "open to others", "no home"])
def test_without_a_safe_directory_kernels_are_compiled_again_after_one_warning(
    package: Path, tmp_path: Path, home: str
) -> None:
    """The kernel that already lies there would raise if it were unpickled."""
    folder = tmp_path / "numparam"
    if home == "a file in its place":
        folder.touch()
    elif home == "a link":
        (tmp_path / "other").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "other")
    elif home == "open to others":
        folder.mkdir()
        folder.chmod(0o777)
    before = [
        "import logging, pathlib",
        "told = []",
        "logging.getLogger('numparam').addFilter(lambda record: told.append(record.getMessage()))",
        *(
            ["def no_home(): raise RuntimeError('no home directory')", "pathlib.Path.home = no_home"]
            * (home == "no home")
        ),
    ]
    after = "_compile.kernel('another')(lambda: None)\nassert len(told) == 1, told\nassert 'NUMBA_CACHE_DIR' in told[0]"
    chosen = "" if home == "no home" else str(tmp_path)
    found = small(package, "\n".join(before), after, NUMBA_CACHE_DIR=chosen, XDG_CACHE_HOME="")
    assert found == EXPECTED
    assert not files(package)
    assert not files(tmp_path)


def test_a_new_directory_is_closed_to_others(package: Path, tmp_path: Path) -> None:
    small(package, "import os\nos.umask(0)", NUMBA_CACHE_DIR=str(tmp_path / "new"))
    assert stat.S_IMODE((tmp_path / "new/numparam").stat().st_mode) == 0o700
    (path,) = (tmp_path / "new/numparam").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The directory of the cache, which is empty."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    cache.directory.cache_clear()
    found = cache.directory()
    assert found is not None
    yield found
    cache.directory.cache_clear()


def test_what_another_user_could_have_written_is_not_read(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own / cache.name("any")
    cache.write(path, b"content")
    assert cache.read(path) == b"content"
    path.chmod(0o622)
    assert cache.read(path) is None
    path.chmod(0o600)
    path.with_suffix(".link").symlink_to(path)
    assert cache.read(path.with_suffix(".link")) is None
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert cache.read(path) is None
    cache.directory.cache_clear()
    assert cache.directory() is None


def test_old_kernels_of_other_sources_are_removed(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["numparam-old-1.kernel", "numparam-used-1.kernel", cache.name("own, old"), "numparam-used-2.kernel"]
    for days, name in zip((40, 20, 50, 10), names, strict=True):
        (own / name).write_bytes(bytes(100))
        os.utime(own / name, (time.time() - days * 24 * 3600,) * 2)

    def left() -> set[str]:
        cache.directory.cache_clear()
        cache.directory()
        return set(files(own))

    assert left() == set(names[1:])
    monkeypatch.setattr(cache, "MOST_BYTES", 200)
    assert left() == set(names[2:])
    monkeypatch.setattr(cache, "MOST_BYTES", 0)
    assert left() == {names[2]}


def test_a_kernel_that_is_read_counts_as_used(own: Path) -> None:
    path = own / cache.name("any")
    cache.write(path, b"content")
    os.utime(path, (0, 0))
    cache.read(path)
    assert path.stat().st_mtime > 0


def test_no_space_costs_a_compilation_only(package: Path, tmp_path: Path) -> None:
    full = "def full(*_, **__): raise OSError(28, 'No space left on device')\ncache.tempfile.mkstemp = full"
    assert small(package, full, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == EXPECTED
    assert not files(tmp_path / "cache")


@pytest.mark.slow
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
    monkeypatch.setattr(cache, "directory", lambda: tmp_path)
    monkeypatch.setattr(_compile, "version", lambda name: name)
    kernel = _compile.CudaKernel("any", lambda: None, ())
    for release in (b"one", b"another"):
        monkeypatch.setattr(_compile, "_toolkit", release.decode)
        assert kernel._kept("ptx", lambda: release) == release  # noqa: B023
        assert kernel._kept("ptx", lambda: b"made again") == release


def test_the_compiler_disabled_is_told_in_one_sentence() -> None:
    program = (
        "import numpy as np\nfrom numparam.kernels import fill\n"
        "try: fill.uniform(np.empty(9, np.float32), fill.Key(1, 2, 3), 0.0, 1.0)\n"
        "except RuntimeError as error: print(error)"
    )
    found = run_python("-c", program, NUMBA_DISABLE_JIT="1")
    assert found == "numparam's kernels exist in compiled form only, found NUMBA_DISABLE_JIT set; unset it\n"


@pytest.mark.ptx
def test_cuda_kernels_compile_with_a_numpy_that_dropped_an_alias() -> None:
    """numba-cuda 0.30 overloads ``numpy.row_stack``, which NumPy 2.5 has no more."""
    pytest.importorskip("numba_cuda")
    program = (
        "import numpy as np\n"
        "if hasattr(np, 'row_stack'): del np.row_stack; np.__version__ = '2.5.0'\n"
        "from numparam.kernels.machine import compile as _compile\n"
        "kernel = _compile.CudaKernel('nothing', lambda: None, ())\n"
        "print('.entry nothing' in kernel._compile(), hasattr(np, 'row_stack'))"
    )
    assert run_python("-c", program) == "True False\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_forked_while_a_thread_compiles_compiles_too(package: Path, tmp_path: Path) -> None:
    program = """
import os, threading, time, warnings
import numpy as np
from numba.core.compiler_lock import global_compiler_lock
from numparam.kernels.machine import compile as _compile
warnings.simplefilter("ignore")
@_compile.kernel("small")
def small(out, step):
    for i in range(out.size):
        out[i] = i * step
taken, forking = threading.Event(), threading.Event()
def compiling():
    with global_compiler_lock:
        taken.set()
        forking.wait()
        time.sleep(0.5)
thread = threading.Thread(target=compiling)
thread.start()
taken.wait()
forking.set()
child = os.fork()
out = np.empty(4, np.float32)
small(out, 0.5)
if child == 0:
    os._exit(int(out[3] * 2))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python("-c", program, package=package, NUMBA_CACHE_DIR=str(tmp_path)) == "3\n"
