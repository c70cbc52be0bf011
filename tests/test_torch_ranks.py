"""One, two and four processes make the values of one, for DTensor, FSDP2 and tensor parallelism."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

LAST = {
    "torch_ranks.py": "sums_that_no_rank_knows_are_refused",
    "torch_drawing_ranks.py": "ties_that_tensor_parallelism_breaks_are_equal_again",
}


@pytest.mark.parametrize(
    "size, ranks",
    [
        (2, "torch_ranks.py"),
        (2, "torch_drawing_ranks.py"),
        *[
            pytest.param(size, ranks, marks=pytest.mark.slow)
            for size, ranks in ((1, "torch_ranks.py"), (4, "torch_ranks.py"), (4, "torch_drawing_ranks.py"))
        ],
    ],
)
def test_all_ranks(size: int, ranks: str, tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent / ranks), str(size), str(tmp_path / "store")]
    environment = {**os.environ, "NUMPARAM_NUM_THREADS": "1"}
    ran = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith(f"passed {LAST[ranks]}\n")
