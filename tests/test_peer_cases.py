"""Parameters and cells do what those of MindSpore 2.10 do, but for the differences listed here."""

import copy
import json
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import numparam
from peer_cases import OUTCOMES, all_cases, outcome

NAMES = {
    name: getattr(numparam, name)
    for name in (
        *("Parameter", "ParameterTuple", "Tensor", "Cell", "CellList", "CellDict", "SequentialCell"),
        *("float16", "float32", "int32"),
        *(f"{verb}_auto_parallel_context" for verb in ("get", "set", "reset")),
    )
} | {"np": np, "copy": copy, "pickle": pickle, "OrderedDict": OrderedDict}

TYPE_ERROR, VALUE_ERROR = {"raises": "TypeError"}, {"raises": "ValueError"}

# Where numparam differs on purpose: the rule that its documentation gives, and what becomes of the snippet.
DIFFERENCES: dict[str, Any] = {
    # A stage is a positive int.
    "parameter: w.add_pipeline_stage(0)": TYPE_ERROR,
    # Parameter servers are still there.
    "parameter: w.set_param_ps()": None,
    "settings: Cell().set_param_ps()": None,
    # `data` is the parameter.
    "parameter: w.data is w": True,
    # A wrong layout is an error, also for a parameter that has its values.
    "parameter: w.init_data(layout=[1])": TYPE_ERROR,
    "parameter: w.init_data(layout=(1,))": VALUE_ERROR,
    # set_data keeps the shape, and never shares storage.
    "set_data: w.set_data(Tensor(np.ones((3, 2), np.float32)))": VALUE_ERROR,
    "set_data: w.set_data(1.0)": VALUE_ERROR,
    # Arrays are values too.
    "set_data: w.set_data(np.ones((2, 3)))": "a Parameter",
    "set_data: t = Tensor(np.ones((2, 3), np.float32))\nw.set_data(t)\nt.asnumpy()[0, 0] = 9\n"
    "w.asnumpy()[0, 0].item()": 1.0,
    # An array is of the wrong type, not of the wrong value.
    "clone: w.clone(np.ones((2, 3)))": TYPE_ERROR,
    # Copies of every kind keep every attribute.
    "clone: w.comm_fusion = 3\ncopy.deepcopy(w).comm_fusion": 3,
    "clone: w.comm_fusion = 3\npickle.loads(pickle.dumps(w)).comm_fusion": 3,
    "clone: w.sliced = True\nw.clone().sliced": True,
    # Lists and tuples register their parameters, and names do not stand twice.
    "attributes: c = Cell()\nc.l = [Parameter(1), Parameter(2)]\nnames(c)": ["Parameter$1", "Parameter$2"],
    "attributes: c = Cell()\nc.a = Parameter(1, name='n')\nc.l = (Parameter(1, name='n'), Parameter(2))": VALUE_ERROR,
    # The order in which a tree is built does not change its names.
    "names: c = Cell()\nc.fc = Dense()\nc.fc.late = Parameter(1)\nnames(c)": ["fc.weight", "fc.bias", "fc.late"],
    "names: c = Cell()\nc.a = Cell()\nc.a.b = Dense()\nnames(c)": ["a.b.weight", "a.b.bias"],
    # A cell that is not in training predicts, from the start.
    "settings: Net().training, Net().phase": [False, "predict"],
}


def context(key: str, value: str) -> str:
    return f"parallel context: context({key!r}, {value})"


# None is no bool and 1 is none, True is no int, and a number that has to be positive is.
DIFFERENCES |= {
    context(key, "None"): TYPE_ERROR
    for key in ("gradients_mean", "gradient_fp32_sync", "parameter_broadcast", "full_batch")
}
DIFFERENCES |= {
    context(key, value): TYPE_ERROR for key in ("dump_local_norm", "dump_device_local_norm") for value in ("1", "None")
}
DIFFERENCES |= {context(key, "True"): TYPE_ERROR for key in ("device_num", "global_rank")}
DIFFERENCES |= {
    context("comm_fusion", f"{{'{kind}': {{'mode': 'size', 'config': 0}}}}"): VALUE_ERROR
    for kind in ("allreduce", "allgather", "reducescatter")
}
DIFFERENCES |= {context("optimizer_weight_shard_size", value): VALUE_ERROR for value in ("0", "-2")}
DIFFERENCES[context("optimizer_weight_shard_size", "1")] = [-1, 1, -1]
DIFFERENCES[context("all_reduce_fusion_config", "[-1]")] = VALUE_ERROR
# A reset resets, and an option and its older form agree.
DIFFERENCES |= {
    context("dataset_strategy", text): ["data_parallel", value, "data_parallel"]
    for text, value in (("((1, 8), (1, 8))", [[1, 8]] * 2), ("((2, 1),)", [[2, 1]]), ("()", []), ("((),)", [[]]))
}
OLDER = "parallel context: set_auto_parallel_context(full_batch=True)\nget_auto_parallel_context('dataset_strategy')"
DIFFERENCES[OLDER] = "full_batch"
# Whatever can be set can be read.
DIFFERENCES |= {context("group_ckpt_save_file", repr(text)): ["", text, ""] for text in ("a", "")}
DIFFERENCES |= {context("pipeline_segments", str(count)): [1, count, 1] for count in (1, 4)}
PIPELINE = {"pipeline_interleave": False, "pipeline_scheduler": "1f1b"}
OPTIMIZER = {
    "parallel_optimizer_threshold": 64,
    "optimizer_weight_shard_size": -1,
    "gradient_accumulation_shard": False,
    "optimizer_level": "level1",
}
for key, default, changes in (
    (
        "pipeline_config",
        PIPELINE,
        [{"pipeline_interleave": True, "pipeline_scheduler": each} for each in ("1f1b", "gpipe", "seqvpp")],
    ),
    (
        "parallel_optimizer_config",
        OPTIMIZER,
        [
            {"parallel_optimizer_threshold": 24},
            {"optimizer_weight_shard_size": 2},
            {"optimizer_weight_shard_size": -1},
            *({"optimizer_level": f"level{each}"} for each in (1, 2, 3)),
            {"gradient_accumulation_shard": True, "optimizer_level": "level2"},
        ],
    ),
    # What is left out stays as it is.
    ("parallel_optimizer_config", OPTIMIZER, [{}]),
    ("pipeline_config", PIPELINE, [{"pipeline_interleave": True}, {}]),
):
    DIFFERENCES |= {context(key, repr(change)): [default, default | change, default] for change in changes}
ACCUMULATED = {"gradient_accumulation_shard": True, "optimizer_level": "level2"}
DIFFERENCES[context("parallel_optimizer_config", "{'gradient_accumulation_shard': True}")] = [
    OPTIMIZER, OPTIMIZER | ACCUMULATED, OPTIMIZER,
]  # fmt: skip
DIFFERENCES[context("pipeline_config", "{'pipeline_scheduler': 'fast'}")] = VALUE_ERROR
# What can be read can be set.
DIFFERENCES[context("pipeline_interleave", "True")] = [False, True, False]
DIFFERENCES[context("pipeline_scheduler", "'gpipe'")] = TYPE_ERROR
RECORDED = json.loads(OUTCOMES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.replace("\n", "; "))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_outcome(case: str) -> None:
    expected = DIFFERENCES[case] if case in DIFFERENCES else RECORDED[case]
    assert json.loads(json.dumps(outcome(all_cases()[case], NAMES))) == expected


def test_every_difference_is_one() -> None:
    assert set(DIFFERENCES) <= set(RECORDED)
    assert [case for case, expected in DIFFERENCES.items() if RECORDED[case] == expected] == []
