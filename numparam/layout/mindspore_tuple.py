"""The layout of a parameter as MindSpore writes it: a tuple of six or seven items.

``(dev_mat, tensor_map, slice_shape, field_size, uniform_split, opt_shard_group[, full_shape])``:

* ``dev_mat``, list of int: the mesh. Rank r is at place r in row-major order.
* ``tensor_map``, list of int: for each axis of the parameter the axis of the mesh that shards it, counted from the last
  one, or -1; a list of several, of which the first is the slowest. An empty one leaves the parameter full.
* ``slice_shape``, list of int or None: the shape of the largest slice, on rank 0, which is checked.
* ``field_size``, int or None: checked, and of no effect, as in MindSpore.
* ``uniform_split``, bool: True refuses slices of unequal size. MindSpore refuses False; here it allows them.
* ``opt_shard_group``, str: unless it is empty, the ranks that would hold the same slice split its axis 0 further, into
  as many parts as ``slice_shape`` implies, the most if several numbers are possible, and into as many as there are
  such ranks if it is None. Where there are more such ranks than parts, the fastest axes of the mesh split.
* ``full_shape``, list of int: the shape of the full parameter, which is checked.
"""

import math
from typing import Any

import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError, ShapeError
from numparam.layout.partition import Axes, Partition
from numparam.text import shown

_FIELDS = "dev_mat, tensor_map, slice_shape, field_size, uniform_split, opt_shard_group"


def parse(layout: Any, shape: tuple[int, ...] | None = None, name: str = "") -> Partition:
    """Read the layout of a parameter; the axes of its mesh are named by the numbers of ``tensor_map``.

    Examples
    --------
    >>> parse(([2, 4], [0, -1], [4, 6], 0, True, "", [16, 6])).spec
    (('0',), ())
    """
    where = f"Parameter {name!r}: layout"
    if not isinstance(layout, tuple):
        raise ArgumentTypeError(f"{where} is a Layout, or a tuple ({_FIELDS}), found {type(layout).__name__}")
    if len(layout) not in (6, 7):
        raise ArgumentValueError(f"{where} has the six items {_FIELDS}, and maybe full_shape; found {len(layout)}")
    dev_mat, tensor_map, slice_shape, field_size, uniform, group = layout[:6]
    grid = _ints(f"{where} dev_mat", dev_mat, 1)
    if not isinstance(tensor_map, list | tuple):
        raise ArgumentTypeError(f"{where} tensor_map is a list of ints, found {shown(tensor_map)}")
    spec = [_splitting(f"{where} tensor_map", item) for item in tensor_map]
    used = [axis for item in spec for axis in item]
    if len(set(used)) != len(used) or any(axis >= len(grid) for axis in used):
        raise ArgumentValueError(
            f"{where} tensor_map {tensor_map!r} names axes of dev_mat {list(grid)} from the last, once each"
        )
    wanted = None if slice_shape is None else _ints(f"{where} slice_shape", slice_shape, 0)
    if field_size is not None:
        _ints(f"{where} field_size", [field_size], 0)
    if not isinstance(uniform, bool | np.bool_ | int):
        raise ArgumentTypeError(f"{where} uniform_split is True or False, found {shown(uniform)}")
    if group is not None and not isinstance(group, str):
        raise ArgumentTypeError(f"{where} opt_shard_group is a str, found {shown(group)}")
    full = _ints(f"{where} full_shape", layout[6], 0) if len(layout) == 7 else shape
    if shape is not None and full != shape:
        raise ShapeError(f"{where} full_shape is {full}, the parameter has shape {shape}")

    mesh = {str(len(grid) - 1 - place): length for place, length in enumerate(grid)}
    splits = Partition(mesh, [tuple(map(str, item)) for item in spec])
    if full is None:
        return Partition(mesh, splits.spec, splits.replicated) if group else splits
    where = f"Parameter {name!r} of shape {full}: the layout"
    if spec and len(spec) != len(full):
        raise ShapeError(f"{where}'s tensor_map has {len(spec)} items, one for each axis")
    if group:
        splits = _shared_out(splits, splits.region(full, 0, name).shape, wanted, bool(uniform))
    if uniform and (uneven := _uneven(splits, full)):
        raise ShapeError(
            f"{where} splits axis {uneven[0]} into {uneven[1]} parts, which do not divide {full[uneven[0]]}; "
            "uniform_split=False allows slices of unequal size"
        )
    if wanted is not None and (found := splits.region(full, 0, name).shape) != wanted:
        raise ShapeError(f"{where} gives slices of shape {found}, its slice_shape is {wanted}")
    return splits


