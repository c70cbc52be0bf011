"""Memory by address: loads and stores of lanes, past the caches where asked, and transposes of square tiles.

An address is an int64. Nothing is checked here, nor aligned beyond what is said; the kernels know their bounds.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numparam.kernels._lanes import _ELEMENTS, _I32, _I64, Lanes, _constant_indices

LINE = 64
"""Bytes of a cache line. A store past the caches pays only when it writes whole ones."""


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@cache
def access(element: str, width: int, item_bytes: int | None = None) -> tuple[Any, Any, Any]:
    """Make the operations ``load(address)``, ``store(address, lanes)`` and ``stream(address, lanes)``.

    `stream` stores past the caches, at multiples of the size of the lanes. Lanes of integers may be kept in memory as
    shorter items.
    """
    lanes = Lanes(element, width)
    scalar = _ELEMENTS[element][0] if item_bytes is None else ir.IntType(8 * item_bytes)
    kept = scalar if width == 1 else ir.VectorType(scalar, width)
    size = width * (item_bytes or int(element[1:]) // 8)

    @intrinsic  # type: ignore[untyped-decorator]
    def load(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            value = builder.load(_pointer(builder, args[0], kept), align=1)
            return value if item_bytes is None else builder.zext(value, lanes.llvm)

        return lanes(types.int64), emit

    def storing(past_caches: bool) -> Any:
        @intrinsic  # type: ignore[untyped-decorator]
        def store(typing_context: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
            def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
                value = args[1] if item_bytes is None else builder.trunc(args[1], kept)
                written = builder.store(value, _pointer(builder, args[0], kept), align=size if past_caches else 1)
                if past_caches:
                    written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_I32, 1)]))
                return context.get_dummy_value()

            return types.void(types.int64, lanes), emit

        return store

    return load, storing(past_caches=False), storing(past_caches=True)


def _prefetcher(to_write: int, doc: str) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def operation(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            pointer = _pointer(builder, args[0], ir.IntType(8))
            flags = [ir.Constant(_I32, flag) for flag in (to_write, 3, 1)]  # keep in all caches, data
            kind = ir.FunctionType(ir.VoidType(), [pointer.type, *(flag.type for flag in flags)])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), [pointer, *flags])
            return context.get_dummy_value()

        return types.void(types.int64), emit

    operation.__doc__ = doc
    return operation


prefetch = _prefetcher(0, "Ask for a line that will be read; any address will do.")
prefetch_to_write = _prefetcher(1, "Ask for a line that will be written in part; any address will do.")


@cache
def stack(size: int) -> Any:
    """Make the operation that returns the address of `size` bytes, aligned to a line, which its caller owns."""

    @intrinsic  # type: ignore[untyped-decorator]
    def reserve(typing_context: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            with builder.goto_entry_block():
                memory = builder.alloca(ir.ArrayType(ir.IntType(8), size))
            memory.align = LINE
            return builder.ptrtoint(memory, _I64)

        return types.int64(), emit

    return reserve


# --------------------------------------------------------------------------- transposes


def _transposed(builder: Any, rows: list[Any], item_bytes: int) -> list[Any]:
    """Transpose a square of ``len(rows) = 64 / item_bytes`` vectors of 64 bytes.

    First inside pieces of 128 bits, where a shuffle is one instruction on every x86 vector width, then the 4 x 4 matrix
    of such pieces.
    """
    count, per_piece = len(rows), 16 // item_bytes

    def interleaved(a: Any, b: Any, upper: int) -> Any:
        starts = [piece + upper * per_piece // 2 for piece in range(0, count, per_piece)]
        chosen = [j for start in starts for i in range(start, start + per_piece // 2) for j in (i, i + count)]
        return builder.shuffle_vector(a, b, _constant_indices(chosen))

    def pieces(a: Any, b: Any, chosen: tuple[int, ...]) -> Any:
        wide = ir.VectorType(_I64, 8)
        indices = _constant_indices([2 * piece + half for piece in chosen for half in (0, 1)])
        return builder.bitcast(
            builder.shuffle_vector(builder.bitcast(a, wide), builder.bitcast(b, wide), indices), a.type
        )

    for _ in range(per_piece.bit_length() - 1):
        # One perfect shuffle of every group of rows; as many as the bits of a row number make the transpose.
        rows = [
            interleaved(rows[group + i // 2], rows[group + i // 2 + per_piece // 2], i % 2)
            for group in range(0, count, per_piece)
            for i in range(per_piece)
        ]
    result: list[Any] = [None] * count
    for i in range(per_piece):
        a, b, c, d = rows[i::per_piece]
        low, low_next = pieces(a, b, (0, 1, 4, 5)), pieces(c, d, (0, 1, 4, 5))
        high, high_next = pieces(a, b, (2, 3, 6, 7)), pieces(c, d, (2, 3, 6, 7))
        result[i::per_piece] = [
            pieces(low, low_next, (0, 2, 4, 6)),
            pieces(low, low_next, (1, 3, 5, 7)),
            pieces(high, high_next, (0, 2, 4, 6)),
            pieces(high, high_next, (1, 3, 5, 7)),
        ]
    return result


@cache
def tile_transposer(item_bytes: int) -> Any:
    """Make the operation that reads ``64 / item_bytes`` lines and writes their columns as as many lines.

    Its arguments are the addresses and line steps, in bytes, of target and source.
    """
    count = LINE // item_bytes
    vector = ir.VectorType(ir.IntType(8 * item_bytes), count)

    @intrinsic  # type: ignore[untyped-decorator]
    def transpose(
        typing_context: Any, target: Any, target_step: Any, source: Any, source_step: Any  # noqa: ARG001
    ) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            target, target_step, source, source_step = args

            def line(start: Any, step: Any, i: int) -> Any:
                address = builder.add(start, builder.mul(step, ir.Constant(_I64, i)))
                return _pointer(builder, address, vector)

            rows = [builder.load(line(source, source_step, i), align=1) for i in range(count)]
            for i, column in enumerate(_transposed(builder, rows, item_bytes)):
                builder.store(column, line(target, target_step, i), align=1)
            return context.get_dummy_value()

        number = types.int64
        return types.void(number, number, number, number), emit

    return transpose
