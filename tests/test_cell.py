"""A cell registers what is assigned to it, runs hooks, and answers questions in linear time."""

import copy
import pickle
import sys
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Cell, CellDict, CellList, Parameter, SequentialCell, Tensor
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


def test_a_cell_that_contains_itself_is_refused_and_cycles_end() -> None:
    cell = Cell()
    with pytest.raises(ValueError, match="cannot be a part of itself"):
        cell.me = cell
    child = Cell()
    cell.child = child
    child.insert_child_to_cell("up", cell)
    assert [path for path, _ in cell.cells_and_names()] == ["", "child"]


def test_assignment_before_init() -> None:
    class Wrong(Cell):
        def __init__(self) -> None:
            self.w = Parameter(1.0)

    with pytest.raises(AttributeError, match=r"Wrong: call super\(\).__init__\(\) before assigning"):
        Wrong()


@pytest.mark.parametrize(
    "value, words",
    [
        (5, "holds parameter 'w' and takes a Parameter, a Tensor of new values or None, found int"),
        (np.ones(2), "found ndarray"),
        ("x", "found str"),
    ],
    ids=str,
)
def test_wrong_values_for_a_parameter(value: Any, words: str) -> None:
    cell = Cell()
    cell.w = Parameter([1.0, 2.0])
    with pytest.raises(TypeError, match=words):
        cell.w = value
    with pytest.raises(ValueError, match="expected data of shape"):
        cell.w = Tensor([1.0])
    assert cell.w.asnumpy().tolist() == [1, 2]


def test_buffers() -> None:
    cell = Cell()
    cell.register_buffer("mask", Tensor([1.0, 2.0]))
    cell.register_buffer("scratch", Tensor([0.0]), persistent=False)
    cell.register_buffer("none", None)
    outer = Cell()
    outer.cell = cell
    assert [path for path, _ in outer.named_buffers()] == ["cell.mask", "cell.scratch"]
    assert list(outer.state_dict()) == ["cell.mask"]
    cell.mask = Tensor([5.0])
    assert outer.get_buffer("cell.mask").asnumpy().tolist() == [5]
    with pytest.raises(TypeError, match="holds a buffer and takes a Tensor or None, found int"):
        cell.mask = 3
    with pytest.raises(KeyError, match="already holds a buffer"):
        cell.register_buffer("mask", None)
    with pytest.raises(KeyError, match="already holds a buffer"):
        cell.mask = Parameter(1.0)
    del cell.mask
    assert [path for path, _ in outer.named_buffers()] == ["cell.scratch"]


def test_what_is_not_there_and_what_is_not_said_is_named() -> None:
    with pytest.raises(KeyError, match="the CellDict has no cell 'x'; it has a, b"):
        CellDict({"a": Cell(), "b": Cell()})["x"]
    with pytest.raises(TypeError, match="converted to a dtype, moved to a device, or both; found neither"):
        Cell().to()


def test_attributes_show_in_dir() -> None:
    cell = Dense(1, 1)
    assert {"weight", "bias", "construct"} <= set(dir(cell))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda cell: pickle.loads(pickle.dumps(cell))])
def test_copies_share_nothing_and_stay_lazy(duplicate: Any) -> None:
    net = SequentialCell(Dense(2, 3), Dense(3, 1))
    net[1].bias.set_data(Tensor([4.0]))
    net[0].weight.comm_fusion = 3
    twin = duplicate(net)
    assert names(twin) == names(net)
    assert twin[0].weight.has_init
    assert twin[0].weight.comm_fusion == 3
    twin[1].bias.asnumpy()[0] = 9
    assert net[1].bias.asnumpy().tolist() == [4]
    np.testing.assert_array_equal(twin[0].weight.asnumpy(), net[0].weight.asnumpy())


def test_a_shallow_copy_of_a_cell_has_its_parts_and_tables_of_its_own() -> None:
    net = SequentialCell(Dense(2, 3))
    net.scale = Parameter([1.0])
    twin = copy.copy(net)
    assert twin.scale is net.scale
    twin.shift = Parameter([2.0])
    twin.append(Dense(3, 1))
    assert names(net) == ["scale", "0.weight", "0.bias"]


def test_settings_reach_everything_below() -> None:
    net = SequentialCell(Dense(2, 3), Dense(3, 1))
    net.set_train().to_float("bfloat16").set_comm_fusion(2)
    assert all(cell.training and str(cell.compute_dtype) == "bfloat16" for _, cell in net.cells_and_names())
    assert {parameter.comm_fusion for parameter in net.get_parameters()} == {2}
    net.recompute(parallel_optimizer_comm_recompute=True)
    assert all(parameter.parallel_optimizer_comm_recompute for parameter in net.get_parameters())
    net[0].bias.requires_grad = False
    net.set_param_ps(init_in_server=True)
    assert [parameter.is_param_ps for parameter in net.get_parameters()] == [True, False, True, True]
    assert net[0].weight.init_in_server


