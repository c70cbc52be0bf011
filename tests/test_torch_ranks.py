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
    def start(rank: int) -> "subprocess.Popen[str]":
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(size), "NUMPARAM_NUM_THREADS": "1"}
        command = [sys.executable, str(RANKS), str(tmp_path / "store")]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
        )

    processes = [start(rank) for rank in range(size)]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0] * size, "\n".join(outputs)
    assert "passed sums_that_no_rank_knows_are_refused" in outputs[0]
