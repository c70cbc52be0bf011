"""Memory by address: loads and stores of lanes, optionally past the caches, and transposes in registers.

An address is an int64. Nothing is checked here, nor aligned beyond what is said; the kernels know their bounds.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.np.numpy_support import from_dtype

from numparam.kernels.machine.compile import formula, intrinsic
from numparam.kernels.machine.lanes import (
    ELEMENTS,
    HAS_FULL_REGISTERS,
    I32,
    I64,
    WIDTH,
    Lanes,
    constant_indices,
    shuffled,
    side_by_side,
    splat,
)

LINE = 64
"""Bytes of a cache line. A store past the caches pays only when it writes whole ones."""


def empty_at_line(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """Return a new array that begins at a cache line: lanes that straddle two take twice as long to load."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    array: np.ndarray[Any, np.dtype[Any]] = memory[start : start + size].view(dtype).reshape(shape)
    return array


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@cache
def access(element: str, width: int, item_bytes: int | None = None) -> tuple[Any, Any, Any]:
    """Make the operations ``load(address)``, ``store(address, lanes)`` and ``stream(address, lanes)``.

    `stream` stores past the caches, at multiples of the size of the lanes. Lanes of integers may be kept in memory as
    shorter items.
    """
    lanes = Lanes(element, width)
    scalar = ELEMENTS[element][0] if item_bytes is None else ir.IntType(8 * item_bytes)
    kept = scalar if width == 1 else ir.VectorType(scalar, width)
    size = width * (item_bytes or int(element[1:]) // 8)

    @intrinsic
    def load(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            value = builder.load(_pointer(builder, args[0], kept), align=1)
            return value if item_bytes is None else builder.zext(value, lanes.llvm)

        return lanes(types.int64), emit

    def storing(past_caches: bool) -> Any:
        @intrinsic
        def store(typing_context: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
            def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
                value = args[1] if item_bytes is None else builder.trunc(args[1], kept)
                written = builder.store(value, _pointer(builder, args[0], kept), align=size if past_caches else 1)
                if past_caches:
                    written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(I32, 1)]))
                return context.get_dummy_value()

            return types.void(types.int64, lanes), emit

        return store

    return load, storing(past_caches=False), storing(past_caches=True)


