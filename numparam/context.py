"""The parallel context: the mode, the place in it, and the options that sharded parameters are made under."""

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from typing import Any

from numparam.checks import as_bool, as_int, as_mesh
from numparam.errors import ArgumentTypeError, ArgumentValueError, OptionError


class ParallelMode:
    """Name the parallel modes, and say what each means for parameters.

    ``STAND_ALONE``
        There is one rank, and it holds every parameter whole.
    ``DATA_PARALLEL``, ``HYBRID_PARALLEL``
        Every rank holds every parameter whole. `numparam.parallel.broadcast_parameters` gives all of them the values of
        rank 0, but for parameters with ``layerwise_parallel``, which each rank has for itself.
    ``SEMI_AUTO_PARALLEL``
        A rank holds the region that the user's layout gives it: that of `Parameter.init_data`, or the one that
        `Cell.parameter_layout_dict` has for the parameter's name. A parameter without a layout is whole.
    ``AUTO_PARALLEL``
        The same; and ``Cell.init_parameters_data(auto_parallel_mode=True)`` chooses the layouts that the user did not
        give, as `numparam.automatic_layouts` says, over the ``mesh`` and within the ``memory_per_rank`` of the context.

    `Cell.init_parameters_data` reads no layouts in the first three modes; a layout that is given to
    `Parameter.init_data` itself counts in every mode. All modes give a parameter the same values.

    Examples
    --------
    >>> ParallelMode.SEMI_AUTO_PARALLEL
    'semi_auto_parallel'
    """

    STAND_ALONE = "stand_alone"
    DATA_PARALLEL = "data_parallel"
    HYBRID_PARALLEL = "hybrid_parallel"
    SEMI_AUTO_PARALLEL = "semi_auto_parallel"
    AUTO_PARALLEL = "auto_parallel"
    MODE_LIST = (STAND_ALONE, DATA_PARALLEL, HYBRID_PARALLEL, SEMI_AUTO_PARALLEL, AUTO_PARALLEL)


Check = Callable[[str, Any], Any]

_COLLECTIVES = {
    "allreduce": ("auto", "size", "index"),
    "allgather": ("auto", "size"),
    "reducescatter": ("auto", "size"),
}
_LEVELS = ("level1", "level2", "level3")


