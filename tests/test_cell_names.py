"""The parts of a cell are named by their places, whatever the order of building."""

import gc
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Cell, CellDict, CellList, Parameter, ParameterTuple, SequentialCell, Tensor
from numparam.initializer import initializer


class Dense(Cell):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = Parameter(initializer("xavier_uniform", (outputs, inputs)))
        self.bias = Parameter(initializer("zeros", outputs))

    def construct(self, x: Any) -> Any:
        return x @ self.weight.asnumpy().T + self.bias.asnumpy()


def names(cell: Cell) -> list[str]:
    return [parameter.name for parameter in cell.get_parameters()]


def paths(cell: Cell) -> list[str]:
    return [path for path, _ in cell.parameters_and_names()]


def test_the_four_cases_of_naming() -> None:
    cell = Cell()
    cell.param_a = Parameter(Tensor([1], numparam.float32), name="name_a")
    cell.param_b = Parameter(Tensor([2], numparam.float32))
    cell.param_list = [Parameter(Tensor([3], numparam.float32)), Parameter(Tensor([4], numparam.float32))]
    assert names(cell) == ["name_a", "param_b", "Parameter$1", "Parameter$2"]
    with pytest.raises(ValueError, match="its name 'name_a' already exists"):
        cell.param_tuple = (Parameter(Tensor([5], numparam.float32), name="name_a"), Parameter(6.0))
    assert len(names(cell)) == 4
    cell.param_tuple = (cell.param_a, cell.param_a)
    assert names(cell) == ["name_a", "param_b", "Parameter$1", "Parameter$2"]
    cell.more = ParameterTuple([Parameter(7.0), Parameter(8.0, name="own")])
    assert names(cell)[4:] == ["Parameter$3", "own"]
    assert isinstance(cell.more, ParameterTuple)


def test_two_attributes_with_one_name() -> None:
    cell = Cell()
    cell.a = Parameter(1.0, name="n")
    with pytest.raises(ValueError, match=r"Cell\.b: duplicate parameter name, its name 'n' already exists"):
        cell.b = Parameter(2.0, name="n")
    cell.a = Parameter(3.0, name="n")
    cell.b = Parameter(4.0)
    with pytest.raises(ValueError, match="'b' already exists"):
        cell.c = Parameter(5.0, name="b")
    cell.b.name = "other"
    cell.c = Parameter(5.0, name="b")
    assert names(cell) == ["n", "other", "b"]


