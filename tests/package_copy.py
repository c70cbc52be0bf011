"""Make a copy of the package that a test may edit, and run programs on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numparam
import numparam.kernels


def copy_package(target: Path) -> Path:
    """Copy the package to `target`, as an installation lays it out; return the folder of the kernels."""
    source, kernels = Path(numparam.__file__).parent, Path(numparam.kernels.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(source, target / "numparam", ignore=ignored)
    return Path(shutil.copytree(kernels, target / "numparam/kernels", ignore=shutil.ignore_patterns("__pycache__")))


def replace_once(path: Path, old: str, new: str) -> None:
    """Edit a file; `old` must stand in it exactly once."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new))


def run_python(*arguments: str, package: Path | None = None, **environment: str) -> str:
    """Run Python on the package, or on the copy in the folder `package`; return what it prints."""
    environment = {**os.environ, **environment}
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    # -P, for the current folder may hold the package too
    done = subprocess.run(
        [sys.executable, "-P", *arguments], check=False, capture_output=True, text=True, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