def _mode(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{key} is a str, found {value!r}")
    if value not in ParallelMode.MODE_LIST:
        raise ArgumentValueError(f"{key} is one of {', '.join(ParallelMode.MODE_LIST)}; found {value!r}")
    return value


def _count(low: int, high: int | None = None) -> Check:
    return lambda key, value: as_int(key, value, low, high)


def _shard_size(key: str, value: Any) -> int:
    number = as_int(key, value)
    if number < 1 and number != -1:
        raise ArgumentValueError(f"{key} is at least 1, or -1, found {number}")
    return number


def _level(key: str, value: Any) -> str:
    if value not in _LEVELS:
        raise ArgumentValueError(f"{key} is one of {', '.join(_LEVELS)}; found {value!r}")
    return str(value)


def _split_indices(key: str, value: Any) -> list[int]:
    if not isinstance(value, list):
        raise ArgumentTypeError(f"{key} is a list of ints, found {value!r}")
    indices = [as_int(f"an item of {key}", item, 0) for item in value]
    if not indices or any(before >= after for before, after in pairwise(indices)):
        raise ArgumentValueError(f"{key} has at least one int, each larger than the one before; found {value!r}")
    return indices


def _dict(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ArgumentTypeError(f"{key} is a dict, found {value!r}")
    return value


_OPTIMIZER: dict[str, Check] = {
    "parallel_optimizer_threshold": _count(0),
    "optimizer_weight_shard_size": _shard_size,
    "gradient_accumulation_shard": as_bool,
    "optimizer_level": _level,
}


def _optimizer(key: str, value: Any) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for option, item in _dict(key, value).items():
        if option not in _OPTIMIZER:
            raise ArgumentValueError(f"{key} has no option {option!r}; known: {', '.join(_OPTIMIZER)}")
        given[option] = _OPTIMIZER[option](f"{key}: {option}", item)
    merged: dict[str, Any] = _context[key] | given
    if merged["gradient_accumulation_shard"] and merged["optimizer_level"] != "level2":
        if "optimizer_level" in given:
            raise ArgumentValueError(f"{key}: gradient_accumulation_shard needs optimizer_level 'level2'")
        merged["optimizer_level"] = "level2"
    return merged


def _fusion(key: str, value: Any) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for kind, item in _dict(key, value).items():
        if kind == "openstate":
            given[kind] = as_bool(f"{key}: {kind}", item)
        elif kind in _COLLECTIVES:
            given[kind] = _fused(f"{key}: {kind}", item, _COLLECTIVES[kind])
        else:
            raise OptionError(f"{key} has no option {kind!r}; known: openstate, {', '.join(_COLLECTIVES)}")
    merged: dict[str, Any] = _context[key] | given
    return merged


def _fused(what: str, value: Any, modes: tuple[str, ...]) -> dict[str, Any]:
    if missing := {"mode", "config"} - _dict(what, value).keys():
        raise OptionError(f"{what} has a mode and a config; {' and '.join(sorted(missing))} missing in {value!r}")
    mode, config = value["mode"], value["config"]
    if mode not in modes:
        raise OptionError(f"{what}: the mode is one of {', '.join(modes)}; found {mode!r}")
    if mode == "auto":
        return {"mode": mode, "config": None}
    check = _count(1) if mode == "size" else _split_indices
    return {"mode": mode, "config": check(f"{what}: the config of mode {mode!r}", config)}


def _mesh(key: str, value: Any) -> dict[str, int] | None:
    return None if value is None else as_mesh(key, value)


def _budget(key: str, value: Any) -> int | None:
    return None if value is None else as_int(key, value, 1)


_OPTIONS: dict[str, tuple[Any, Check]] = {
    "parallel_mode": (ParallelMode.STAND_ALONE, _mode),
    "device_num": (1, _count(1)),
    "global_rank": (0, _count(0, 4095)),
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
        _optimizer,
    ),
    "comm_fusion": ({"openstate": True} | {kind: {"mode": "auto", "config": None} for kind in _COLLECTIVES}, _fusion),
    "all_reduce_fusion_config": ([], _split_indices),
    "pipeline_stages": (1, _count(1)),
    "mesh": (None, _mesh),
    "memory_per_rank": (None, _budget),
}
_context: dict[str, Any] = {key: default for key, (default, _) in _OPTIONS.items()}


def set_auto_parallel_context(**options: Any) -> None:
    """Set options of the parallel context; all of them or none.

    Options that are only kept are checked and given back, for scripts written for MindSpore: nothing here reads them.

    Parameters
    ----------
    parallel_mode : str
        One of `ParallelMode`, which says what they mean; ``"stand_alone"`` unless told.
    device_num : int
        How many ranks there are, 1 unless told.
    global_rank : int
        Which of them this process is, from 0 to 4095; 0 unless told.
    gradients_mean : bool
        Whether gradients are averaged, not summed, over the ranks. False unless told, as are all bools here.
    parameter_broadcast : bool
        Whether training begins with the parameters of rank 0. Only kept: a training loop that reads it calls
        `numparam.parallel.broadcast_parameters`.
    enable_parallel_optimizer : bool
        Whether the optimizer shards the parameters that every rank would hold whole.
    parallel_optimizer_config : dict
        Any of ``parallel_optimizer_threshold``, an int: smaller parameters, in KB, are not sharded (64);
        ``optimizer_weight_shard_size``, an int: how many ranks shard a parameter (-1: all that hold it);
        ``gradient_accumulation_shard``, a bool; ``optimizer_level``, ``"level1"`` to ``"level3"``, of which gradient
        accumulation needs the second. The last two are only kept. Those left out stay as they are.
    comm_fusion : dict
        Any of ``openstate``, a bool; ``allreduce``, ``allgather`` and ``reducescatter``, each of which is a dict with a
        ``mode`` and a ``config``: ``"auto"`` and None; ``"size"`` and the megabytes that are sent at once; for
        allreduce also ``"index"`` and a list as in ``all_reduce_fusion_config``, which is set too. Those of allgather
        and reducescatter are only kept.
    all_reduce_fusion_config : list of int
        The gradients after which a group that is reduced at once ends, ascending.
    pipeline_stages : int
        How many stages the layers are divided into, 1 unless told.
    mesh : mapping of str to int
        The axes of the mesh that automatic layouts cut over and their lengths, as for `Layout`; all ranks in one axis
        ``"rank"`` unless told.
    memory_per_rank : int
        The bytes that automatic layouts may give a rank; no limit unless told.

    Raises
    ------
    TypeError
        If a value is of the wrong kind.
    ValueError
        If there is no such option, or its value is out of range. For parts of ``comm_fusion`` that do not exist it is
        also a KeyError.

    Examples
    --------
    >>> set_auto_parallel_context(parallel_mode="semi_auto_parallel", device_num=4, global_rank=2)
    >>> get_auto_parallel_context("parallel_mode")
    'semi_auto_parallel'
    >>> reset_auto_parallel_context()
    """
    checked = {key: _check(key)(key, value) for key, value in options.items()}
    fused = checked.get("comm_fusion", {}).get("allreduce", {})
    if fused.get("mode") == "index":
        checked.setdefault("all_reduce_fusion_config", fused["config"])
    _context.update(deepcopy(checked))


def get_auto_parallel_context(key: str) -> Any:
    """Return an option of the parallel context.

    Raises
    ------
    ValueError
        If there is no such option.

    Examples
    --------
    >>> get_auto_parallel_context("device_num")
    1
    """
    _check(key)
    return deepcopy(_context[key])


def parallel_mode() -> str:
    """Return the parallel mode.

    Examples
    --------
    >>> parallel_mode()
    'stand_alone'
    """
    mode: str = _context["parallel_mode"]
    return mode


def reset_auto_parallel_context() -> None:
    """Set every option of the parallel context to its default.

    Examples
    --------
    >>> reset_auto_parallel_context()
    >>> get_auto_parallel_context("parallel_mode")
    'stand_alone'
    """
    _context.update({key: default for key, (default, _) in _OPTIONS.items()})


def stand_at(rank: int, ranks: int) -> None:
    """Set the place of this process among all, and let `reset_auto_parallel_context` go back to it."""
    place = {"device_num": ranks, "global_rank": rank}
    set_auto_parallel_context(**place)
    _OPTIONS.update({key: (value, _OPTIONS[key][1]) for key, value in place.items()})


def _check(key: str) -> Check:
    if key not in _OPTIONS:
        raise ArgumentValueError(f"the parallel context has no option {key!r}; known: {', '.join(_OPTIONS)}")
    return _OPTIONS[key][1]
