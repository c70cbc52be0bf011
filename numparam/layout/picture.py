"""Pictures of a layout: which ranks hold which block of a parameter."""

from __future__ import annotations

import io
import math
from importlib import import_module
from typing import Any, NamedTuple

from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.layout.partition import Partition

_MOST_BLOCKS = 16  # along an axis: more do not fit a terminal
_MOST_RANKS = 4  # in a block
_ABSENT = range(1)  # what a block covers of an axis that the parameter does not have


class Blocks(NamedTuple):
    """Hold the blocks along two axes of a parameter, the ranks at each, and the ranks that hold nothing."""

    axes: tuple[int | None, int | None]  # down and across
    rows: list[range]
    columns: list[range]
    ranks: dict[tuple[range, range], list[int]]
    idle: list[int]


def blocks(layout: Partition, shape: tuple[int, ...], axes: tuple[int, int] | None = None) -> Blocks:
    """Find the blocks along two axes of a parameter, by default the first two that are sharded.

    A rank is at the block that its region covers along these axes, wherever that region lies along the others.
    """
    down, across = shown = _two_axes(layout, shape, axes)
    ranks: dict[tuple[range, range], list[int]] = {}
    idle = []
    for rank in sorted(layout.ranks):
        region = layout.region(shape, rank)
        if region.size:
            row, column = (_ABSENT if axis is None else region.ranges[axis] for axis in (down, across))
            ranks.setdefault((row, column), []).append(rank)
        else:
            idle.append(rank)
    rows, columns = (sorted({block[side] for block in ranks}, key=lambda part: part.start) for side in (0, 1))
    return Blocks(shown, rows, columns, ranks, idle)


def picture(layout: Partition, shape: tuple[int, ...], axes: tuple[int, int] | None = None) -> str:
    """Draw the blocks as a table of text with the ranks that hold each; see `Layout.picture`."""
    from rich.box import SQUARE
    from rich.console import Console
    from rich.table import Table

    found = blocks(layout, shape, axes)
    rows, columns = _ends(found.rows), _ends(found.columns)
    table = Table("", box=SQUARE, show_lines=True)
    for column in columns:
        table.add_column(_bounds(column), justify="center", no_wrap=True)
    for row in rows:
        cells = (None if row is None or column is None else found.ranks[row, column] for column in columns)
        table.add_row(_bounds(row), *("…" if cell is None else _listed(cell) for cell in cells))
    text = io.StringIO()
    if found.ranks:
        Console(file=text, width=10_000, color_system=None).print(table)
    return "\n".join([_title(layout, shape, found), *text.getvalue().splitlines(), *_idle(found)])


def page(layout: Partition) -> str:
    """Return HTML that shows the ranks of each block of a parameter with one element in each."""
    from numparam import html

    parts = [math.prod(layout.mesh[axis] for axis in item) for item in layout.spec]
    if layout.optimizer_shard:
        parts[:1] = [math.prod((*parts[:1], *(layout.mesh[axis] for axis in layout.optimizer_shard)))]
    found = blocks(layout, tuple(parts))
    rows, columns = _ends(found.rows), _ends(found.columns)

    def ranks(down: int, across: int) -> str | None:
        row, column = rows[down], columns[across]
        return None if row is None or column is None else _listed(found.ranks[row, column])

    def heads(sides: list[range | None], axis: int | None) -> list[str]:
        if axis is None:
            return [""] * len(sides)
        return ["…" if part is None else f"{part.start + 1}/{parts[axis]} of axis {axis}" for part in sides]

    return html.grid(repr(layout), heads(rows, found.axes[0]), heads(columns, found.axes[1]), ranks)


def figure(layout: Partition, shape: tuple[int, ...], axes: tuple[int, int] | None = None) -> Any:
    """Draw the blocks to scale with the ranks that hold each; see `Layout.plot`."""
    found = blocks(layout, shape, axes)
    try:
        figures, patches = import_module("matplotlib.figure"), import_module("matplotlib.patches")
    except ModuleNotFoundError:
        message = (
            "Layout.plot needs matplotlib, which is not installed: pip install matplotlib; Layout.picture uses text"
        )
        raise ModuleNotFoundError(message, name="matplotlib") from None
    drawing = figures.Figure(layout="constrained")
    panel = drawing.subplots()
    for number, ((row, column), ranks) in enumerate(found.ranks.items()):
        corner, color = (column.start, row.start), f"C{number % 10}"
        panel.add_patch(patches.Rectangle(corner, len(column), len(row), alpha=0.5, ec="white", fc=color))
        middle = column.start + len(column) / 2, row.start + len(row) / 2
        panel.text(*middle, _listed(ranks), ha="center", va="center", clip_on=True)
    down, across = found.axes
    panel.set_xlim(0, 1 if across is None else max(shape[across], 1))
    panel.set_ylim(1 if down is None else max(shape[down], 1), 0)
    panel.set_xlabel("" if across is None else f"axis {across}")
    panel.set_ylabel("" if down is None else f"axis {down}")
    panel.set_title("\n".join([_title(layout, shape, found), *_idle(found)]))
    return drawing


def _two_axes(layout: Partition, shape: tuple[int, ...], axes: Any) -> tuple[int | None, int | None]:
    if axes is not None:
        if not isinstance(axes, tuple) or len(axes) != 2 or not all(type(axis) is int for axis in axes):
            raise ArgumentTypeError(f"a picture shows two axes of a parameter, such as (0, 1); found {axes!r}")
        if axes[0] == axes[1] or not all(0 <= axis < len(shape) for axis in axes):
            raise ArgumentValueError(f"a picture shows two axes of shape {shape}, counted from 0; found {axes}")
        return axes
    split = [axis for axis, item in enumerate(layout.spec) if item or (axis == 0 and layout.optimizer_shard)]
    shown = sorted([*split, *(axis for axis in range(len(shape)) if axis not in split)][:2])
    return (shown[0], shown[1]) if len(shown) == 2 else (None, shown[0] if shown else None)


def _ends(parts: list[range]) -> list[range | None]:
    """Leave out the middle of a long list; None in its place."""
    return [*parts] if len(parts) <= _MOST_BLOCKS else [*parts[: _MOST_BLOCKS - 2], None, parts[-1]]


def _bounds(part: range | None) -> str:
    return "…" if part is None else f"{part.start}:{part.stop}"


def _listed(ranks: list[int]) -> str:
    if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"{ranks[0]}-{ranks[-1]}"
    if len(ranks) > _MOST_RANKS:
        return ", ".join(map(str, [*ranks[: _MOST_RANKS - 2], "…", ranks[-1]]))
    return ", ".join(map(str, ranks))


def _title(layout: Partition, shape: tuple[int, ...], found: Blocks) -> str:
    shown = [
        f"axis {axis} {where}" for axis, where in zip(found.axes, ("down", "across"), strict=True) if axis is not None
    ]
    return f"{shape} over {layout.mesh}{': ' if shown else ''}{', '.join(shown)}"


def _idle(found: Blocks) -> list[str]:
    return [f"nothing on {_listed(found.idle)}"] if found.idle else []
