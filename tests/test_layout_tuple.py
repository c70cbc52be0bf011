"""A layout as MindSpore writes it says which slice of a parameter a rank holds, and is checked item by item."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

import numparam
from numparam import Layout, Parameter
from numparam.initializer import initializer


@pytest.fixture(autouse=True)
def _fresh_context() -> Iterator[None]:
    numparam.reset_auto_parallel_context()
    yield
    numparam.reset_auto_parallel_context()


def layout(grid: Any, axes: Any, shape: Any = None, group: Any = "") -> tuple[Any, ...]:
    return (grid, axes, shape, 0, True, group)


# The slice of each rank, counted in row-major order over the cut axes, as MindSpore 2.10 gives it.
@pytest.mark.parametrize(
    "grid, axes, indices",
    [
        ([4], [0, -1], "0123"),
        ([4], [-1, 0], "0123"),
        ([2, 2], [1, 0], "0123"),
        ([2, 2], [0, 1], "0213"),
        ([2, 2], [1, -1], "0011"),
        ([2, 2], [0, -1], "0101"),
        ([2, 4], [0, -1], "01230123"),
        ([2, 2, 2], [2, 0], "01012323"),
        ([2, 2, 2], [0, 2], "02021313"),
        ([2, 2, 2], [1, -1], "00110011"),
        ([2, 2], [-1, -1], "0000"),
        ([2, 2], [[1, 0], -1], "0123"),
        ([2, 2], [[0, 1], -1], "0213"),
    ],
)
def test_slice_of_each_rank(grid: list[int], axes: list[int], indices: str) -> None:
    shape = (8, 16)
    parsed = Layout.parse(layout(grid, axes), shape)
    whole = np.arange(128).reshape(shape)
    parts = [int(np.prod([grid[-1 - a] for a in ([x] if isinstance(x, int) else x) if a != -1])) for x in axes]
    rows, columns = shape[0] // parts[0], shape[1] // parts[1]
    for rank, index in enumerate(indices):
        row, column = divmod(int(index), parts[1])
        expected = whole[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        np.testing.assert_array_equal(parsed.region(shape, rank).take(whole), expected)
        assert parsed.slice_index(rank) == int(index)


# With an index of their own for the slices of the optimizer: MindSpore 2.10 gives 4, 5, 5, 6 for the first.
@pytest.mark.parametrize(
    "grid, axes, indices",
    [
        ([2, 2], [1, -1], [0, 1, 2, 3]),
        ([2, 2], [0, -1], [0, 2, 1, 3]),
        ([2, 2, 2], [-1, 0], [0, 4, 1, 5, 2, 6, 3, 7]),
        ([2, 3], [-1, -1], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_slices_of_the_optimizer_have_an_index_each(grid: list[int], axes: list[int], indices: list[int]) -> None:
    parsed = Layout.parse(layout(grid, axes, None, "group"), (24, 8))
    assert [parsed.slice_index(rank) for rank in range(len(indices))] == indices


def test_slices_of_all_ranks_are_those_of_the_whole() -> None:
    numparam.set_seed(7)
    whole = Parameter(initializer("xavier_normal", (8, 6)), name="w").asnumpy()
    rows = []
    for rank in range(4):
        numparam.set_auto_parallel_context(parallel_mode="semi_auto_parallel", device_num=4, global_rank=rank)
        part = Parameter(initializer("xavier_normal", (8, 6)), name="w")
        assert part.init_data(layout([2, 2], [1, 0], [4, 3]), set_sliced=True) is part
        assert (part.shape, part.sliced, part.inited_param) == ((4, 3), True, part)
        rows.append(part.asnumpy())
    np.testing.assert_array_equal(np.block([[rows[0], rows[1]], [rows[2], rows[3]]]), whole)


def test_optimizer_group_cuts_the_first_axis_once_more() -> None:
    whole = np.arange(8 * 6).reshape(8, 6)
    parsed = Layout.parse(layout([2, 2], [1, -1], [2, 6], "group"), (8, 6))
    pieces = [parsed.region((8, 6), rank).take(whole) for rank in range(4)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_the_optimizer_cuts_as_often_as_the_slice_shape_asks() -> None:
    slices = {wanted: Layout.parse(layout([6, 2], [0, -1], [wanted, 6], "group"), (24, 6)) for wanted in (12, 6, 4, 2)}
    assert {wanted: parsed.shape((24, 6), 11) for wanted, parsed in slices.items()} == {
        wanted: (wanted, 6) for wanted in slices
    }
    assert slices[4].mesh == {"1a": 2, "1b": 3, "0": 2}
    assert [slices[4].slice_index(rank) for rank in range(12)] == [0, 3, 1, 4, 2, 5, 0, 3, 1, 4, 2, 5]


def test_no_uniform_split_allows_slices_of_unequal_size() -> None:
    parsed = Layout.parse(([4], [0, -1], [3, 6], 0, False, "", [10, 6]))
    assert [parsed.shape((10, 6), rank) for rank in range(4)] == [(3, 6), (3, 6), (3, 6), (1, 6)]


def test_no_tensor_map_leaves_the_parameter_whole() -> None:
    assert Layout.parse(([4], [], None, None, True, None), (8, 6)).is_full


def test_nothing_is_checked_without_a_shape() -> None:
    assert Layout.parse(layout([2, 3], [0, -1], [7], "group")) == Layout({"1": 2, "0": 3}, ("0", None), "1")


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    mesh = {f"m{number}": length for number, length in enumerate(draw(st.lists(st.integers(1, 4), max_size=4)))}
    places: dict[str, int] = {name: draw(st.integers(0, 3)) for name in mesh}
    spec = [[name for name in mesh if places[name] == axis] for axis in range(2)]
    return Layout(mesh, spec, [name for name in mesh if places[name] == 2])


@drawn(layouts(), st.tuples(st.integers(0, 30), st.integers(0, 9)))
def test_a_tuple_says_the_same_or_is_not_written(written: Layout, shape: tuple[int, int]) -> None:
    try:
        items = written.to_tuple(shape)
    except ValueError:
        assert written.optimizer_shard
        return
    read = Layout.parse(items, shape)
    for rank in range(written.size):
        assert read.slice_index(rank) == written.slice_index(rank)
        assert read.region(shape, rank).slices() == written.region(shape, rank).slices()


def test_a_tuple_cannot_say_everything() -> None:
    written = Layout({"dp": 2, "tp": 4}, (), optimizer_shard="dp")
    with pytest.raises(ValueError, match=r"the fastest axes of the mesh that hold replicas.* it cannot express Layout"):
        written.to_tuple((16, 6))
    with pytest.raises(ValueError, match="has 2 items, one for each axis"):
        Layout({"dp": 2}, (None, "dp")).to_tuple((16,))


@pytest.mark.parametrize(
    "given, error, words",
    [
        ([1, 2, 3, 4, 5, 6], TypeError, "layout is a Layout, or a tuple .*found list"),
        ((), ValueError, "has the six items dev_mat.*found 0"),
        ((1, 2, 3, 4, 5), ValueError, "found 5"),
        (layout("4", [0, -1]), TypeError, "dev_mat holds ints, found '4'"),
        (layout([0], [0, -1]), ValueError, "dev_mat holds ints of at least 1"),
        (layout([4.0], [0, -1]), TypeError, "dev_mat holds ints"),
        (layout([4], 0), TypeError, "tensor_map is a list of ints"),
        (layout([4], [0, -2]), ValueError, "tensor_map holds ints of at least -1"),
        (layout([4], [1, -1]), ValueError, "names axes of dev_mat"),
        (layout([4], [0, 0]), ValueError, "once each"),
        (layout([4], [0]), ValueError, "tensor_map has 1 items, one for each axis"),
        (layout([5], [0, -1]), ValueError, "splits axis 0 into 5 parts, which do not divide 8"),
        (layout([4], [0, -1], [4, 3]), ValueError, r"gives slices of shape \(2, 6\), its slice_shape is \(4, 3\)"),
        (layout([4], [0, -1], "26"), TypeError, "slice_shape holds ints"),
        (([4], [0, -1], None, "x", True, ""), TypeError, "field_size holds ints"),
        (([4], [0, -1], None, 0, "yes", ""), TypeError, "uniform_split is True or False"),
        ((*layout([4], [0, -1]), [8, 5]), ValueError, r"full_shape is \(8, 5\), the parameter has shape \(8, 6\)"),
        ((*layout([4], [0, -1]), [8, 6], 1), ValueError, "six items .*, and maybe full_shape; found 8"),
        (layout([2, 2], [[1, -1], -1]), ValueError, "-1 on its own"),
        (layout([4], [0, -1], None, 3), TypeError, "opt_shard_group is a str"),
        (layout([2, 2], [1, -1], [3, 6], "group"), ValueError, "its slice_shape is"),
    ],
    ids=str,
)
def test_wrong_layouts(given: Any, error: type[Exception], words: str) -> None:
    lazy = Parameter(initializer("normal", (8, 6)), name="w")
    with pytest.raises(error, match=f"Parameter 'w'.*{words}"):
        lazy.init_data(given)
    assert lazy.has_init
    assert lazy.shape == (8, 6)


def test_rank_outside_the_grid() -> None:
    numparam.set_auto_parallel_context(global_rank=4)
    with pytest.raises(ValueError, match="has no rank 4"):
        Parameter(initializer("normal", (8, 6)), name="w").init_data(layout([4], [0, -1]))


def test_changed_parallel_mode() -> None:
    lazy, made = Parameter(initializer("normal", (8, 6)), name="w"), Parameter(1.0)
    numparam.set_auto_parallel_context(parallel_mode="auto_parallel")
    with pytest.raises(RuntimeError, match="'w' was created in parallel mode 'stand_alone', now it is 'auto_parallel'"):
        lazy.init_data()
    assert made.init_data() is made
    numparam.reset_auto_parallel_context()
    assert not lazy.init_data().has_init
