"""Strict scalar and vector types: what every formula is written in.

A formula is compiled with values of type ``Lanes(element, width)``. On a CPU ``width`` lanes fill vector registers,
so a formula is vectorised by construction instead of by the optimiser's luck (a plain loop over Philox stays scalar,
and runs six times slower). With ``width == 1`` the same formula is scalar code, which is what a GPU thread needs.

Unlike Numba's own scalars these types never promote: ``u32 + u32`` is ``u32``. A Python number next to lanes takes
their element type. Only operations whose result IEEE 754 or integer arithmetic fixes to the last bit exist here, so a
formula has the same bits on every machine: ``+ - * /``, ``fma``, ``sqrt``, comparisons, conversions and bit operations.

Operations of which AVX-512 has an instruction of its own are in `avx512`; `cuda` lowers what GPUs do differently.
"""

from __future__ import annotations

import itertools
import operator
from typing import TYPE_CHECKING, Any, TypeAlias

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.core.config import CPU_FEATURES
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, register_model

if TYPE_CHECKING:
    from collections.abc import Callable

# The types in a formula's annotations. To the type checker they are opaque.
U64: TypeAlias = Any
U32: TypeAlias = Any
F32: TypeAlias = Any
F64: TypeAlias = Any
Mask: TypeAlias = Any

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
ELEMENTS: dict[str, tuple[Any, Any]] = {  # name: (LLVM type, the Numba scalar that a bare number is first cast to)
    "u64": (I64, types.uint64),
    "u32": (I32, types.uint32),
    "i32": (I32, types.int32),
    "f32": (ir.FloatType(), types.float32),
    "f64": (ir.DoubleType(), types.float64),
    "mask": (I1, types.boolean),
}

_FEATURES = CPU_FEATURES if CPU_FEATURES is not None else get_host_cpu_features()
HAS_FLOAT16_INSTRUCTION = "+f16c" in _FEATURES
HAS_FULL_REGISTERS = "+avx" in _FEATURES  # of x86, for `WIDTH` lanes of 32 bits

# Philox keeps eight words in flight per lane of 64 bits. Sixteen lanes fill half of the 32 AVX-512 registers; eight
# lanes half of the 16 AVX2 registers, and more would spill.
WIDTH = 16 if "+avx512f" in _FEATURES else 8


class Lanes(types.Type):  # type: ignore[misc]
    """Numba type of ``width`` values of one element type, held in registers."""

    def __init__(self, element: str, width: int) -> None:
        self.element, self.width = element, width
        super().__init__(name=f"{element}x{width}")

    def of(self, element: str) -> Lanes:
        """Return the type with another element and the same width."""
        return Lanes(element, self.width)

    @property
    def llvm(self) -> Any:
        """LLVM type of a value: a bare scalar when there is one lane."""
        scalar = ELEMENTS[self.element][0]
        return scalar if self.width == 1 else ir.VectorType(scalar, self.width)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


def constant_indices(indices: list[int]) -> Any:
    """Return the mask of a shuffle."""
    return ir.Constant(ir.VectorType(I32, len(indices)), indices)


