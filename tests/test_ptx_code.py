"""What the code of every CUDA kernel holds, and what the proof by interpretation would not let pass."""

from __future__ import annotations

import ast
import importlib
import itertools
import operator
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numparam.kernels
from interpreted_device import needs_compiler
from numparam.kernels import fill
from numparam.kernels.fill import draws
from numparam.kernels.machine import lanes as _lanes
from numparam.kernels.machine.compile import CudaKernel, link
from ptx_arithmetic import fma
from ptx_interpreter import Launch, Memory, Module, PtxError
from test_ptx_conversion import TRANSPOSED
from test_ptx_fill import CASES
from test_ptx_update import CASES as UPDATES

pytestmark = needs_compiler

ARCHITECTURES = ("80", "90", "100", "120")
DISASSEMBLED_NAMES = "|".join((
    "fill_(run|table)_(normal|bits)_", "constant", "copy", "transpose", "gather_4", "convert_float32_to_bfloat16",
    "convert_int8_to_float32",
))  # fmt: skip
DISASSEMBLED = ("90", "120")  # to disassemble takes longer than to link
# 72 registers let three blocks of 256 threads share a multiprocessor.
MOST_REGISTERS = 72
# Eight elements of 16 bits with master weights and moments take 75, and three blocks still share 65,536.
MOST_REGISTERS_UPDATE = 80
# Double precision and sixteen elements at once hold more, and run on a unit that is slower than any latency.
MOST_REGISTERS_WIDE = 96
# What ptxas calls in the place of one instruction, for operands that are rare here: all are correctly rounded.
SLOW_PATHS = r"__cuda_sm\w+_(sqrt_rn|div_rn|dsqrt_rn|dblrcp_rn)\w*|\.L_\w+|\$\w+"


def kernels_of(maker: str) -> Iterator[CudaKernel]:
    """Yield all kernels of the function that makes them."""
    file, name = maker.rsplit(".", 1)
    make = getattr(importlib.import_module(f"numparam.kernels.{file}"), name)
    if file == "fill.constant":
        yield make()
    elif file == "copy.cuda_convert":
        from numparam.kernels.copy import cuda_convert

        if name == "make_transposed":  # alike too, each two proven parts: tiles and formulas
            yield from itertools.starmap(make, TRANSPOSED)
        else:
            yield from itertools.starmap(make, cuda_convert.pairs())
    elif file == "fill.cuda":
        yield from itertools.starmap(make, CASES)
    elif file == "perturb.cuda":
        yield from itertools.starmap(make, MOVED if name == "make_low_rank" else [("normal", *each) for each in MOVED])
    elif file == "update.cuda":
        drawn = [case[:3] for case in UPDATES if case[3] == "stochastic"]
        given = {"make_update": [case for case in UPDATES if case[3] != "stochastic"], "make_stochastic": drawn,
                 "make_row_sums": SUMMED}  # fmt: skip
        yield from itertools.starmap(make, given.get(name, ROWWISE))
    elif file == "digest.cuda":
        yield from map(make, (1, 2, 4))
    else:
        yield from map(make, (1, 2, 4, 8) if file == "copy.cuda_tiles" else (1, 2, 4, 8, 16))


MOVING = ("copy.cuda_convert.make_conversion", "copy.cuda_rows.make_copy", "rows.cuda.make_gather",
          "rows.cuda.make_scatter")  # fmt: skip
"""The functions whose kernels load and store lines of 16 bytes."""

PROVEN = [
    "copy.cuda_convert.make_conversion", "copy.cuda_convert.make_transposed", "copy.cuda_rows.make_copy",
    "copy.cuda_tiles.make_transpose", "fill.constant.make_constant", "fill.constant.make_table",
    "fill.cuda.make_gather", "fill.cuda.make_run", "fill.cuda.make_table", "rows.cuda.make_gather",
    "rows.cuda.make_scatter",
]  # fmt: skip
"""The functions whose kernels are compared with the CPU, in test_ptx_fill.py, test_ptx_copy.py and
test_ptx_conversion.py, and whose code is looked at below."""

