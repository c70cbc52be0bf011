"""Operations for which AVX-512 has one instruction that LLVM does not find, and their common form elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba.core import cgutils

from numparam.kernels.machine.lanes import (
    F32,
    I16,
    I32,
    U32,
    WIDTH,
    Lanes,
    constant_indices,
    float16_bits,
    lower_for,
    lowering,
    only_in_formulas,
    primitive,
    side_by_side,
    splat,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_REGISTER = 16  # lanes of 32 bits


def _fill_registers(lanes: Lanes) -> bool:
    return WIDTH == _REGISTER and lanes.width % _REGISTER == 0


def _call(builder: Any, name: str, *args: Any, result: Any = None) -> Any:
    """Emit an instruction for each register that the lanes among its arguments fill; `result` is an item of its own."""
    parts = []
    for start in range(0, args[0].type.count, _REGISTER):
        own = constant_indices(list(range(start, start + _REGISTER)))
        values = [builder.shuffle_vector(a, a, own) if isinstance(a.type, ir.VectorType) else a for a in args]
        kind = values[0].type if result is None else ir.VectorType(result, _REGISTER)
        signature = ir.FunctionType(kind, [value.type for value in values])
        function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.x86.avx512.{name}.512")
        parts.append(builder.call(function, values))
    return side_by_side(builder, parts)


_ALL, _AS_SET = ir.Constant(I16, -1), ir.Constant(I32, 4)  # every lane; round to nearest, as everywhere
_common_float16_bits = lowering("cpu", float16_bits)


@lower_for("cpu", float16_bits)  # type: ignore[untyped-decorator]
def _emit_float16_bits(builder: Any, lanes: Lanes, x: Any) -> Any:
    """Convert to integers: where a processor has float16 registers, LLVM would not store those past the caches."""
    if not _fill_registers(lanes):
        return _common_float16_bits(builder, lanes, x)
    nothing = ir.Constant(ir.VectorType(I16, lanes.width), ir.Undefined)
    return builder.zext(_call(builder, "mask.vcvtps2ph", x, _AS_SET, nothing, _ALL, result=I16), lanes.of("u32").llvm)


def _of_three(doc: str, results: int, plain: Callable[..., Any]) -> Any:
    """Make an operation on the bits of three words from the table of its eight results."""

    def operation(a: U32, b: U32, c: U32) -> U32:
        return only_in_formulas(a, b, c)

    operation.__doc__ = doc
    primitive(operation, 3, "u32")(
        lambda builder, lanes, *words: (
            _call(builder, "pternlog.d", *words, ir.Constant(I32, results))
            if _fill_registers(lanes)
            else plain(builder, *words)
        )
    )
    return operation


xor3 = _of_three("Return ``a ^ b ^ c``.", 0b10010110, lambda builder, a, b, c: builder.xor(builder.xor(a, b), c))
chosen = _of_three(
    "Return the bits of `b` where those of `a` are set, and of `c` elsewhere.",
    0b11001010,
    lambda builder, a, b, c: builder.or_(builder.and_(a, b), builder.and_(builder.not_(a), c)),
)

_SQRT_HALF, _FRACTION, _ONE = 0x3F3504F3, 0x007FFFFF, 0x3F800000  # bits of float32


def _mirrored(builder: Any, lanes: Lanes, x: Any, offset: int = 0) -> tuple[Any, Any, Any]:
    """Return the bits of `x`, those whose exponent field counts down where that of `x` counts up, and 23 as lanes."""
    bits = builder.bitcast(x, lanes.of("u32").llvm)
    top, shift = (
        splat(builder, ir.Constant(I32, value), lanes.width) for value in (_SQRT_HALF + _FRACTION + offset, 23)
    )
    return bits, builder.sub(top, bits), shift


def power(x: F32) -> F32:
    """Return e with ``x * 2**e`` in [sqrt(1/2), sqrt(2)), of normal numbers up to 2**126."""
    return only_in_formulas(x)


@primitive(power, 1, "f32")  # type: ignore[untyped-decorator]
def _emit_power(builder: Any, lanes: Lanes, x: Any) -> Any:
    if _fill_registers(lanes):
        mirrored = builder.bitcast(_mirrored(builder, lanes, x, _ONE)[1], x.type)
        return _call(builder, "mask.getexp.ps", mirrored, mirrored, _ALL, _AS_SET)
    _, mirrored, shift = _mirrored(builder, lanes, x)
    return builder.sitofp(builder.ashr(mirrored, shift), x.type)


def scaled(x: F32) -> F32:
    """Return ``x * 2**power(x)``."""
    return only_in_formulas(x)


@primitive(scaled, 1, "f32")  # type: ignore[untyped-decorator]
def _emit_scaled(builder: Any, lanes: Lanes, x: Any) -> Any:
    if _fill_registers(lanes):
        return _call(builder, "mask.scalef.ps", x, _emit_power(builder, lanes, x), x, _ALL, _AS_SET)
    bits, mirrored, shift = _mirrored(builder, lanes, x)
    return builder.bitcast(builder.add(bits, builder.shl(builder.ashr(mirrored, shift), shift)), x.type)
