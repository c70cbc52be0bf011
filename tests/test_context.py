"""The parallel context takes the options that touch parameters, all of them or none."""

from collections.abc import Iterator
from typing import Any

import pytest

import numparam
from numparam.errors import NumparamError


@pytest.fixture(autouse=True)
def _fresh_context() -> Iterator[None]:
    numparam.reset_auto_parallel_context()
    yield
    numparam.reset_auto_parallel_context()


DEFAULTS = {
    "parallel_mode": "stand_alone",
    "device_num": 1,
    "global_rank": 0,
    "gradients_mean": False,
    "parameter_broadcast": False,
    "enable_parallel_optimizer": False,
    "parallel_optimizer_config": {
        "parallel_optimizer_threshold": 64,
        "optimizer_weight_shard_size": -1,
        "gradient_accumulation_shard": False,
        "optimizer_level": "level1",
    },
    "comm_fusion": {
        "openstate": True,
        "allreduce": {"mode": "auto", "config": None},
        "allgather": {"mode": "auto", "config": None},
        "reducescatter": {"mode": "auto", "config": None},
    },
    "all_reduce_fusion_config": [],
    "pipeline_stages": 1,
    "mesh": None,
    "memory_per_rank": None,
}
KEPT: dict[str, tuple[Any, Any]] = {
    "gradient_fp32_sync": (True, False),
    "loss_repeated_mean": (True, False),
    "force_fp32_communication": (False, True),
    "enable_alltoall": (False, True),
    "search_mode": ("recursive_programming", "sharding_propagation"),
    "auto_parallel_search_mode": ("recursive_programming", "dynamic_programming"),
    "dataset_strategy": ("data_parallel", ((1, 8), (1, 8))),
    "full_batch": (False, True),
    "strategy_ckpt_load_file": ("", "a.ckpt"),
    "strategy_ckpt_save_file": ("", "b.ckpt"),
    "group_ckpt_save_file": ("", "c.pb"),
    "optimizer_weight_shard_size": (-1, 2),
    "optimizer_weight_shard_aggregated_save": (False, True),
    "communi_parallel_mode": ("all_group_parallel", "no_group_parallel"),
    "auto_pipeline": (False, True),
    "pipeline_result_broadcast": (False, True),
    "pipeline_segments": (1, 4),
    "dump_local_norm": (False, True),
    "dump_local_norm_path": ("", "norms"),
    "dump_device_local_norm": (False, True),
}


def everything() -> dict[str, Any]:
    return {key: numparam.get_auto_parallel_context(key) for key in DEFAULTS}


def test_defaults_come_back_with_a_reset() -> None:
    assert everything() == DEFAULTS
    numparam.set_auto_parallel_context(
        parallel_mode="auto_parallel",
        device_num=8,
        global_rank=7,
        gradients_mean=True,
        parameter_broadcast=True,
        enable_parallel_optimizer=True,
        parallel_optimizer_config={"parallel_optimizer_threshold": 0},
        comm_fusion={"openstate": False},
        all_reduce_fusion_config=[1],
        pipeline_stages=2,
        mesh={"dp": 8},
        memory_per_rank=10**9,
    )
    assert all(everything()[key] != default for key, default in DEFAULTS.items())
    numparam.reset_auto_parallel_context()
    assert everything() == DEFAULTS


def test_parts_of_a_dict_that_are_left_out_stay() -> None:
    numparam.set_auto_parallel_context(parallel_optimizer_config={"parallel_optimizer_threshold": 24})
    numparam.set_auto_parallel_context(parallel_optimizer_config={"optimizer_weight_shard_size": 2})
    assert numparam.get_auto_parallel_context("parallel_optimizer_config") == DEFAULTS["parallel_optimizer_config"] | {
        "parallel_optimizer_threshold": 24,
        "optimizer_weight_shard_size": 2,
    }
    numparam.set_auto_parallel_context(comm_fusion={"allgather": {"mode": "size", "config": 32}})
    numparam.set_auto_parallel_context(comm_fusion={"allreduce": {"mode": "auto", "config": 3}})
    assert numparam.get_auto_parallel_context("comm_fusion") == DEFAULTS["comm_fusion"] | {
        "allgather": {"mode": "size", "config": 32}
    }


