"""One, two and four processes make the values of one, for DTensor, FSDP2 and tensor parallelism."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch")

LIBRARIES = ("torchtitan", "diffusers")

LAST = {
    "torch_ranks.py": "sums_that_no_rank_knows_are_refused",
    "torch_drawing_ranks.py": "ties_that_tensor_parallelism_breaks_are_equal_again",
    "torch_libraries_ranks.py": "models_of_diffusers_have_the_values_of_one_process",
}


@pytest.mark.parametrize(
    "size, ranks",
    [
        (2, "torch_ranks.py"),
        (2, "torch_drawing_ranks.py"),
        *[
            pytest.param(size, ranks, marks=pytest.mark.slow)
            for size, ranks in (
                *((1, "torch_ranks.py"), (4, "torch_ranks.py"), (4, "torch_drawing_ranks.py")),
                *((2, "torch_libraries_ranks.py"), (4, "torch_libraries_ranks.py")),
            )
        ],
    ],
)
def test_all_ranks(size: int, ranks: str, tmp_path: Path) -> None:
    if ranks == "torch_libraries_ranks.py" and not any(map(find_spec, LIBRARIES)):
        pytest.skip(f"{' and '.join(LIBRARIES)} are not installed")
    command = [sys.executable, str(Path(__file__).parent / ranks), str(size), str(tmp_path / "store")]
    environment = {**os.environ, "NUMPARAM_NUM_THREADS": "1"}
    ran = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith(f"passed {LAST[ranks]}\n")
