"""Plans: the slices of all ranks cover every parameter once, and their bytes are counted without making anything."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numparam.entry import Entry
from numparam.errors import ArgumentValueError
from numparam.layout.partition import split
from numparam.layout.sharding import Shard, parse_axes, parse_mesh, split_axes
from numparam.model.plan import Plan, runs
from numparam.model.specification import load

F32 = np.dtype(np.float32)
shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)
meshes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    mesh = draw(meshes)
    axes = draw(st.none() | st.permutations(range(4)).map(lambda order: tuple(order[: len(mesh)])))
    return Plan((Entry("w", draw(shapes), F32),), mesh, axes)


@given(plans())
def test_the_ranks_cover_every_value_equally_often(plan: Plan) -> None:
    (entry,) = plan.entries
    seen = np.zeros(entry.shape, int)
    for rank in range(plan.ranks):
        seen[plan.shard(rank).slices(entry.shape)] += 1
    layout = plan.layout(entry.shape)
    assert (seen == len(layout.groups()[0])).all()
    axes = split_axes(entry.shape, plan.mesh, plan.axes)
    whole = [parts for parts, axis in zip(plan.mesh, axes, strict=True) if axis is None]
    assert len(layout.groups()[0]) == math.prod(whole)


@given(plans())
def test_the_bytes_are_those_of_the_slices(plan: Plan) -> None:
    (entry,) = plan.entries
    counted = [4 * math.prod(plan.shard(rank).shape(entry.shape)) for rank in range(plan.ranks)]
    assert plan.nbytes().ravel().tolist() == counted
    assert plan.nbytes().shape == plan.sizes().shape == plan.mesh
    assert (plan.nbytes() == 4 * plan.sizes()).all()


@given(st.integers(0, 10**20), st.integers(1, 50))
def test_an_axis_is_split_into_equal_parts_and_a_rest(length: int, parts: int) -> None:
    bounds = [split(length, parts, part) for part in range(parts)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == length
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    lengths = [stop - start for start, stop in bounds]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == -(-length // parts)


def test_dimensions_choose_the_longest_free_axis_in_turn() -> None:
    assert split_axes((4096, 14336), (8, 4)) == (1, 0)
    assert split_axes((14336, 4096), (8, 4)) == (0, 1)
    assert split_axes((4096, 4096), (8, 4)) == (0, 1)
    assert split_axes((4096,), (8, 4)) == (0, None)
    assert split_axes((6, 6), (8, 4)) == (None, 0)
    assert split_axes((), (8,)) == (None,)
    assert split_axes((5, 7), (1, 4)) == (None, 1)
    assert split_axes((5, 7), (4, 2), (1, 2)) == (1, None)


def test_ranks_count_row_by_row() -> None:
    assert [Shard(rank, (2, 3)).slices((30, 20)) for rank in (0, 1, 3)] == [
        (slice(0, 15, 1), slice(0, 7, 1)),
        (slice(0, 15, 1), slice(7, 14, 1)),
        (slice(15, 30, 1), slice(0, 7, 1)),
    ]


def test_the_last_slice_of_a_mesh_that_does_not_divide_is_smaller() -> None:
    plan = Plan((Entry("w", (10, 4), F32),), (4,))
    assert plan.nbytes().tolist() == [48, 48, 48, 16]
    assert list(runs(plan.nbytes().tolist())) == [(0, 2, 48), (3, 3, 16)]


def test_time_is_for_the_rank_with_most_values_and_for_every_parameter() -> None:
    entries = (Entry("w", (10, 10**8), F32), Entry("b", (10**8,), F32))
    without = Plan(entries, (4,), (0,)).seconds(rate=1e9)
    assert Plan(entries, (4,), (0,)).seconds(rate=0.5) - without == pytest.approx((3 * 10**8 + 10**8 / 4) / 0.5e9)
    assert 0 < without < 1e-3


def test_thousands_of_ranks_hold_the_model_and_copies_of_its_vectors() -> None:
    nbytes = Plan(load("llama-3-8b").entries, (512, 64)).nbytes()
    norms = 65 * 2 * (4096 // 512) * 512 * 64
    assert nbytes.sum() == 16_060_522_496 - 65 * 2 * 4096 + norms


@pytest.mark.parametrize(
    "text", ["", "0", "8x", "x8", "8X4", "-1", "8x0", "1.5", "8 x 4", "9999999999", "x".join("1" * 9)]
)
def test_a_bad_mesh_gives_one_sentence(text: str) -> None:
    with pytest.raises(ArgumentValueError, match=r"^a mesh is one to eight positive numbers joined by x,"):
        parse_mesh(text)


@pytest.mark.parametrize(
    "text, message",
    [
        ("one", "an axis is auto, or a number from 0 for each mesh dimension such as 0,1; found 'one'"),
        ("-1,0", "an axis is auto, or a number from 0 for each mesh dimension such as 0,1; found '-1,0'"),
        ("0", "the mesh 8x4 needs 2 different axes, found '0'"),
        ("1,1", "the mesh 8x4 needs 2 different axes, found '1,1'"),
    ],
)
def test_bad_axes_give_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ArgumentValueError) as caught:
        parse_axes(text, (8, 4))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text, message",
    [
        ("4/4", "ranks count from 0: 0/4 to 3/4; found rank 4"),
        ("4", "a shard is written RANK/RANKS, such as 0/4 or 5/8x4; found '4'"),
        ("a/4", "a shard is written RANK/RANKS, such as 0/4 or 5/8x4; found 'a/4'"),
        ("0/0", "a mesh is one to eight positive numbers joined by x, such as 8x4; found '0'"),
    ],
)
def test_a_bad_shard_gives_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ArgumentValueError) as caught:
        Shard.parse(text)
    assert str(caught.value) == message


def test_a_shard_is_written_as_it_is_read() -> None:
    shard = Shard.parse("5/8x4", "1,0")
    assert (str(shard), shard.axes_text) == ("5/8x4", "1,0")
    assert Shard.parse(str(shard), shard.axes_text) == shard


def test_too_many_ranks_are_refused() -> None:
    with pytest.raises(ArgumentValueError, match="a plan is for at most 1048576 ranks, found 1100000"):
        Plan((), (1100, 1000))
