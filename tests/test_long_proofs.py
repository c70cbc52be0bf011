"""The small form of the long proofs: the documented command, at a small scale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LONG = Path(__file__).parent / "long"


@pytest.mark.skipif(sys.platform != "linux", reason="the proofs fork, kill and bound memory as Linux does")
def test_every_promise_holds_under_a_little_fire(tmp_path: Path) -> None:
    proofs = {file.stem for file in LONG.glob("*.py") if "def prove(" in file.read_text()}
    proofs -= {"killed_jobs", "jobs"}  # see test_server and test_communication_failures
    command = [sys.executable, str(LONG), *proofs, "--scale", "0.001", "--processes", "1", "--folder", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(LONG.parents[1])}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == proofs