def to_tuple(layout: Partition, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Write the layout of a parameter, with all seven items.

    Examples
    --------
    >>> to_tuple(Partition({"dp": 2, "tp": 4}, ("tp",), optimizer_shard="dp"), (16, 6))
    ([2, 4], [0, -1], [2, 6], 0, True, 'dp', [16, 6])
    """
    if layout.ranks != range(layout.size):
        raise ArgumentValueError(f"in MindSpore's tuple rank r is at place r of the mesh; it cannot express {layout!r}")
    numbers = {axis: number for number, axis in enumerate(reversed(layout.mesh))}
    found = (
        list(layout.mesh.values()),
        _tensor_map(layout) + [-1] * (len(shape) - len(layout.spec)),
        list(layout.shape(shape, 0)),
        0,
        _uneven(layout, shape) is None,
        "-".join(layout.optimizer_shard),
        list(shape),
    )
    read = parse(found)
    said = [axis for axis in read.optimizer_shard if read.mesh[axis] > 1]
    if said != [str(numbers[axis]) for axis in layout.optimizer_shard if layout.mesh[axis] > 1]:
        raise ArgumentValueError(
            f"in MindSpore's tuple the optimizer splits over the fastest axes of the mesh that hold replicas, in the "
            f"order of the mesh, into at most as many parts as axis 0 has entries; it cannot express {layout!r} for "
            f"shape {shape}"
        )
    return found


def to_dict(layout: Partition) -> dict[str, Any]:
    """Return the dict that ``Layout.to_dict`` of MindSpore returns."""
    return {
        "device_matrix": tuple(layout.mesh.values()),
        "tensor_map": tuple(tuple(item) if isinstance(item, list) else item for item in _tensor_map(layout)),
        "interleaved_parallel": False,
        "alias_name": tuple(layout.mesh),
        "rank_list": list(layout.ranks),
    }


def named_mesh(lengths: tuple[int, ...], names: Any) -> dict[str, int]:
    """Return the mesh that MindSpore writes as a tuple of lengths and a tuple of names."""
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise ArgumentTypeError(
            f"the axes of a mesh of lengths {lengths} are named by a tuple of str, found {shown(names)}"
        )
    if len(names) != len(lengths) or len({*names} - {"", "None"}) != len(names):
        raise ArgumentValueError(f"a mesh of lengths {lengths} needs as many different names, found {shown(names)}")
    if "interleaved_parallel" in names:
        raise ArgumentValueError(
            "'interleaved_parallel' splits what one rank computes with, not the parameters that it holds; leave that "
            "axis out of the mesh of a layout"
        )
    return dict(zip(names, lengths, strict=True))


def without_none(axes: Axes) -> Axes:
    """Return what shards an axis of a parameter, where MindSpore writes "None" for nothing."""
    if isinstance(axes, str) or axes is None:
        return None if axes == "None" else axes
    return tuple(axis for axis in axes if axis != "None")


def _tensor_map(layout: Partition) -> list[Any]:
    numbers = {axis: number for number, axis in enumerate(reversed(layout.mesh))}
    spec = [[numbers[axis] for axis in item] for item in layout.spec]
    return [item if len(item) > 1 else item[0] if item else -1 for item in spec]


def _shared_out(layout: Partition, shape: tuple[int, ...], wanted: tuple[int, ...] | None, uniform: bool) -> Partition:
    """Let the optimizer split a shard of some shape to match the wanted shape."""
    mesh, replicas = dict(layout.mesh), math.prod(layout.mesh[axis] for axis in layout.replicated)
    parts = replicas
    if wanted is not None:  # one that cannot be had is found out when the slices are compared with it
        able = [
            each for each in range(1, replicas + 1) if replicas % each == 0 and _cut(shape, each, uniform) == wanted
        ]
        parts = max(able, default=1)
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
    return Partition(mesh, layout.spec, chosen)


def _cut(shape: tuple[int, ...], parts: int, uniform: bool) -> tuple[int, ...] | None:
    """Return the shape of the first part of axis 0; None if the parts are unequal and must not be."""
    if not shape or (uniform and shape[0] % parts):
        return None
    return -(-shape[0] // parts), *shape[1:]


def _uneven(layout: Partition, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return an axis and the number of parts that it does not divide evenly into, or None."""
    counts = [math.prod(layout.mesh[each] for each in item) for item in layout.spec]
    splits = list(enumerate(counts))
    if layout.optimizer_shard:
        splits.append((0, math.prod([*counts[:1], *(layout.mesh[each] for each in layout.optimizer_shard)])))
    return next(((axis, parts) for axis, parts in splits if shape[axis] % parts), None)


def _splitting(what: str, item: Any) -> tuple[int, ...]:
    axes = _ints(what, item if isinstance(item, list | tuple) else [item], -1)
    if axes == (-1,):
        return ()
    if -1 in axes:
        raise ArgumentValueError(f"{what} has -1 on its own, or a list of axes without it; found {shown(item)}")
    return axes


def _ints(what: str, value: Any, low: int) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(item, int | np.integer) and not isinstance(item, bool) for item in value
    ):
        raise ArgumentTypeError(f"{what} holds ints, found {shown(value)}")
    if any(item < low for item in value):
        raise ArgumentValueError(f"{what} holds ints of at least {low}, found {shown(value)}")
    return tuple(int(item) for item in value)
