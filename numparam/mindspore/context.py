"""Contexts under the names of ``mindspore.context``.

The options of `set_context` choose how MindSpore compiles and runs, which does not concern parameters: they are
checked, kept and given back, without effect. `numparam.set_default_device` chooses where values are.
"""

from typing import Any

from numparam.checks import Check, as_bool, as_dict, as_int, as_text, int_from, one_of
from numparam.context import (
    ParallelMode,
    get_auto_parallel_context,
    reset_auto_parallel_context,
    set_auto_parallel_context,
)
from numparam.errors import ArgumentValueError
from numparam.text import shown

__all__ = [
    "COMPATIBLE", "GRAPH_MODE", "LAX", "PYNATIVE_MODE", "STRICT", "ParallelMode", "get_auto_parallel_context",
    "get_context", "get_ps_context", "reset_auto_parallel_context", "reset_ps_context", "set_auto_parallel_context",
    "set_context", "set_device", "set_ps_context",
]  # fmt: skip

GRAPH_MODE, PYNATIVE_MODE = 0, 1
STRICT, COMPATIBLE, LAX = 0, 1, 2


def _graphs(key: str, value: Any) -> int:
    return int(value) if isinstance(value, bool) else as_int(key, value, 0, 3)


def _memory(key: str, value: Any) -> str:
    number = as_text(key, value).removesuffix("GB")
    if number == value or not number.replace(".", "", 1).isdecimal() or float(number) == 0:
        raise ArgumentValueError(f"{key} is a number of GB such as '8GB', found {shown(value)}")
    return str(value)


_OPTIONS: dict[str, tuple[Any, Check]] = {
    "mode": (PYNATIVE_MODE, one_of(GRAPH_MODE, PYNATIVE_MODE)),
    "device_target": ("CPU", one_of("CPU", "GPU", "Ascend")),
    "device_id": (0, int_from(0, 4095)),
    "deterministic": ("OFF", one_of("ON", "OFF")),
    "max_call_depth": (1000, int_from(1)),
    "max_device_memory": ("1024GB", _memory),
    "mempool_block_size": ("1GB", _memory),
    "memory_optimize_level": ("O0", one_of("O0", "O1")),
    "variable_memory_max_size": ("0", as_text),
    "save_graphs": (0, _graphs),
    "save_graphs_path": (".", as_text),
    "jit_syntax_level": (LAX, one_of(STRICT, COMPATIBLE, LAX)),
    "jit_config": ({}, as_dict),
    "ascend_config": ({}, as_dict),
    "gpu_config": ({}, as_dict),
    "pynative_synchronize": (False, as_bool),
    "enable_graph_kernel": (False, as_bool),
    "graph_kernel_flags": ("", as_text),
    "enable_reduce_precision": (True, as_bool),
    "enable_compile_cache": (None, as_bool),
    "compile_cache_path": ("", as_text),
    "enable_profiling": (False, as_bool),
    "check_bprop": (False, as_bool),
    "reserve_class_name_in_scope": (True, as_bool),
    "support_binary": (False, as_bool),
    "inter_op_parallel_num": (0, int_from(0)),
    "runtime_num_threads": (30, int_from(0)),
    "op_timeout": (900, int_from(0)),
    "print_file_path": ("", as_text),
    "env_config_path": ("", as_text),
    "exec_order": ("bfs", one_of("bfs", "dfs", "gpto")),
    "debug_level": (0, one_of(0, 1)),
    "hccl_watchdog": (True, as_bool),
}
_SERVER_OPTIONS: dict[str, tuple[Any, Check]] = {
    "enable_ps": (False, as_bool),
    "config_file_path": ("", as_text),
    "enable_ssl": (False, as_bool),
}
_context: dict[str, Any] = {}
_server: dict[str, Any] = {}


def set_context(**options: Any) -> None:
    """Keep options of MindSpore's runtime; on an error nothing changes.

    Parameters
    ----------
    **options
        ``mode`` is `GRAPH_MODE` or `PYNATIVE_MODE`, ``device_target`` ``"CPU"``, ``"GPU"`` or ``"Ascend"``; and so on.

    Raises
    ------
    TypeError
        If a value is of another kind.
    ValueError
        If there is no such option, or a value is not accepted.

    Examples
    --------
    >>> set_context(mode=GRAPH_MODE)
    >>> get_context("mode")
    0
    >>> set_context(mode=PYNATIVE_MODE)
    """
    _context.update({key: _option(_OPTIONS, key)[1](key, value) for key, value in options.items()})


def get_context(attr_key: str) -> Any:
    """Return an option of `set_context`; a ValueError if there is no such option."""
    return _context.get(attr_key, _option(_OPTIONS, attr_key)[0])


def set_device(device_target: str, device_id: int | None = None) -> None:
    """Keep the device of MindSpore's runtime; see `set_context`."""
    set_context(device_target=device_target, **({} if device_id is None else {"device_id": device_id}))


def set_ps_context(**options: Any) -> None:
    """Keep options of a parameter server; ``enable_ps`` acts as in `numparam.server.set_ps_context`."""
    _server.update({key: _option(_SERVER_OPTIONS, key)[1](key, value) for key, value in options.items()})
    if "enable_ps" in options:
        from numparam import server

        server.set_ps_context(enable_ps=_server["enable_ps"])


def get_ps_context(attr_key: str) -> Any:
    """Return an option of `set_ps_context`; a ValueError if there is no such option."""
    return _server.get(attr_key, _option(_SERVER_OPTIONS, attr_key)[0])


def reset_ps_context() -> None:
    """Set every option of `set_ps_context` to its default."""
    if _server.get("enable_ps"):
        from numparam import server

        server.reset_ps_context()
    _server.clear()


def _option(options: dict[str, tuple[Any, Check]], key: str) -> tuple[Any, Check]:
    if key not in options:
        raise ArgumentValueError(f"the context has no option {key!r:.80}; known: {', '.join(options)}")
    return options[key]
