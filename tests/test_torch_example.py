"""The example of meshes prints one hash for numparam, and several for torch."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

EXAMPLE = Path(__file__).parent.parent / "examples" / "torch_mesh.py"


def test_meshes(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stderr
    title, *rows = [(line[:20].strip(), *line[20:].split()) for line in ran.stdout.splitlines()]
    assert title == ("weight of", "torch", "numparam")
    assert [row[0] for row in rows] == ["no mesh"] + [
        f"{ranks}, Shard({axis})" for ranks in ("1 rank", "2 ranks", "4 ranks") for axis in (0, 1)
    ]
    by_torch, by_numparam = {row[1] for row in rows}, {row[2] for row in rows}
    assert len(by_numparam) == 1
    assert len(by_torch) == 5, "torch has changed: rewrite the example if it now gives one hash"
