"""The parallel context: the mode, the place of this rank, and the options of sharded parameters."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from numparam.checks import Check, as_bool, as_dict, as_int, as_mesh, as_text, int_from, one_of
from numparam.errors import ArgumentTypeError, ArgumentValueError, OptionError
from numparam.text import shown


class ParallelMode:
    """Name the parallel modes.

    ``STAND_ALONE``
        There is one rank, and it holds every parameter in full.
    ``DATA_PARALLEL``, ``HYBRID_PARALLEL``
        Every rank holds every parameter in full. `numparam.parallel.broadcast_parameters` gives all of them the values
        of rank 0, except for parameters with ``layerwise_parallel``, which differ between ranks.
    ``SEMI_AUTO_PARALLEL``
        A rank holds the region that the user's layout gives it: the layout of `Parameter.init_data`, or the one that
        `Cell.parameter_layout_dict` has for the parameter's name. A parameter without a layout is held in full.
    ``AUTO_PARALLEL``
        The same; and ``Cell.init_parameters_data(auto_parallel_mode=True)`` chooses the layouts that the user did not
        give, as `numparam.automatic_layouts` does, over the ``mesh`` and within the ``memory_per_rank`` of the context.

    `Cell.init_parameters_data` reads no layouts in the first three modes; a layout that is given to
    `Parameter.init_data` itself counts in every mode. All modes give a parameter the same values.
    """

    STAND_ALONE = "stand_alone"
    DATA_PARALLEL = "data_parallel"
    HYBRID_PARALLEL = "hybrid_parallel"
    SEMI_AUTO_PARALLEL = "semi_auto_parallel"
    AUTO_PARALLEL = "auto_parallel"
    MODE_LIST = (STAND_ALONE, DATA_PARALLEL, HYBRID_PARALLEL, SEMI_AUTO_PARALLEL, AUTO_PARALLEL)


SHARDED_MODES = (ParallelMode.SEMI_AUTO_PARALLEL, ParallelMode.AUTO_PARALLEL)


_MODES_OF_FUSION = {
    "allreduce": ("auto", "size", "index"),
    "allgather": ("auto", "size"),
    "reducescatter": ("auto", "size"),
}


def _optional(check: Check) -> Check:
    return lambda key, value: None if value is None else check(key, value)


def _shard_size(key: str, value: Any) -> int:
    number = as_int(key, value)
    if number < 1 and number != -1:
        raise ArgumentValueError(f"{key} is at least 1, or -1, found {number}")
    return number


def _split_indices(key: str, value: Any) -> list[int]:
    if not isinstance(value, list):
        raise ArgumentTypeError(f"{key} is a list of ints, found {shown(value)}")
    indices = [as_int(f"an item of {key}", item, 0) for item in value]
    if not indices or any(before >= after for before, after in pairwise(indices)):
        raise ArgumentValueError(f"{key} has at least one int, each larger than the one before; found {shown(value)}")
    return indices


def _strategy(key: str, value: Any) -> str | tuple[Any, ...]:
    """Check what shards a data set: a text, or for each array a tuple of ints or a layout."""
    if isinstance(value, str):
        found: str = one_of("data_parallel", "full_batch")(key, value)
        return found
    if not isinstance(value, tuple):
        raise ArgumentTypeError(f"{key} is a str or a tuple, found {shown(value)}")
    for item in value:
        if isinstance(item, tuple):
            for parts in item:
                as_int(f"an item of {key}", parts, 1)
        elif not hasattr(item, "to_dict"):
            raise ArgumentTypeError(f"an item of {key} is a tuple of ints or a Layout, found {shown(item)}")
    return value


def _dict_of(checks: Mapping[str, Check], error: type[Exception] = ArgumentValueError) -> Check:
    def check(key: str, value: Any) -> dict[str, Any]:
        if unknown := [option for option in as_dict(key, value) if option not in checks]:
            raise error(f"{key} has no option {unknown[0]!r}; known: {', '.join(checks)}")
        return {option: checks[option](f"{key}: {option}", item) for option, item in value.items()}

    return check


def _fusion(modes: tuple[str, ...]) -> Check:
    def check(what: str, value: Any) -> dict[str, Any]:
        if missing := {"mode", "config"} - as_dict(what, value).keys():
            raise OptionError(f"{what} has a mode and a config; {' and '.join(sorted(missing))} missing in {value!r}")
        mode, config = value["mode"], value["config"]
        if mode not in modes:
            raise OptionError(f"{what}: the mode is one of {', '.join(modes)}; found {shown(mode)}")
        if mode == "auto":
            return {"mode": mode, "config": None}
        known = int_from(1) if mode == "size" else _split_indices
        return {"mode": mode, "config": known(f"{what}: the config of mode {mode!r}", config)}

    return check


_SCHEDULER = one_of("gpipe", "1f1b", "seqpipe", "seqvpp", "seqsmartvpp", "zero_bubble_v")
_OPTIONS: dict[str, tuple[Any, Check]] = {
    "parallel_mode": (ParallelMode.STAND_ALONE, one_of(*ParallelMode.MODE_LIST)),
    "device_num": (1, int_from(1)),
    "global_rank": (0, int_from(0, 4095)),
    "gradients_mean": (False, as_bool),
    "parameter_broadcast": (False, as_bool),
    "enable_parallel_optimizer": (False, as_bool),
    "parallel_optimizer_config": (
        {
            "parallel_optimizer_threshold": 64,
            "optimizer_weight_shard_size": -1,
            "gradient_accumulation_shard": False,
            "optimizer_level": "level1",
        },
        _dict_of(
            {
                "parallel_optimizer_threshold": int_from(0),
                "optimizer_weight_shard_size": _shard_size,
                "gradient_accumulation_shard": as_bool,
                "optimizer_level": lambda key, value: one_of("level1", "level2", "level3")(key, str(value)),
            }
        ),
    ),
    "comm_fusion": (
        {"openstate": True} | {kind: {"mode": "auto", "config": None} for kind in _MODES_OF_FUSION},
        _dict_of({"openstate": as_bool} | {kind: _fusion(m) for kind, m in _MODES_OF_FUSION.items()}, OptionError),
    ),
    "all_reduce_fusion_config": ([], _split_indices),
    "pipeline_stages": (1, int_from(1)),
    "mesh": (None, _optional(as_mesh)),
    "memory_per_rank": (None, _optional(int_from(1))),
    # From here on: kept and given back.
    "gradient_fp32_sync": (True, as_bool),
    "loss_repeated_mean": (True, as_bool),
    "force_fp32_communication": (False, as_bool),
    "enable_alltoall": (False, as_bool),
    "search_mode": (
        "recursive_programming",
        one_of("recursive_programming", "dynamic_programming", "sharding_propagation"),
    ),
    "dataset_strategy": ("data_parallel", _strategy),
    "strategy_ckpt_config": (
        {"load_file": "", "save_file": "", "only_trainable_params": True},
        _dict_of({"load_file": as_text, "save_file": as_text, "only_trainable_params": as_bool}),
    ),
    "group_ckpt_save_file": ("", as_text),
    "optimizer_weight_shard_aggregated_save": (False, as_bool),
    "communi_parallel_mode": (
        "all_group_parallel",
        one_of("all_group_parallel", "same_server_group_parallel", "no_group_parallel"),
    ),
    "sharding_propagation": (False, as_bool),
    "grad_accumulation_step": (1, one_of(1)),
    "auto_pipeline": (False, as_bool),
    "pipeline_result_broadcast": (False, as_bool),
    "pipeline_segments": (1, int_from(1)),
    "pipeline_config": (
        {"pipeline_interleave": False, "pipeline_scheduler": "1f1b"},
        _dict_of({"pipeline_interleave": as_bool, "pipeline_scheduler": _SCHEDULER}),
    ),
    "dump_local_norm": (False, as_bool),
    "dump_local_norm_path": ("", as_text),
    "dump_device_local_norm": (False, as_bool),
}


def _entry(option: str, key: str, check: Check) -> tuple[str, Check, Callable[[Any], Any], Callable[[Any], Any]]:
    return option, check, lambda value: {key: value}, lambda config: config[key]


# Options that are others in an older form: which one, the check, and the conversions to it and from it.
_VIEWS: dict[str, tuple[str, Check, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "auto_parallel_search_mode": ("search_mode", _OPTIONS["search_mode"][1], str, str),
    "full_batch": (
        "dataset_strategy",
        as_bool,
        lambda value: "full_batch" if value else "data_parallel",
        lambda strategy: strategy == "full_batch",
    ),
    "strategy_ckpt_load_file": _entry("strategy_ckpt_config", "load_file", as_text),
    "strategy_ckpt_save_file": _entry("strategy_ckpt_config", "save_file", as_text),
    "pipeline_interleave": _entry("pipeline_config", "pipeline_interleave", as_bool),
    "pipeline_scheduler": _entry("pipeline_config", "pipeline_scheduler", _SCHEDULER),
    "optimizer_weight_shard_size": _entry("parallel_optimizer_config", "optimizer_weight_shard_size", _shard_size),
}
_MERGED = {key for key, (default, _) in _OPTIONS.items() if isinstance(default, dict)}
_context: dict[str, Any] = {key: default for key, (default, _) in _OPTIONS.items()}


def set_auto_parallel_context(**options: Any) -> None:
    """Set options of the parallel context; on an error nothing changes.

    Parameters
    ----------
    **options
        These act:

        * ``parallel_mode``, one of `ParallelMode` (``"stand_alone"``);
        * ``device_num``, the number of ranks (1), and ``global_rank``, the rank of this process, from 0 to 4095 (0);
        * ``gradients_mean``, whether gradients are averaged, not summed, over the ranks (False);
        * ``enable_parallel_optimizer``, whether the optimizer shards the parameters that every rank would hold in full
          (False), and of ``parallel_optimizer_config``, a dict, ``parallel_optimizer_threshold``: smaller parameters,
          in KB, are not sharded (64), and ``optimizer_weight_shard_size``, the number of ranks that shard a parameter
          (-1: all that hold it), which is also an option by itself;
        * of ``comm_fusion``, a dict, ``openstate``, a bool, and ``allreduce``, a dict with a ``mode`` and a ``config``:
          ``"auto"`` and None, ``"size"`` and the megabytes that are sent at once, ``"index"`` and a list;
        * ``all_reduce_fusion_config``, that list: the gradients after which a group that is reduced at once ends,
          ascending;
        * ``pipeline_stages``, the number of stages that the layers are divided into (1);
        * ``mesh``, the axes of the mesh for automatic layouts and their lengths, as for `Layout` (all ranks in one axis
          ``"rank"``), and ``memory_per_rank``, the bytes that automatic layouts may give a rank (no limit).

        All other options of MindSpore 2.10 are checked and given back; nothing here reads them, but a training loop
        may: ``parameter_broadcast`` asks for `numparam.parallel.broadcast_parameters`. They are
        ``gradient_fp32_sync``, ``loss_repeated_mean``, ``force_fp32_communication``, ``enable_alltoall``,
        ``communi_parallel_mode``, ``search_mode`` (``auto_parallel_search_mode``), ``sharding_propagation``,
        ``dataset_strategy`` (``full_batch``), ``strategy_ckpt_config`` (``strategy_ckpt_load_file``,
        ``strategy_ckpt_save_file``), ``group_ckpt_save_file``, ``optimizer_weight_shard_aggregated_save``,
        ``auto_pipeline``, ``pipeline_config`` (``pipeline_interleave``, ``pipeline_scheduler``), ``pipeline_segments``,
        ``pipeline_result_broadcast``, ``grad_accumulation_step`` (1 only), ``dump_local_norm``,
        ``dump_local_norm_path`` and ``dump_device_local_norm``; in parentheses other names for them or for their parts.
        Parts of a dict that are left out stay as they are.

    Raises
    ------
    TypeError
        If a value is of the wrong kind, or a ``pipeline_scheduler`` other than ``"1f1b"`` is not interleaved.
    ValueError
        If the option does not exist, or its value is out of range. For parts of ``comm_fusion`` that do not exist it is
        also a KeyError.

    Examples
    --------
    >>> set_auto_parallel_context(device_num=4, full_batch=True)
    >>> get_auto_parallel_context("dataset_strategy")
    'full_batch'
    >>> reset_auto_parallel_context()
    """
    draft = dict(_context)
    for key, value in options.items():
        if key in _VIEWS:
            name, check, to_option, _ = _VIEWS[key]
            checked = to_option(check(key, value))
        else:
            name, checked = key, _option(key)[1](key, value)
        draft[name] = draft[name] | checked if name in _MERGED else checked
        if name in _SETTLED:
            _SETTLED[name](checked, draft[name])
        fused = checked.get("allreduce", {}) if key == "comm_fusion" else {}
        if fused.get("mode") == "index" and "all_reduce_fusion_config" not in options:
            draft["all_reduce_fusion_config"] = fused["config"]
    from copy import deepcopy  # a third of a millisecond, which `import numparam` need not pay

    _context.update(deepcopy(draft))


def _settle_level(given: Mapping[str, Any], merged: dict[str, Any]) -> None:
    if merged["gradient_accumulation_shard"] and merged["optimizer_level"] != "level2":
        if "optimizer_level" in given:
            raise ArgumentValueError(
                "parallel_optimizer_config: gradient_accumulation_shard needs optimizer_level 'level2'"
            )
        merged["optimizer_level"] = "level2"


def _settle_scheduler(given: Mapping[str, Any], merged: dict[str, Any]) -> None:  # noqa: ARG001
    if not merged["pipeline_interleave"] and merged["pipeline_scheduler"] != "1f1b":
        raise ArgumentTypeError(
            f"pipeline_config: pipeline_scheduler {merged['pipeline_scheduler']!r} needs pipeline_interleave True; "
            "without it, it is '1f1b'"
        )


_SETTLED = {"parallel_optimizer_config": _settle_level, "pipeline_config": _settle_scheduler}


def get_auto_parallel_context(key: str) -> Any:
    """Return an option of the parallel context; a ValueError if the option does not exist."""
    if key in _VIEWS:
        option, _, _, from_option = _VIEWS[key]
        return from_option(_context[option])
    _option(key)
    from copy import deepcopy

    return deepcopy(_context[key])


def parallel_mode() -> str:
    """Return the parallel mode."""
    mode: str = _context["parallel_mode"]
    return mode


def reset_auto_parallel_context() -> None:
    """Set every option of the parallel context to its default."""
    _context.update({key: default for key, (default, _) in _OPTIONS.items()})


def stand_at(rank: int, ranks: int) -> None:
    """Set the rank of this process and the number of ranks, also as the defaults of a reset."""
    place = {"device_num": ranks, "global_rank": rank}
    set_auto_parallel_context(**place)
    _OPTIONS.update({key: (value, _OPTIONS[key][1]) for key, value in place.items()})


def _option(key: str) -> tuple[Any, Check]:
    if key not in _OPTIONS:
        raise ArgumentValueError(
            f"the parallel context has no option {key!r}; known: {', '.join([*_OPTIONS, *_VIEWS])}"
        )
    return _OPTIONS[key]