@cache
def pair_loader(item_bytes: int, element: str = "u64") -> Any:
    """Make the operation that loads ``2 * WIDTH`` items, two in each lane."""
    lanes, half = Lanes(element, WIDTH), int(element[1:]) // 2
    kept, words = (ir.VectorType(ir.IntType(bits), 2 * WIDTH) for bits in (8 * item_bytes, half))

    @intrinsic
    def load(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            value = builder.load(_pointer(builder, args[0], kept), align=1)
            return builder.bitcast(value if kept == words else builder.zext(value, words), lanes.llvm)

        return lanes(types.int64), emit

    return load


@intrinsic
def prefetch(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
    """Ask for a line that will be read; any address will do."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        pointer = _pointer(builder, args[0], ir.IntType(8))
        flags = [ir.Constant(I32, flag) for flag in (0, 3, 1)]  # to read, keep in all caches, data
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, *(flag.type for flag in flags)])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), [pointer, *flags])
        return context.get_dummy_value()

    return types.void(types.int64), emit


_MOST_LINES = 16


@formula
def prefetch_row(address: Any, row_bytes: Any) -> None:
    """Ask for the first lines of a row that comes later: no processor predicts where rows are."""
    for line in range(min(_MOST_LINES, row_bytes // LINE + 1)):
        prefetch(address + line * LINE)


@cache
def stack(size: int) -> Any:
    """Make the operation that returns the address of `size` bytes, aligned to a line, which its caller owns."""

    @intrinsic
    def reserve(typing_context: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            with builder.goto_entry_block():
                memory = builder.alloca(ir.ArrayType(ir.IntType(8), size))
            memory.align = LINE
            return builder.ptrtoint(memory, I64)

        return types.int64(), emit

    return reserve


PIECE = 16
"""Bytes of the pieces of a register inside which any shuffle is one instruction."""
_PIECES = WIDTH // 4  # of a vector register: four of AVX-512, else two


def tile_rows(item_bytes: int) -> int:
    """Return how many lines of the source `tile_transposer` reads."""
    return _PIECES * PIECE // item_bytes


@cache
def tile_transposer(item_bytes: int) -> Any:
    """Make the operation that reads a piece of each of `tile_rows` lines and writes its columns as lines.

    Its arguments are the addresses and line steps, in bytes, of target and source.
    """
    count = PIECE // item_bytes
    item = ir.IntType(8 * item_bytes)
    piece = ir.VectorType(item, count)

    def interleaved(builder: Any, a: Any, b: Any, upper: int) -> Any:
        starts = [first + upper * count // 2 for first in range(0, _PIECES * count, count)]
        chosen = [j for start in starts for i in range(start, start + count // 2) for j in (i, i + _PIECES * count)]
        return builder.shuffle_vector(a, b, constant_indices(chosen))

    @intrinsic
    def transpose(
        typing_context: Any, target: Any, target_step: Any, source: Any, source_step: Any  # noqa: ARG001
    ) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            target, target_step, source, source_step = args

            def line(start: Any, step: Any, i: int, kind: Any) -> Any:
                return _pointer(builder, builder.add(start, builder.mul(step, ir.Constant(I64, i))), kind)

            def gathered(i: int) -> Any:
                """Return the pieces of lines i, i + count, i + 2 count ... side by side."""
                parts = [
                    builder.load(line(source, source_step, i + group * count, piece), align=1)
                    for group in range(_PIECES)
                ]
                return side_by_side(builder, parts)

            rows = [gathered(i) for i in range(count)]
            for _ in range(count.bit_length() - 1):
                # One perfect shuffle of all rows; as many as the bits of a row number make the transpose.
                rows = [interleaved(builder, rows[i // 2], rows[i // 2 + count // 2], i % 2) for i in range(count)]
            for i, row in enumerate(rows):
                builder.store(row, line(target, target_step, i, row.type), align=1)
            return context.get_dummy_value()

        number = types.int64
        return types.void(number, number, number, number), emit

    return transpose


@cache
def items_at(kind: np.dtype[Any]) -> Any:
    """Make the formula from an address and a length to an array of a dtype over the memory there."""
    item = from_dtype(kind)

    @intrinsic
    def pointer(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            return _pointer(builder, args[0], context.get_value_type(item))

        return types.CPointer(item)(types.int64), emit

    @formula
    def array(address: Any, length: Any) -> Any:
        return carray(pointer(address), (length,))

    return array


# Blocks of four words are stored with in-register 4 x 4 transposes, which work inside 128-bit pieces too. Word lane `l`
# therefore carries block (l % 4) * (width / 4) + l / 4 of its tile; these are the places of the blocks among 64-bit
# lanes.
POSITION = shuffled(WIDTH)  # of each lane of a word: the 64-bit lane that becomes it


def _block_offsets(width: int) -> list[int]:
    offsets = [0] * width
    for lane, source in enumerate(shuffled(width)):
        offsets[source] = (lane % 4) * (width // 4) + lane // 4
    return offsets


OFFSETS = _block_offsets(WIDTH)  # of each 64-bit lane: which block of its tile it carries


def _item(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


@intrinsic
def counters(typing_context: Any, start: Any) -> Any:  # noqa: ARG001
    """Return the block numbers ``start ... start + WIDTH - 1``, each in the lane that `in_memory_order` expects."""
    lanes = Lanes("u64", WIDTH)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.add(splat(builder, args[0], WIDTH), ir.Constant(lanes.llvm, OFFSETS))

    return lanes(types.uint64), emit


@intrinsic
def load_indices(typing_context: Any, array: Any) -> Any:  # noqa: ARG001
    """Return the first WIDTH items of an array of uint64, item ``POSITION[l]`` meant for lane l of the words."""
    lanes = Lanes("u64", WIDTH)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _item(context, builder, signature.args[0], args[0], ir.Constant(I64, 0))
        return builder.load(builder.bitcast(pointer, lanes.llvm.as_pointer()), align=8)

    return lanes(array), emit


@intrinsic
def after(typing_context: Any, values: Any, words: Any) -> Any:  # noqa: ARG001
    """Return four lanes of values, whose uses are compiled behind four lanes of words.

    LLVM would emit first all that leads to values and then the words, further apart than processors look ahead. Lanes
    that fill more than a register each stay where they are.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        if not HAS_FULL_REGISTERS or values.dtype.element == "f64":
            return args[0]
        last = builder.extract_value(args[1], 3)
        kind, found = ir.FunctionType(values.dtype.llvm, [values.dtype.llvm, last.type]), args[0]
        for k in range(4):
            value = builder.asm(kind, "", "=v,0,v", [builder.extract_value(args[0], k), last], False)
            found = builder.insert_value(found, value, k)
        return found

    return values(values, words), emit


@intrinsic
def in_memory_order(typing_context: Any, values: Any) -> Any:  # noqa: ARG001
    """Turn four lanes of values (word k of each block of `counters`) into two lanes twice as wide, in memory order."""
    lanes = values.dtype
    width, double = lanes.width, Lanes(lanes.element, 2 * lanes.width)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def shuffle(x: Any, y: Any, indices: list[int]) -> Any:
            return builder.shuffle_vector(x, y, constant_indices(indices))

        chunks = range(0, width, 4)
        low = [i for c in chunks for i in (c, width + c, c + 1, width + c + 1)]
        high = [i for c in chunks for i in (c + 2, width + c + 2, c + 3, width + c + 3)]
        first = [i for c in chunks for i in (c, c + 1, width + c, width + c + 1)]
        second = [i for c in chunks for i in (c + 2, c + 3, width + c + 2, width + c + 3)]
        a, b, c, d = (builder.extract_value(args[0], k) for k in range(4))
        ab_low, cd_low, ab_high, cd_high = (
            shuffle(a, b, low),
            shuffle(c, d, low),
            shuffle(a, b, high),
            shuffle(c, d, high),
        )
        halves = [
            shuffle(shuffle(ab, cd, first), shuffle(ab, cd, second), list(range(2 * width)))
            for ab, cd in ((ab_low, cd_low), (ab_high, cd_high))
        ]
        return context.make_tuple(builder, signature.return_type, halves)

    return types.UniTuple(double, 2)(values), emit


@intrinsic
def pairs_in_memory_order(typing_context: Any, first: Any, second: Any) -> Any:  # noqa: ARG001
    """Turn two lanes of 32 bits (two short values each, of each block of `counters`) into one twice as wide."""
    width = first.width

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        lanes = [block % (width // 4) * 4 + block // (width // 4) for block in range(width)]
        return builder.shuffle_vector(*args, constant_indices([i for lane in lanes for i in (lane, width + lane)]))

    return Lanes(first.element, 2 * width)(first, second), emit


@intrinsic
def store_words(typing_context: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ARG001
    """Store lanes as they are from ``array[index]`` on, however many items each of them covers."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        pointer = _item(context, builder, kind, args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, args[2].type.as_pointer()), align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), emit


@intrinsic
def store_lanes(typing_context: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ARG001
    """Store one item per lane from ``array[index]`` on; lanes of bits are truncated to the item size of the array."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, stored = signature.args[0], args[2]
        item = context.get_data_type(kind.dtype)
        if item != stored.type.element:
            stored = builder.trunc(stored, ir.VectorType(item, value.width))
        pointer = _item(context, builder, kind, args[0], args[1])
        builder.store(stored, builder.bitcast(pointer, stored.type.as_pointer()), align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), emit


@intrinsic
def stream_word(typing_context: Any, array: Any, index: Any, word: Any) -> Any:  # noqa: ARG001
    """Store a uint64 four times at ``array[index:index + 4]`` past the caches. The address must be a multiple of 32."""
    vector = ir.VectorType(I64, 4)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _item(context, builder, signature.args[0], args[0], args[1])
        store = builder.store(splat(builder, args[2], 4), builder.bitcast(pointer, vector.as_pointer()), align=32)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(I32, 1)]))
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), emit
