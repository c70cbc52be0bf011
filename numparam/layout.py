"""The layout of a parameter over a grid of devices, as MindSpore writes it: which slice a rank holds."""

import math
from itertools import accumulate
from operator import mul
from typing import Any, NamedTuple

import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError, ShapeError
from numparam.region import Region

_FIELDS = "dev_mat, tensor_map, slice_shape, field_size, uniform_split, opt_shard_group"


class Layout(NamedTuple):
    """Say how a parameter is cut over a grid of devices.

    Rank r stands in the grid at the place of r in row-major order. ``tensor_map[d]`` names the axis of the grid,
    counted from the last one, that cuts axis d of the parameter, -1 if none does; a list names several, slowest first.
    Where ranks would hold the same slice and ``opt_shard_group`` is named, they cut it once more along axis 0, into as
    many parts as ``slice_shape`` asks for, in the order of their ranks.

    Parameters
    ----------
    dev_mat : tuple of int
        The grid.
    tensor_map : tuple of tuple of int
        The axes of the grid, counted from the last, that cut each axis of the parameter.
    slice_shape : tuple of int or None
        The shape that each rank must get, to be checked; None if it need not be.
    opt_shard_group : str
        Empty if the optimizer shares nothing out.

    Examples
    --------
    >>> layout = Layout.parse(([2, 2], [1, 0], [4, 3], 0, True, ""), "w")
    >>> layout.region("w", (8, 6), rank=1)
    Region((8, 6): range(0, 4), range(3, 6))
    """

    dev_mat: tuple[int, ...]
    tensor_map: tuple[tuple[int, ...], ...]
    slice_shape: tuple[int, ...] | None
    opt_shard_group: str

    @classmethod
    def parse(cls, layout: Any, name: str) -> "Layout":
        """Check the six items of a layout, of which the order and the names are those of `Parameter.init_data`.

        Raises
        ------
        ArgumentTypeError
            If it is no tuple, or an item is of the wrong kind.
        ArgumentValueError
            If it has fewer than six items, or one is out of range.
        """
        where = f"Parameter {name!r}: layout"
        if not isinstance(layout, tuple):
            raise ArgumentTypeError(f"{where} is a tuple ({_FIELDS}), found {type(layout).__name__}")
        if len(layout) < 6:
            raise ArgumentValueError(f"{where} has the six items {_FIELDS}; found {len(layout)}")
        dev_mat, tensor_map, slice_shape, field_size, uniform_split, group = layout[:6]
        grid = _ints(f"{where} dev_mat", dev_mat, 1)
        if not isinstance(tensor_map, list | tuple):
            raise ArgumentTypeError(f"{where} tensor_map is a list of ints, found {tensor_map!r}")
        maps = tuple(
            _ints(f"{where} tensor_map", item if isinstance(item, list | tuple) else [item], -1) for item in tensor_map
        )
        used = [axis for item in maps for axis in item if axis != -1]
        if len(set(used)) != len(used) or any(axis >= len(grid) for axis in used):
            raise ArgumentValueError(
                f"{where} tensor_map {tensor_map!r} names axes of dev_mat {list(grid)} from the last, once each"
            )
        if field_size is not None:
            _ints(f"{where} field_size", [field_size], 0)
        if not isinstance(uniform_split, bool | np.bool_ | int):
            raise ArgumentTypeError(f"{where} uniform_split is True or False, found {uniform_split!r}")
        if not uniform_split:
            raise ArgumentValueError(f"{where} uniform_split is False: slices of unequal size are not supported")
        if group is not None and not isinstance(group, str):
            raise ArgumentTypeError(f"{where} opt_shard_group is a str, found {group!r}")
        wanted = None if slice_shape is None else _ints(f"{where} slice_shape", slice_shape, 0)
        return cls(grid, tuple(() if item == (-1,) else item for item in maps), wanted, group or "")

    def region(self, name: str, shape: tuple[int, ...], rank: int) -> Region:
        """Return the region of a parameter that a rank holds.

        Raises
        ------
        ArgumentValueError
            If the grid has no such rank, an axis does not divide, or the slice is not of the shape that was asked for.
        """
        where = f"Parameter {name!r} of shape {shape}"
        if len(self.tensor_map) != len(shape):
            raise ShapeError(f"{where}: the layout's tensor_map has {len(self.tensor_map)} items, one for each axis")
        if rank >= math.prod(self.dev_mat):
            raise ArgumentValueError(f"{where}: the grid {list(self.dev_mat)} of the layout has no rank {rank}")
        grid = self.dev_mat[::-1]  # the last axis first, as tensor_map counts
        strides = [1, *accumulate(grid, mul)]
        place = [rank // stride % length for stride, length in zip(strides, grid, strict=False)]
        slices = []
        for axis, (length, cut_by) in enumerate(zip(shape, self.tensor_map, strict=True)):
            parts, part = 1, 0
            for each in cut_by:
                parts, part = parts * grid[each], part * grid[each] + place[each]
            slices.append(self._cut(where, axis, length, parts, part))
        region = Region.full(shape)[tuple(slices)]
        return self._share_out(where, region, place, grid)

    def _share_out(self, where: str, region: Region, place: list[int], grid: tuple[int, ...]) -> Region:
        """Cut the slice among the ranks that would hold the same one, and check the shape that comes out."""
        wanted = region.shape if self.slice_shape is None else self.slice_shape
        if self.opt_shard_group and len(wanted) == len(region.shape) and wanted[:1] != region.shape[:1]:
            used = {axis for cut_by in self.tensor_map for axis in cut_by}
            replicas, replica = 1, 0
            for axis in reversed(range(len(grid))):
                if axis not in used:
                    replicas, replica = replicas * grid[axis], replica * grid[axis] + place[axis]
            parts = region.shape[0] // max(wanted[0], 1)
            if parts and replicas % parts == 0:
                region = region[self._cut(where, 0, region.shape[0], parts, replica % parts)]
        if region.shape != wanted:
            raise ShapeError(f"{where}: the layout cuts slices of shape {region.shape}, its slice_shape says {wanted}")
        return region

    @staticmethod
    def _cut(where: str, axis: int, length: int, parts: int, part: int) -> slice:
        if length % parts:
            raise ShapeError(f"{where}: the layout cuts axis {axis} into {parts} parts, which do not divide {length}")
        step = length // parts
        return slice(part * step, (part + 1) * step)


def _ints(what: str, value: Any, low: int) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(item, int | np.integer) and not isinstance(item, bool) for item in value
    ):
        raise ArgumentTypeError(f"{what} holds ints, found {value!r}")
    if any(item < low for item in value):
        raise ArgumentValueError(f"{what} holds ints of at least {low}, found {value!r}")
    return tuple(int(item) for item in value)
