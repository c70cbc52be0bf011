"""What an index with masks or arrays selects, as numbers of rows, which a device can gather and scatter.

A row is what the index leaves in full: all axes behind the last one that it chooses from. NumPy itself checks the index
and determines the shape of the result, on an array whose elements are one byte, so the numbers take memory in
proportion to the rows that are selected.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from numparam.errors import RegionError
from numparam.indexing import arrays

Array = np.ndarray[Any, np.dtype[Any]]


class Selection(NamedTuple):
    """Select rows of a tensor of `of` rows: their numbers, in the shape of the selection, and the shape of a row."""

    numbers: Array
    row: tuple[int, ...]
    of: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of what is selected."""
        return *self.numbers.shape, *self.row


def select_rows(shape: tuple[int, ...], index: Any) -> Selection:
    """Find the rows that an index with masks or integer arrays selects from a tensor of some shape."""
    index = arrays.plain(index)
    items = [_as_item(item) for item in (index if isinstance(index, tuple) else (index,))]
    axes = _chosen_axes(items, len(shape))
    chosen = shape[:axes]
    try:
        found = np.broadcast_to(np.uint8(0), chosen)[tuple(items)].shape
    except IndexError as error:
        raise RegionError(f"{error}, in a tensor of shape {shape}") from None
    numbers: Array = np.zeros((), np.int64)
    for part in _parts(items, chosen, len(found)):
        numbers = numbers + part
    return Selection(np.broadcast_to(numbers, found), shape[axes:], math.prod(chosen))


def _as_item(item: Any) -> Any:
    """Leave slices, ``...`` and None, and turn all else into arrays."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    return arrays.plain(list(item) if isinstance(item, tuple) else item)


def _axes_of(item: Any) -> int:
    """Count the axes that an item chooses from."""
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, np.ndarray) and item.dtype == np.bool_ else 1


def _chosen_axes(items: list[Any], ndim: int) -> int:
    """Drop what takes the last axes in full, and return how many axes are left."""
    ellipses = sum([item is Ellipsis for item in items])
    free = ndim - sum(map(_axes_of, items))
    if free < 0 or ellipses > 1:
        return ndim  # NumPy raises
    axes = ndim if ellipses else ndim - free
    while items and (items[-1] is Ellipsis or (isinstance(items[-1], slice) and items[-1] == slice(None))):
        axes -= free if items.pop() is Ellipsis else 1
    return axes


def _parts(items: list[Any], shape: tuple[int, ...], ndim: int) -> list[Array]:
    """Return what every item adds to the numbers, each broadcast along the axes of the others."""
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    free = len(shape) - sum(map(_axes_of, items))
    along: list[Array] = []  # slices
    across: list[Array] = []  # arrays, which are broadcast together
    places: list[int] = []  # of the arrays among the items
    before = axis = 0
    for place, item in enumerate(items):
        if item is None:
            along.append(np.zeros(1, np.int64))
        elif item is Ellipsis:
            along += [np.arange(shape[at]) * steps[at] for at in range(axis, axis + free)]
            axis += free
        elif isinstance(item, slice):
            along.append(np.arange(*item.indices(shape[axis])) * steps[axis])
            axis += 1
        else:
            if not places:
                before = len(along)
            places.append(place)
            across.append(_numbers_of(item, shape[axis:], steps[axis:]))
            axis += _axes_of(item)
    if places != list(range(places[0], places[-1] + 1)):
        before = 0  # arrays with a slice between them come first
    behind = len(along) - before
    parts = [part.reshape(part.shape + (1,) * behind) for part in across]
    for at, part in enumerate(along):
        right = len(along) - 1 - at
        parts.append(part.reshape((-1,) + (1,) * (right if at >= before else right + ndim - len(along))))
    return parts


def _numbers_of(item: Array, shape: tuple[int, ...], steps: list[int]) -> Array:
    """Return what an array adds to the numbers; `shape` and `steps` start at its first axis."""
    if item.dtype != np.bool_:
        number = item.astype(np.int64)
        return np.where(number < 0, number + shape[0], number) * steps[0]
    if not item.ndim:  # an axis that is new
        return np.zeros(int(item), np.int64)
    return np.flatnonzero(item) * steps[item.ndim - 1]
