"""What a CUDA thread can do: the primitives of `_lanes` that are lowered otherwise there, threads, loads and stores.

A thread computes with ``Lanes(element, 1)``, bare scalars, so it runs the formulas of the CPU as they are. NVVM fuses a
multiplication and an addition into one fma unless told not to, so every rounded operation is called by the libdevice
name that fixes its rounding. Addresses are 64-bit integers: a kernel takes numbers only.

Nothing here imports ``numba.cuda``; Numba hands these definitions to it when a kernel is compiled.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numparam.kernels import _lanes
from numparam.kernels._lanes import Lanes

if TYPE_CHECKING:
    from numparam.kernels._lanes import U64, Mask

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    signature = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


def _rounded(float_name: str, double_name: str) -> Any:
    """Emit the libdevice function that rounds to nearest and is never fused."""

    def emit(builder: Any, lanes: Lanes, *args: Any) -> Any:
        name = double_name if lanes.element == "f64" else float_name
        return _call(builder, f"__nv_{name}_rn", lanes.llvm, *args)

    return emit


def _only_floats(key: Any, emit_float: Any) -> Any:
    """Use `emit_float` for floats and the common lowering for integers."""
    common = _lanes.lowering("cpu", key)

    def emit(builder: Any, lanes: Lanes, *args: Any) -> Any:
        return (emit_float if lanes.element[0] == "f" else common)(builder, lanes, *args)

    return emit


for _key, _names in {
    operator.add: ("fadd", "dadd"),
    operator.sub: ("fsub", "dsub"),
    operator.mul: ("fmul", "dmul"),
    operator.truediv: ("fdiv", "ddiv"),
}.items():
    _lanes.lower_for("cuda", _key)(_only_floats(_key, _rounded(*_names)))
# The LLVM of NVVM for cards before Blackwell is too old for fneg.
_lanes.lower_for("cuda", operator.neg)(lambda builder, lanes, x: builder.fsub(ir.Constant(lanes.llvm, -0.0), x))
_lanes.lower_for("cuda", _lanes.fma)(_rounded("fmaf", "fma"))
_lanes.lower_for("cuda", _lanes.sqrt)(_rounded("fsqrt", "dsqrt"))


# --------------------------------------------------------------------------- numbers and conditions


@intrinsic  # type: ignore[untyped-decorator]
def lane(typing_context: Any, value: Any) -> Any:  # noqa: ARG001
    """Return a number of Numba as one lane of the same type."""
    elements = {types.uint64: "u64", types.uint32: "u32", types.float32: "f32", types.float64: "f64"}
    if isinstance(value, Lanes):
        return value(value), lambda context, builder, signature, args: args[0]  # noqa: ARG005
    return Lanes(elements[value], 1)(value), lambda context, builder, signature, args: args[0]  # noqa: ARG005


@intrinsic  # type: ignore[untyped-decorator]
def holds(typing_context: Any, mask: Mask) -> Any:  # noqa: ARG001
    """Return a mask of one lane as a condition for ``if`` and ``while``."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return context.cast(builder, args[0], types.boolean, types.boolean)

    return types.boolean(mask), emit


# --------------------------------------------------------------------------- threads


def _register(builder: Any, name: str, axis: int) -> Any:
    value = _call(builder, f"llvm.nvvm.read.ptx.sreg.{name}.{'xy'[axis]}", _I32)
    return builder.zext(value, _I64)


def _index(doc: str, emit_index: Any) -> Any:
    def operation(typing_context: Any, axis: Any) -> Any:  # noqa: ARG001
        if not isinstance(axis, types.IntegerLiteral):
            return None
        number = axis.literal_value

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            return emit_index(builder, number)

        return Lanes("u64", 1)(axis), emit

    operation.__doc__ = doc
    return intrinsic(prefer_literal=True)(operation)


def _emit_thread(builder: Any, axis: int) -> Any:
    first = builder.mul(_register(builder, "ctaid", axis), _register(builder, "ntid", axis))
    return builder.add(first, _register(builder, "tid", axis))


