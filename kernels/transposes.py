"""Copy with two axes exchanged: consecutive along one in the source and along the other in the target.

Memory is fast in long pieces only, and a tile that registers can transpose has lines of 64 bytes. So a block of the
source is first copied, in pieces of 1 KiB, to where the second-level cache holds it; its tiles are transposed a row of
tiles at a time, and leave for the target in pieces of 512 bytes. Single lines straight from source to target, in the
best order found, were half as fast.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numparam.kernels._compile import kernel
from numparam.kernels._memory import LINE, tile_transposer
from numparam.kernels.runs import copy_bytes, copy_run, locate

_LINES = 8  # of a row of a block of the target
_PITCH = _LINES * LINE + LINE
_ROWS_AHEAD = 4


class Block(NamedTuple):
    """The part of the target that is transposed at once."""

    rows: int
    columns: int
    scratch_bytes: int


def block(item_bytes: int) -> Block:
    """Return the largest block of items of one size: the cache holds 300 KiB besides what passes through it."""
    piece = min(1024, 512 * item_bytes)
    columns = _LINES * LINE // item_bytes
    return Block(piece // item_bytes, columns, columns * (piece + LINE) + LINE // item_bytes * _PITCH)


@cache
def transposing(item_bytes: int) -> Any:
    """Make the loop over blocks for one item size.

    Its arguments are the addresses of both sides, the range of blocks, the outer axes as `runs.locate` takes them, rows
    and columns of the target, the steps of the target's rows and of the source's columns, the columns by which the
    first block is shortened, the address of scratch memory and whether to write past the caches.
    """
    side = LINE // item_bytes  # of a tile
    most_rows, most_columns, _ = block(item_bytes)
    source_pitch = most_rows * item_bytes + LINE  # the extra line spreads the rows of a tile over the cache's sets
    transpose = tile_transposer(item_bytes)

    @kernel(f"transpose blocks {item_bytes}")
    def loop(
        target: Any, source: Any, start: Any, stop: Any, axes: Any, rows: Any, columns: Any, target_step: Any,
        source_step: Any, shift: Any, scratch: Any, past_caches: Any,
    ) -> None:  # fmt: skip
        across = (columns + shift + most_columns - 1) // most_columns
        down = (rows + most_rows - 1) // most_rows
        strip = scratch + most_columns * source_pitch
        for at in range(start, stop):
            to, origin = locate(at // (across * down), axes, target, source)
            row = at // across % down * most_rows
            column = at % across * most_columns - shift
            height, width = min(most_rows, rows - row), min(column + most_columns, columns) - max(column, 0)
            column = max(column, 0)
            origin += row * item_bytes + column * source_step
            to += row * target_step + column * item_bytes
            for c in range(width):
                piece = origin + c * source_step
                copy_run(
                    scratch + c * source_pitch, piece, height * item_bytes, False, piece + _ROWS_AHEAD * source_step
                )
            for r in range(0, height, side):
                for c in range(0, width, side):  # what a tile holds beyond the block is never copied to the target
                    transpose(strip + c * item_bytes, _PITCH, scratch + c * source_pitch + r * item_bytes, source_pitch)
                for k in range(min(side, height - r)):
                    copy_bytes(to + (r + k) * target_step, strip + k * _PITCH, width * item_bytes, past_caches)

    return loop
