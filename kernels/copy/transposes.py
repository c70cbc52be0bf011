"""Copy and convert with two axes exchanged: consecutive along one in the source and along the other in the target.

A band of the target is as wide as memory likes to be written, and as high as one cache line has items. Its tiles are
transposed in registers, straight from the source where they can be, into a strip that the first-level cache holds, and
the rows of the strip leave for the target. Bands follow each other down the target, so the lines of the source are read
in order, and the lines of later bands are prefetched while this one is transposed.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numparam.kernels.copy.runs import copy_bytes, locate
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.lanes import WIDTH
from numparam.kernels.machine.memory import LINE, PIECE, prefetch, tile_rows, tile_transposer

# So many bytes of each line of the source are prefetched at once, for bands to come: memory answers neighbours faster.
# Against a piece of each line, a transpose of 4096 x 4096 float32 gains 15 %, one to float16 40 %.
_AHEAD = 8 * LINE
# A tile takes a quarter of each of its lines at a time. More lines than this, a power of two apart, would drive each
# other out of the first-level cache before their second quarter: they are copied next to each other first.
_WAYS = 8
_PAGE = 4096


class Block(NamedTuple):
    """The part of the target that is transposed at once."""

    rows: int
    columns: int
    scratch_bytes: int


def block(item_bytes: int) -> Block:
    """Return the largest block of items of one size: its rows are as long as the first-level cache allows."""
    width = 1024 if item_bytes > 2 else 512
    rows, columns = LINE // item_bytes, width // item_bytes
    return Block(rows, columns, rows * (width + LINE) + tile_rows(item_bytes) * LINE)


def columns_of_blocks(item_bytes: int, source_step: int) -> int:
    """Return how many columns a block has, between which are `source_step` bytes of the source.

    Lines that are a multiple of a page apart share few sets of the caches, which then lose what was prefetched for more
    than 64 columns. On an Intel Xeon with AVX-512, 8192 x 8192 float32 gain a quarter, and others lose a twentieth.
    """
    most = block(item_bytes).columns
    return min(most, max(64, 2 * LINE // item_bytes)) if WIDTH > 8 and source_step % _PAGE == 0 else most


@cache
def transposing(item_bytes: int) -> Any:
    """Make the loop for items of one size that are copied as they are."""

    @formula
    def fetch(target: Any, source: Any, count: Any) -> None:
        copy_bytes(target, source, count * item_bytes, False)

    direct = tile_rows(item_bytes) <= _WAYS
    return transposer(f"transpose blocks {item_bytes}", item_bytes, item_bytes, fetch, direct)


def transposer(identity: str, item_bytes: int, source_bytes: int, fetch: Any, direct: bool = False) -> Any:
    """Make the loop over blocks that gets items from the source by ``fetch(target, source, count)``.

    Items have `item_bytes` in the target and `source_bytes` in the source. With `direct`, where whole tiles are, they
    are read as they are.

    The arguments of the loop are the addresses of both sides, the range of blocks, the outer axes as `runs.locate`
    takes them, rows and columns of the target, the steps of the target's rows and of the source's columns, after how
    many columns the source skips and how far, the rows and columns by which the first block is shortened, the columns
    of a block, the address of scratch memory and whether to write past the caches. Where the source skips, that is
    after whole tiles.
    """
    most_rows, widest, _ = block(item_bytes)
    side, per_piece = tile_rows(item_bytes), PIECE // item_bytes
    pitch = widest * item_bytes + LINE  # the extra line spreads the rows of the strip over the cache's sets
    band = most_rows * source_bytes
    group = min(side, _AHEAD // band)  # each band asks for its share of the lines of the next group of bands
    transpose = tile_transposer(item_bytes)

    @kernel(identity)
    def loop(
        target: Any, source: Any, start: Any, stop: Any, axes: Any, rows: Any, columns: Any, target_step: Any,
        source_step: Any, inner: Any, skip: Any, row_shift: Any, shift: Any, most_columns: Any, strip: Any,
        past_caches: Any,
    ) -> None:  # fmt: skip
        across = (columns + shift + most_columns - 1) // most_columns
        down = (rows + row_shift + most_rows - 1) // most_rows
        tile = strip + most_rows * pitch
        for at in range(start, stop):
            to, origin = locate(at // (across * down), axes, target, source)
            row = at % down * most_rows - row_shift
            column = at // down % across * most_columns - shift
            height = min(row + most_rows, rows) - max(row, 0)
            width = min(column + most_columns, columns) - max(column, 0)
            row, column = max(row, 0), max(column, 0)
            origin += row * source_bytes
            lines, left = origin + column * source_step + column // inner * skip, inner - column % inner
            to += row * target_step + column * item_bytes
            # Where a block has few columns or bands, lines of two bands later are prefetched.
            by_groups = width == most_columns and down > group
            turn = at % down % group if by_groups else 0
            next_column = column + turn * (most_columns // group)
            following = origin + (group - turn) * band + next_column * source_step + next_column // inner * skip
            next_left = inner - next_column % inner
            for c in range(0, width, side):
                count = min(side, width - c)
                whole = height == most_rows and count == side
                if whole and by_groups:
                    for _ in range(c // group, (c + side) // group):
                        for ahead in range(0, group * band, LINE):
                            prefetch(following + ahead)
                        following, next_left = following + source_step, next_left - 1
                        if next_left == 0:
                            following, next_left = following + skip, inner
                elif whole:
                    for k in range(side):
                        prefetch(lines + k * source_step + 2 * band)
                if whole and direct:
                    for k in range(0, most_rows, per_piece):
                        transpose(strip + k * pitch + c * item_bytes, pitch, lines + k * item_bytes, source_step)
                else:
                    for k in range(count):
                        fetch(tile + k * LINE, lines + k * source_step, height)
                    for k in range(0, most_rows, per_piece):
                        transpose(strip + k * pitch + c * item_bytes, pitch, tile + k * item_bytes, LINE)
                lines, left = lines + side * source_step, left - side
                if left == 0:
                    lines, left = lines + skip, inner
            for k in range(height):
                copy_bytes(to + k * target_step, strip + k * pitch, width * item_bytes, past_caches)

    return loop
