"""The values of all parameters of a cell at once: materialise them, move them, convert them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.cell.tree import Tree
from numparam.context import SHARDED_MODES, ParallelMode, get_auto_parallel_context, parallel_mode
from numparam.device import Device
from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.layout import Layout
from numparam.layout.automatic import automatic_layouts
from numparam.parameter import Parameter
from numparam.tensor import Tensor, launched_together


def materialise(cell: Tree, given: Mapping[str, Any], automatic: bool) -> dict[Parameter, Parameter]:
    """Materialise every lazy parameter; see `Cell.init_parameters_data`."""
    parameters = [parameter for _, parameter in cell._walk_parameters()]
    layouts: dict[str, Layout] = {}
    if parallel_mode() in SHARDED_MODES:
        layouts = _parsed(cell, parameters, given)
    if automatic and parallel_mode() == ParallelMode.AUTO_PARALLEL:
        layouts = _chosen(parameters, layouts)
    with launched_together(parameter.device for parameter in parameters):
        for parameter in parameters:
            layout = layouts.get(parameter.name)
            parameter.init_data(layout, set_sliced=layout is not None and not layout.is_full)
    return {parameter: parameter for parameter in parameters}


def _parsed(cell: Tree, parameters: Iterable[Parameter], given: Mapping[str, Any]) -> dict[str, Layout]:
    shapes = {parameter.name: parameter.shape for parameter in parameters}
    if missing := [name for name in given if name not in shapes]:
        raise ArgumentValueError(
            f"parameter_layout_dict has a layout for {missing[0]!r}, a parameter that the {type(cell).__name__} "
            "does not have"
        )
    return {
        name: layout if isinstance(layout, Layout) else Layout.parse(layout, shapes[name], name)
        for name, layout in given.items()
    }


def _chosen(parameters: Iterable[Parameter], given: Mapping[str, Layout]) -> dict[str, Layout]:
    """Choose the missing layouts of lazy parameters, over the mesh of the context."""
    ranks = get_auto_parallel_context("device_num")
    mesh = get_auto_parallel_context("mesh") or {"rank": ranks}
    full = Layout(mesh, ())
    if full.size != ranks:
        raise StateError(f"the mesh {mesh} of the parallel context has {full.size} ranks, its device_num is {ranks}")
    settled = {parameter.name: full for parameter in parameters if not parameter.has_init} | dict(given)
    return automatic_layouts(parameters, mesh, get_auto_parallel_context("memory_per_rank"), settled)


def move(cell: Tree, target: Device) -> None:
    """Move every parameter and buffer to a device."""
    for _, parameter in cell._walk_parameters():
        parameter._move(target)
    for _, buffer, _ in cell._state_buffers():
        buffer._move(target)


def convert(cell: Tree, target: np.dtype[Any]) -> None:
    """Convert every floating-point parameter and buffer to a dtype."""
    if not dtypes.is_floating(target):
        raise ArgumentTypeError(f"the parameters of a cell are converted to a floating dtype, found {target}")
    for _, parameter in cell._walk_parameters():
        if dtypes.is_floating(parameter.dtype):
            parameter.set_dtype(target)
    for _, below in cell._walk():
        for name, buffer in below._buffers.items():
            if buffer is not None and dtypes.is_floating(buffer.dtype):
                below._buffers[name] = Tensor(buffer, target)
