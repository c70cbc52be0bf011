"""Memory by address: loads and stores of lanes, past the caches where asked, and transposes in registers.

An address is an int64. Nothing is checked here, nor aligned beyond what is said; the kernels know their bounds.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numparam.kernels.machine.lanes import _ELEMENTS, _I32, _I64, WIDTH, Lanes, _constant_indices

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


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
    """Ask for a line that will be read; any address will do."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        pointer = _pointer(builder, args[0], ir.IntType(8))
        flags = [ir.Constant(_I32, flag) for flag in (0, 3, 1)]  # to read, keep in all caches, data
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, *(flag.type for flag in flags)])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), [pointer, *flags])
        return context.get_dummy_value()

    return types.void(types.int64), emit


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
        return builder.shuffle_vector(a, b, _constant_indices(chosen))

    @intrinsic  # type: ignore[untyped-decorator]
    def transpose(
        typing_context: Any, target: Any, target_step: Any, source: Any, source_step: Any  # noqa: ARG001
    ) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            target, target_step, source, source_step = args

            def line(start: Any, step: Any, i: int, kind: Any) -> Any:
                return _pointer(builder, builder.add(start, builder.mul(step, ir.Constant(_I64, i))), kind)

            def gathered(i: int) -> Any:
                """Return the pieces of lines i, i + count, i + 2 count ... side by side."""
                parts = [
                    builder.load(line(source, source_step, i + group * count, piece), align=1)
                    for group in range(_PIECES)
                ]
                while len(parts) > 1:
                    both = _constant_indices(list(range(2 * parts[0].type.count)))
                    parts = [builder.shuffle_vector(a, b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
                return parts[0]

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
