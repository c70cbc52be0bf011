"""Run the scripts in tests/mpi with mpiexec, as a user would."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

MPIEXEC = Path(sys.executable).parent / "mpiexec"  # that of the mpich package, which mpi4py finds in the same place
SCRIPTS = Path(__file__).parent / "mpi"

needs_mpi = pytest.mark.skipif(
    find_spec("mpi4py") is None or not MPIEXEC.exists(), reason='pip install "numparam[mpi]" brings mpi4py and mpiexec'
)


def run(script: str, ranks: int, *arguments: str, seconds: float = 60, **environment: str) -> str:
    """Run a script on some ranks, which must succeed; return what all of them printed."""
    done = start(script, ranks, *arguments, seconds=seconds, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(script: str, cases: str, ranks: int = 2) -> str:
    """Run cases, one after the other, on ranks that check them; return what they printed."""
    said = run(script, ranks, cases, str(ranks), seconds=150)
    assert said.count("done") == ranks
    return said


def start(
    script: str, ranks: int, *arguments: str, seconds: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script on some ranks and return how it ended."""
    command = [str(MPIEXEC), "-n", str(ranks), sys.executable, "-W", "error", str(SCRIPTS / script), *arguments]
    # Two cores are shared by the ranks and by other tests: one thread for each.
    environment = os.environ | {"NUMPARAM_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, check=False)