def side_by_side(builder: Any, parts: list[Any]) -> Any:
    """Emit one vector of equally long ones, a power of two of them."""
    while len(parts) > 1:
        both = constant_indices(list(range(2 * parts[0].type.count)))
        parts = [builder.shuffle_vector(a, b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def splat(builder: Any, value: Any, width: int) -> Any:
    """Emit a scalar in every lane."""
    if width == 1:
        return value
    undefined = ir.Constant(ir.VectorType(value.type, width), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, constant_indices([0] * width))


def _to_lanes(context: Any, builder: Any, lanes: Lanes, kind: Any, value: Any) -> Any:
    """Give a bare number the element type of the lanes next to it, in every lane."""
    if isinstance(kind, Lanes):
        return value
    return splat(builder, context.cast(builder, value, kind, ELEMENTS[lanes.element][1]), lanes.width)


def _call_llvm(builder: Any, name: str, lanes: Lanes, *args: Any) -> Any:
    suffix = lanes.element if lanes.width == 1 else f"v{lanes.width}{lanes.element}"
    signature = ir.FunctionType(args[0].type, [arg.type for arg in args])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.{suffix}")
    return builder.call(function, args)


def _type(key: Any, rule: Callable[..., Lanes | None]) -> None:
    """Register the rule from the types of the operands of operation `key` to the type of its result.

    Numba asks the rules of a target before the dozens that it has of each operator for all targets. To try those first
    is a quarter of the time that a CUDA kernel compiles.
    """

    def generic(_: Any, operands: Any, keywords: Any) -> Any:
        result = rule(*operands, **keywords)
        return result and signature(result, *operands)

    for target in ("cpu", "cuda"):
        attributes = {"key": key, "generic": generic, "metadata": {"target": target}}
        infer_global(key, types.Function(type(f"{key.__name__}_of_lanes", (AbstractTemplate,), attributes)))


_LOWERINGS: dict[tuple[str, Any], Any] = {}  # how an operation is emitted, by target and operation


def lower_for(target: str, key: Any) -> Any:
    """Register how `target` emits operation `key`, in place of the common way."""

    def register(emit: Any) -> Any:
        _LOWERINGS[target, key] = emit
        return emit

    return register


def lowering(target: str, key: Any) -> Any:
    """Return how `target` emits operation `key`."""
    return _LOWERINGS.get((target, key)) or _LOWERINGS["cpu", key]


def primitive(key: Any, arity: int, elements: str, result: str | None = None) -> Any:
    """Register code for operation `key`, whose operands share one of the `elements` and give `result` (or the same)."""

    def rule(*args: Any) -> Lanes | None:
        lanes = next((arg for arg in args if isinstance(arg, Lanes)), None)
        if lanes is None or lanes.element not in elements.split():
            return None
        fits = all(
            arg == lanes or (isinstance(arg, types.Number) and not isinstance(arg, types.Complex)) for arg in args
        )
        return (lanes.of(result) if result else lanes) if fits else None

    def register(emit: Any) -> Any:
        def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            lanes = next(arg for arg in signature.args if isinstance(arg, Lanes))
            values = [
                _to_lanes(context, builder, lanes, kind, value)
                for kind, value in zip(signature.args, args, strict=True)
            ]
            return lowering(context.target_name, key)(builder, lanes, *values)

        lower_for("cpu", key)(emit)
        _type(key, rule)
        for kinds in itertools.product((Lanes, types.Number), repeat=arity):
            if Lanes in kinds:
                lower_builtin(key, *kinds)(lower)
        return emit

    return register


def _by_kind(float_name: str | None, signed_name: str | None, unsigned_name: str | None) -> Any:
    """Emit the builder's method that suits the element."""
    names = {"f": float_name, "i": signed_name, "u": unsigned_name}

    def emit(builder: Any, lanes: Lanes, *values: Any) -> Any:
        return getattr(builder, str(names[lanes.element[0]]))(*values)

    return emit


def _comparison(symbol: str) -> Any:
    def emit(builder: Any, lanes: Lanes, a: Any, b: Any) -> Any:
        if lanes.element[0] == "f":
            return builder.fcmp_unordered(symbol, a, b) if symbol == "!=" else builder.fcmp_ordered(symbol, a, b)
        return (builder.icmp_signed if lanes.element[0] == "i" else builder.icmp_unsigned)(symbol, a, b)

    return emit


_INTEGERS, _FLOATS, _NUMBERS = "u64 u32 i32", "f32 f64", "u64 u32 i32 f32 f64"

primitive(operator.add, 2, _NUMBERS)(_by_kind("fadd", "add", "add"))
primitive(operator.sub, 2, _NUMBERS)(_by_kind("fsub", "sub", "sub"))
primitive(operator.mul, 2, _NUMBERS)(_by_kind("fmul", "mul", "mul"))
primitive(operator.truediv, 2, _FLOATS)(_by_kind("fdiv", None, None))
primitive(operator.floordiv, 2, "u64 u32")(_by_kind(None, None, "udiv"))
primitive(operator.mod, 2, "u64 u32")(_by_kind(None, None, "urem"))
primitive(operator.neg, 1, _FLOATS)(_by_kind("fneg", None, None))
primitive(operator.and_, 2, _INTEGERS + " mask")(lambda builder, lanes, a, b: builder.and_(a, b))  # noqa: ARG005
primitive(operator.or_, 2, _INTEGERS + " mask")(lambda builder, lanes, a, b: builder.or_(a, b))  # noqa: ARG005
primitive(operator.xor, 2, _INTEGERS)(lambda builder, lanes, a, b: builder.xor(a, b))  # noqa: ARG005
primitive(operator.invert, 1, _INTEGERS)(lambda builder, lanes, a: builder.not_(a))  # noqa: ARG005
primitive(operator.lshift, 2, _INTEGERS)(_by_kind(None, "shl", "shl"))
primitive(operator.rshift, 2, _INTEGERS)(_by_kind(None, "ashr", "lshr"))
for _operator, _symbol in (
    (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">="), (operator.eq, "=="),
    (operator.ne, "!="),
):  # fmt: skip
    primitive(_operator, 2, _NUMBERS, result="mask")(_comparison(_symbol))


def only_in_formulas(*_args: Any) -> Any:
    """Refuse to run an operation in Python."""
    raise NotImplementedError("this operation exists inside compiled formulas only")


def fma(a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` rounded once."""
    return only_in_formulas(a, b, c)


primitive(fma, 3, _FLOATS)(lambda builder, lanes, a, b, c: _call_llvm(builder, "fma", lanes, a, b, c))


def sqrt(x: Any) -> Any:
    """Return the correctly rounded square root."""
    return only_in_formulas(x)


primitive(sqrt, 1, _FLOATS)(lambda builder, lanes, x: _call_llvm(builder, "sqrt", lanes, x))


def low_half(x: U64) -> U64:
    """Keep the low 32 bits of each 64-bit lane. The widening multiplier ignores the high ones, so it costs nothing."""
    return only_in_formulas(x)


@primitive(low_half, 1, "u64")  # type: ignore[untyped-decorator]
def _emit_low_half(builder: Any, lanes: Lanes, x: Any) -> Any:
    return builder.and_(x, splat(builder, ir.Constant(I64, 0xFFFFFFFF), lanes.width))


def dot(a: U32, b: U32) -> U32:
    """Return the sum of the products of the signed halves of each lane: one instruction of x86."""
    return only_in_formulas(a, b)


@primitive(dot, 2, "u32")  # type: ignore[untyped-decorator]
def _emit_dot(builder: Any, lanes: Lanes, a: Any, b: Any) -> Any:
    halves, wide = (ir.VectorType(ir.IntType(bits), 2 * lanes.width) for bits in (16, 32))
    products = builder.mul(*(builder.sext(builder.bitcast(x, halves), wide) for x in (a, b)))
    even, odd = (
        builder.shuffle_vector(products, products, constant_indices(list(range(first, 2 * lanes.width, 2))))
        for first in (0, 1)
    )
    return builder.add(even, odd)


def carried(x: U32, y: U32, less: U32) -> U32:
    """Add to each half of `x` the top bit of the half of `y` minus `less`, or of 0 if `less` is more."""
    return only_in_formulas(x, y, less)


@primitive(carried, 3, "u32")  # type: ignore[untyped-decorator]
def _emit_carried(builder: Any, lanes: Lanes, *words: Any) -> Any:
    kind = ir.VectorType(I16, 2 * lanes.width)
    x, y, less = (builder.bitcast(word, kind) for word in words)
    left = _call_llvm(builder, "usub.sat", Lanes("i16", kind.count), y, less)
    carry = builder.lshr(left, splat(builder, ir.Constant(I16, 15), kind.count))
    return builder.bitcast(builder.add(x, carry), lanes.llvm)


def broadcast(value: Any, like: U64) -> U64:
    """Return the 64-bit scalar in every lane of the type of `like`."""
    return only_in_formulas(value, like)


primitive(broadcast, 2, "u64")(lambda builder, lanes, value, like: value)  # noqa: ARG005


def select(mask: Mask, a: Any, b: Any) -> Any:
    """Return `a` where the mask is set and `b` elsewhere."""
    return only_in_formulas(mask, a, b)


def _type_select(mask: Any, a: Any, b: Any) -> Lanes | None:
    if not isinstance(mask, Lanes) or mask.element != "mask":
        return None
    lanes = next((kind for kind in (a, b) if isinstance(kind, Lanes)), None)
    if lanes is None and a == b:
        lanes = next((mask.of(name) for name, (_, scalar) in ELEMENTS.items() if scalar == a), None)
    fits = lanes is not None and lanes.width == mask.width
    return lanes if fits and all(kind == lanes or isinstance(kind, types.Number) for kind in (a, b)) else None


def _lower_select(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    lanes = signature.return_type
    a, b = (
        _to_lanes(context, builder, lanes, kind, value)
        for kind, value in zip(signature.args[1:], args[1:], strict=True)
    )
    return builder.select(args[0], a, b)


_type(select, _type_select)
for _kinds in itertools.product((Lanes, types.Number), repeat=2):
    lower_builtin(select, Lanes, *_kinds)(_lower_select)


def _conversion(source: str, target: str, doc: str, emit: Callable[[Any, Lanes, Any, Any], Any]) -> Any:
    """Make an operation from `source` to `target`; `emit` gets builder, source lanes, target's LLVM type and value."""

    def operation(x: Any) -> Any:
        return only_in_formulas(x)

    operation.__doc__ = doc
    primitive(operation, 1, source, result=target)(
        lambda builder, lanes, x: emit(builder, lanes, lanes.of(target).llvm, x)
    )
    return operation


def _emit_to_float(builder: Any, lanes: Lanes, target: Any, x: Any) -> Any:
    return (builder.sitofp if lanes.element[0] == "i" else builder.uitofp)(x, target)


def _emit_word(half: int) -> Callable[[Any, Lanes, Any, Any], Any]:
    """Gather the low (0) or high (1) 32 bits of 64-bit lanes with one two-source shuffle per output register.

    The shuffle works inside 128-bit pieces, which costs one instruction on every x86 vector width, and leaves the
    lanes in another order. `POSITION` undoes that where the 64-bit lanes are made.
    """

    def emit(builder: Any, lanes: Lanes, target: Any, x: Any) -> Any:
        if lanes.width == 1:
            return builder.trunc(builder.lshr(x, ir.Constant(I64, 32)) if half else x, target)
        halves = builder.bitcast(x, ir.VectorType(I32, 2 * lanes.width))
        return builder.shuffle_vector(halves, halves, constant_indices([2 * at + half for at in shuffled(lanes.width)]))

    return emit


def shuffled(width: int) -> list[int]:
    """For each 32-bit lane of a word, the 64-bit lane it comes from."""
    return [
        2 * (lane // 4) + lane % 4 if lane % 4 < 2 else width // 2 + 2 * (lane // 4) + lane % 4 - 2
        for lane in range(width)
    ]


def _by(method: str) -> Callable[[Any, Lanes, Any, Any], Any]:
    """Emit the method of the builder that is called so."""
    return lambda builder, _lanes, target, x: getattr(builder, method)(x, target)


_CUT = "Return the bits of signed integers, rounded towards zero; they must fit."

low_word = _conversion("u64", "u32", "Return the low 32 bits of each lane.", _emit_word(0))
high_word = _conversion("u64", "u32", "Return the high 32 bits of each lane.", _emit_word(1))
signed = _conversion("u32", "i32", "Read the same bits as a signed integer.", lambda _b, _l, _t, x: x)
bits = _conversion("f32", "u32", "Return the IEEE 754 bits.", _by("bitcast"))
bits64 = _conversion("f64", "u64", "Return the IEEE 754 bits.", _by("bitcast"))
float_of_bits = _conversion("u32", "f32", "Return the float32 that has these bits.", _by("bitcast"))
float64_of_bits = _conversion("u64", "f64", "Return the float64 that has these bits.", _by("bitcast"))
to_float32 = _conversion("i32 u32 u64", "f32", "Convert integers, rounding to nearest even.", _emit_to_float)
to_float64 = _conversion("i32 u32 u64", "f64", "Convert integers, rounding to nearest even.", _emit_to_float)
sign_extended = _conversion("u32", "u64", "Return the bits of signed words as signed 64-bit integers.", _by("sext"))
signed_to_float32 = _conversion("u64", "f32", "Convert the bits of signed integers.", _by("sitofp"))
signed_to_float64 = _conversion("u64", "f64", "Convert the bits of signed integers.", _by("sitofp"))
truncated32 = _conversion("f32 f64", "u32", _CUT, _by("fptosi"))
truncated64 = _conversion("f32 f64", "u64", _CUT, _by("fptosi"))
rounded = _conversion("f64", "f32", "Round to nearest even.", _by("fptrunc"))
extended = _conversion("f32", "f64", "Return the same numbers as float64.", _by("fpext"))
widened = _conversion("u32", "u64", "Return the 32-bit words as 64-bit integers.", _by("zext"))


def float16_bits(x: F32) -> U32:
    """Return the bits of float32 values rounded to float16, where the machine has the instruction."""
    return only_in_formulas(x)


@primitive(float16_bits, 1, "f32", result="u32")  # type: ignore[untyped-decorator]
def _emit_float16_bits(builder: Any, lanes: Lanes, x: Any) -> Any:
    half, word, result = (
        scalar if lanes.width == 1 else ir.VectorType(scalar, lanes.width) for scalar in (ir.HalfType(), I16, I32)
    )
    return builder.zext(builder.bitcast(builder.fptrunc(x, half), word), result)


def joined(a: Any, b: Any) -> Any:
    """Return lanes twice as wide: first `a`, then `b`."""
    return only_in_formulas(a, b)


_type(joined, lambda a, b: Lanes(a.element, 2 * a.width) if a == b else None)


@lower_builtin(joined, Lanes, Lanes)  # type: ignore[untyped-decorator]
def _lower_joined(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
    width = signature.return_type.width
    if width == 2:
        args = [splat(builder, each, 2) for each in args]
        return builder.shuffle_vector(*args, constant_indices([0, 2]))
    return builder.shuffle_vector(*args, constant_indices(list(range(width))))


def _half(part: int, doc: str) -> Any:
    def operation(x: Any) -> Any:
        return only_in_formulas(x)

    operation.__doc__ = doc
    _type(operation, lambda x: Lanes(x.element, x.width // 2))

    @lower_builtin(operation, Lanes)  # type: ignore[untyped-decorator]
    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        width = signature.return_type.width
        if width == 1:
            return builder.extract_element(args[0], ir.Constant(I32, part))
        return builder.shuffle_vector(args[0], args[0], constant_indices(list(range(part * width, (part + 1) * width))))

    return operation


first_half = _half(0, "Return the lower half of the lanes.")
second_half = _half(1, "Return the upper half of the lanes.")