COMPARED = {
    "digest.cuda.make_kernel": 8, "perturb.cuda.make_gather": 2, "perturb.cuda.make_low_rank": 2,
    "perturb.cuda.make_run": 2, "update.cuda.make_row_sums": 8, "update.cuda.make_rowwise": 8,
    "update.cuda.make_stochastic": 3, "update.cuda.make_update": 3,
}  # fmt: skip
"""The functions whose kernels are compared with the CPU in test_ptx_digest.py, test_ptx_perturb.py and
test_ptx_update.py, and the least number of loads that are on their way at once."""

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
SUMMED = [((FLOAT32,),), ((FLOAT64,),), ((FLOAT32,) * 3,)]
MOVED = [(FLOAT32, FLOAT32, mode) for mode in ("plain", "pair", "lattice", "check")] + [(FLOAT64, FLOAT64, "plain")]
ROWWISE = [(FLOAT32, FLOAT32), (FLOAT64, FLOAT64)]

MAKERS = ("CudaKernel", "_make_kernel", "make_rows", "make_tiles")


def test_every_kernel_is_proven() -> None:
    makers, folder = set(), Path(str(numparam.kernels.__file__)).parent
    for path in folder.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(
                isinstance(call, ast.Call) and ast.unparse(call.func) in MAKERS for call in ast.walk(function)
            ):
                makers.add(f"{'.'.join(path.relative_to(folder).with_suffix('').parts)}.{function.name}")
    general = {"copy.cuda_rows.make_rows", "rows.cuda._make_kernel", "copy.cuda_tiles.make_tiles"}
    assert sorted(makers - general) == sorted([*PROVEN, *COMPARED])


def test_every_distribution_and_dtype_is_proven() -> None:
    from numparam.kernels.fill import cuda as fill_cuda

    assert set(fill_cuda.PARAMETERS) == set(draws.DRAWS) == {draw for draw, _ in CASES}
    assert set(draws.STORAGE) == {dtype for _, dtype in CASES}


def instructions(cubin: bytes, directory: Path) -> str:
    (directory / "kernel.cubin").write_bytes(cubin)
    # The analysis of data flow, which labels jumps through the branch stack, takes a quarter of the time.
    return subprocess.run(
        [disassembler(), "-c", "-ndf", directory / "kernel.cubin"], capture_output=True, text=True, check=True
    ).stdout


