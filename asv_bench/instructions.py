"""Count the instructions of fills, casts and transposes on a processor: ``python asv_bench/instructions.py``.

Nothing runs: the loops are compiled for any x86 processor, by default one with AVX-512. Of each, the inner loop with
the most vector instructions is counted: its instructions, those on registers of 512, 256 and 128 bits, the stores that
bypass the caches, the vectors that are kept on the stack for want of registers, and the cycles that ``llvm-mca``
predicts, where it is installed, with everything in the first-level cache. ``--keep FOLDER`` writes the loops down.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

AVX2 = "+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt"
AVX512 = f"{AVX2},+avx512f,+avx512cd,+avx512bw,+avx512dq,+avx512vl"
PROCESSORS = {
    "haswell": AVX2,
    "znver3": AVX2,
    "skylake-avx512": AVX512,
    "icelake-server": f"{AVX512},+avx512vbmi,+avx512vbmi2,+avx512ifma",
    "sapphirerapids": f"{AVX512},+avx512vbmi,+avx512vbmi2,+avx512ifma,+avx512bf16,+avx512fp16",
}


def inner_loops(assembly: str) -> list[list[str]]:
    """Return the bodies of the loops that have no loop inside."""
    lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
    lines = [line for line in lines if line and (not line.startswith(".") or line.endswith(":"))]
    at = {line[:-1]: number for number, line in enumerate(lines) if line.endswith(":")}
    jumps = {number: at.get(line.split()[-1], number) for number, line in enumerate(lines) if line.startswith("j")}
    ranges = sorted((start, end) for end, start in jumps.items() if start < end)
    inner = [(s, e) for s, e in ranges if not any(s <= start and end < e for start, end in ranges if end != e)]
    return [[line for line in lines[start : end + 1] if not line.endswith(":")] for start, end in inner]


def hottest(loops: list[list[str]]) -> list[str]:
    """Return the loop with the most vector instructions, of those that jump at their end only if there are any."""
    straight = [loop for loop in loops if not any(line.startswith("j") for line in loop[:-1])]
    return max(straight or loops, key=lambda loop: sum("mm" in line for line in loop))


def counts(loop: list[str]) -> dict[str, int]:
    """Count the instructions of a loop by the registers that they need."""
    found = {"instructions": len(loop)}
    for name, register in (("512", "zmm"), ("256", "ymm"), ("128", "xmm")):
        found[name] = sum(f"%{register}" in line for line in loop)
        loop = [line for line in loop if f"%{register}" not in line]
    return found


def streams(loop: list[str]) -> int:
    """Count the stores that bypass the caches."""
    return sum(line.startswith("vmovnt") for line in loop)


def spills(loop: list[str]) -> int:
    """Count the vector instructions that read or write the stack."""
    return sum(bool(re.search(r"%[xyz]mm", line) and re.search(r"\(%r[sb]p", line)) for line in loop)


def cycles(loop: list[str], processor: str) -> float | None:
    """Return how many cycles llvm-mca predicts for an iteration, or None if it is absent or cannot say."""
    program = shutil.which("llvm-mca")
    if program is None:
        return None
    text = "\n".join(line for line in loop if not line.startswith("j"))
    command = [program, f"-mcpu={processor}", "-iterations=100", "-instruction-info=0", "-resource-pressure=0"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    return int(total[1]) / 100 if total else None


def emit(only: str) -> dict[str, str]:
    """Return the machine code of every loop, compiled in this process, by the name of the work."""
    from numparam.kernels.machine import compile as compiler

    code: dict[str, str] = {}

    def kernel(identity: str) -> Callable[[Any], Any]:
        """Compile what would be called, for the arguments of the call, and call nothing."""

        def decorate(function: Any) -> Any:
            import numba

            def compiled(*arguments: Any) -> None:
                if only not in identity:
                    return
                dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
                dispatcher.compile(tuple(map(numba.typeof, arguments)))
                code[identity] = next(iter(dispatcher.inspect_asm().values()))

            return compiled

        return decorate

    compiler.kernel = kernel
    import numpy as np

    import numparam
    from numparam.initializer import Normal, TruncatedNormal, Uniform

    numparam.set_num_threads(1)
    side = 256
    for draw in (Uniform(1.0), Normal(0.02), TruncatedNormal(0.02, 0.0, -0.04, 0.04)):
        draw(np.zeros((side, side), np.float32))
    for dtype in (numparam.bfloat16, numparam.float16):
        Normal(0.02)(np.zeros((side, side), dtype))
    for source, target in (("float32", "float16"), ("float32", "bfloat16"), ("bfloat16", "float32")):
        of = numparam.Tensor.from_numpy(np.zeros((side, side), getattr(numparam, source)))
        numparam.Tensor.from_numpy(np.zeros((side, side), getattr(numparam, target)))[...] = of
    wide = numparam.Tensor.from_numpy(np.zeros((side, side)))
    numparam.Tensor.from_numpy(np.zeros((side, side), numparam.bfloat16))[...] = wide
    turned = numparam.Tensor.from_numpy(np.zeros((side, side), np.float32).T)
    numparam.Tensor.from_numpy(np.zeros((side, side), np.float32))[...] = turned
    return code


def compiled_for(processor: str, only: str = "") -> dict[str, str]:
    """Return the machine code of every loop for a processor."""
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": PROCESSORS[processor]}
    done = subprocess.run(
        [sys.executable, __file__, "--emit", "--only", only],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    code: dict[str, str] = json.loads(done.stdout)
    return code


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processor", default="skylake-avx512", choices=PROCESSORS)
    parser.add_argument("--only", default="", metavar="TEXT", help="loops whose names contain the text")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--emit", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.emit:
        json.dump(emit(options.only), sys.stdout)
        return
    print(f"Inner loops for {options.processor}:\n")
    print("| loop | instructions | 512 bits | 256 bits | 128 bits | streams | on the stack | cycles |")
    print("|---|---|---|---|---|---|---|---|")
    for name, assembly in compiled_for(options.processor, options.only).items():
        loop = hottest(inner_loops(assembly))
        predicted = cycles(loop, options.processor)
        cells = [*counts(loop).values(), streams(loop), spills(loop), "–" if predicted is None else f"{predicted:.0f}"]
        print("|", " | ".join([name, *map(str, cells)]), "|")
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{name.replace(' ', '-')}.s").write_text("\n".join(loop) + "\n", encoding="utf-8")
            (options.keep / f"{name.replace(' ', '-')}.full.s").write_text(assembly, encoding="utf-8")


if __name__ == "__main__":
    main()
