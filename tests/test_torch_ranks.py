"""One, two and four processes make the values of one, for DTensor, FSDP2 and tensor parallelism."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

RANKS = Path(__file__).parent / "torch_ranks.py"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_all_ranks(size: int, tmp_path: Path) -> None:
    command = [sys.executable, str(RANKS), str(size), str(tmp_path / "store")]
    environment = {**os.environ, "NUMPARAM_NUM_THREADS": "1"}
    ran = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("passed sums_that_no_rank_knows_are_refused\n")
