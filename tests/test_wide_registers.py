"""What compilers make of the loops for processors with AVX-512, whichever processor runs the tests."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "asv_bench"


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compiles for x86 processors")
def test_casts_write_full_lines_past_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from instructions import compiled_for, counts, hottest, inner_loops, streams

    code = compiled_for("skylake-avx512", only="convert float32 to bfloat16")
    loop = hottest(inner_loops(code["convert float32 to bfloat16"]))
    stores = [line for line in loop if line.startswith("v") and line.endswith(")")]
    assert streams(loop) == len(stores) > 0
    assert all("%zmm" in store for store in stores)
    assert counts(loop)["256"] == 0


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compiles for x86 processors")
def test_casts_bypass_the_caches_where_float16_has_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM would store those registers like any other."""
    monkeypatch.syspath_prepend(str(BENCH))
    from instructions import compiled_for, hottest, inner_loops, streams

    (assembly,) = compiled_for("sapphirerapids", only="convert float32 to float16").values()
    assert streams(hottest(inner_loops(assembly))) > 0


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compiles for x86 processors")
def test_bfloat16_normals_compute_little_more_than_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from instructions import compiled_for, hottest, inner_loops

    code = compiled_for("skylake-avx512", only="fill run normal ")
    computing = {
        dtype: sum("%zmm" in line and not line.startswith(("vmov", "vbroadcast", "vpbroadcast")) for line in loop)
        for dtype in ("float32", "bfloat16")
        if (loop := hottest(inner_loops(code[f"fill run normal {dtype}"])))
    }
    assert 190 < computing["bfloat16"] <= 1.05 * computing["float32"]


def test_inner_loops_are_those_without_a_loop_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from instructions import inner_loops

    text = ".A:\n\tincq %rax\n.B:\n\tvaddps %zmm1, %zmm2, %zmm3\n\tjne .B\n\tjne .A\n.C:\n\tdecq %rcx\n\tjne .C\n"
    assert inner_loops(text) == [["vaddps %zmm1, %zmm2, %zmm3", "jne .B"], ["decq %rcx", "jne .C"]]
