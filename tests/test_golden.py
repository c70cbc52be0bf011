"""The random stream, version 1, is frozen: these values never change, on any processor.

``golden.json`` holds hashes of what the fills write, and for people and other implementations the first values of each
draw. A test that fails here means that users would get other parameters from the same seed. A change of values needs a
new version of the stream; only then may the file be written again:

    python tests/test_golden.py --freeze
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from numparam.kernels import fill
from numparam.kernels.fill import Key, Span
from numparam.kernels.machine import pool

GOLDEN = Path(__file__).parent / "golden.json"
KEY = Key(20261124, 0x0123456789ABCDEF, 0xFEDCBA9876543210)
DTYPES = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float32", "float64")
DRAWS: dict[str, tuple[str, tuple[float, ...]]] = {
    "bits": ("bits", ()),
    "uniform -0.3 0.7": ("uniform", (-0.3, 0.7)),
    "normal 0 0.02": ("normal", (0.0, 0.02)),
    "normal 0.1 1.3": ("normal", (0.1, 1.3)),
    "truncated normal 0 1, -2 2": ("truncated_normal", (0.0, 1.0, -2.0, 2.0)),
    "truncated normal 0.5 1, -3.5 4": ("truncated_normal", (0.5, 1.0, -3.5, 4.0)),
    "truncated normal 0 0.02, 0.06 inf": ("truncated_normal", (0.0, 0.02, 0.06, math.inf)),
    "truncated normal 0 0.02, -2 2": ("truncated_normal", (0.0, 0.02, -2.0, 2.0)),
}
SLICES: dict[str, tuple[tuple[int, ...], Span]] = {
    "first 100003": ((100003,), Span(0, (1,))),
    "beyond 2**34": ((10007,), Span(2**34 - 5001, (1,))),
    "strided": ((37, 5, 41), Span(2**40 + 1, (-1000003, 1, 7))),
    "rows": ((11, 300), Span(2**36 + 7, (999, 1))),
}
CASES = [(draw, dtype) for draw in DRAWS for dtype in (("uint32",) if draw == "bits" else DTYPES)]
# Compiling all cases for another processor takes minutes: every rounding in both loops, every formula in one of them.
ROUNDINGS = {("bits", "uint32"), *(("normal 0.1 1.3", dtype) for dtype in DTYPES)}
FORMULAS = {(draw, "float32") for draw in DRAWS if not draw.startswith(("bits", "normal"))}
FORMULAS |= {("uniform -0.3 0.7", "float64"), ("truncated normal 0.5 1, -3.5 4", "float64")}
STRIDED = ("uint32", "float32", "float16", "float64")  # the other roundings differ in no loop
PORTABLE = {f"{draw}: {dtype}: {name}" for draw, dtype in ROUNDINGS for name in SLICES if name != "strided"}
PORTABLE |= {f"{draw}: {dtype}: strided" for draw, dtype in ROUNDINGS if dtype in STRIDED}
PORTABLE |= {f"{draw}: {dtype}: {name}" for draw, dtype in FORMULAS for name in SLICES if name != "strided"}
FLOAT16 = {case for case in PORTABLE if ": float16: " in case}


def drawn(draw: str, dtype: str, shape: tuple[int, ...], span: Span) -> np.ndarray[Any, Any]:
    """Return the bits of a fill."""
    out = np.empty(shape, getattr(ml_dtypes, dtype, dtype))
    distribution, arguments = DRAWS[draw]
    getattr(fill, distribution)(out, KEY, *arguments, span)
    return out.view(f"u{out.itemsize}")


def hash_of(draw: str, dtype: str, name: str) -> str:
    """Return the BLAKE2b of a slice, its items in row-major order with their low bytes first."""
    bits = drawn(draw, dtype, *SLICES[name])
    return hashlib.blake2b(bits.astype(bits.dtype.newbyteorder("<")).tobytes(), digest_size=16).hexdigest()


def hashes(draw: str, dtype: str) -> dict[str, str]:
    return {name: hash_of(draw, dtype, name) for name in SLICES}


def first_values(draw: str, dtype: str) -> list[str]:
    """Return the bits and, to seven digits, the values of the first elements."""
    bits = drawn(draw, dtype, (8,), Span(0, (1,)))
    values = bits.view(getattr(ml_dtypes, dtype, dtype)).astype(np.float64)
    return [f"{int(b):0{2 * bits.itemsize}x} {value:.7g}" for b, value in zip(bits, values, strict=True)]


def freeze() -> None:
    """Write ``golden.json``."""
    record = {
        "about": "Random stream version 1: BLAKE2b (16 bytes) of slices, and the first values as bits and number.",
        "key": {name: f"{value:#018x}" for name, value in KEY._asdict().items()},
        "slices": {
            name: f"shape {shape}, base {span.base}, strides {span.strides}" for name, (shape, span) in SLICES.items()
        },
        "hashes": {f"{draw}: {dtype}": hashes(draw, dtype) for draw, dtype in CASES},
        "first values": {f"{draw}: {dtype}": first_values(draw, dtype) for draw, dtype in CASES},
    }
    text = json.dumps(record, indent=1)
    GOLDEN.write_text(re.sub(r"\[[^][]*\]", lambda found: " ".join(found[0].split()), text) + "\n")  # a list per line


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("draw, dtype", CASES)
def test_values_are_the_frozen_ones(draw: str, dtype: str, golden: dict[str, Any]) -> None:
    assert first_values(draw, dtype) == golden["first values"][f"{draw}: {dtype}"]
    assert hashes(draw, dtype) == golden["hashes"][f"{draw}: {dtype}"]


@pytest.mark.parametrize("threads", [2, 7])
def test_threads_give_the_frozen_values(threads: int, golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BYTES_PER_PIECE", 1 << 12)
    monkeypatch.setattr(pool, "_num_threads", threads)
    for draw, dtype in (("bits", "uint32"), ("normal 0.1 1.3", "float32"), ("normal 0.1 1.3", "bfloat16")):
        assert hashes(draw, dtype) == golden["hashes"][f"{draw}: {dtype}"]


@pytest.mark.parametrize("draw, dtype", CASES)
def test_frozen_values_are_those_of_the_reference(draw: str, dtype: str, golden: dict[str, Any]) -> None:
    import reference

    distribution, arguments = DRAWS[draw]
    found = [int(text.split()[0], 16) for text in golden["first values"][f"{draw}: {dtype}"]]
    assert found == [reference.stream_bits(distribution, arguments, dtype, KEY, index) for index in range(8)]


def test_every_frozen_case_is_tested(golden: dict[str, Any]) -> None:
    assert list(golden["hashes"]) == list(golden["first values"]) == [f"{draw}: {dtype}" for draw, dtype in CASES]


# --------------------------------------------------------------------------- other processors

X86 = platform.machine() in ("x86_64", "AMD64")
PROCESSORS = {
    "avx2, fma and f16c": ("haswell", "+sse4.2,+avx,+avx2,+fma,+f16c", PORTABLE),
    "avx2 and fma, float16 by integers": ("haswell", "+sse4.2,+avx,+avx2,+fma,-f16c", FLOAT16),
}


def decisive(features: str) -> set[str]:
    """Return those features that decide how a formula is lowered."""
    return {"+avx2", "+fma", "+f16c", "+avx512f"} & set(str(features).split(","))


def assert_frozen(golden: dict[str, Any], cases: set[str], **where: Any) -> None:
    """Hash slices in a process of its own, on a processor or a package that `where` says."""
    from package_copy import run_python

    found = json.loads(run_python(__file__, "--hash", *sorted(cases), **where))
    frozen = {f"{case}: {name}": text for case, texts in golden["hashes"].items() for name, text in texts.items()}
    assert found == {case: frozen[case] for case in cases}


@pytest.mark.slow
@pytest.mark.skipif(not X86, reason="compiles for x86 processors")
@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_processor_gives_the_frozen_values(processor: str, golden: dict[str, Any], tmp_path: Path) -> None:
    from numba.core.codegen import get_host_cpu_features

    name, features, cases = PROCESSORS[processor]
    if decisive(features) == decisive(str(get_host_cpu_features())):
        pytest.skip("this processor has the same")
    where = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    assert_frozen(golden, cases, **where)


@pytest.mark.slow
def test_an_empty_and_a_full_cache_give_the_frozen_values(golden: dict[str, Any], tmp_path: Path) -> None:
    for _ in range(2):
        assert_frozen(golden, {"uniform -0.3 0.7: float32: first 100003"}, NUMBA_CACHE_DIR=str(tmp_path))
        assert list(tmp_path.rglob("*.kernel"))


@pytest.mark.slow
def test_other_lanes_and_fma_by_the_c_library_give_the_frozen_values(golden: dict[str, Any], tmp_path: Path) -> None:
    """One process shows both, since neither touches the other and most of its time is compiling.

    Sixteen lanes are what processors with AVX-512 use; here they run on any.
    """
    from numparam.kernels.machine.lanes import WIDTH
    from package_copy import copy_package, replace_once

    lanes = copy_package(tmp_path) / "machine/lanes.py"
    replace_once(lanes, 'WIDTH = 16 if "+avx512f" in _FEATURES else 8', f"WIDTH = {24 - WIDTH}")
    where = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"} if X86 else {}
    assert_frozen(golden, PORTABLE, package=tmp_path, NUMBA_CACHE_DIR=str(tmp_path), **where)


if __name__ == "__main__":
    if sys.argv[1:] == ["--freeze"]:
        freeze()
    elif sys.argv[1:2] == ["--hash"]:
        print(json.dumps({case: hash_of(*case.split(": ")) for case in sys.argv[2:]}))
    else:
        sys.exit(__doc__)