def test_conversion_of_a_whole_cell() -> None:
    numparam.set_seed(7)
    net = SequentialCell(Dense(2, 3), Dense(3, 1))
    net.register_buffer("steps", Tensor([1, 2]))
    net.register_buffer("scale", Tensor([1.5]))
    expected = net[0].weight.clone().asnumpy().astype(numparam.bfloat16)
    net[1].weight.init_data()
    made = net[1].weight.asnumpy().copy()
    assert net.to("bfloat16") is net
    assert {str(parameter.dtype) for parameter in net.get_parameters()} == {"bfloat16"}
    assert (net.steps.dtype, str(net.scale.dtype)) == (np.int64, "bfloat16")
    assert net[0].weight.has_init
    np.testing.assert_array_equal(net[0].weight.asnumpy(), expected)
    np.testing.assert_array_equal(net[1].weight.asnumpy(), made.astype(numparam.bfloat16))
    with pytest.raises(TypeError, match="converted to a floating dtype, found int8"):
        net.to("int8")


def test_state_is_loaded_whole_or_not_at_all() -> None:
    net = Dense(2, 1)
    state = {"weight": np.ones((1, 2)), "bias": np.ones(3)}
    with pytest.raises(RuntimeError, match=r"parameter 'bias': expected shape \(1,\), found \(3,\)"):
        net.load_state_dict(state)
    assert net.weight.has_init
    with pytest.raises(RuntimeError, match="does not fit the Dense: missing: 'bias'; unexpected: 'x'"):
        net.load_state_dict({"weight": np.ones((1, 2)), "x": np.ones(1)})
    keys = net.load_state_dict({"weight": np.ones((1, 2)), "x": np.ones(1)}, strict=False)
    assert keys == (["bias"], ["x"])
    assert net.weight.asnumpy().tolist() == [[1, 1]]
    assert net.bias.has_init


def test_uninitialized_and_origins() -> None:
    net = Dense(2, 1)
    net.scale = Parameter([1.0])
    net.table = Parameter(initializer("unset", (2, 2)))
    assert net.uninitialized() == ["weight", "bias", "table"]
    with pytest.raises(RuntimeError, match="3 parameters of the Dense hold no values yet: weight, bias, table"):
        net.check_initialized()
    with pytest.raises(RuntimeError, match="parameter 'table' holds no values yet: load a checkpoint, or set its data"):
        net.init_parameters_data()
    net.table.set_data(Tensor(np.ones((2, 2), np.float32)))
    net.init_parameters_data()
    net.check_initialized()
    assert [row[-1] for row in net.summary().rows] == ["initializer", "initializer", "input", "set_data"]


def test_summary_reads_well_anywhere() -> None:
    net = SequentialCell(Dense(2, 3))
    net[0].bias.requires_grad = False
    net[0].bias.name = "<b>"
    summary = net.summary()
    lines = repr(summary).splitlines()
    assert lines[0].split() == ["parameter", "shape", "dtype", "device", "bytes", "values", "trainable", "from"]
    assert lines[1].split() == ["0.weight", "(3,", "2)", "float32", "cpu", "24", "B", "lazy", "yes", "initializer"]
    assert lines[-1] == "2 parameters, 9 values, 36 B; trainable 6 values; lazy 36 B"
    assert len({line.find("float32") for line in lines[1:3]}) == 1
    html = summary._repr_html_()
    assert html.count("<tr>") == 3
    net.insert_param_to_cell("<script>", Parameter(1.0))
    assert "<script>" not in net.summary()._repr_html_()


def test_repr_shows_the_tree() -> None:
    class Scaled(Cell):
        def __init__(self) -> None:
            super().__init__()
            self.inner = SequentialCell(Cell())

        def extend_repr(self) -> str:
            return "factor=2"

    assert repr(Scaled()) == "Scaled(\n  factor=2\n  (inner): SequentialCell(\n    (0): Cell()\n  )\n)"


def test_hooks_run_in_order_and_can_be_removed() -> None:
    cell = SequentialCell()
    order: list[str] = []
    first = cell.register_forward_pre_hook(lambda _cell, _inputs: order.append("first"))
    cell.register_forward_pre_hook(lambda _cell, _inputs: order.append("before"), prepend=True)
    cell.register_forward_hook(lambda _cell, _inputs, output: output + 1)
    assert cell(3) == 4
    assert order == ["before", "first"]
    first.remove()
    last = cell.register_forward_pre_hook(lambda _cell, _inputs: order.append("last"))
    last.remove()
    cell.register_forward_pre_hook(lambda _cell, _inputs: order.append("later"))
    first.remove()
    last.remove()
    cell(3)
    assert order == ["before", "first", "before", "later"]
    assert SequentialCell()(3) == 3


def test_walking_is_linear() -> None:
    def calls(layers: int) -> int:
        net = CellList([Dense(2, 2) for _ in range(layers)])
        events: list[str] = []
        sys.setprofile(lambda _frame, event, _argument: events.append(event))
        count = sum(1 for _ in net.parameters_and_names())
        sys.setprofile(None)
        assert count == 2 * layers
        return len(events)

    assert calls(400) < 11 * calls(40)


