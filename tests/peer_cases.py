"""Snippets that MindSpore 2.10 and numparam both run, and what became of them there.

`python tests/peer_cases.py` in an environment with MindSpore records ``tests/data/peer_outcomes.json`` anew;
``test_peer_cases.py`` compares. The outcome of a snippet is the value of its last line, or the kind of exception that
it raises.
"""

import ast
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

OUTCOMES = Path(__file__).parent / "data" / "peer_outcomes.json"
_KINDS = (KeyError, IndexError, AttributeError, NotImplementedError, TypeError, ValueError, RuntimeError)

PREPARED = """
class Dense(Cell):
    def __init__(self, bias=True):
        super().__init__()
        self.weight = Parameter(Tensor([1.0, 2.0], float32))
        if bias:
            self.bias = Parameter(Tensor([3.0], float32), name="own")
class Net(Cell):
    def __init__(self):
        super().__init__()
        self.top = Parameter(Tensor([0.0], float32), requires_grad=False)
        self.fc = Dense()
        self.layers = CellList([Dense(), Dense(False)])
class Double(Cell):
    def construct(self, x):
        return x * 2
def names(cell):
    return [p.name for p in cell.get_parameters()]
def paths(cell):
    return [n for n, _ in cell.parameters_and_names()]
def shown(p):
    return [p.name.split("#")[0], list(p.shape), str(np.asarray(p.asnumpy()).dtype), p.asnumpy().tolist()]
def raised(f):
    try:
        f()
    except Exception as e:
        return kind(e)
    return "no error"
def context(key, value):
    def read():
        try:
            return copy.deepcopy(get_auto_parallel_context(key))
        except Exception as e:
            return kind(e)
    reset_auto_parallel_context()
    before = read()
    try:
        set_auto_parallel_context(**{key: value})
        found = read()
    finally:
        reset_auto_parallel_context()
    return before, found, read()
w = Parameter(Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], float32), name="w")
"""

