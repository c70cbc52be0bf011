"""The examples of torch print what their pages say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

EXAMPLES = Path(__file__).parent.parent / "examples"


def printed(example: str, folder: Path) -> str:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / example)], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_weights_that_are_handed_over_have_one_fingerprint_and_a_fault_is_named(tmp_path: Path) -> None:
    text = printed("weight_handoff.py", tmp_path)
    _, trainer, parallel, fused, faulty = re.split(r"^(?=\w+, .*:$)", text, flags=re.MULTILINE)
    assert trainer.splitlines()[1:] == parallel.splitlines()[1:] == fused.splitlines()[1:]
    assert trainer.splitlines()[-1] == "  all are equal"
    expected = "rows 0:32 of k_proj.weight, where rows 32:64 of q_proj.weight were expected"
    assert faulty.splitlines()[-2:] == [
        "  parameter 'q_proj.weight': its values differ",
        f"rank 1: parameter 'q_proj.weight': {expected}",
    ]


def test_meshes(tmp_path: Path) -> None:
    title, *rows = [(line[:20].strip(), *line[20:].split()) for line in printed("torch_mesh.py", tmp_path).splitlines()]
    assert title == ("weight of", "torch", "numparam")
    assert [row[0] for row in rows] == ["no mesh"] + [
        f"{ranks}, Shard({axis})" for ranks in ("1 rank", "2 ranks", "4 ranks") for axis in (0, 1)
    ]
    by_torch, by_numparam = {row[1] for row in rows}, {row[2] for row in rows}
    assert len(by_numparam) == 1
    assert len(by_torch) == 5, "torch has changed: rewrite the example if it now gives one hash"
