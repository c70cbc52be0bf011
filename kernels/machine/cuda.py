"""What a CUDA thread can do: the primitives of `lanes` that are lowered differently there, threads, loads and stores.

A thread computes with ``Lanes(element, 1)``, bare scalars, or with a few lanes that it loads as a line of 16 bytes and
that are then bare scalars too, so it runs the formulas of the CPU as they are. NVVM fuses a
multiplication and an addition into one fma by default, so every rounded operation is called by the libdevice
name that fixes its rounding. Addresses are 64-bit integers: a kernel takes numbers only.

Nothing here imports ``numba.cuda``; Numba hands these definitions to it when a kernel is compiled.
"""

from __future__ import annotations

import operator
from functools import cache
from typing import TYPE_CHECKING, Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils

from numparam.kernels.machine import lanes as _lanes
from numparam.kernels.machine.compile import emit_call, intrinsic, type_of_call
from numparam.kernels.machine.lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numparam.kernels.machine.lanes import Mask

_I32, _I64 = ir.IntType(32), ir.IntType(64)

LAUNCH_LIMIT = 1 << 31
"""Rows of a launch, and items of a row: threads count both in 32 bits, which hold a few steps of a grid more."""

STREAMED = False
"""Whether lines of 16 bytes are stored past the caches (``st.global.cs``). Not measured yet."""


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    signature = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


def _each(emit_one: Any) -> Any:
    """Emit an operation of one lane for each of several."""

    def emit(builder: Any, lanes: Lanes, *args: Any) -> Any:
        if lanes.width == 1:
            return emit_one(builder, lanes, *args)
        parts = [_items(builder, arg) for arg in args]
        return _vector(
            builder, [emit_one(builder, Lanes(lanes.element, 1), *lane) for lane in zip(*parts, strict=True)]
        )

    return emit


def _items(builder: Any, vector: Any) -> list[Any]:
    return [builder.extract_element(vector, ir.Constant(_I32, place)) for place in range(vector.type.count)]


def _vector(builder: Any, items: list[Any]) -> Any:
    vector = ir.Constant(ir.VectorType(items[0].type, len(items)), ir.Undefined)
    for place, value in enumerate(items):
        vector = builder.insert_element(vector, value, ir.Constant(_I32, place))
    return vector


def _rounded(float_name: str, double_name: str) -> Any:
    """Emit the libdevice function that rounds to nearest and is never fused."""

    @_each
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
_lanes.lower_for("cuda", operator.neg)(_each(lambda builder, lanes, x: builder.fsub(ir.Constant(lanes.llvm, -0.0), x)))
_lanes.lower_for("cuda", _lanes.float16_bits)(_each(_lanes.lowering("cpu", _lanes.float16_bits)))
_lanes.lower_for("cuda", _lanes.fma)(_rounded("fmaf", "fma"))
_lanes.lower_for("cuda", _lanes.sqrt)(_rounded("fsqrt", "dsqrt"))


@_lanes.lower_for("cuda", _lanes.low_half)  # type: ignore[untyped-decorator]
def _emit_low_half(builder: Any, lanes: Lanes, x: Any) -> Any:  # noqa: ARG001
    """Hide from LLVM that the upper half was dropped: only what was extended goes to the 32-bit multiplier.

    Each product of Philox would take two instructions instead of one.
    """
    copy = ir.InlineAsm(ir.FunctionType(_I32, [_I32]), "mov.b32 $0, $1;", "=r,r")
    return builder.zext(builder.call(copy, [builder.trunc(x, _I32)]), _I64)


_ELEMENT_OF = {types.uint64: "u64", types.uint32: "u32", types.float32: "f32", types.float64: "f64"}


def _lane_of(kind: Any) -> Any:
    if isinstance(kind, types.BaseTuple):
        return types.Tuple([_lane_of(each) for each in kind])
    return kind if isinstance(kind, Lanes) else Lanes(_ELEMENT_OF[kind], 1)


@intrinsic
def lane(typing_context: Any, value: Any) -> Any:  # noqa: ARG001
    """Return a number of Numba as one lane of the same type, or a tuple of them as lanes.

    Formulas that get lanes only are compiled once for all kernels.
    """
    return _lane_of(value)(value), lambda context, builder, signature, args: args[0]  # noqa: ARG005


