"""Parameters inside others: a named part of a fused, stacked or transposed array."""

from typing import Any, NamedTuple

from numparam.errors import RegionError, ShapeError
from numparam.indexing.region import Region
from numparam.text import shown


class View(NamedTuple):
    """Locate a canonical parameter in a stored array.

    Parameters
    ----------
    source : str
        The name of the stored array.
    index : basic index, optional
        Selects the part of it: integers, slices with positive steps and ``...``; all of it by default.
    axes : tuple of int, optional
        The order of the selected axes in the canonical parameter; ``(1, 0)`` for a transposed matrix.
    region : Region, optional
        What the selected part is of the canonical parameter; all of it by default. A parameter that lies in several
        places, such as one of each head, has several views.

    Examples
    --------
    >>> import numpy as np
    >>> import numparam
    >>> q, k = np.ones((4, 2), np.float32), np.zeros((2, 2), np.float32)
    >>> stored = {"qk": np.concatenate([q, k]).T.copy()}
    >>> views = {
    ...     "q": View("qk", np.s_[:, :4], (1, 0)),
    ...     "k": View("qk", np.s_[:, 4:], (1, 0)),
    ... }
    >>> numparam.fingerprint(stored, view=views) == numparam.fingerprint({"q": q, "k": k})
    True

    Queries and keys of two heads that take turns in the rows:

    >>> rows = numparam.Region.full((4, 2))
    >>> stored = {"qk": np.stack([q.reshape(2, 2, 2), q.reshape(2, 2, 2)], 1).reshape(8, 2)}
    >>> places = [(slice(at, at + 2), 2 * head) for head, at in enumerate((0, 4))]
    >>> views = {"q": [View("qk", rows_of_head, region=rows[first : first + 2]) for rows_of_head, first in places]}
    >>> numparam.fingerprint(stored, view=views)["q"] == numparam.fingerprint(q)
    True
    """

    source: str
    index: Any = ...
    axes: tuple[int, ...] | None = None
    region: Region | None = None

    def of(self, array: Any, local: Region) -> tuple[Any, Region] | None:
        """Return the values in a local array and their region of the canonical parameter, None if it has none.

        Parameters
        ----------
        array : ndarray or DeviceArray
        local : Region
            What the array holds of the stored one: consecutive indices along each axis.

        Raises
        ------
        RegionError
            If the index does not suit the stored array.
        """
        if (found := self.part(local)) is None:
            return None
        index, region = found
        part = array[(*index, ...)]
        return (part if self.axes is None else part.transpose(*self.axes)), region

    def part(self, local: Region) -> tuple[tuple[int | slice, ...], Region] | None:
        """Return the index of a local array that is in the canonical parameter, and its region there; see `of`."""
        chosen = Region.full(local.full_shape)[self.index]
        if len(chosen._picks) != len(local.full_shape):
            raise RegionError(f"a view of {self.source!r} takes integers, slices and ..., found {shown(self.index)}")
        index: list[int | slice] = []
        region: list[slice] = []
        for (_, pick), have in zip(chosen._picks, local.ranges, strict=True):
            if isinstance(pick, int):
                if pick not in have:
                    return None
                index.append(pick - have.start)
                continue
            if pick.step < 0 or have.step != 1:
                raise RegionError(f"a view of {self.source!r} has positive steps, found {shown(self.index)}")
            first = max(0, -((pick.start - have.start) // pick.step))
            stop = min(len(pick), -((pick.start - have.stop) // pick.step))
            if stop <= first:
                return None
            start = pick.start + first * pick.step - have.start
            index.append(slice(start, start + (stop - first) * pick.step, pick.step))
            region.append(slice(first, stop))
        order = range(len(region)) if self.axes is None else self.axes
        if sorted(order) != list(range(len(region))):
            raise RegionError(f"a view of {self.source!r} orders its {len(region)} axes, found {shown(self.axes)}")
        shape = tuple(chosen.shape[axis] for axis in order)
        whole = Region.full(shape) if self.region is None else self.region
        if whole.shape != shape:
            raise ShapeError(f"a view of {self.source!r} selects shape {shape}, but is a region of shape {whole.shape}")
        return tuple(index), whole[tuple(region[axis] for axis in order)]