def test_deep_trees_need_no_recursion() -> None:
    root = Cell()
    cell = root
    for _ in range(3000):
        below = Cell()
        vars(cell)["_cells"]["x"] = below
        cell = below
    cell.w = Parameter(1.0)
    assert len(paths(root)[0]) == 6001


def test_settings_are_attributes() -> None:
    net = SequentialCell(Dense(1, 1))
    net.training, net.phase, net.cell_type, net.compute_dtype = True, "prefill", "head", numparam.float16
    assert (net.training, net.phase, net.cell_type, net.compute_dtype) == (True, "prefill", "head", numparam.float16)
    assert not net[0].training
    assert net.set_train(False).phase == "predict"
    assert net.to_float("bfloat16").compute_dtype == net[0].compute_dtype == numparam.bfloat16


def test_a_pipeline_stage_is_noted_on_the_trainable_parameters() -> None:
    net = SequentialCell(Dense(1, 1), Dense(1, 1))
    net[0].bias.requires_grad = False
    assert net.pipeline_stage is None
    net[0].pipeline_stage = 0
    net[1].pipeline_stage = 1
    assert [parameter._pipeline_stages for parameter in net.get_parameters()] == [(0,), (), (1,), (1,)]
    for wrong, error in ((-1, ValueError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match=r"SequentialCell\.pipeline_stage is"):
            net.pipeline_stage = wrong  # type: ignore[assignment]
    assert net.pipeline_stage is None


def test_hooks_with_keyword_inputs() -> None:
    class Scale(Cell):
        def construct(self, x: int, factor: int = 1) -> int:
            return x * factor

    cell = Scale()
    cell.register_forward_pre_hook(lambda _cell, inputs, named: (inputs, named | {"factor": 5}), with_kwargs=True)
    cell.register_forward_hook(lambda _cell, inputs, named, output: (inputs, named, output), with_kwargs=True)
    assert cell(2, factor=3) == ((2,), {"factor": 5}, 10)
    cell.register_forward_pre_hook(lambda _cell, inputs, _named: inputs, with_kwargs=True)
    with pytest.raises(TypeError, match="returns a pair of inputs"):
        cell(2)


def test_hooks_of_a_state() -> None:
    net = SequentialCell(Dense(1, 1))
    seen: list[Any] = []
    net[0].register_state_dict_pre_hook(lambda _cell, prefix, keep_vars: seen.append((prefix, keep_vars)))
    net.register_state_dict_post_hook(lambda _cell, state, prefix, _data: state.update({prefix + "version": Tensor(2)}))
    assert list(net.state_dict("x.")) == ["x.0.weight", "x.0.bias", "x.version"]
    assert seen == [("x.0.", False)]
    given = {"0.kernel": np.ones((1, 1)), "0.bias": np.ones(1), "surplus": np.ones(1)}

    def rename(_cell: Cell, state: dict[str, Any], prefix: str, *_: Any) -> None:
        state[prefix + "weight"] = state.pop(prefix + "kernel")

    net[0].register_load_state_dict_pre_hook(rename)
    with pytest.raises(RuntimeError, match="unexpected: 'surplus'"):
        net.load_state_dict(given)
    assert net[0].weight.has_init
    net.register_load_state_dict_post_hook(lambda _cell, keys: keys.unexpected_keys.clear())
    assert net.load_state_dict(given) == ([], [])
    assert net[0].weight.asnumpy().tolist() == [[1]]
    assert list(given) == ["0.kernel", "0.bias", "surplus"]


def test_calls_of_a_parallel_script() -> None:
    net = SequentialCell(Dense(1, 1))
    net.set_inputs(Tensor([1.0]), None)
    assert len(net.get_inputs()) == 2
    net.set_inputs(x=None)
    assert net.get_inputs() == {"x": None}
    with pytest.raises(ValueError, match="has no argument 'y'; it has x"):
        net.set_inputs(y=None)
    with pytest.raises(ValueError, match="by position or by name, found both"):
        net.set_inputs(None, x=None)
    assert net.set_broadcast_flag() is net
    assert net[0].broadcast_flag
    net.set_data_parallel()
    net.offload()
    net.offload(3)
    net.shard(((1, 1),), parameter_plan={"self.weight": (1, 1)})
    for wrong in (
        {"in_strategy": [1]},
        {"in_strategy": (), "out_strategy": 1},
        {"in_strategy": (), "parameter_plan": 1},
    ):
        with pytest.raises(TypeError):
            net.shard(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'Auto' or an int, found 'auto'"):
        net.offload("auto")
    with pytest.raises(ValueError, match="backward_prefetch is at least 0"):
        net.offload(-1)
    cast, (inner,) = net.cast_inputs((Tensor([1.5]), (Tensor([2]),)), numparam.float16)
    assert cast.dtype == inner.dtype == np.float16


def test_containers_tell_type_checkers_what_they_hold() -> None:
    layers = CellList[Dense]([Dense(1, 1)])
    assert layers[0].weight.name == "0.weight"
    assert names(copy.deepcopy(SequentialCell[Dense](Dense(1, 1)))) == ["0.weight", "0.bias"]
    assert list(CellDict[Dense]({"a": Dense(1, 1)})) == ["a"]
