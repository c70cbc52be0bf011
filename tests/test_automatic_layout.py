"""Automatic layouts keep parameters whole while there is room, and cut the largest first when there is not."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numparam
from numparam import Cell, Layout, Parameter, automatic_layouts
from numparam.entry import Entry
from numparam.initializer import initializer

F32 = np.dtype(np.float32)
MESH = {"dp": 2, "tp": 4}


@pytest.fixture(autouse=True)
def _fresh_context() -> Iterator[None]:
    numparam.reset_auto_parallel_context()
    yield
    numparam.reset_auto_parallel_context()


def entries(**shapes: tuple[int, ...]) -> list[Entry]:
    return [Entry(name, shape, F32) for name, shape in shapes.items()]


def bytes_of_ranks(chosen: dict[str, Layout], model: list[Entry]) -> list[int]:
    size = next(iter(chosen.values())).size
    return [
        sum(4 * int(np.prod(chosen[entry.name].shape(entry.shape, rank))) for entry in model) for rank in range(size)
    ]


def test_everything_is_whole_while_there_is_room() -> None:
    model = entries(a=(64, 8), b=(8,))
    for room in (None, 4 * (64 * 8 + 8)):
        assert automatic_layouts(model, MESH, room) == {"a": Layout(MESH, ()), "b": Layout(MESH, ())}


def test_the_largest_is_sharded_first_over_the_last_axis_and_where_it_is_longest() -> None:
    model = entries(small=(8, 8), large=(16, 64))
    chosen = automatic_layouts(model, MESH, 4 * (16 * 64 + 8 * 8) - 1)
    assert chosen == {"small": Layout(MESH, ()), "large": Layout(MESH, (None, "tp"))}


def test_cutting_goes_on_until_there_is_room() -> None:
    model = entries(small=(8, 8), large=(16, 64))
    assert automatic_layouts(model, MESH, 4 * (16 * 64 // 8 + 64)) == {
        "small": Layout(MESH, ()),
        "large": Layout(MESH, (("dp",), "tp")),
    }
    everything = automatic_layouts(model, MESH, 4 * (16 * 64 + 64) // 8)
    assert everything["small"].spec == (("tp",), ("dp",))


def test_one_axis_of_a_parameter_takes_several_of_the_mesh_in_their_order() -> None:
    assert automatic_layouts(entries(w=(64,)), MESH, 32) == {"w": Layout(MESH, (("dp", "tp"),))}


def test_an_axis_that_divides_evenly_goes_before_a_longer_one() -> None:
    assert automatic_layouts(entries(w=(50257, 768)), {"tp": 8}, 10**8)["w"] == Layout({"tp": 8}, (None, "tp"))
    assert automatic_layouts(entries(w=(50257, 767)), {"tp": 8}, 10**8)["w"] == Layout({"tp": 8}, ("tp", None))


def test_too_little_memory_names_the_largest_parameter() -> None:
    with pytest.raises(ValueError, match=r"cannot hold its parameters in 200 B.*they take 272 B.*'w' of .*240 B"):
        automatic_layouts(entries(w=(20, 20, 1), b=(8,), c=(6,)), {"x": 7, "y": 1}, 200)
    with pytest.raises(TypeError, match="memory_per_rank is an int"):
        automatic_layouts([], MESH, "1 GB")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="duplicate parameter name 'w'"):
        automatic_layouts([*entries(w=(2,)), *entries(w=(3,))], MESH)


shapes = st.lists(st.integers(0, 40), max_size=3).map(tuple)


@given(st.lists(shapes, min_size=1, max_size=6), st.integers(0, 20_000), st.randoms(use_true_random=False))
def test_the_budget_is_kept_on_every_rank_whatever_the_order(
    found: list[tuple[int, ...]], room: int, shuffling: random.Random
) -> None:
    model = [Entry(f"p{number}", shape, F32) for number, shape in enumerate(found)]
    mesh = {"a": 2, "b": 3, "c": 1, "d": 2}
    try:
        chosen = automatic_layouts(model, mesh, room)
    except ValueError:
        assert max(bytes_of_ranks(automatic_layouts(model, mesh), model)) > room
        return
    assert max(bytes_of_ranks(chosen, model)) <= room
    shuffling.shuffle(model)
    assert automatic_layouts(model, mesh, room) == chosen


class Net(Cell):
    def __init__(self) -> None:
        super().__init__()
        self.table = Parameter(initializer("normal", (64, 16)), name="table")
        self.bias = Parameter(initializer("normal", (16,)), name="bias")
        self.made = Parameter(np.ones((8, 8), np.float32), name="made")


def made(rank: int, choose: bool = True, layouts: dict[str, Any] | None = None, **options: Any) -> Net:
    numparam.set_seed(7)
    numparam.set_auto_parallel_context(global_rank=rank, **options)
    net = Net()
    net.parameter_layout_dict = layouts or {}
    assert net.init_parameters_data(auto_parallel_mode=choose) == {each: each for each in net.get_parameters()}
    assert not net.uninitialized()
    return net


def test_auto_mode_makes_the_shards_of_the_chosen_layouts() -> None:
    whole = made(0)
    room = 4 * (64 * 16 // 8 + 16 + 64)
    nets = [
        made(rank, parallel_mode="auto_parallel", device_num=8, mesh=MESH, memory_per_rank=room) for rank in range(8)
    ]
    layout = Layout(MESH, (("dp", "tp"), None))
    for rank, net in enumerate(nets):
        assert (net.table.layout, net.bias.layout, net.made.layout) == (layout, Layout(MESH, ()), None)
        assert (net.table.sliced, net.bias.sliced) == (True, False)
        assert net.table.region.slices() == layout.region((64, 16), rank).slices()
        np.testing.assert_array_equal(net.table.asnumpy(), whole.table.asnumpy()[8 * rank : 8 * rank + 8])
        np.testing.assert_array_equal(net.bias.asnumpy(), whole.bias.asnumpy())


def test_auto_mode_without_a_mesh_cuts_over_all_ranks_in_one_axis() -> None:
    net = made(3, parallel_mode="auto_parallel", device_num=4, memory_per_rank=4 * (64 * 4 + 16 + 64))
    assert net.table.layout == Layout({"rank": 4}, ("rank", None))


def test_a_layout_that_the_user_gave_stays_in_auto_mode() -> None:
    given = {"table": Layout(MESH, (None, "tp"))}
    options = {"parallel_mode": "auto_parallel", "device_num": 8, "mesh": MESH}
    net = made(1, layouts=given, memory_per_rank=4 * (64 * 4 + 16 + 64), **options)
    assert (net.table.layout, net.bias.layout) == (given["table"], Layout(MESH, ()))
    with pytest.raises(ValueError, match="the largest, 'table'"):
        made(1, layouts=given, memory_per_rank=4 * 64 * 4, **options)


def test_semi_auto_mode_uses_the_layouts_of_the_user_alone() -> None:
    whole = made(0)
    given = {"table": ([2, 2], [1, 0], [32, 8], 0, True, "")}
    net = made(1, parallel_mode="semi_auto_parallel", device_num=4, memory_per_rank=1, layouts=given)
    np.testing.assert_array_equal(net.table.asnumpy(), whole.table.asnumpy()[:32, 8:])
    assert net.table.sliced is True
    assert (net.bias.layout, net.bias.sliced, net.bias.shape) == (None, False, (16,))


@pytest.mark.parametrize("mode", ["stand_alone", "data_parallel", "hybrid_parallel"])
def test_other_modes_hold_parameters_whole(mode: str) -> None:
    net = made(1, parallel_mode=mode, device_num=4, memory_per_rank=1, layouts={"table": Layout({"x": 4}, ("x",))})
    assert (net.table.shape, net.table.layout, net.table.sliced) == ((64, 16), None, False)


def test_auto_mode_chooses_nothing_unasked() -> None:
    net = made(1, choose=False, parallel_mode="auto_parallel", device_num=4, memory_per_rank=1)
    assert (net.table.shape, net.table.layout) == ((64, 16), None)


def test_wrong_layouts_of_a_cell() -> None:
    options = {"parallel_mode": "auto_parallel", "device_num": 4}
    with pytest.raises(ValueError, match="a layout for 'tabel', a parameter that the Net does not have"):
        made(0, layouts={"tabel": Layout({}, ())}, **options)
    with pytest.raises(TypeError, match="Parameter 'table': layout is a Layout"):
        made(0, layouts={"table": [1]}, **options)
    with pytest.raises(RuntimeError, match=r"the mesh {'dp': 2, 'tp': 4} .* has 8 ranks, its device_num is 4"):
        made(0, mesh=MESH, **options)