@intrinsic
def holds(typing_context: Any, mask: Mask) -> Any:  # noqa: ARG001
    """Return a mask of one lane as a condition for ``if`` and ``while``."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return context.cast(builder, args[0], types.boolean, types.boolean)

    return types.boolean(mask), emit


def _register(builder: Any, name: str, axis: int) -> Any:
    return _call(builder, f"llvm.nvvm.read.ptx.sreg.{name}.{'xy'[axis]}", _I32)


def _index(doc: str, emit_index: Any) -> Any:
    def operation(typing_context: Any, axis: Any) -> Any:  # noqa: ARG001
        if not isinstance(axis, types.IntegerLiteral):
            return None
        number = axis.literal_value

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            return emit_index(builder, number)

        return Lanes("u32", 1)(axis), emit

    operation.__doc__ = doc
    return intrinsic(prefer_literal=True)(operation)


def _emit_register(name: str) -> Any:
    return lambda builder, axis: _register(builder, name, axis)


def _emit_thread(builder: Any, axis: int) -> Any:
    return builder.add(_emit_threads(builder, axis, "ctaid"), _register(builder, "tid", axis))


def _emit_threads(builder: Any, axis: int, blocks: str = "nctaid") -> Any:
    return builder.mul(_register(builder, blocks, axis), _register(builder, "ntid", axis))


thread: Any = _index("Return the number of this thread along an axis of the grid.", _emit_thread)
threads: Any = _index("Return how many threads there are along an axis of the grid.", _emit_threads)
block: Any = _index("Return the number of this block along an axis.", _emit_register("ctaid"))
blocks: Any = _index("Return how many blocks there are along an axis.", _emit_register("nctaid"))
place: Any = _index("Return the number of this thread in its block.", _emit_register("tid"))


@intrinsic
def wait_for_block(typing_context: Any) -> Any:  # noqa: ARG001
    """Wait until all threads of the block are here, and see what they wrote before."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        _call(builder, "llvm.nvvm.barrier0", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), emit


_GLOBAL, _SHARED = 1, 3


def _pointer(builder: Any, address: Any, kind: Any, space: int = _GLOBAL) -> Any:
    return builder.inttoptr(address, ir.PointerType(kind, addrspace=space))


def _lanes_of(item: Any) -> Lanes:
    return Lanes(f"f{item.bitwidth}" if isinstance(item, types.Float) else f"u{max(item.bitwidth, 32)}", 1)


def _kept(item: Any) -> Any:
    """Return the LLVM type of an item in memory."""
    return Lanes(f"f{item.bitwidth}", 1).llvm if isinstance(item, types.Float) else ir.IntType(item.bitwidth)


def _widened(builder: Any, value: Any, item: Any) -> Any:
    """Return an item as a thread holds it."""
    if isinstance(item, types.Float) or item.bitwidth >= 32:
        return value
    return (builder.sext if item.signed else builder.zext)(value, _I32)


def _shortened(builder: Any, value: Any, item: Any) -> Any:
    """Return the low bits that memory keeps."""
    narrower = isinstance(value.type, ir.IntType) and value.type.width > item.bitwidth
    return builder.trunc(value, ir.IntType(item.bitwidth)) if narrower else value


