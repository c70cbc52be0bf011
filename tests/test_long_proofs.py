"""The small form of the long proofs, which `tests/long/` holds."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "long"))

import mutated_files


def test_mutated_checkpoints_of_every_format_give_values_or_an_error_of_ours() -> None:
    assert "200 read" in mutated_files.prove(200, seed=1)