def disassembler() -> str:
    import nvidia

    found = [str(path) for root in nvidia.__path__ for path in Path(root).rglob("nvdisasm")]
    return found[0] if found else shutil.which("nvdisasm") or pytest.skip("nvidia-cuda-nvdisasm is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("maker", PROVEN)
def test_code(maker: str, tmp_path: Path) -> None:
    for number, kernel in enumerate(kernels_of(maker)):
        module = Module(kernel.ptx)  # which refuses whatever is not correctly rounded, calls or local memory
        names = {step.operation for step in module.code}
        wide = "float64" in kernel.name or "float8" in kernel.name
        moves = maker in MOVING and kernel.name != "convert_complex128_to_bool"
        lines = moves or maker.endswith(("make_run", "make_table", "make_constant"))
        for access in ["st"] * lines + ["ld"] * moves:
            assert any(re.fullmatch(rf"{access}\.global\.v[24]\.\w+", name) for name in names), kernel.name
        # The kernels of a function are alike: each is linked for every other architecture, and for one where a function
        # makes many, unless it is disassembled.
        many = maker in ("copy.cuda_convert.make_conversion", "fill.cuda.make_table")
        share = 1 if re.match(DISASSEMBLED_NAMES, kernel.name) else len(ARCHITECTURES) if many else 2
        for architecture in ARCHITECTURES[number % share :: share]:
            cubin, log = link(kernel.ptx, architecture)
            where = f"{kernel.name} on sm_{architecture}"
            registers = int(re.findall(r"Used (\d+) registers", log)[0])
            assert registers <= (MOST_REGISTERS_WIDE if wide else MOST_REGISTERS), where
            assert re.search(r"0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", log), where
            # How a kernel stores does not depend on what it draws.
            if architecture not in DISASSEMBLED or not re.match(DISASSEMBLED_NAMES, kernel.name):
                continue
            code = instructions(cubin, tmp_path)
            assert not lines or "STG.E.128" in code, where
            assert not moves or "LDG.E.128" in code, where
            for target in re.findall(r"\bCALL\.\S+ .*?`\(([\w$.]+)\)", code):
                assert re.fullmatch(SLOW_PATHS, target), (where, target)


@pytest.mark.parametrize("maker", COMPARED)
def test_code_of_digests_and_updates(maker: str, tmp_path: Path) -> None:
    for number, kernel in enumerate(kernels_of(maker)):
        Module(kernel.ptx)
        architecture = ARCHITECTURES[(number + 1) % len(ARCHITECTURES)]  # the kernels of a function are alike
        cubin, log = link(kernel.ptx, architecture)
        where = f"{kernel.name} on sm_{architecture}"
        registers = int(re.findall(r"Used (\d+) registers", log)[0])
        assert registers <= (MOST_REGISTERS_UPDATE if maker == "update.cuda.make_update" else MOST_REGISTERS_WIDE), (
            where
        )
        assert re.search(r"0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", log), where
        if architecture in DISASSEMBLED and number < len(ARCHITECTURES):
            code = instructions(cubin, tmp_path)
            accesses = re.findall(r" (LD|ST)G\S* ", code)
            runs = [len(list(group)) for access, group in itertools.groupby(accesses) if access == "LD"]
            assert max(runs) >= COMPARED[maker], where
            for target in re.findall(r"\bCALL\.\S+ .*?`\(([\w$.]+)\)", code):
                assert re.fullmatch(SLOW_PATHS, target), (where, target)


@pytest.mark.parametrize(
    "maker, name, most",
    [("copy.cuda_rows.make_copy", "copy_4", 4), ("copy.cuda_tiles.make_transpose", "transpose_2", 16)],
)
def test_several_loads_are_on_their_way_before_the_first_store(
    maker: str, name: str, most: int, tmp_path: Path
) -> None:
    kernel = next(kernel for kernel in kernels_of(maker) if kernel.name == name)
    accesses = re.findall(r" (LD|ST)[GS]\S* ", instructions(link(kernel.ptx, "90")[0], tmp_path))
    assert max(len(list(group)) for access, group in itertools.groupby(accesses) if access == "LD") == most


def test_a_product_of_philox_takes_one_instruction() -> None:
    (ptx,) = (kernel.ptx for kernel in kernels_of("fill.cuda.make_run") if "_bits_" in kernel.name)
    assert len(re.findall(r"mul\.wide\.u32", ptx)) >= 20
    assert len(re.findall(r"mul\.lo\.s64", ptx)) < 20


def test_lines_can_be_stored_past_the_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from numparam.kernels.fill import cuda as fill_cuda
    from numparam.kernels.machine import cuda as _cuda

    monkeypatch.setattr(_cuda, "STREAMED", True)
    monkeypatch.setattr(fill_cuda, "_make_row", fill_cuda._make_row.__wrapped__)  # not compiled yet
    for dtype, access in [(np.float64, "v2.b64"), (np.float32, "v4.b32")]:
        ptx = fill_cuda.make_run.__wrapped__("normal", np.dtype(dtype))._compile()
        assert f"st.global.cs.{access}" in ptx
        assert "STG.E.EF.128" in instructions(link(ptx, "90")[0], tmp_path)
    expected, out = np.empty(512, np.float32), np.zeros(512, np.float32)
    fill.normal(expected, fill.Key(1, 2, 3), 0.0, 1.0)
    arguments = (out.ctypes.data, 1, 512, 1, *[1] * 5, *[0] * 5, 0, 1, 2, 3, 1.0, 0.0)
    Module(ptx).run(Launch((1, 1), (128, 1)), arguments, Memory(out))
    np.testing.assert_array_equal(out, expected)


# --------------------------------------------------------------------------- what would not pass


@pytest.mark.parametrize(
    "right, wrong",
    [
        ("mul.rn.f32", "mul.f32"),  # may be fused with an addition
        ("add.rn.f32", "add.f32"),
        ("sqrt.rn.f32", "sqrt.approx.f32"),
        ("fma.rn.f32", "fma.rn.ftz.f32"),
        ("cvt.rn.f32.s32", "cvt.rz.f32.s32"),
        ("st.global.f32", "st.local.f32"),
        ("xor.b64", "vote.sync.b64"),
        ("div.u32", "div.u64"),  # which is a call
        ("ret;", "call foo;"),
    ],
)
def test_other_instructions_are_refused(right: str, wrong: str) -> None:
    ptx = next(kernel.ptx for kernel in kernels_of("fill.cuda.make_run") if "_normal_float32" in kernel.name)
    Module(ptx)
    assert right in ptx
    with pytest.raises(PtxError, match="not allowed"):
        Module(ptx.replace(right, wrong, 1))


@pytest.mark.parametrize(
    "right, wrong", [("xor.b32", "and.b32"), ("sub.rn.f32", "add.rn.f32"), ("0fC0000000", "0fC0000001")]
)
def test_a_changed_kernel_has_other_bits(right: str, wrong: str) -> None:
    ptx = next(kernel.ptx for kernel in kernels_of("fill.cuda.make_run") if "_normal_float32" in kernel.name)
    expected = np.empty(4096, np.float32)
    fill.normal(expected, fill.Key(1, 2, 3), 0.0, 1.0)

    def differing(code: str) -> int:
        out = np.zeros(4096, np.float32)
        arguments = (out.ctypes.data, 1, 4096, 1, *[1] * 5, *[0] * 5, 0, 1, 2, 3, 1.0, 0.0)
        Module(code).run(Launch((4, 1), (128, 1)), arguments, Memory(out))
        return int(np.count_nonzero(out.view(np.uint32) != expected.view(np.uint32)))

    assert differing(ptx) == 0
    assert right in ptx
    assert differing(ptx.replace(right, wrong)) > 0


def test_without_its_own_lowerings_a_product_and_a_sum_are_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba import types

    from numparam.kernels.machine.cuda import lane, load_item, store_item, thread

    item = np.float32(0)

    def multiply_and_add(source: Any, target: Any) -> None:
        at = _lanes.widened(thread(0)) * 4
        x, y, z = (
            load_item(source + at, item),
            load_item(source + (at + 4096), item),
            load_item(source + (at + 8192), item),
        )
        store_item(lane(target) + at, x * y + z, item)

    values = np.random.default_rng(7).standard_normal((3, 1024), np.float32)
    x, y, z = values

    def differing() -> int:
        out = np.zeros(1024, np.float32)
        kernel = CudaKernel("multiply_and_add", multiply_and_add, (types.uint64, types.uint64))
        arguments = (values.ctypes.data, out.ctypes.data)
        Module(kernel._compile()).run(Launch((8, 1), (128, 1)), arguments, Memory(values, out))
        return int(np.count_nonzero(out != x * y + z))

    assert differing() == 0
    for operation in (operator.add, operator.mul):
        monkeypatch.delitem(_lanes._LOWERINGS, ("cuda", operation))
    assert differing() > 100


# --------------------------------------------------------------------------- the interpreter


def test_the_interpreter_rounds_fma_once() -> None:
    random = np.random.default_rng(7)
    words = random.integers(0, 2**32, (3, 200_000), np.uint32)
    words[:, ::2] = words[:, ::2] & 0x8FFFFFFF | 0x38000000  # of like size, so that sums cancel
    words[2, ::4] = (-(words[0, ::4].view(np.float32) * words[1, ::4].view(np.float32))).view(np.uint32)
    a, b, c = (row.view(np.float32) for row in words)
    with np.errstate(all="ignore"):
        found, product, total = fma(a, b, c), a.astype(np.longdouble) * b, a.astype(np.longdouble) * b + c
        exact = np.isfinite(found) & (total - product == c) & (product == total - c)  # no bit lost in 64
    assert np.count_nonzero(exact) > 10_000
    np.testing.assert_array_equal(found[exact], total[exact].astype(np.float32))


def test_the_interpreter_rounds_fma_once_in_float64() -> None:
    assert fma(np.array([1 + 2.0**-52]), np.array([1 - 2.0**-52]), np.array([-1.0])) == -(2.0**-104)


def run(body: str, *arguments: Any) -> np.ndarray[Any, Any]:
    """Return what a kernel of one thread stores."""
    out = np.zeros(1, np.uint64)
    text = (
        ".visible .entry test(.param .u64 p0, .param .u64 p1)\n{\n.reg .pred %p<9>;\n.reg .b32 %r<9>;\n"
        f".reg .b64 %rd<9>;\nld.param.u64 %rd1, [p0];\nld.param.u64 %rd2, [p1];\n{body}\nret;\n}}\n"
    )
    Module(text).run(Launch((1, 1), (1, 1)), (out.ctypes.data, *arguments), Memory(out))
    return out


@pytest.mark.parametrize(
    "body, argument, expected",
    [
        ("shl.b64 %rd3, %rd2, 64;", 5, 0),  # shifts clamp
        ("shr.u64 %rd3, %rd2, 70;", 5, 0),
        ("cvt.u32.u64 %r1, %rd2; shr.s32 %r2, %r1, 40; cvt.s64.s32 %rd3, %r2;", 2**31, 2**64 - 1),
        ("cvt.u32.u64 %r1, %rd2; mul.wide.u32 %rd3, %r1, %r1;", 2**32 - 1, (2**32 - 1) ** 2),
        ("neg.s64 %rd3, %rd2;", 1, 2**64 - 1),
        ("cvt.u32.u64 %r1, %rd2; div.u32 %r2, %r1, 3; cvt.u64.u32 %rd3, %r2;", 2**32 - 1, (2**32 - 1) // 3),
        ("setp.gt.u64 %p1, %rd2, 9; selp.b64 %rd3, 1, 2, %p1;", 10, 1),
        ("mov.u64 %rd3, 7; setp.lt.u64 %p1, %rd2, 9; @!%p1 bra L; mov.u64 %rd3, 8;\nL:", 10, 7),
    ],
)
def test_the_interpreter_follows_the_manual(body: str, argument: int, expected: int) -> None:
    lines = re.sub(r"; *", ";\n", body)
    assert run(f"{lines}\nst.global.u64 [%rd1], %rd3;", argument) == np.uint64(expected)


def test_the_interpreter_sees_a_barrier_that_a_thread_does_not_meet() -> None:
    lines = "mov.u32 %r1, %tid.x;\nsetp.lt.u32 %p1, %r1, 3;\n@%p1 bra L;\nbar.sync 0;\nL:\nret;"
    text = f".visible .entry test()\n{{\n.reg .pred %p<9>;\n.reg .b32 %r<9>;\n{lines}\n}}\n"
    with pytest.raises(PtxError, match="not met by all threads"):
        Module(text).run(Launch((1, 1), (4, 1)), (), Memory())


def test_the_interpreter_sees_threads_that_write_one_place() -> None:
    out = np.zeros(2, np.uint64)
    text = (
        ".visible .entry test(.param .u64 p0, .param .u64 p1)\n{\n.reg .b32 %r<9>;\n.reg .b64 %rd<9>;\n"
        "ld.param.u64 %rd1, [p0];\nld.param.u64 %rd2, [p1];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd3, %r1, 8;\n"
        "and.b64 %rd4, %rd3, %rd2;\nadd.s64 %rd5, %rd1, %rd4;\nst.global.u64 [%rd5], %rd2;\nret;\n}\n"
    )
    Module(text).run(Launch((1, 1), (2, 1)), (out.ctypes.data, 8), Memory(out))
    assert out.tolist() == [8, 8]
    with pytest.raises(PtxError, match="written twice"):
        Module(text).run(Launch((1, 1), (2, 1)), (out.ctypes.data, 0), Memory(out))


@pytest.mark.parametrize(
    "body, message",
    [
        ("st.global.u64 [%rd1+8], %rd2;", "outside every array"),
        ("st.global.u64 [%rd1+4], %rd2;", "not aligned"),
        ("st.global.u64 [%rd1], %rd2;\nst.global.u64 [%rd1], %rd2;", "written twice"),
        ("st.global.u32 [%rd1+4], %rd2;\nst.global.u8 [%rd1+6], %rd2;", "written twice"),
        ("st.global.u8 [%rd1+6], %rd2;\nst.global.u32 [%rd1+4], %rd2;", "written twice"),
        ("st.global.v2.u32 [%rd1], {%rd2, %rd2};\nst.global.u16 [%rd1+2], %rd2;", "written twice"),
        ("st.global.u64 [%rd1], %rd7;", "read before it is written"),
    ],
)
def test_the_interpreter_sees_wrong_stores(body: str, message: str) -> None:
    with pytest.raises(PtxError, match=message):
        run(body, 1)
