"""A layout cuts a parameter over a mesh, and the shards that its ranks make are the whole parameter, bit for bit."""

import copy
import math
import pickle
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numparam
from numparam import Layout, Parameter
from numparam.initializer import (
    Constant,
    CorrectedTruncatedNormal,
    Dirac,
    HeNormal,
    HeUniform,
    Identity,
    LecunNormal,
    LecunUniform,
    Normal,
    One,
    Orthogonal,
    Sparse,
    TruncatedNormal,
    Uniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
    Zero,
    initializer,
)
from ramp import Ramp


@pytest.fixture(autouse=True)
def _fresh_context() -> Iterator[None]:
    numparam.reset_auto_parallel_context()
    yield
    numparam.reset_auto_parallel_context()


@st.composite
def layouts(draw: st.DrawFn, axes: int = 3) -> Layout:
    """Draw meshes of one to four axes, which cut an axis, serve the optimizer, or nothing, with ranks in any order."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    mesh = {f"m{number}": length for number, length in enumerate(lengths)}
    served = defaultdict(list)
    for name in draw(st.permutations(list(mesh))):
        served[draw(st.integers(0, axes + 1))].append(name)
    ranks = draw(st.one_of(st.none(), st.permutations(range(3, 3 + math.prod(lengths)))))
    return Layout(mesh, [tuple(served[axis]) for axis in range(axes)], served[axes], ranks)


def check_cover(layout: Layout, shape: tuple[int, ...]) -> None:
    """Every value is on exactly one rank of each set of ranks that has one of every replica group."""
    regions = {rank: layout.region(shape, rank) for rank in layout.ranks}
    assert layout.sizes(shape).ravel().tolist() == [region.size for region in regions.values()]
    assert layout.sizes(shape).shape == tuple(layout.mesh.values())
    groups = layout.groups()
    assert sorted(rank for group in groups for rank in group) == sorted(layout.ranks)
    for replica in zip(*groups, strict=True):
        seen = np.zeros(shape, int)
        for rank in replica:
            regions[rank].take(seen)[...] += 1
        assert (seen == 1).all()
    for number, group in enumerate(sorted(groups, key=lambda group: layout.slice_index(group[0]))):
        assert {layout.slice_index(rank) for rank in group} == {number}
        assert len({regions[rank].ranges for rank in group}) == 1
    assert all(
        small <= large
        for region in regions.values()
        for small, large in zip(region.shape, layout.shape(shape, layout.ranks[0]), strict=True)
    )


@given(layouts(), st.tuples(*[st.integers(0, 9)] * 3))
def test_each_replica_covers_every_value_once(layout: Layout, shape: tuple[int, ...]) -> None:
    check_cover(layout, shape)


# 4096 ranks in meshes of one to four axes; where the shape is smaller than the mesh there are empty shards.
HUGE = [
    (Layout({"x": 4096}, ("x",)), (4096, 2)),
    (Layout({"x": 4096}, (None, "x")), (3, 1000)),
    (Layout({"x": 64, "y": 64}, ("x", "y")), (130, 70)),
    (Layout({"x": 64, "y": 64}, (("y", "x"), None)), (5000, 2)),
    (Layout({"x": 64, "y": 64}, ("y",), optimizer_shard="x"), (4100, 3)),
    (Layout({"x": 16, "y": 16, "z": 16}, (None, "z", "x")), (3, 33, 40)),
    (Layout({"x": 16, "y": 16, "z": 16}, ("y",), optimizer_shard=("z", "x")), (777,)),
    (Layout({"p": 8, "x": 8, "y": 8, "z": 8}, ("z", ("x", "y"), "p")), (17, 100, 9)),
    (Layout({"p": 8, "x": 8, "y": 8, "z": 8}, ()), (2, 2)),
]


@pytest.mark.parametrize("layout, shape", HUGE, ids=str)
def test_each_replica_of_4096_ranks_covers_every_value_once(layout: Layout, shape: tuple[int, ...]) -> None:
    assert layout.size == 4096
    check_cover(layout, shape)


def shards(init: Any, shape: tuple[int, ...], dtype: str, layout: Layout) -> list[Parameter]:
    lazy = Parameter(initializer(init, shape, dtype), name="w")
    return [lazy.clone().init_data(layout, rank=rank) for rank in layout.ranks]


def check_shards(init: Any, shape: tuple[int, ...], dtype: str, layout: Layout) -> None:
    """The shards of the ranks, put together, are the whole parameter; replicas are alike."""
    numparam.set_seed(11)
    whole = Parameter(initializer(init, shape, dtype), name="w").asnumpy()
    together = np.empty_like(whole)
    for rank, part in zip(layout.ranks, shards(init, shape, dtype, layout), strict=True):
        region = layout.region(shape, rank)
        assert part.region.slices() == region.slices()
        assert part.asnumpy().dtype == whole.dtype
        assert part.asnumpy().tobytes() == region.take(whole).tobytes()
        region.take(together)[...] = part.asnumpy()
    assert together.tobytes() == whole.tobytes()


FLOATING = ("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2")
MATRICES: list[Any] = [
    Constant(2.5),
    CorrectedTruncatedNormal(0.1),
    HeNormal(mode="fan_out"),
    HeUniform(),
    Identity(),
    LecunNormal(),
    LecunUniform(),
    Normal(0.5, 1.0),
    One(),
    Orthogonal(1.5),
    Ramp(),
    Sparse(0.3),
    TruncatedNormal(1.0, 0.2, -0.5, 0.7),
    Uniform(0.3),
    VarianceScaling(2.0, "fan_avg", "uniform"),
    VarianceScaling(1.0, "fan_in", "truncated_normal"),
    VarianceScaling(1.0, "fan_out", "untruncated_normal"),
    XavierNormal(),
    XavierUniform(2.0),
    Zero(),
    0.1,
]
GRID = {"dp": 2, "tp": 3, "ep": 2}


@pytest.mark.parametrize("init", MATRICES, ids=str)
@pytest.mark.parametrize(
    "layout",
    [
        Layout({"x": 5}, ("x", None)),
        Layout(GRID, ("tp", "dp")),
        Layout(GRID, (("ep", "dp"), "tp")),
        Layout(GRID, (None, "ep"), optimizer_shard=("dp", "tp")),
    ],
    ids=str,
)
def test_shards_of_every_initializer_are_the_whole(init: Any, layout: Layout) -> None:
    check_shards(init, (17, 10), "float32", layout)


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("init", [Normal(0.5), XavierUniform(), Orthogonal(), Identity(), Sparse(0.3)], ids=str)
def test_shards_of_every_dtype_are_the_whole(init: Any, dtype: str) -> None:
    check_shards(init, (9, 14), dtype, Layout(GRID, ("tp", ("dp", "ep"))))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", "uint64", "complex64", "complex128"])
def test_shards_of_constants_of_other_dtypes_are_the_whole(dtype: str) -> None:
    check_shards(One(), (9, 14), dtype, Layout(GRID, ("tp", ("dp", "ep"))))


@pytest.mark.parametrize("shape", [(12, 4, 3), (9, 5, 3, 3), (8, 6, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("init", [Dirac(), Dirac(groups=2), HeNormal(), Orthogonal(), LecunUniform()], ids=str)
def test_shards_of_convolutions_are_the_whole(init: Any, shape: tuple[int, ...]) -> None:
    if isinstance(init, Dirac) and shape[0] % init.groups:
        init = Dirac(groups=3)
    check_shards(init, shape, "float32", Layout({"a": 2, "b": 2, "c": 3, "d": 1}, ("c", "b", "a"), "d"))


@settings(max_examples=25, deadline=None)
@given(layouts(axes=2), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from(MATRICES))
def test_shards_of_any_layout_are_the_whole(layout: Layout, shape: tuple[int, int], init: Any) -> None:
    check_shards(init, shape, "float32", layout)


@pytest.mark.slow
@pytest.mark.parametrize("init", MATRICES, ids=str)
def test_shards_of_4096_ranks_are_the_whole(init: Any) -> None:
    check_shards(init, (127, 64), "float32", Layout({"x": 64, "y": 64}, ("x", "y")))


@pytest.mark.parametrize("dtype", FLOATING)
def test_shards_of_4096_ranks_in_four_axes_are_the_whole(dtype: str) -> None:
    layout = Layout({"p": 8, "x": 8, "y": 8, "z": 8}, (("z", "x"), "y"), optimizer_shard="p")
    check_shards(XavierUniform(), (515, 9), dtype, layout)


def test_fans_are_those_of_the_whole() -> None:
    (first, *_) = shards(XavierUniform(), (64, 1024), "float32", Layout({"tp": 8}, (None, "tp")))
    bound = math.sqrt(6 / (64 + 1024))
    assert first.shape == (64, 128)
    assert 0.98 * bound < np.abs(first.asnumpy()).max() <= bound


def test_uneven_axes_leave_the_rest_to_the_last_shards() -> None:
    layout = Layout({"x": 4}, ("x",))
    assert [layout.shape((5, 2), rank) for rank in range(4)] == [(2, 2), (2, 2), (1, 2), (0, 2)]
    parts = shards("normal", (5, 2), "float32", layout)
    assert (parts[3].shape, parts[3].asnumpy().shape, parts[3].has_init) == ((0, 2), (0, 2), False)


def test_places_are_row_major_and_the_first_of_several_axes_is_the_slowest() -> None:
    mesh = {"dp": 2, "tp": 3}
    assert [Layout(mesh, ("tp",)).region((6,), rank).ranges[0].start for rank in range(6)] == [0, 2, 4, 0, 2, 4]
    assert [Layout(mesh, (("dp", "tp"),)).slice_index(rank) for rank in range(6)] == [0, 1, 2, 3, 4, 5]
    assert [Layout(mesh, (("tp", "dp"),)).slice_index(rank) for rank in range(6)] == [0, 2, 4, 1, 3, 5]


def test_the_optimizer_cuts_each_shard_once_more() -> None:
    layout = Layout({"dp": 3, "tp": 2}, ("tp",), optimizer_shard="dp")
    assert [layout.region((8, 2), rank).ranges[0] for rank in range(6)] == [
        range(2),
        range(4, 6),
        range(2, 4),
        range(6, 8),
        range(4, 4),
        range(8, 8),
    ]
    assert layout.groups("dp") == layout.groups(layout.optimizer_shard) == [(0, 2, 4), (1, 3, 5)]
    assert layout.groups() == [(rank,) for rank in range(6)]


def test_groups_along_several_axes() -> None:
    layout = Layout({"a": 2, "b": 2, "c": 2}, ("b",))
    assert layout.replicated == ("a", "c")
    assert layout.groups() == layout.groups(["c", "a"]) == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert layout.groups(()) == [(rank,) for rank in range(8)]
    with pytest.raises(ValueError, match="the mesh has no axis 'd'; it has a, b, c"):
        layout.groups("d")


def test_rank_is_that_of_the_context_unless_given() -> None:
    layout = Layout({"x": 4}, ("x",))
    numparam.set_auto_parallel_context(parallel_mode="semi_auto_parallel", device_num=4, global_rank=3)
    lazy = Parameter(initializer("normal", (8, 2)), name="w")
    assert lazy.clone().init_data(layout).region.slices()[0] == slice(6, 8, 1)
    assert lazy.clone().init_data(layout, rank=np.int64(0)).region.slices()[0] == slice(0, 2, 1)
    assert lazy.layout is None
    assert lazy.region.is_full


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((4, ()), TypeError, "maps the names of axes to their lengths, found 4"),
        (({1: 4}, ()), TypeError, "maps the names of axes to their lengths"),
        (({"x": 4.0}, ()), TypeError, "the length of axis 'x' is an int, found 4.0"),
        (({"x": 0}, ()), ValueError, "the length of axis 'x' is at least 1, found 0"),
        (({"x": 4}, "x"), TypeError, "the spec of a layout is a tuple"),
        (({"x": 4}, None), TypeError, "the spec of a layout is a tuple"),
        (({"x": 4}, (0,)), TypeError, "names an axis of its mesh, a tuple of several, or None; found 0"),
        (({"x": 4}, (("x", 1),)), TypeError, "names an axis of its mesh"),
        (({"x": 4}, ("y",)), ValueError, "names axis 'y'; its mesh has x"),
        (({"x": 4}, ("x", "x")), ValueError, "names axis 'x' of the mesh more than once"),
        (({"x": 4}, ("x",), "x"), ValueError, "names axis 'x' of the mesh more than once"),
        (({"x": 4}, (), 3), TypeError, "names an axis of its mesh"),
    ],
    ids=str,
)
def test_wrong_layouts(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Layout(*arguments)


@pytest.mark.parametrize(
    "layout, rank, error, words",
    [
        (Layout({"x": 4}, ("x", None, None)), 0, ValueError, "has 3 items, one for each axis"),
        (Layout({"x": 4}, ("x",)), 4, ValueError, "mesh {'x': 4} of the layout has no rank 4"),
        (Layout({"x": 4}, ("x",)), -1, ValueError, "has no rank -1"),
        (Layout({"x": 4}, ("x",)), 1.0, TypeError, "a rank is an int, found 1.0"),
        (Layout({"x": 4}, ("x",)), True, TypeError, "a rank is an int, found True"),
    ],
    ids=str,
)
def test_layouts_that_do_not_suit_the_parameter(layout: Layout, rank: Any, error: type[Exception], words: str) -> None:
    lazy = Parameter(initializer("normal", (8, 6)), name="w")
    with pytest.raises(error, match=rf"Parameter 'w' of shape \(8, 6\): .*{words}"):
        lazy.init_data(layout, rank=rank)
    assert lazy.has_init
    assert lazy.region.is_full


def test_a_scalar_has_nothing_for_the_optimizer_to_cut() -> None:
    with pytest.raises(ValueError, match=r"Parameter 's' of shape \(\): a scalar has no axis 0"):
        Parameter(initializer("zeros", ()), name="s").init_data(Layout({"x": 2}, (), "x"), rank=1)
    assert Layout({"x": 2}, ()).region((), 1).shape == ()


def test_equal_layouts_say_the_same_in_the_same_order() -> None:
    layout = Layout({"a": 2, "b": 3}, ["a", ("b",)], None)
    assert layout == Layout({"a": np.int64(2), "b": 3}, (("a",), "b"))
    assert hash(layout) == hash(Layout({"a": 2, "b": 3}, ("a", "b"), ()))
    assert layout != Layout({"b": 3, "a": 2}, ("a", "b"))
    assert layout != Layout({"a": 2, "b": 3}, ("a",), "b")
    assert pickle.loads(pickle.dumps(layout)) == copy.deepcopy(layout) == layout
    assert eval(repr(layout)) == layout
    assert eval(repr(Layout({"a": 2, "b": 3}, (None,), ("b", "a")))).optimizer_shard == ("b", "a")


def test_copies_of_a_shard_know_their_region() -> None:
    layout = Layout({"x": 2}, ("x",))
    part = Parameter(initializer("normal", (8, 2)), name="w").init_data(layout, rank=1)
    for twin in (part.clone(), part.clone("zeros"), copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert (twin.region.slices(), twin.region.full_shape) == ((slice(4, 8, 1), slice(0, 2, 1)), (8, 2))
        assert twin.layout == layout
    assert Parameter(part, name="v").region.slices() == part.region.slices()


def test_a_slice_of_a_lazy_tensor_makes_a_shard() -> None:
    whole = Parameter(initializer("normal", (8, 2)), name="w")
    part = Parameter(whole[2:4], name="w")
    assert part.region.slices() == (slice(2, 4, 1), slice(0, 2, 1))
    part.init_data()
    assert (part.region.full_shape, part.region.shape) == ((8, 2), (2, 2))
    np.testing.assert_array_equal(part.asnumpy(), whole.asnumpy()[2:4])


def test_new_values_of_the_shape_of_a_shard_keep_its_place() -> None:
    part = Parameter(initializer("normal", (8, 2)), name="w").init_data(Layout({"x": 2}, ("x",)), rank=1)
    part.set_data(numparam.Tensor(np.ones((4, 2), np.float32)), slice_shape=True)
    assert part.region.slices() == (slice(4, 8, 1), slice(0, 2, 1))
    part.set_data(numparam.Tensor(np.ones((3, 2), np.float32)), slice_shape=True)
    assert (part.region.is_full, part.region.shape, part.layout) == (True, (3, 2), None)


def test_a_layout_is_made_as_in_mindspore() -> None:
    layout = Layout((2, 4), ("dp", "mp"))
    assert layout("dp", "None") == Layout({"dp": 2, "mp": 4}, ("dp", None))
    assert layout(("dp", "mp"), None).spec == (("dp", "mp"), ())
    assert layout("None", ("mp", "None"), "dp").to_dict() == {
        "device_matrix": (2, 4),
        "tensor_map": (-1, 0, 1),
        "interleaved_parallel": False,
        "alias_name": ("dp", "mp"),
        "rank_list": list(range(8)),
    }
    assert layout(("mp", "dp")).to_dict()["tensor_map"] == ((0, 1),)
    with pytest.raises(ValueError, match="names axis 'dp' of the mesh more than once"):
        layout("dp", "dp")
    with pytest.raises(ValueError, match="names axis 'tp'; its mesh has dp, mp"):
        layout("tp")


def test_ranks_fill_the_mesh_in_the_order_of_a_list() -> None:
    layout = Layout((2, 2), ("dp", "mp"), [7, 4, 6, 5])("mp", "None")
    assert layout.to_dict()["rank_list"] == [7, 4, 6, 5]
    assert [layout.region((8, 6), rank).ranges[0] for rank in (7, 4, 6, 5)] == [range(4), range(4, 8)] * 2
    assert layout.groups() == [(7, 6), (4, 5)]
    assert "│ 0:4 │ 6, 7 │" in layout.picture((8, 6))
    assert layout == eval(repr(layout)) == pickle.loads(pickle.dumps(layout))
    ordered = Layout({"dp": 2, "mp": 2}, ("mp", None))
    assert layout != ordered == Layout((2, 2), ("dp", "mp"), rank_list=[0, 1, 2, 3])("mp", "None")
    part = Parameter(initializer("normal", (8, 6)), name="w").init_data(layout, rank=5)
    assert part.asnumpy().tobytes() == Parameter(initializer("normal", (8, 6)), name="w").asnumpy()[4:].tobytes()
    with pytest.raises(ValueError, match="has no rank 0"):
        layout.region((8, 6), 0)
    with pytest.raises(ValueError, match="rank r is at place r of the mesh; it cannot express Layout"):
        layout.to_tuple((8, 6))


@pytest.mark.parametrize(
    "ranks, error, words",
    [
        ((0, 1), TypeError, "a list of ints|names an axis"),
        ([0, 1, 2, "3"], TypeError, "an item of rank_list is an int, found '3'"),
        ([[0, 1], [2, 3]], TypeError, "an item of rank_list is an int"),
        ([0, 1, 2], ValueError, "a different rank for each of the 4 places of the mesh {'dp': 2, 'mp': 2}, found"),
        ([0, 1, 2, 2], ValueError, "a different rank for each of the 4 places"),
        ([0, 1, 2, -1], ValueError, "an item of rank_list is at least 0, found -1"),
    ],
    ids=str,
)
def test_wrong_lists_of_ranks(ranks: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Layout((2, 2), ("dp", "mp"), ranks)


@pytest.mark.parametrize(
    "mesh, names, error",
    [
        ((2, 4), ["dp", "mp"], TypeError),
        ((2, 4), ("dp", 1), TypeError),
        ((2.0, 4), ("dp", "mp"), TypeError),
        ((2, 4), ("dp",), ValueError),
        ((2, 4), ("dp", "dp"), ValueError),
        ((2, 4), ("dp", ""), ValueError),
        ((2, 4), ("dp", "None"), ValueError),
        ((2, 0), ("dp", "mp"), ValueError),
        ((2, 2), ("dp", "interleaved_parallel"), ValueError),  # which splits no parameter
    ],
    ids=str,
)
def test_wrong_layouts_as_in_mindspore(mesh: Any, names: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Layout(mesh, names)
