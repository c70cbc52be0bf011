"""The values of all parameters and buffers of a cell, by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from numparam.cell.hooks import of_kind
from numparam.cell.tree import Tree
from numparam.errors import ArgumentTypeError, MismatchError
from numparam.parameter import Parameter
from numparam.parameter.values import converted
from numparam.tensor import Tensor


class IncompatibleKeys(NamedTuple):
    """Hold the paths that a state lacks, and the paths that the cell does not have."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def save_state(cell: Tree, prefix: str) -> dict[str, Tensor]:
    """Return the tensors by path; see `Cell.state_dict`."""
    for before, below in _places(cell, prefix):
        _run(below, "state pre", before, False)
    state = _tensors(cell, prefix)
    for before, below in reversed(_places(cell, prefix)):
        _run(below, "state post", state, before, {})
    return state


def load_state(cell: Tree, given: Mapping[str, Any], strict: bool) -> IncompatibleKeys:
    """Copy values into a cell; see `Cell.load_state_dict`."""
    if not isinstance(given, Mapping):
        raise ArgumentTypeError(f"a state is a mapping from paths to tensors, found {type(given).__name__}")
    state, keys, problems = dict(given), IncompatibleKeys([], []), list[str]()
    places = _places(cell)
    for before, below in places:
        _run(below, "load pre", state, before, {}, strict, *keys, problems)
    there = _tensors(cell)
    keys.missing_keys.extend(path for path in there if path not in state)
    keys.unexpected_keys.extend(str(path) for path in state if path not in there)
    values: dict[str, Tensor] = {}
    for path in [path for path in there if path in state]:
        value, held = state[path], there[path]
        if not isinstance(value, Tensor | np.ndarray):
            problems.append(f"parameter {path!r}: expected a Tensor, found {type(value).__name__}")
        elif value.shape != held.shape:
            problems.append(f"parameter {path!r}: expected shape {held.shape}, found {value.shape}")
        else:
            values[path] = value if isinstance(value, Tensor) else Tensor(value)
    hooked = any(of_kind(below._hooks, "load post") for _, below in places)
    _check(cell, keys, strict and not hooked, problems)
    for path, value in values.items():
        put(path, there[path], value)
    for _, below in reversed(places):
        _run(below, "load post", keys)  # may settle the keys
    _check(cell, keys, strict, problems)
    return keys


def put(name: str, held: Tensor, value: Tensor) -> None:
    """Copy values of the right shape into a parameter or a buffer, in its dtype."""
    if isinstance(held, Parameter):
        held.set_data(value, held.sliced)
    else:
        held._replace(converted(name, Tensor(value).asnumpy(), held.dtype))


def _places(cell: Tree, prefix: str = "") -> list[tuple[str, Tree]]:
    """Return every cell with what its paths begin with, parents first."""
    return [(f"{prefix}{path}." if path else prefix, below) for path, below in cell._walk()]


def _tensors(cell: Tree, prefix: str = "") -> dict[str, Tensor]:
    state: dict[str, Tensor] = {prefix + path: parameter for path, parameter in cell._walk_parameters()}
    return state | {prefix + path: buffer for path, buffer, kept in cell._state_buffers() if kept}


def _check(cell: Tree, keys: IncompatibleKeys, strict: bool, problems: list[str]) -> None:
    named = zip(("missing", "unexpected"), keys, strict=True)
    found = [f"{what}: {', '.join(map(repr, paths))}" for what, paths in named if strict and paths] + problems
    if found:
        raise MismatchError(f"the state does not fit the {type(cell).__name__}: " + "; ".join(found))


def _run(cell: Tree, kind: str, *arguments: Any) -> None:
    for hook in of_kind(cell._hooks, kind):
        hook.run(cell, *arguments)
