"""A picture of a layout shows which ranks hold which block of a parameter."""

import sys
from pathlib import Path
from typing import Any

import pytest

from numparam import Layout

MESH = {"dp": 2, "tp": 3}


def lines(layout: Layout, shape: tuple[int, ...], axes: tuple[int, int] | None = None) -> list[str]:
    return layout.picture(shape, axes).splitlines()


def cells(layout: Layout, shape: tuple[int, ...], axes: tuple[int, int] | None = None) -> list[list[str]]:
    rows = [line for line in lines(layout, shape, axes) if line.startswith("│")]
    return [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]


def test_two_axes_make_a_grid() -> None:
    assert lines(Layout(MESH, ("dp", "tp")), (8, 7)) == [
        "(8, 7) over {'dp': 2, 'tp': 3}: axis 0 down, axis 1 across",
        "┌─────┬─────┬─────┬─────┐",
        "│     │ 0:3 │ 3:6 │ 6:7 │",
        "├─────┼─────┼─────┼─────┤",
        "│ 0:4 │  0  │  1  │  2  │",
        "├─────┼─────┼─────┼─────┤",
        "│ 4:8 │  3  │  4  │  5  │",
        "└─────┴─────┴─────┴─────┘",
    ]


def test_one_axis_makes_a_row_and_replicas_share_a_block() -> None:
    layout = Layout(MESH, ("tp",))
    assert cells(layout, (9,)) == [["", "0:3", "3:6", "6:9"], ["0:1", "0, 3", "1, 4", "2, 5"]]
    assert lines(layout, (9,))[0] == "(9,) over {'dp': 2, 'tp': 3}: axis 0 across"


def test_a_scalar_is_one_block_that_all_ranks_hold() -> None:
    assert cells(Layout(MESH, ()), ()) == [["", "0:1"], ["0:1", "0-5"]]


def test_two_axes_of_many_are_the_first_that_are_cut_or_those_chosen() -> None:
    layout = Layout({"a": 2, "b": 2, "c": 2}, (None, "a", None, ("b", "c")))
    assert lines(layout, (2, 4, 2, 4))[0].endswith("axis 1 down, axis 3 across")
    assert cells(layout, (2, 4, 2, 4))[1] == ["0:2", "0", "1", "2", "3"]
    assert cells(layout, (2, 4, 2, 4), (3, 0)) == [
        ["", "0:2"],
        ["0:1", "0, 4"],
        ["1:2", "1, 5"],
        ["2:3", "2, 6"],
        ["3:4", "3, 7"],
    ]


def test_cuts_of_the_optimizer_are_drawn() -> None:
    assert cells(Layout(MESH, (None, "dp"), optimizer_shard="tp"), (6, 4))[1:] == [
        ["0:2", "0", "3"],
        ["2:4", "1", "4"],
        ["4:6", "2", "5"],
    ]


def test_ranks_without_a_block_are_named() -> None:
    assert lines(Layout({"x": 5}, ("x",)), (3, 2))[-1] == "nothing on 3, 4"
    assert lines(Layout({"x": 5}, ("x",)), (3, 0)) == [
        "(3, 0) over {'x': 5}: axis 0 down, axis 1 across",
        "nothing on 0-4",
    ]


def test_the_middle_of_large_pictures_is_left_out() -> None:
    drawn = cells(Layout({"x": 64, "y": 8}, ("x",)), (128, 2))
    assert len(drawn) == 1 + 16
    assert drawn[14:] == [["26:28", "104-111"], ["…", "…"], ["126:128", "504-511"]]
    assert cells(Layout({"x": 8, "y": 2}, (None, "y")), (2, 4))[1] == ["0:2", "0, 2, …, 14", "1, 3, …, 15"]


@pytest.mark.parametrize(
    "axes, error, words",
    [
        ((0, 2), ValueError, r"two axes of shape \(4, 4\), counted from 0; found \(0, 2\)"),
        ((1, 1), ValueError, "two axes of shape"),
        ((-1, 0), ValueError, "two axes of shape"),
        (0, TypeError, r"two axes of a parameter, such as \(0, 1\); found 0"),
        ((0,), TypeError, "two axes of a parameter"),
    ],
)
def test_wrong_axes(axes: Any, error: type[Exception], words: str) -> None:
    for draw in (Layout(MESH, ()).picture, Layout(MESH, ()).plot):
        with pytest.raises(error, match=words):
            draw((4, 4), axes)


def test_a_plot_shows_the_blocks_to_scale(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawing = Layout(MESH, ("dp", "tp")).plot((8, 7))
    (panel,) = drawing.axes
    assert [patch.get_bbox().bounds for patch in panel.patches] == [
        (column, row, width, 4) for row in (0, 4) for column, width in ((0, 3), (3, 3), (6, 1))
    ]
    assert [text.get_text() for text in panel.texts] == list("012345")
    assert (panel.get_xlim(), panel.get_ylim()) == ((0, 7), (8, 0))
    drawing.savefig(tmp_path / "layout.png")
    Layout(MESH, ()).plot(()).savefig(tmp_path / "scalar.svg")


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"plot needs matplotlib.*: pip install matplotlib; Layout\.picture"):
        Layout(MESH, ()).plot((2, 2))