_TEXT, _BOOL = ["'a'", "''", "3", "None"], ["True", "False", "1", "'yes'", "None"]
_COUNT = ["1", "4", "0", "-1", "True", "1.5", "'2'"]
_SEARCH = ["'recursive_programming'", "'dynamic_programming'", "'sharding_propagation'", "'fast'", "3"]
_FUSED = ["mode 'auto', config None", "mode 'size', config 32", "mode 'size', config 0", "mode 'size', config 'a'"]
_FUSED += ["mode 'index', config [1, 4]", "mode 'fast', config 1"]
# Every option of set_auto_parallel_context, and what it is set to.
OPTIONS: dict[str, list[str]] = {
    "device_num": [*_COUNT, "4096"],
    "global_rank": ["0", "4095", "4096", "-1", "True", "1.5", "'0'"],
    "gradients_mean": _BOOL,
    "gradient_fp32_sync": _BOOL,
    "loss_repeated_mean": _BOOL,
    "parallel_mode": [
        *("'stand_alone'", "'data_parallel'", "'hybrid_parallel'", "'semi_auto_parallel'", "'auto_parallel'"),
        *("'fast'", "'STAND_ALONE'", "3", "None"),
    ],
    "search_mode": _SEARCH,
    "auto_parallel_search_mode": _SEARCH,
    "parameter_broadcast": _BOOL,
    "strategy_ckpt_load_file": _TEXT,
    "strategy_ckpt_save_file": _TEXT,
    "strategy_ckpt_config": [
        *("{'load_file': 'a'}", "{'save_file': 'b', 'only_trainable_params': False}", "{}"),
        *("{'x': 1}", "{'load_file': 3}", "{'save_file': None}", "{'only_trainable_params': 1}", "3", "'a'"),
    ],
    "group_ckpt_save_file": _TEXT,
    "full_batch": _BOOL,
    "dataset_strategy": [
        *("'full_batch'", "'data_parallel'", "((1, 8), (1, 8))", "((2, 1),)", "()", "((),)"),
        *("'fast'", "[(1, 8)]", "(1, 8)", "((1, 'a'),)", "((1.5,),)", "3", "None"),
    ],
    "enable_parallel_optimizer": _BOOL,
    "force_fp32_communication": _BOOL,
    "enable_alltoall": _BOOL,
    "all_reduce_fusion_config": ["[1, 4]", "[0]", "[]", "[2, 1]", "[1, 1]", "['a']", "[1.5]", "[-1]", "(1, 2)", "3"],
    "pipeline_stages": _COUNT,
    "pipeline_segments": _COUNT,
    "pipeline_result_broadcast": _BOOL,
    "auto_pipeline": _BOOL,
    "pipeline_config": [
        *(f"{{'pipeline_interleave': True, 'pipeline_scheduler': {each!r}}}" for each in ("1f1b", "gpipe", "seqvpp")),
        *("{'pipeline_interleave': False, 'pipeline_scheduler': 'gpipe'}", "{'pipeline_scheduler': 'fast'}"),
        *("{'pipeline_interleave': True, 'pipeline_scheduler': 'fast'}", "{'pipeline_interleave': 1}", "{'x': 1}"),
        *("{'pipeline_interleave': 1, 'pipeline_scheduler': '1f1b'}", "{'pipeline_interleave': True}", "3", "{}"),
    ],
    "parallel_optimizer_config": [
        *("{'parallel_optimizer_threshold': 24}", "{'optimizer_weight_shard_size': 2}", "{}", "{'x': 1}", "3"),
        *("{'parallel_optimizer_threshold': -1}", "{'parallel_optimizer_threshold': 1.5}"),
        *("{'optimizer_weight_shard_size': 0}", "{'optimizer_weight_shard_size': -1}"),
        *("{'gradient_accumulation_shard': True}", "{'gradient_accumulation_shard': 1}", "{'optimizer_level': 'x'}"),
        *(f"{{'optimizer_level': 'level{each}'}}" for each in (1, 2, 3)),
        *(f"{{'gradient_accumulation_shard': True, 'optimizer_level': 'level{each}'}}" for each in (1, 2)),
    ],
    "optimizer_weight_shard_size": ["2", "1", "-1", "0", "-2", "True", "1.5", "'2'"],
    "optimizer_weight_shard_aggregated_save": _BOOL,
    "communi_parallel_mode": [
        *("'all_group_parallel'", "'same_server_group_parallel'", "'no_group_parallel'", "'fast'", "3"),
    ],
    "comm_fusion": [
        *("{'openstate': False}", "{'openstate': 1}", "{}", "{'x': 1}", "3", "{'allreduce': 3}", "{'allreduce': {}}"),
        *(
            f"{{{kind!r}: {{" + each.replace("mode", "'mode':").replace("config", "'config':") + "}}"
            for kind in ("allreduce", "allgather", "reducescatter")
            for each in _FUSED
        ),
    ],
    "dump_local_norm": _BOOL,
    "dump_local_norm_path": _TEXT,
    "dump_device_local_norm": _BOOL,
    "grad_accumulation_step": ["1", "2", "0", "'a'"],
    "sharding_propagation": _BOOL,
    "pipeline_interleave": ["True"],
    "pipeline_scheduler": ["'gpipe'"],
    "nothing": ["1"],
}