@pytest.mark.parametrize("key", KEPT)
def test_options_that_only_mindspore_reads_are_kept(key: str) -> None:
    default, other = KEPT[key]
    assert numparam.get_auto_parallel_context(key) == default
    numparam.set_auto_parallel_context(**{key: other})
    assert numparam.get_auto_parallel_context(key) == other
    numparam.reset_auto_parallel_context()
    assert numparam.get_auto_parallel_context(key) == default
    for wrong in (3.5, "nothing" if default in (True, False, -1, 1) or "mode" in key else None):
        with pytest.raises((TypeError, ValueError), match=key):
            numparam.set_auto_parallel_context(device_num=3, **{key: wrong})
    assert numparam.get_auto_parallel_context("device_num") == 1


def test_older_names_are_other_forms_of_the_newer() -> None:
    numparam.set_auto_parallel_context(
        full_batch=True, strategy_ckpt_load_file="a", strategy_ckpt_save_file="b", optimizer_weight_shard_size=2
    )
    assert numparam.get_auto_parallel_context("dataset_strategy") == "full_batch"
    numparam.set_auto_parallel_context(strategy_ckpt_config={"load_file": "c"}, search_mode="dynamic_programming")
    assert numparam.get_auto_parallel_context("strategy_ckpt_config") == {
        "load_file": "c",
        "save_file": "b",
        "only_trainable_params": True,
    }
    assert numparam.get_auto_parallel_context("strategy_ckpt_load_file") == "c"
    assert numparam.get_auto_parallel_context("auto_parallel_search_mode") == "dynamic_programming"
    assert numparam.get_auto_parallel_context("parallel_optimizer_config")["optimizer_weight_shard_size"] == 2
    numparam.set_auto_parallel_context(pipeline_config={"pipeline_interleave": True})
    numparam.set_auto_parallel_context(pipeline_scheduler="gpipe")
    assert numparam.get_auto_parallel_context("pipeline_config") == {
        "pipeline_interleave": True,
        "pipeline_scheduler": "gpipe",
    }
    layout = numparam.Layout((2, 2), ("dp", "mp"))("dp", "None")
    numparam.set_auto_parallel_context(dataset_strategy=(layout, (2, 1)))
    assert numparam.get_auto_parallel_context("dataset_strategy") == (layout, (2, 1))


def test_fusion_by_index_is_also_the_split_of_all_reduces() -> None:
    numparam.set_auto_parallel_context(comm_fusion={"allreduce": {"mode": "index", "config": [1, 4]}})
    assert numparam.get_auto_parallel_context("all_reduce_fusion_config") == [1, 4]


def test_gradient_accumulation_needs_the_second_level() -> None:
    numparam.set_auto_parallel_context(parallel_optimizer_config={"gradient_accumulation_shard": True})
    assert numparam.get_auto_parallel_context("parallel_optimizer_config")["optimizer_level"] == "level2"
    with pytest.raises(ValueError, match="gradient_accumulation_shard needs optimizer_level 'level2'"):
        numparam.set_auto_parallel_context(parallel_optimizer_config={"optimizer_level": "level3"})


def test_what_is_set_and_got_is_a_copy() -> None:
    given = [1, 2]
    numparam.set_auto_parallel_context(all_reduce_fusion_config=given)
    given.append(1)
    numparam.get_auto_parallel_context("all_reduce_fusion_config").append(0)
    numparam.get_auto_parallel_context("comm_fusion")["allreduce"]["mode"] = "size"
    assert numparam.get_auto_parallel_context("all_reduce_fusion_config") == [1, 2]
    assert numparam.get_auto_parallel_context("comm_fusion") == DEFAULTS["comm_fusion"]
    numparam.reset_auto_parallel_context()
    assert everything() == DEFAULTS


def test_modes_have_names() -> None:
    assert numparam.ParallelMode.HYBRID_PARALLEL == "hybrid_parallel"
    for mode in numparam.ParallelMode.MODE_LIST:
        numparam.set_auto_parallel_context(parallel_mode=mode)
        assert numparam.get_auto_parallel_context("parallel_mode") == mode


