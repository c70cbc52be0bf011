"""What loops are compiled to for processors that need not be at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "asv_bench"


@pytest.mark.slow
def test_large_casts_bypass_the_caches_where_float16_has_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM would store those registers like any other."""
    monkeypatch.syspath_prepend(str(BENCH))
    import instructions

    code = instructions.compiled_for("sapphirerapids", "convert float32")
    assert list(code) == ["convert float32 to float16", "convert float32 to bfloat16"]
    for assembly in code.values():
        assert instructions.streams(assembly.split()) > 0