CASES: dict[str, list[str]] = {
    "parameter": [
        "shown(Parameter(3))",
        "shown(Parameter(2.5))",
        "shown(Parameter([1, 2]))",
        "shown(Parameter([1.5, 2]))",
        "shown(Parameter([True]))",
        "shown(Parameter([]))",
        "shown(Parameter(np.zeros((2, 3), np.float16)))",
        "shown(Parameter(np.float64(2.5)))",
        "Parameter(True)",
        "Parameter((1, 2))",
        "Parameter('zeros')",
        "Parameter(None)",
        "Parameter({})",
        "Parameter(1j)",
        "Parameter([[1], [1, 2]])",
        "Parameter()",
        "Parameter(1, nothing=2)",
        "Parameter(1, ' a ').name",
        "Parameter(1, 'a.b/c').name",
        "len(Parameter(1, 'x' * 1024).name)",
        "Parameter(1, 'x' * 1025)",
        "Parameter(1, 3)",
        "Parameter(1, ['w'])",
        "w.name = None\nw.name.split('#')[0]",
        "repr(w)",
        "str(Parameter(w))[:26]",
        "Parameter(Parameter(1, requires_grad=False)).requires_grad",
        "a = np.zeros(3, np.float32)\np = Parameter(a)\na[0] = 9\np.asnumpy().tolist()",
        "isinstance(w, Tensor)",
        "w.requires_grad = 1",
        "w.requires_grad = np.bool_(True)",
        "w.layerwise_parallel = None",
        "w.parallel_optimizer = 'yes'",
        "w.parallel_optimizer_comm_recompute = 1",
        "w.comm_fusion",
        "w.comm_fusion = -1",
        "w.comm_fusion = 1.0",
        "w.comm_fusion = True",
        "w.comm_fusion = 0\nw.comm_fusion",
        "w.key, w.sliced, w.unique, w.cache_enable, list(w.cache_shape), w.parallel_optimizer_comm_recompute",
        "w.key = 1.5",
        "w.key = -5\nw.key",
        "w.key = True\nw.key",
        "w.cache_enable = 1",
        "w.cache_shape = 3",
        "w.cache_shape = (2, 3)\nlist(w.cache_shape)",
        "w.sliced = 'anything'\nw.sliced",
        "w.unique = None\nw.unique",
        "w.inited_param",
        "w.inited_param = w",
        "w.has_init = True",
        "w.anything = 3\nw.anything",
        "w.add_pipeline_stage(-1)",
        "w.add_pipeline_stage(1.5)",
        "w.add_pipeline_stage('a')",
        "w.add_pipeline_stage(0)",
        "w.add_pipeline_stage(2)",
        "w.set_param_ps()",
        "w.data is w",
        "w.value() is w",
        "type(w.value()).__name__",
        "v = w.value()\nv.asnumpy()[0, 0] = 9\nw.asnumpy()[0, 0].item()",
        "w.init_data() is w",
        "w.init_data(layout=[1])",
        "w.init_data(layout=(1,))",
    ],
    "set_data": [
        "w.set_data(Tensor(np.ones((2, 3), np.float32))) is w",
        "w.set_data(Tensor(np.ones((2, 3), np.float64)))\nshown(w)",
        "w.set_data(Tensor(np.ones((2, 3), np.int32)))\nshown(w)",
        "w.set_data(Tensor(np.ones((3, 2), np.float32)))",
        "w.set_data(Tensor(np.ones((3, 2), np.float32)), True)\nw.shape",
        "w.set_data(Tensor(np.ones((3, 2), np.float32)), slice_shape=True)\nw.sliced",
        "w.sliced = True\nw.set_data(Tensor(np.ones((2, 3), np.float32)))\nw.sliced",
        "w.set_data(1.0)",
        "Parameter(2.5, 's').set_data(3).asnumpy().item()",
        "Parameter(2, 's').set_data(3.5)",
        "Parameter(Tensor([1, 2], int32), 's').set_data(Tensor([1.5, -2.5], float32)).asnumpy().tolist()",
        "w.set_data(np.ones((2, 3)))",
        "w.set_data([1])",
        "w.set_data('x')",
        "w.set_data(None)",
        "t = Tensor(np.ones((2, 3), np.float32))\nw.set_data(t)\nt.asnumpy()[0, 0] = 9\nw.asnumpy()[0, 0].item()",
    ],
    "clone": [
        "shown(w.clone())",
        "shown(w.copy())",
        "shown(w.clone('ones'))",
        "shown(w.clone(7))",
        "shown(w.clone(Tensor(np.ones((2, 3), np.float32))))",
        "w.clone('Same')",
        "w.clone('nothing')",
        "w.clone(None)",
        "w.clone([1])",
        "w.clone(Tensor(np.ones((3, 3), np.float32)))",
        "w.clone(np.ones((2, 3)))",
        "c = w.clone()\nc.set_data(Tensor(np.zeros((2, 3), np.float32)))\nw.asnumpy().sum().item()",
        "w.comm_fusion = 3\nw.key = 4\nw.requires_grad = False\nc = w.clone()\nc.comm_fusion, c.key, c.requires_grad",
        "w.comm_fusion = 3\ncopy.deepcopy(w).comm_fusion",
        "w.comm_fusion = 3\npickle.loads(pickle.dumps(w)).comm_fusion",
        "w.sliced = True\nw.clone().sliced",
        "shown(copy.deepcopy(w))",
        "shown(pickle.loads(pickle.dumps(w)))",
        "shown(copy.copy(w))",
    ],
    "parameter tuple": [
        "[p.name for p in ParameterTuple([w, Parameter(1, 'b')])]",
        "ParameterTuple([w, 1])",
        "ParameterTuple(w)",
        "ParameterTuple(None)",
        "ParameterTuple(5)",
        "ParameterTuple([w, Parameter(1, 'w')])",
        "len(ParameterTuple([w, w]))",
        "len(ParameterTuple(p for p in [w]))",
        "type(ParameterTuple([w])[:1]).__name__",
        "[p.name for p in ParameterTuple([w]).clone('m')]",
        "type(ParameterTuple([w]).clone('m')).__name__",
        "ParameterTuple([w]).clone('a-b')",
        "ParameterTuple([w]).clone('')",
        "ParameterTuple([w]).clone('é')",
        "ParameterTuple([w]).clone(1)",
        "ParameterTuple([w]).clone()",
        "ParameterTuple([w]).clone('m', 'ones')[0].asnumpy().sum().item()",
    ],
    "attributes": [
        "names(Net())",
        "paths(Net())",
        "c = Cell()\nc.a = Parameter(1)\nc.a.name",
        "c = Cell()\nc.a = Parameter(1, name='name_a')\nc.a.name",
        "c = Cell()\nc.l = [Parameter(1), Parameter(2)]\nnames(c)",
        "c = Cell()\nc.l = ParameterTuple([Parameter(1), Parameter(2)])\nnames(c)",
        "c = Cell()\nc.l = ParameterTuple([Parameter(1)])\nc.m = ParameterTuple([Parameter(2)])\nnames(c)",
        "c = Cell()\nc.a = Parameter(1, name='n')\nc.l = (Parameter(1, name='n'), Parameter(2))",
        "c = Cell()\nc.a = Parameter(1, name='n')\nc.l = (c.a, c.a)\nnames(c)",
        "c = Cell()\nc.l = [Parameter(1, name='n'), Parameter(2, name='n')]",
        "c = Cell()\nc.l = [Parameter(1, name='n')]\nc.m = [Parameter(2, name='n')]",
        "c = Cell()\nc.a = Parameter(1, name='n')\nc.b = Parameter(2, name='n')\nc.check_names()",
        "c = Cell()\nc.a = Parameter(1)\nc.a = Parameter(2)\nlen(names(c))",
        "c = Cell()\nc.a = Parameter(1)\nc.a = None\nc.a",
        "c = Cell()\nc.a = Parameter(1)\nc.a = None\nnames(c)",
        "c = Cell()\nc.a = Parameter(1)\nc.a = 5",
        "c = Cell()\nc.a = Parameter(1)\nc.a = 'x'",
        "c = Cell()\nc.a = Parameter(1)\nc.a = np.ones(1)",
        "c = Cell()\nc.a = Parameter(1)\nc.a = Cell()",
        "c = Cell()\nc.a = Parameter([1.0])\nc.a = Tensor([2.0], float32)\nc.a.asnumpy().tolist()",
        "c = Cell()\nc.a = Parameter([1.0])\nc.a = Tensor([2.0], float32)\nisinstance(c.a, Parameter)",
        "c = Cell()\nc.a = Cell()\nc.a = None\nc.a",
        "c = Cell()\nc.a = Cell()\nc.a = Cell()\nlen(list(c.cells()))",
        "c = Cell()\nc.a = Cell()\nc.a = 5",
        "c = Cell()\nc.a = Cell()\nc.a = Parameter(1)",
        "c = Cell()\nc.a = Parameter(1)\ndel c.a\nhasattr(c, 'a')",
        "c = Cell()\nc.a = Cell()\ndel c.a\nhasattr(c, 'a')",
        "c = Cell()\ndel c.nothing",
        "Cell().nothing",
        "c = Cell()\nsetattr(c, 'a.b', Parameter(1))",
        "c = Cell()\nc.set_train = Parameter(1)",
        "c = Cell()\nc.a = 5\nc.a = Parameter(1)\nnames(c)",
        "class C(Cell):\n    def __init__(self):\n        self.a = Parameter(1)\nC()",
        "class C(Cell):\n    def __init__(self):\n        self.a = Cell()\nC()",
        "class C(Cell):\n    def __init__(self):\n        self.a = 5\n        super().__init__()\nC().a",
        "c = Cell()\nc.insert_param_to_cell('a', Parameter(1))\nnames(c)",
        "c = Cell()\nc.insert_param_to_cell('a.b', Parameter(1))",
        "c = Cell()\nc.insert_param_to_cell('a.b', Parameter(1), check_name_contain_dot=False)\nnames(c)",
        "Cell().insert_param_to_cell('', Parameter(1))",
        "Cell().insert_param_to_cell(3, Parameter(1))",
        "Cell().insert_param_to_cell('a', 3)",
        "Cell().insert_param_to_cell('a', Tensor([1.0], float32))",
        "c = Cell()\nc.insert_param_to_cell('a', None)\nc.a",
        "c = Cell()\nc.a = 5\nc.insert_param_to_cell('a', Parameter(1))",
        "c = Cell()\nc.insert_child_to_cell('a', Cell())\nlist(c.name_cells())",
        "Cell().insert_child_to_cell('', Cell())",
        "Cell().insert_child_to_cell('a.b', Cell())",
        "Cell().insert_child_to_cell(3, Cell())",
        "Cell().insert_child_to_cell('a', 3)",
        "c = Cell()\nc.a = Cell()\nc.insert_child_to_cell('a', Cell())",
        "c = Cell()\nc.register_buffer('b', Tensor([1.0], float32))\n[n for n, _ in c.named_buffers()]",
        "Cell().register_buffer('', None)",
        "Cell().register_buffer('a.b', None)",
        "Cell().register_buffer(1, None)",
        "Cell().register_buffer('b', 5)",
        "c = Cell()\nc.b = 5\nc.register_buffer('b', None)",
        "c = Cell()\nc.register_buffer('b', Tensor([1.0], float32), False)\nlist(c.state_dict())",
    ],
    "names": [
        "c = Cell()\nc.fc = Dense()\nc.fc.weight.name",
        "c = Cell()\nc.fc = Dense()\nc.fc.bias.name",
        "c = Cell(auto_prefix=False)\nc.fc = Dense()\nnames(c)",
        "c = Cell()\nc.fc = Dense()\nc.fc.late = Parameter(1)\nnames(c)",
        "c = Cell()\nc.a = Cell()\nc.a.b = Dense()\nnames(c)",
        "c = Cell()\nd = Cell()\nd.b = Dense()\nc.a = d\nnames(c)",
        "c = Cell()\nd = Dense(False)\nc.a = d\nc.b = d\nnames(c), paths(c)",
        "n = Net()\nn.update_parameters_name('net.')\nnames(n)",
        "n = Net()\nn.update_parameters_name('net.', recurse=False)\nnames(n)",
        "Net().update_parameters_name('a b')",
        "Net().update_parameters_name(1)",
        "n = Net()\nn.fc.weight.name = 'top'\nn.check_names()",
        "n = Net()\nn.fc.weight.name = 'top'\nn.check_names_and_refresh_name()\nnames(n)",
    ],
    "queries": [
        "[p.name for p in Net().trainable_params()]",
        "[p.name for p in Net().trainable_params(recurse=False)]",
        "[p.name for p in Net().untrainable_params()]",
        "[p.name for p in Net().get_parameters(expand=False)]",
        "list(Net().parameters_dict())",
        "list(Net().parameters_dict(recurse=False))",
        "[n for n, _ in Net().parameters_and_names('x')]",
        "[n for n, _ in Net().parameters_and_names('x', expand=False)]",
        "[n for n, _ in Net().cells_and_names()]",
        "[n for n, _ in Net().cells_and_names(name_prefix='x')]",
        "[type(c).__name__ for c in Net().cells()]",
        "list(Net().name_cells())",
        "list(Net().parameters_broadcast_dict())",
        "Cell().parameters_broadcast_dict()",
        "n = Net()\nn.top.layerwise_parallel = True\nlist(n.parameters_broadcast_dict())",
        "n = Net()\nn.parameter_layout_dict",
        "n = Net()\nn.parameter_layout_dict = 5",
        "len(Net().init_parameters_data())",
        "type(Net().get_sub_cell('layers.1')).__name__",
        "Net().get_sub_cell('nothing')",
        "Net().get_buffer('nothing')",
    ],
    "settings": [
        "n = Net()\nn.set_train() is n, n.fc.training, n.fc.phase",
        "Net().training, Net().phase",
        "n = Net()\nn.set_grad() is n",
        "n = Net()\nn.set_comm_fusion(2) is n, [p.comm_fusion for p in n.get_parameters()]",
        "Net().set_comm_fusion(-1)",
        "Net().set_comm_fusion(1.5)",
        "n = Net()\nn.set_comm_fusion(2, False)\n[p.comm_fusion for p in n.get_parameters()]",
        "n = Net()\nn.to_float(float16) is n",
        "str(Net().to_float(float16).fc.weight.asnumpy().dtype)",
        "Net().to_float(int32)",
        "Net().recompute()",
        "Net().recompute(parallel_optimizer_comm_recompute=True)",
        "Net().recompute(parallel_optimizer_comm_recompute=1)",
        "Net().recompute(nothing=True)",
        "seen = []\nNet().apply(lambda c: seen.append(type(c).__name__))\nseen",
        "n = Net()\nn.add_flags(a=1) is n, n.a, n.get_flags()['a']",
        "Cell()()",
        "Double()(3)",
        "d = Double()\nh = d.register_forward_pre_hook(lambda c, i: (i[0] + 1,))\na = d(3)\nh.remove()\na, d(3)",
        "d = Double()\nd.register_forward_pre_hook(lambda c, i: i[0] + 1)\nd(3)",
        "d = Double()\nh = d.register_forward_hook(lambda c, i, o: o + 1)\na = d(3)\nh.remove()\na, d(3)",
        "Double().register_forward_hook(5)",
        "Double().register_forward_pre_hook(5)",
        "repr(Net())",
        "repr(Cell())",
        "names(copy.deepcopy(Net()))",
        "Cell().set_param_ps()",
    ],
    "state": [
        "list(Net().state_dict())",
        "list(Net().state_dict(prefix='x.'))",
        "n = Net()\nn.state_dict()['top'] is n.top",
        "n = Net()\nr = n.load_state_dict(n.state_dict())\nlist(r[0]), list(r[1])",
        "Net().load_state_dict({})",
        "r = Net().load_state_dict({'x': Tensor([1.0], float32)}, strict=False)\nlist(r[0]), list(r[1])",
        "Net().load_state_dict({'top': Tensor([1.0, 2.0], float32)}, strict=False)",
        "Net().load_state_dict({'top': 5}, strict=False)",
        "Net().load_state_dict([1])",
        "n = Net()\nn.load_state_dict({'top': Tensor([1], int32)}, strict=False)\nshown(n.top)",
    ],
    "containers": [
        "names(CellList([Dense(), Dense()]))",
        "CellList((Dense(), Dense()))",
        "CellList([1])",
        "len(CellList())",
        "l = CellList([Dense(False)])\nl.append(Dense(False))\nnames(l)",
        "l = CellList([Dense(False)])\nl.insert(0, Cell())\nnames(l)",
        "l = CellList([Dense(False), Dense(False)])\ndel l[0]\nnames(l)",
        "l = CellList([Dense(False)])\nl.extend([Dense(False)])\nnames(l)",
        "l = CellList([Dense(False), Cell()])\nl[1] = Dense(False)\nnames(l)",
        "c = Cell()\nc.l = CellList([Dense(False)])\nc.l.append(Dense(False))\nnames(c)",
        "c = Cell()\nc.l = CellList([Dense(False)])\nc.l.insert(0, Cell())\nnames(c)",
        "len(CellList([Cell(), Cell(), Cell()])[1:])",
        "type(CellList([Cell()])[:1]).__name__",
        "CellList([Cell()])[5]",
        "CellList([Cell()])['a']",
        "CellList([Cell()]).append(5)",
        "CellList([Cell()]).insert(9, Cell())",
        "CellList([Cell()])()",
        "l = CellList([Cell(), Dense()])\ntype(l[-1]).__name__",
        "SequentialCell(Double(), Double())(3)",
        "SequentialCell([Double(), Double()])(3)",
        "list(SequentialCell(OrderedDict([('a', Double()), ('b', Double())])).name_cells())",
        "SequentialCell({'a': Double()})",
        "SequentialCell((Double(),))",
        "SequentialCell(5)",
        "s = SequentialCell(Double())\ns.append(Double())\ns(3)",
        "names(SequentialCell(Dense(False), Dense(False)))",
        "s = SequentialCell(Double(), Double())\ndel s[0]\ns(3), len(s)",
        "list(CellDict({'a': Cell(), 'b': Cell()}).keys())",
        "list(CellDict([('a', Cell())]).keys())",
        "CellDict({'a.b': Cell()})",
        "CellDict({'': Cell()})",
        "CellDict({1: Cell()})",
        "CellDict({'a': None})",
        "CellDict({'a': 5})",
        "CellDict({'construct': Cell()})",
        "CellDict({'a': CellList([Cell()])})",
        "CellDict({'a': Cell()})['b']",
        "d = CellDict({'a': Dense(False)})\nd['b'] = Dense(False)\nnames(d)",
        "d = CellDict({'a': Cell(), 'b': Cell()})\nd.pop('a')\nlen(d), 'a' in d",
        "repr(SequentialCell(Double(), Double()))",
    ],
    "parallel context": [
        *(f"context({key!r}, {value})" for key, values in OPTIONS.items() for value in values),
        *(
            f"set_auto_parallel_context({one}={value!r})\nget_auto_parallel_context({other!r})"
            for one, value, other in (
                ("full_batch", True, "dataset_strategy"),
                ("dataset_strategy", "full_batch", "full_batch"),
                ("search_mode", "dynamic_programming", "auto_parallel_search_mode"),
                ("auto_parallel_search_mode", "dynamic_programming", "search_mode"),
                ("search_mode", "sharding_propagation", "sharding_propagation"),
                ("sharding_propagation", True, "search_mode"),
                ("strategy_ckpt_load_file", "a", "strategy_ckpt_config"),
                ("strategy_ckpt_save_file", "b", "strategy_ckpt_config"),
                ("strategy_ckpt_config", {"load_file": "c"}, "strategy_ckpt_load_file"),
                ("parallel_optimizer_config", {"optimizer_weight_shard_size": 2}, "optimizer_weight_shard_size"),
                ("comm_fusion", {"allreduce": {"mode": "index", "config": [1, 4]}}, "all_reduce_fusion_config"),
                ("all_reduce_fusion_config", [2], "comm_fusion"),
                (
                    "pipeline_config",
                    {"pipeline_interleave": True, "pipeline_scheduler": "gpipe"},
                    "pipeline_interleave",
                ),
                ("pipeline_config", {"pipeline_interleave": True, "pipeline_scheduler": "gpipe"}, "pipeline_scheduler"),
            )
        ),
    ],
}


