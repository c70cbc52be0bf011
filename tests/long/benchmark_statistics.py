"""`asv continuous` reports nothing between equal commits, and each slowdown of 20 %.

``python -m pytest -n0 -m "" tests/long/benchmark_statistics.py`` runs it, about three minutes for each of the
``NUMPARAM_REPEATS`` times (1 by default); the default command leaves it out, because its name does not begin with
``test_``. It needs the dependency group ``bench``, and pip installs NumPy and Numba in an environment that asv makes.
The benchmarks run in a temporary clone, whose last commit either changes nothing or waits in a fill, in a write of a
slice and in the import until 1.2 times as long has passed. They are measured in the processor's time, so that other
programs disturb them little; a quiet machine is still better.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
REPEATS = int(os.environ.get("NUMPARAM_REPEATS", "1"))
SUBSET = {
    "fill": r"fill\.Fill\.time_warm\('normal', 'float32'\)",
    "slice": r"slicing\.Slice\.time_warm\('columns of 8 KB'\)",
    "import": r"imports\.Import\.timeraw_import\('numparam'\)",
}
WAIT = """
from time import process_time as _clock

def _slowed(call):
    def slow(*arguments):
        began = _clock()
        returned = call(*arguments)
        until = _clock() + 0.2 * (_clock() - began)
        while _clock() < until:
            pass
        return returned
    return slow
"""


def git(clone: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=clone, check=True, capture_output=True)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def plant(clone: Path) -> None:
    """Make a fill, a write of a slice and the import take 1.2 times as long."""
    package = clone / "numparam"
    append(package / "initializer" / "base.py", WAIT + "Initializer.__call__ = _slowed(Initializer.__call__)\n")
    append(package / "tensor" / "tensor.py", WAIT + "Tensor.__setitem__ = _slowed(Tensor.__setitem__)\n")
    door = package / "__init__.py"
    before, quotes, after = door.read_text(encoding="utf-8").partition('"""\n')
    began = "from time import process_time as _clock\n_began = _clock()\n"
    wait = "\n_until = _clock() + 0.2 * (_clock() - _began)\nwhile _clock() < _until:\n    pass\n"
    door.write_text(before + quotes + began + after + wait, encoding="utf-8")


def slower(clone: Path, before: str, after: str) -> set[str]:
    """Return which of the subset `asv continuous` reports as changed between two commits."""
    benchmarks = clone / "asv_bench"
    subset = [option for pattern in SUBSET.values() for option in ("--bench", pattern)]
    compare = ["continuous", "--factor", "1.1", "--show-stderr", "--no-only-changed", *subset, before, after]
    done = subprocess.run(
        [sys.executable, "-m", "asv", *compare], cwd=benchmarks, capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr)
    assert "[100.00%]" in done.stdout or "BENCHMARKS NOT SIGNIFICANTLY CHANGED" in done.stdout
    changed = [line for line in done.stdout.splitlines() if re.match(r"\|\s*[+-]\s*\|", line)]
    return {name for name, pattern in SUBSET.items() if any(re.search(pattern, line) for line in changed)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone of main with a commit that changes nothing and one that waits."""
    pytest.importorskip("asv", reason="pip install --group bench brings asv")
    at = tmp_path_factory.mktemp("asv") / "numparam"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(at)], check=True)
    git(at, "checkout", "-q", "-B", "main")
    git(at, "commit", "-q", "--allow-empty", "-m", "Change nothing")
    plant(at)
    git(at, "commit", "-q", "-a", "-m", "Wait")
    subprocess.run(
        [sys.executable, "-m", "asv", "machine", "--yes"], cwd=at / "asv_bench", check=True, text=True, input=""
    )
    return at


@pytest.mark.slow
@pytest.mark.parametrize("repeat", range(REPEATS))
def test_equal_commits_are_equal(clone: Path, repeat: int) -> None:  # noqa: ARG001
    assert slower(clone, "HEAD~2", "HEAD~1") == set()


@pytest.mark.slow
@pytest.mark.parametrize("repeat", range(REPEATS))
def test_twenty_percent_are_found(clone: Path, repeat: int) -> None:  # noqa: ARG001
    assert slower(clone, "HEAD~1", "HEAD") == set(SUBSET)