OPTIMIZER = "parallel_optimizer_config"


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"parallel_mode": "fast"}, ValueError, "parallel_mode is one of stand_alone"),
        ({"parallel_mode": 3}, TypeError, "parallel_mode is a str"),
        ({"device_num": 0}, ValueError, "device_num is at least 1, found 0"),
        ({"device_num": True}, TypeError, "device_num is an int"),
        ({"global_rank": 4096}, ValueError, "from 0 to 4095"),
        ({"global_rank": -1}, ValueError, "from 0 to 4095, found -1"),
        ({"gradients_mean": 1}, TypeError, "gradients_mean is True or False, found 1"),
        ({"parameter_broadcast": "yes"}, TypeError, "parameter_broadcast is True or False"),
        ({"enable_parallel_optimizer": None}, TypeError, "enable_parallel_optimizer is True or False"),
        ({"pipeline_stages": 0}, ValueError, "pipeline_stages is at least 1"),
        ({"pipeline_stages": "2"}, TypeError, "pipeline_stages is an int"),
        ({OPTIMIZER: 3}, TypeError, "parallel_optimizer_config is a dict, found 3"),
        ({OPTIMIZER: {"x": 1}}, ValueError, "has no option 'x'; known: parallel_optimizer_threshold"),
        ({OPTIMIZER: {"parallel_optimizer_threshold": -1}}, ValueError, "threshold is at least 0"),
        ({OPTIMIZER: {"parallel_optimizer_threshold": 1.5}}, TypeError, "threshold is an int"),
        ({OPTIMIZER: {"parallel_optimizer_threshold": True}}, TypeError, "threshold is an int"),
        ({OPTIMIZER: {"optimizer_weight_shard_size": 0}}, ValueError, "size is at least 1, or -1, found 0"),
        ({OPTIMIZER: {"optimizer_weight_shard_size": -2}}, ValueError, "size is at least 1, or -1, found -2"),
        ({OPTIMIZER: {"gradient_accumulation_shard": 1}}, TypeError, "shard is True or False"),
        ({OPTIMIZER: {"optimizer_level": "level9"}}, ValueError, "optimizer_level is one of level1"),
        ({OPTIMIZER: {"optimizer_level": 3}}, ValueError, "optimizer_level is one of level1"),
        ({"comm_fusion": 3}, TypeError, "comm_fusion is a dict"),
        ({"comm_fusion": {"x": 1}}, KeyError, "comm_fusion has no option 'x'; known: openstate, allreduce"),
        ({"comm_fusion": {"openstate": 1}}, TypeError, "comm_fusion: openstate is True or False"),
        ({"comm_fusion": {"allreduce": 3}}, TypeError, "comm_fusion: allreduce is a dict"),
        ({"comm_fusion": {"allreduce": {}}}, KeyError, "config and mode missing"),
        ({"comm_fusion": {"allreduce": {"mode": "auto"}}}, KeyError, "config missing"),
        (
            {"comm_fusion": {"allreduce": {"mode": "bad", "config": 1}}},
            KeyError,
            "one of auto, size, index; found 'bad'",
        ),
        (
            {"comm_fusion": {"allgather": {"mode": "index", "config": [1]}}},
            KeyError,
            "one of auto, size; found 'index'",
        ),
        ({"comm_fusion": {"reducescatter": {"mode": 1, "config": 1}}}, KeyError, "one of auto, size; found 1"),
        ({"comm_fusion": {"allreduce": {"mode": "size", "config": -3}}}, ValueError, "'size' is at least 1, found -3"),
        ({"comm_fusion": {"allreduce": {"mode": "size", "config": None}}}, TypeError, "'size' is an int"),
        ({"comm_fusion": {"allreduce": {"mode": "index", "config": [2, 1]}}}, ValueError, "larger than the one before"),
        ({"comm_fusion": {"allreduce": {"mode": "index", "config": 3}}}, TypeError, "'index' is a list of ints"),
        ({"all_reduce_fusion_config": []}, ValueError, "has at least one int"),
        ({"all_reduce_fusion_config": [1, 1]}, ValueError, "each larger than the one before"),
        ({"all_reduce_fusion_config": (1, 2)}, TypeError, "is a list of ints"),
        ({"all_reduce_fusion_config": ["a"]}, TypeError, "an item of all_reduce_fusion_config is an int"),
        ({"all_reduce_fusion_config": [-1]}, ValueError, "an item of all_reduce_fusion_config is at least 0"),
        ({"mesh": 4}, TypeError, "mesh maps the names of axes to their lengths, found 4"),
        ({"mesh": {"x": 0}}, ValueError, "the length of axis 'x' is at least 1"),
        ({"memory_per_rank": "1 GB"}, TypeError, "memory_per_rank is an int"),
        ({"memory_per_rank": 0}, ValueError, "memory_per_rank is at least 1"),
        ({"nothing": 1}, ValueError, "no option 'nothing'; known: parallel_mode"),
    ],
    ids=str,
)
def test_wrong_context(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        numparam.set_auto_parallel_context(**({"parallel_mode": "data_parallel"} | options))
    assert isinstance(caught.value, NumparamError)
    assert everything() == DEFAULTS


def test_unknown_option_read() -> None:
    with pytest.raises(ValueError, match="no option 'nothing'"):
        numparam.get_auto_parallel_context("nothing")