def kind(error: BaseException) -> str:
    return next((each.__name__ for each in _KINDS if isinstance(error, each)), type(error).__name__)


def plain(value: Any) -> Any:
    """Turn a value into what JSON keeps."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f"a {type(value).__name__}"


def outcome(snippet: str, names: dict[str, Any]) -> Any:
    scope = dict(names, kind=kind)
    exec(PREPARED, scope)
    scope["reset_auto_parallel_context"]()
    body = ast.parse(snippet).body
    try:
        exec(compile(ast.Module(body[:-1], []), "snippet", "exec"), scope)
        last = body[-1]
        if isinstance(last, ast.Expr):
            return plain(eval(compile(ast.Expression(last.value), "snippet", "eval"), scope))
        exec(compile(ast.Module([last], []), "snippet", "exec"), scope)
    except Exception as error:
        return {"raises": kind(error)}
    return None


def all_cases() -> dict[str, str]:
    return {f"{group}: {snippet}": snippet for group, snippets in CASES.items() for snippet in snippets}


def record() -> None:
    import copy
    import pickle
    from collections import OrderedDict

    import mindspore
    from mindspore import nn

    names = {name: getattr(mindspore, name) for name in ("Parameter", "ParameterTuple", "Tensor")}
    names |= {name: getattr(nn, name) for name in ("Cell", "CellList", "CellDict", "SequentialCell")}
    names |= {name: getattr(mindspore, name) for name in ("float16", "float32", "int32")}
    names |= {
        f"{verb}_auto_parallel_context": getattr(mindspore, f"{verb}_auto_parallel_context")
        for verb in ("get", "set", "reset")
    }
    names |= {"np": np, "copy": copy, "pickle": pickle, "OrderedDict": OrderedDict}
    outcomes = {name: outcome(snippet, names) for name, snippet in all_cases().items()}
    OUTCOMES.write_text(json.dumps(outcomes, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(record())