def test_lists_of_cells_are_called_by_attribute_and_place() -> None:
    cell = Cell()
    cell.blocks = [Dense(1, 1), Dense(1, 1)]
    assert names(cell) == ["blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]
    cell.blocks = [Dense(1, 1)]
    assert names(cell) == ["blocks.0.weight", "blocks.0.bias"]
    cell.blocks = None
    assert names(cell) == []
    assert cell.blocks is None


def test_a_list_that_is_assigned_again_replaces_its_members() -> None:
    cell = Cell()
    cell.ps = [Parameter(1.0), Parameter(2.0)]
    cell.ps = [cell.ps[1], Parameter(3.0)]
    assert names(cell) == ["Parameter$2", "Parameter$3"]
    del cell.ps
    assert names(cell) == []
    assert not hasattr(cell, "ps")


def test_a_list_that_is_refused_leaves_the_old_one() -> None:
    cell = Cell()
    cell.a = Parameter(0.0, name="n")
    cell.ps = [Parameter(1.0), Parameter(2.0, name="m")]
    before = cell.ps
    for wrong in ([Parameter(3.0, name="n")], [Parameter(3.0, name="a")], [Parameter(3.0, "x"), Parameter(3.0, "x")]):
        with pytest.raises(ValueError, match="already exists"):
            cell.ps = wrong
        assert cell.ps is before
        assert names(cell) == ["n", "Parameter$1", "m"]
    cell.ps = [Parameter(4.0, name="m")]
    assert names(cell) == ["n", "m"]
    cell.ps = [Parameter(5.0), None]
    assert names(cell) == ["n"]
    with pytest.raises(TypeError, match="holds parameter 'n' and takes"):
        cell.a = [Parameter(5.0), None]
    cell.a = [Parameter(6.0)]
    assert names(cell) == ["Parameter$2"]


def test_parameters_that_left_are_not_kept() -> None:
    cell = Cell()
    cell.a = Parameter(1.0, name="n")
    cell.ps = [Parameter(2.0, name="m")]
    left = [weakref.ref(cell.a), weakref.ref(cell.ps[0])]
    cell.a = Parameter(3.0, name="other")
    del cell.ps
    gc.collect()
    assert [reference() for reference in left] == [None, None]
    cell.b = Parameter(4.0, name="n")
    assert names(cell) == ["other", "n"]


def test_mixed_and_empty_lists_are_plain() -> None:
    cell = Cell()
    cell.a = [Parameter(1.0), None]
    cell.b = []
    cell.c = {"p": Parameter(1.0)}
    assert names(cell) == []


def test_names_do_not_depend_on_the_order_of_building() -> None:
    inner_first, outer_first = Cell(), Cell()
    child = Cell()
    child.fc = Dense(1, 1)
    child.late = Parameter(1.0)
    inner_first.child = child
    outer_first.child = Cell()
    outer_first.child.late = Parameter(1.0)
    outer_first.child.fc = Dense(1, 1)
    assert (
        sorted(names(inner_first)) == sorted(names(outer_first)) == ["child.fc.bias", "child.fc.weight", "child.late"]
    )
    assert names(inner_first) == paths(inner_first)


def test_values_depend_on_the_place_in_the_finished_tree() -> None:
    numparam.set_seed(7)
    net = Cell()
    net.layers = CellList([Dense(3, 2), Dense(3, 2)])
    expected = Parameter(initializer("xavier_uniform", (2, 3)), name="layers.1.weight").asnumpy()
    np.testing.assert_array_equal(net.layers[1].weight.asnumpy(), expected)
    assert not np.array_equal(net.layers[0].weight.asnumpy(), expected)


def test_tied_parameters_are_met_once_and_named_by_the_first_place() -> None:
    net = Cell()
    net.embed, net.head = Dense(2, 2), Dense(2, 2)
    net.head.weight = net.embed.weight
    assert names(net) == ["embed.weight", "embed.bias", "head.bias"]
    outer = Cell()
    outer.net = net
    assert names(outer) == paths(outer) == ["net.embed.weight", "net.embed.bias", "net.head.bias"]


def test_a_cell_is_appended_beside_one_that_has_its_number_for_a_name() -> None:
    first, second = Dense(1, 1), Dense(1, 1)
    net = SequentialCell(OrderedDict([("1", first)]))
    assert list(net.append(second)) == [first, second]
    assert names(net) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_a_cell_that_has_a_place_keeps_its_name_in_a_list() -> None:
    net = Cell()
    net.a, net.b = Dense(1, 1), SequentialCell(Dense(1, 1))
    net.all = [net.a, net.b[0], Dense(1, 1)]
    expected = ["a.weight", "a.bias", "b.0.weight", "b.0.bias", "all.2.weight", "all.2.bias"]
    assert names(net) == paths(net) == expected
    outer = Cell()
    outer.net = net
    assert names(outer) == paths(outer) == [f"net.{name}" for name in expected]
    del net.all
    assert names(net) == [f"net.{name}" for name in expected[:4]]


def test_an_attribute_is_a_better_place_than_a_list() -> None:
    net = Cell()
    first = Dense(1, 1)
    net.all = [first, Dense(1, 1)]
    net.a = first
    assert sorted(names(net)) == sorted(paths(net)) == ["a.bias", "a.weight", "all.1.bias", "all.1.weight"]
    assert net.all[0] is first


def test_a_list_of_another_tree_s_cells_registers_and_does_not_rename() -> None:
    net, head = Cell(), Cell()
    net.encoder = SequentialCell(Dense(1, 1))
    head.layers = [net.encoder[0]]
    assert names(head) == ["encoder.0.weight", "encoder.0.bias"]
    net.head = head
    assert names(net) == paths(net) == ["encoder.0.weight", "encoder.0.bias"]


def test_cells_that_stay_in_a_list_follow_their_places() -> None:
    net = Cell()
    net.blocks = [Dense(1, 1), Dense(1, 1)]
    net.blocks = [net.blocks[1]]
    assert names(net) == paths(net) == ["blocks.0.weight", "blocks.0.bias"]


def test_a_cell_that_left_its_place_takes_another() -> None:
    def fresh() -> Cell:
        return SequentialCell(Dense(1, 1))

    net, layers, heads = Cell(), CellList([Dense(1, 1), Dense(1, 1)]), CellDict({"a": Dense(1, 1)})
    net.one, net.two = fresh(), fresh()
    one, two, first, head = net.one, net.two, layers[0], heads.pop("a")
    net.one = fresh()
    net.two = None
    del layers[0]
    net.all = [one, two, first, head]
    assert names(net) == paths(net)
    assert "all.0.0.weight" in names(net)
    assert "all.3.bias" in names(net)


def test_own_conveniences_give_way_to_parts() -> None:
    for name in ("summary", "uninitialized", "check_initialized", "get_parameter", "compute_dtype", "to"):
        net = Cell()
        part = Dense(1, 1)
        setattr(net, name, part)
        assert getattr(net, name) is part
        assert names(net) == [f"{name}.weight", f"{name}.bias"]
        delattr(net, name)
        assert getattr(net, name) is not part
        net.insert_param_to_cell(name, Parameter(1.0))
        assert getattr(net, name).name == name
    with pytest.raises(KeyError, match=r"Cell\.construct is an attribute of the class"):
        Cell().construct = Dense(1, 1)  # type: ignore[assignment]
    assert list(CellDict({"summary": Cell()})) == ["summary"]


def test_a_list_of_parts_may_have_the_name_of_a_method() -> None:
    net = Cell()
    net.dense = Dense(1, 1)
    parts = net.trainable_params()
    net.trainable_params = parts  # type: ignore[method-assign,assignment]
    net.cells = [net.dense]  # type: ignore[method-assign,assignment]
    assert net.trainable_params is parts
    assert names(net) == ["dense.weight", "dense.bias"]
    assert net.set_comm_fusion(3).dense.bias.comm_fusion == 3
    net.pipeline_stage = 1
    net.apply(lambda _cell: None)
    with pytest.raises(KeyError, match="is an attribute of the class"):
        net.get_parameters = [Parameter(1.0)]  # type: ignore[method-assign,assignment]


def test_names_without_prefixes_fold(tmp_path: Path) -> None:
    net = Cell(auto_prefix=False)
    net.first, net.second = Dense(1, 1), Dense(1, 1)
    net.second.weight.set_data(Tensor([[7.0]]))
    assert names(net) == ["weight", "bias", "weight", "bias"]
    assert net.parameters_dict() == {"weight": net.second.weight, "bias": net.second.bias}
    with pytest.raises(ValueError, match="duplicate parameter name 'weight' in Cell"):
        net.check_names()
    numparam.save_checkpoint(net, tmp_path / "net.safetensors")
    saved = numparam.load_checkpoint(tmp_path / "net.safetensors")
    assert saved["weight"].asnumpy().tolist() == [[7.0]]
    assert not numparam.load_param_into_net(net, saved).param_not_load
    assert net.first.weight.asnumpy().tolist() == [[7.0]]
    net.check_names_and_refresh_name()
    assert names(net) == ["first.weight", "first.bias", "second.weight", "second.bias"]