def _emit_threads(builder: Any, axis: int) -> Any:
    return builder.mul(_register(builder, "nctaid", axis), _register(builder, "ntid", axis))


thread: Any = _index("Return the number of this thread along an axis of the grid.", _emit_thread)
threads: Any = _index("Return how many threads there are along an axis of the grid.", _emit_threads)


# --------------------------------------------------------------------------- memory


def _global_pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, ir.PointerType(kind, addrspace=1))


def _load(element: str) -> Any:
    lanes = Lanes(element, 1)

    def operation(typing_context: Any, address: U64) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            return builder.load(_global_pointer(builder, args[0], lanes.llvm), align=8)

        return lanes(address), emit

    operation.__doc__ = f"Return the {element} at an address that is a multiple of 8."
    return intrinsic(operation)


load_u64, load_u32, load_f32, load_f64 = (_load(element) for element in ("u64", "u32", "f32", "f64"))


@intrinsic  # type: ignore[untyped-decorator]
def load_item(typing_context: Any, address: Any, item: Any) -> Any:  # noqa: ARG001
    """Return one item from an address that is a multiple of its size; short ones as the low bits of a word."""
    element = f"f{item.bitwidth}" if isinstance(item, types.Float) else f"u{max(item.bitwidth, 32)}"
    lanes, width = Lanes(element, 1), item.bitwidth

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        kind = lanes.llvm if width >= 32 else ir.IntType(width)
        value = builder.load(_global_pointer(builder, args[0], kind), align=width // 8)
        return value if width >= 32 else builder.zext(value, lanes.llvm)

    return lanes(address, item), emit


@intrinsic  # type: ignore[untyped-decorator]
def load_line(typing_context: Any, address: U64) -> Any:  # noqa: ARG001
    """Return the two words of 64 bits at an address that is a multiple of 16."""
    pair = types.UniTuple(Lanes("u64", 1), 2)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = builder.load(_global_pointer(builder, args[0], ir.VectorType(_I64, 2)), align=16)
        words = [builder.extract_element(vector, ir.Constant(_I32, place)) for place in range(2)]
        return context.make_tuple(builder, signature.return_type, words)

    return pair(address), emit


@intrinsic  # type: ignore[untyped-decorator]
def store_item(typing_context: Any, address: Any, value: Any, item: Any) -> Any:  # noqa: ARG001
    """Store one item; bits are cut down to the item size."""
    width = item.bitwidth

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        stored = args[1]
        if isinstance(stored.type, ir.IntType) and stored.type.width > width:
            stored = builder.trunc(stored, ir.IntType(width))
        builder.store(stored, _global_pointer(builder, args[0], stored.type), align=width // 8)
        return context.get_dummy_value()

    return types.void(address, value, item), emit


@intrinsic  # type: ignore[untyped-decorator]
def store_line(typing_context: Any, address: Any, values: Any, item: Any) -> Any:  # noqa: ARG001
    """Store items side by side in 16-byte pieces, from an address that is a multiple of 16."""
    width = item.bitwidth

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        items = [builder.extract_value(args[1], at) for at in range(len(values))]
        if width < 32:  # as words: narrow vectors would be packed one move at a time
            items = [_packed(builder, items[at : at + 32 // width], width) for at in range(0, len(items), 32 // width)]
        per_piece = 128 // max(width, 32)
        for at in range(0, len(items), per_piece):
            vector = ir.Constant(ir.VectorType(items[0].type, per_piece), ir.Undefined)
            for place, value in enumerate(items[at : at + per_piece]):
                vector = builder.insert_element(vector, value, ir.Constant(_I32, place))
            start = builder.add(args[0], ir.Constant(_I64, 16 * (at // per_piece)))
            builder.store(vector, _global_pointer(builder, start, vector.type), align=16)
        return context.get_dummy_value()

    return types.void(address, values, item), emit


def _packed(builder: Any, items: list[Any], width: int) -> Any:
    """Return one word of 32 bits from the low bits of several, the first one lowest."""
    word = items[0]
    for place, value in enumerate(items[1:], 1):
        word = builder.or_(word, builder.shl(value, ir.Constant(_I32, place * width)))
    return word