def _items_in(space: int) -> tuple[Any, Any]:
    """Make the operations that load and store one item, at an address that is a multiple of its size.

    Short ones are loaded as words, with their sign if any, and bits are truncated to the item size when they are
    stored.
    """

    @intrinsic
    def load(typing_context: Any, address: Any, item: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            pointer = _pointer(builder, args[0], _kept(item), space)
            return _widened(builder, builder.load(pointer, align=item.bitwidth // 8), item)

        return _lanes_of(item)(address, item), emit

    @intrinsic
    def store(typing_context: Any, address: Any, value: Any, item: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            stored = _shortened(builder, args[1], item)
            builder.store(stored, _pointer(builder, args[0], stored.type, space), align=item.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(address, value, item), emit

    return load, store


load_item, store_item = _items_in(_GLOBAL)
load_shared, store_shared = _items_in(_SHARED)


def numbers_loader(*items: Any) -> Any:
    """Make the operation that loads a number of each of these types from words of 64 bits side by side."""
    kinds = [numba.typeof(item) for item in items]

    @intrinsic
    def load(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            places = _apart(builder, args[0], ir.Constant(_I64, 8), len(kinds))
            loaded = [
                builder.load(_pointer(builder, at, _kept(kind)), align=kind.bitwidth // 8)
                for at, kind in zip(places, kinds, strict=True)
            ]
            return context.make_tuple(builder, signature.return_type, loaded)

        return types.Tuple([_lanes_of(kind) for kind in kinds])(address), emit

    return load


@cache
def line_loader(count: int) -> Any:
    """Make the operation that loads `count` items side by side in 16-byte pieces, from a multiple of 16."""

    @intrinsic
    def load(typing_context: Any, address: Any, item: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return context.make_tuple(builder, signature.return_type, _loaded(builder, args[0], item, count))

        return types.UniTuple(_lanes_of(item), count)(address, item), emit

    return load


@cache
def lanes_loader(count: int) -> Any:
    """Make the operation that loads `count` items as `line_loader` does, as so many lanes."""

    @intrinsic
    def load(typing_context: Any, address: Any, item: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            return _vector(builder, _loaded(builder, args[0], item, count))

        return Lanes(_lanes_of(item).element, count)(address, item), emit

    return load


def _loaded(builder: Any, address: Any, item: Any, count: int) -> list[Any]:
    """Return items side by side, loaded in 16-byte pieces."""
    width, items = item.bitwidth, []
    word, per_piece = _kept(item) if width >= 32 else _I32, 128 // max(width, 32)
    for at in range(count * width // 128):
        start = builder.add(address, ir.Constant(_I64, 16 * at))
        line = builder.load(_pointer(builder, start, ir.VectorType(word, per_piece)), align=16)
        for value in _items(builder, line):
            items += [value] if width >= 32 else _parts(builder, value, item)
    return items


def _parts(builder: Any, word: Any, item: Any) -> list[Any]:
    """Return the items of a word of 32 bits; narrow vectors would be unpacked one move at a time."""
    shift = builder.ashr if item.signed else builder.lshr
    ups = range(32 - item.bitwidth, -1, -item.bitwidth)
    down = ir.Constant(_I32, 32 - item.bitwidth)
    return [shift(builder.shl(word, ir.Constant(_I32, up)), down) for up in ups]


@intrinsic
def store_line(typing_context: Any, address: Any, values: Any, item: Any) -> Any:  # noqa: ARG001
    """Store items, a tuple or lanes, side by side in 16-byte pieces, from an address that is a multiple of 16."""
    width = item.bitwidth

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        items = _items(builder, args[1]) if isinstance(values, Lanes) else cgutils.unpack_tuple(builder, args[1])
        if width < 32:  # as words: narrow vectors would be packed one move at a time
            items = [_packed(builder, items[at : at + 32 // width], width) for at in range(0, len(items), 32 // width)]
        per_piece = 128 // max(width, 32)
        for at in range(0, len(items), per_piece):
            start = builder.add(args[0], ir.Constant(_I64, 16 * (at // per_piece)))
            _store_piece(builder, start, items[at : at + per_piece])
        return context.get_dummy_value()

    return types.void(address, values, item), emit


def _store_piece(builder: Any, address: Any, items: list[Any]) -> None:
    """Store 16 bytes; the only place that knows how."""
    if STREAMED:
        kind = "d" if len(items) == 2 else "f" if isinstance(items[0].type, ir.FloatType) else "r"
        kind = "l" if items[0].type == _I64 else kind
        slots = ", ".join(f"${place}" for place in range(1, len(items) + 1))
        builder.asm(
            ir.FunctionType(ir.VoidType(), [_I64, *(item.type for item in items)]),
            f"st.global.cs.v{len(items)}.b{128 // len(items)} [$0], {{{slots}}};",
            ",".join(["l", *[kind] * len(items), "~{memory}"]),
            [address, *items],
            side_effect=True,
        )
        return
    vector = _vector(builder, items)
    builder.store(vector, _pointer(builder, address, vector.type), align=16)


def _packed(builder: Any, items: list[Any], width: int) -> Any:
    """Return one word of 32 bits from the low bits of several, the first one lowest."""
    word = items[0]
    for place, value in enumerate(items[1:], 1):
        word = builder.or_(word, builder.shl(value, ir.Constant(_I32, place * width)))
    return word


@cache
def shared(nbytes: int) -> Any:
    """Make the operation that returns the address of `nbytes` bytes that the threads of a block share."""

    @intrinsic
    def reserve(typing_context: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            kind = ir.ArrayType(ir.IntType(8), nbytes)
            memory = cgutils.add_global_variable(builder.module, kind, f"shared_{nbytes}", addrspace=3)
            memory.linkage, memory.align = "internal", 16
            memory.initializer = ir.Constant(kind, ir.Undefined)
            return builder.ptrtoint(memory, _I64)

        return Lanes("u64", 1)(), emit

    return reserve


# Numba takes 20 ms to compile a formula: the following are operations, since formulas that call each other for half of
# the things were 12 of the 23 formulas of a conversion.


def several(load: Any, store: Any, count: int) -> tuple[Any, Any]:
    """Make the operations that load, and store, `count` things a step apart, by formulas for one."""

    @intrinsic
    def load_all(typing_context: Any, origin: Any, step: Any) -> Any:
        one = type_of_call(typing_context, load, origin)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            things = [emit_call(context, builder, load, one, at) for at in _apart(builder, args[0], args[1], count)]
            return context.make_tuple(builder, signature.return_type, things)

        return types.UniTuple(one.return_type, count)(origin, step), emit

    @intrinsic
    def store_all(typing_context: Any, to: Any, step: Any, things: Any) -> Any:
        one = type_of_call(typing_context, store, to, things.dtype)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            values = cgutils.unpack_tuple(builder, args[2])
            for at, thing in zip(_apart(builder, args[0], args[1], count), values, strict=True):
                emit_call(context, builder, store, one, at, thing)
            return context.get_dummy_value()

        return types.void(to, step, things), emit

    return load_all, store_all


def _apart(builder: Any, address: Any, step: Any, count: int) -> Iterator[Any]:
    """Yield addresses a step apart."""
    for number in range(count):
        address = builder.add(address, step) if number else address
        yield address


def on_each(convert: Any) -> Any:
    """Make the operation that applies a formula to each item of a tuple."""

    @intrinsic
    def convert_all(typing_context: Any, values: Any) -> Any:
        one = type_of_call(typing_context, convert, values.dtype)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            converted = [
                emit_call(context, builder, convert, one, value) for value in cgutils.unpack_tuple(builder, args[0])
            ]
            return context.make_tuple(builder, signature.return_type, converted)

        return types.UniTuple(one.return_type, values.count)(values), emit

    return convert_all
