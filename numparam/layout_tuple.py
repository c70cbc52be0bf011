"""The layout of a parameter as MindSpore writes it: a tuple of six or seven items.

``(dev_mat, tensor_map, slice_shape, field_size, uniform_split, opt_shard_group[, full_shape])``:

* ``dev_mat``, list of int: the mesh. Rank r stands at place r in row-major order.
* ``tensor_map``, list of int: for each axis of the parameter the axis of the mesh that cuts it, counted from the last
  one, -1 for none; a list of several, of which the first is the slowest. An empty one leaves the parameter whole.
* ``slice_shape``, list of int or None: the shape of the largest slice, that of rank 0, which is checked.
* ``field_size``, int or None: checked, and of no effect, as in MindSpore.
* ``uniform_split``, bool: True refuses slices of unequal size. MindSpore refuses False; here it allows them.
* ``opt_shard_group``, str: unless it is empty, the ranks that would hold the same slice cut its axis 0 once more, into
  as many parts as ``slice_shape`` asks for, and into as many as there are such ranks if it is None. Where there are
  more such ranks than parts, the fastest axes of the mesh cut.
* ``full_shape``, list of int: the shape of the whole parameter, which is checked.
"""

import math
from typing import Any

import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError, ShapeError
from numparam.layout import Layout

_FIELDS = "dev_mat, tensor_map, slice_shape, field_size, uniform_split, opt_shard_group"


def parse(layout: Any, shape: tuple[int, ...] | None = None, name: str = "") -> Layout:
    """Read the layout of a parameter.

    Parameters
    ----------
    layout : tuple
        Its six or seven items.
    shape : tuple of int, optional
        Of the whole parameter; ``full_shape`` if not given. Without both there is nothing to check the slices against.
    name : str
        Of the parameter, for the message of an error.

    Returns
    -------
    Layout
        The axes of its mesh have the numbers by which ``tensor_map`` calls them as names.

    Raises
    ------
    TypeError
        If it is no tuple, or an item is of the wrong kind.
    ValueError
        If the number of items is wrong, one is out of range, or the parameter cannot be cut so.

    Examples
    --------
    >>> parse(([2, 4], [0, -1], [4, 6], 0, True, "", [16, 6]))
    Layout({'1': 2, '0': 4}, ('0', None))
    """
    where = f"Parameter {name!r}: layout"
    if not isinstance(layout, tuple):
        raise ArgumentTypeError(f"{where} is a Layout, or a tuple ({_FIELDS}), found {type(layout).__name__}")
    if len(layout) not in (6, 7):
        raise ArgumentValueError(f"{where} has the six items {_FIELDS}, and maybe full_shape; found {len(layout)}")
    dev_mat, tensor_map, slice_shape, field_size, uniform, group = layout[:6]
    grid = _ints(f"{where} dev_mat", dev_mat, 1)
    if not isinstance(tensor_map, list | tuple):
        raise ArgumentTypeError(f"{where} tensor_map is a list of ints, found {tensor_map!r}")
    spec = [_cutting(f"{where} tensor_map", item) for item in tensor_map]
    used = [axis for item in spec for axis in item]
    if len(set(used)) != len(used) or any(axis >= len(grid) for axis in used):
        raise ArgumentValueError(
            f"{where} tensor_map {tensor_map!r} names axes of dev_mat {list(grid)} from the last, once each"
        )
    wanted = None if slice_shape is None else _ints(f"{where} slice_shape", slice_shape, 0)
    if field_size is not None:
        _ints(f"{where} field_size", [field_size], 0)
    if not isinstance(uniform, bool | np.bool_ | int):
        raise ArgumentTypeError(f"{where} uniform_split is True or False, found {uniform!r}")
    if group is not None and not isinstance(group, str):
        raise ArgumentTypeError(f"{where} opt_shard_group is a str, found {group!r}")
    full = _ints(f"{where} full_shape", layout[6], 0) if len(layout) == 7 else shape
    if shape is not None and full != shape:
        raise ShapeError(f"{where} full_shape is {full}, the parameter has shape {shape}")

    mesh = {str(len(grid) - 1 - place): length for place, length in enumerate(grid)}
    cuts = Layout(mesh, [tuple(map(str, item)) for item in spec])
    if full is None:
        return Layout(mesh, cuts.spec, cuts.replicated) if group else cuts
    where = f"Parameter {name!r} of shape {full}: the layout"
    if spec and len(spec) != len(full):
        raise ShapeError(f"{where}'s tensor_map has {len(spec)} items, one for each axis")
    if group:
        cuts = _shared_out(cuts, cuts.region(full, 0, name).shape, wanted)
    if uniform:
        _check_uniform(where, cuts, full)
    if wanted is not None and (found := cuts.region(full, 0, name).shape) != wanted:
        raise ShapeError(f"{where} cuts slices of shape {found}, its slice_shape says {wanted}")
    return cuts


def _shared_out(layout: Layout, shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> Layout:
    """Let the optimizer cut a shard of some shape into as many parts as the wanted shape asks for."""
    mesh, replicas = dict(layout.mesh), math.prod(layout.mesh[axis] for axis in layout.replicated)
    parts = replicas
    if wanted is not None:  # one that cannot be had is found out when the slices are compared with it
        parts = -(-shape[0] // wanted[0]) if shape and len(wanted) == len(shape) and wanted[0] else 1
        parts = parts if replicas % parts == 0 else 1
    chosen: list[str] = []
    for axis in reversed(layout.replicated):
        length = mesh[axis]
        both = math.gcd(length, parts)
        parts //= both
        if both == length:
            chosen.insert(0, axis)
        elif both > 1:
            chosen.insert(0, f"{axis}b")
            halves = {f"{axis}a": length // both, f"{axis}b": both}
            mesh = {name: each for old in mesh for name, each in (halves if old == axis else {old: mesh[old]}).items()}
    return Layout(mesh, layout.spec, chosen)


def _check_uniform(where: str, layout: Layout, shape: tuple[int, ...]) -> None:
    counts = [(axis, math.prod(layout.mesh[each] for each in item)) for axis, item in enumerate(layout.spec)]
    if layout.optimizer_shard:
        first = math.prod(layout.mesh[each] for item in layout.spec[:1] for each in item)
        counts.append((0, first * math.prod(layout.mesh[each] for each in layout.optimizer_shard)))
    for axis, parts in counts:
        if shape[axis] % parts:
            raise ShapeError(
                f"{where} cuts axis {axis} into {parts} parts, which do not divide {shape[axis]}; "
                "uniform_split=False allows slices of unequal size"
            )


def _cutting(what: str, item: Any) -> tuple[int, ...]:
    axes = _ints(what, item if isinstance(item, list | tuple) else [item], -1)
    if axes == (-1,):
        return ()
    if -1 in axes:
        raise ArgumentValueError(f"{what} has -1 on its own, or a list of axes without it; found {item!r}")
    return axes


def _ints(what: str, value: Any, low: int) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(item, int | np.integer) and not isinstance(item, bool) for item in value
    ):
        raise ArgumentTypeError(f"{what} holds ints, found {value!r}")
    if any(item < low for item in value):
        raise ArgumentValueError(f"{what} holds ints of at least {low}, found {value!r}")
    return tuple(int(item) for item in value)
