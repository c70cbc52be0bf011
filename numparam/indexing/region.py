"""A basic slice of a tensor, without the tensor: which elements it holds and in which order."""

import math
import operator
from collections.abc import Iterator, Sequence
from itertools import product
from types import EllipsisType
from typing import Any, SupportsIndex

import numpy as np

from numparam.errors import RegionError, ShapeError
from numparam.text import shown

Shape = SupportsIndex | Sequence[SupportsIndex]
BasicIndex = SupportsIndex | slice | EllipsisType | None

MAX_AXES = 64  # of a NumPy array
_INSERTED = -1


class Region:
    """Describe what basic indexing selects from an array of some shape.

    Create one with `Region.full` and narrow it by indexing as often as needed. Integers, slices with any step, ``...``
    and None do what they do to a NumPy array. The sizes are Python integers: the array need not fit in any memory.

    Attributes
    ----------
    full_shape : tuple of int
        The shape of the full array.
    shape : tuple of int
        The shape of the selection.

    Examples
    --------
    >>> rows = Region.full((2**20, 2**20))[::-2]
    >>> rows.shape
    (524288, 1048576)
    >>> rows[0, 5].span()
    (1099510579205, ())
    """

    __slots__ = ("_chosen", "full_shape", "shape")

    def __init__(self, full_shape: tuple[int, ...], picks: tuple[tuple[int, range | int], ...]) -> None:
        self.full_shape = full_shape
        self._chosen: tuple[tuple[int, range | int], ...] | None = picks  # None: everything
        self.shape = tuple([len(pick) for _, pick in picks if isinstance(pick, range)])

    @classmethod
    def full(cls, shape: tuple[int, ...]) -> "Region":
        """Select everything of an array of this shape."""
        region = cls.__new__(cls)
        region.full_shape = region.shape = shape
        region._chosen = None  # most regions of a model are never looked at
        return region

    @property
    def _picks(self) -> tuple[tuple[int, range | int], ...]:
        """Return (axis of the full array, its indices) in order; an int where the axis was dropped."""
        return tuple(enumerate(map(range, self.shape))) if self._chosen is None else self._chosen

    @property
    def size(self) -> int:
        """Count the selected elements."""
        return math.prod(self.shape)

    @property
    def is_full(self) -> bool:
        """Return whether the selection is the full array in its own order."""
        return self._chosen is None or (
            self.shape == self.full_shape
            and all(axis != _INSERTED and pick == range(self.full_shape[axis]) for axis, pick in self._picks)
        )

    @property
    def ranges(self) -> tuple[range, ...]:
        """Return the selected indices along every axis of the full array, dropped axes included."""
        return tuple(
            [
                pick if isinstance(pick, range) else range(pick, pick + 1)
                for axis, pick in self._picks
                if axis != _INSERTED
            ]
        )

    def __getitem__(self, index: BasicIndex | tuple[BasicIndex, ...]) -> "Region":
        """Select from the selection.

        Raises
        ------
        RegionError
            If there are too many indices, or an integer is out of bounds. It is also an IndexError.
        """
        items = _one_per_axis(index if isinstance(index, tuple) else (index,), self.shape)
        picks: list[tuple[int, range | int]] = []
        place = -1  # among the axes of the selection
        for axis, pick in self._picks:
            if isinstance(pick, int):
                picks.append((axis, pick))
                continue
            while (item := items.pop()) is None:
                picks.append((_INSERTED, range(1)))
            place += 1
            if isinstance(item, slice):
                picks.append((axis, pick[item]))
                continue
            number = item if type(item) is int else _as_integer(item)
            try:
                chosen = pick[number]
            except IndexError:
                raise RegionError(f"index {number} is out of bounds for axis {place} of shape {self.shape}") from None
            if axis != _INSERTED:
                picks.append((axis, chosen))
        picks.extend((_INSERTED, range(1)) for _ in items)
        return Region(self.full_shape, tuple(picks))

    def span(self) -> tuple[int, tuple[int, ...]]:
        """Locate the selection in the row-major order of the full array.

        Returns
        -------
        tuple of (int, tuple of int)
            The flat index of the first element, and the step of the flat index along each axis of the selection.
        """
        base, strides, stride = 0, [], 1
        for axis, pick in reversed(self._picks):
            if axis == _INSERTED:
                strides.append(0)
                continue
            if isinstance(pick, range):
                base += pick.start * stride
                strides.append(pick.step * stride)
            else:
                base += pick * stride
            stride *= self.full_shape[axis]
        return base, tuple(strides[::-1])

    def slices(self) -> tuple[int | slice | None, ...]:
        """Return the index that selects the same from a NumPy array, or from a `Region`, of the full shape."""
        return tuple(
            [
                None if axis == _INSERTED else as_slice(pick) if isinstance(pick, range) else pick
                for axis, pick in self._picks
            ]
        )

    def take(self, array: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the view of an array of the full shape that shows the selection."""
        if np.shape(array) != self.full_shape:
            raise ShapeError(f"an array of the full shape {self.full_shape} is needed, found {shown(array)}")
        # The ellipsis keeps a view where integers alone would give a scalar.
        view: np.ndarray[Any, np.dtype[Any]] = array[(*self.slices(), ...)]
        # An axis that None inserted may have been emptied by a later index.
        emptied: tuple[Any, ...] = (*map(slice, self.shape), ...)
        return view[emptied]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        picks = ", ".join("None" if axis == _INSERTED else str(pick) for axis, pick in self._picks)
        return f"Region({self.full_shape}: {picks})"


def as_slice(indices: range) -> slice:
    """Return the slice that selects the indices of a range of natural numbers."""
    if not indices:  # its start may be -1, which a slice counts from the end
        return slice(0, 0)
    return slice(indices.start, indices.stop if indices.stop >= 0 else None, indices.step)


def as_shape(shape: Shape) -> tuple[int, ...]:
    """Check a shape and return it as a tuple of Python ints.

    Parameters
    ----------
    shape : int or sequence of int
        Python or NumPy integers; an integer is the length of one axis. Axes of length 0 are allowed, as in NumPy.

    Raises
    ------
    ShapeError
        If it is not a shape, or has 2**63 elements or more. It is also a ValueError.

    Examples
    --------
    >>> as_shape([2, np.int64(3)]), as_shape(4)
    ((2, 3), (4,))
    """
    if type(shape) is tuple and len(shape) <= 4:
        for length in shape:
            if type(length) is not int or not 0 <= length < 2**15:
                break
        else:
            return shape  # a tenth of the time that the rest takes
    try:
        many = isinstance(shape, tuple | list) or (isinstance(shape, np.ndarray) and shape.ndim > 0)
        lengths: Any = shape if many else (shape,)
        found = tuple([operator.index(length) for length in lengths])
    except (TypeError, ValueError):
        raise ShapeError(f"a shape is an int, or a tuple or list of ints, found {shown(shape)}") from None
    if any(length < 0 for length in found):
        raise ShapeError(f"the axes of a shape have length 0 or more, found {found}")
    if len(found) > MAX_AXES or math.prod(found) >= 2**63 or any(length >= 2**63 for length in found):
        raise ShapeError(f"a shape has at most {MAX_AXES} axes and fewer than 2**63 elements, found {found}")
    return found


def row_major(shape: tuple[int, ...], limit: int) -> Iterator[tuple[int | slice, ...]]:
    """Yield indices that split an array into pieces of at most `limit` elements, in row-major order.

    Examples
    --------
    >>> list(row_major((3, 4), 8))
    [(slice(0, 2, None),), (slice(2, 4, None),)]
    """
    if not math.prod(shape):
        return
    axis, inner = len(shape), 1  # the axes from here on fit in full
    while axis and inner * shape[axis - 1] <= limit:
        axis -= 1
        inner *= shape[axis]
    if not axis:
        yield ()
        return
    axis -= 1
    step = limit // inner
    for outer in product(*(range(length) for length in shape[:axis])):
        for start in range(0, shape[axis], step):
            yield *outer, slice(start, start + step)


def _one_per_axis(index: tuple[Any, ...], shape: tuple[int, ...]) -> list[Any]:
    """Return one item for each axis, and the Nones between them, from last to first."""
    given, ellipsis_at = 0, None
    for at, item in enumerate(index):
        if item is Ellipsis:
            if ellipsis_at is not None:
                raise RegionError("an index can have only one ellipsis ('...')")
            ellipsis_at = at
        elif item is not None:
            given += 1
    if given > len(shape):
        raise RegionError(f"too many indices: shape {shape} has {len(shape)} axes, found {given} indices")
    everything = [slice(None)] * (len(shape) - given)
    if ellipsis_at is None:
        return [*everything, *index[::-1]]
    return [*index[:ellipsis_at:-1], *everything, *index[:ellipsis_at][::-1]]


def _as_integer(item: Any) -> int:
    try:
        if isinstance(item, bool) or np.shape(item) != ():  # NumPy reads these as masks and lists of indices
            raise TypeError
        return operator.index(item)
    except (TypeError, ValueError):
        raise RegionError(
            f"{item!r} is not a basic index: lazy data takes ints, slices, ... and None; "
            "call asnumpy() first for anything else"
        ) from None
