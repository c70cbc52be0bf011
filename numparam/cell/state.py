"""Values put into a whole cell at once, by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numparam.errors import ArgumentTypeError, MismatchError
from numparam.parameter import Parameter
from numparam.parameter.values import converted
from numparam.tensor import Tensor

if TYPE_CHECKING:
    from numparam.cell.cell import Cell


class IncompatibleKeys(NamedTuple):
    """Hold the paths that a state lacks, and those that it has too many."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_state(cell: Cell, state: Mapping[str, Any], strict: bool) -> IncompatibleKeys:
    """Copy values into a cell; see `Cell.load_state_dict`."""
    if not isinstance(state, Mapping):
        raise ArgumentTypeError(f"a state is a mapping from paths to tensors, found {type(state).__name__}")
    there = cell.state_dict()
    keys = IncompatibleKeys(
        [path for path in there if path not in state], [str(path) for path in state if path not in there]
    )
    problems = []
    if strict:
        problems += [f"missing: {', '.join(map(repr, keys.missing_keys))}"] if keys.missing_keys else []
        problems += [f"unexpected: {', '.join(map(repr, keys.unexpected_keys))}"] if keys.unexpected_keys else []
    values: dict[str, Tensor] = {}
    for path, held in there.items():
        if path not in state:
            continue
        value = state[path]
        if not isinstance(value, Tensor | np.ndarray):
            problems.append(f"parameter {path!r}: expected a Tensor, found {type(value).__name__}")
        elif value.shape != held.shape:
            problems.append(f"parameter {path!r}: expected shape {held.shape}, found {value.shape}")
        else:
            values[path] = value if isinstance(value, Tensor) else Tensor(value)
    if problems:
        raise MismatchError(f"the state does not fit the {cell.cls_name}: " + "; ".join(problems))
    for path, value in values.items():
        put(path, there[path], value)
    return keys


def put(name: str, held: Tensor, value: Tensor) -> None:
    """Copy values of the right shape into a parameter or a buffer, in its dtype."""
    if isinstance(held, Parameter):
        held.set_data(value, held.sliced)
    else:
        held._replace(converted(name, Tensor(value).asnumpy(), held.dtype))
