"""Tensors that are made of views of canonical parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from numparam.fingerprints import View
from numparam.indexing.region import Region
from numparam.initializer import Initializer
from numparam.stream.source import Buffer, Source


class Part(NamedTuple):
    """A part of a canonical parameter in a stored tensor.

    Parameters
    ----------
    name : str
        Of the canonical parameter.
    shape : tuple of int
        Of the canonical parameter.
    view : View
        Where the part is in the stored tensor.
    index : basic index
        Which part it is, with steps if its rows lie among others.
    """

    name: str
    shape: tuple[int, ...]
    view: View
    index: Any = ...

    def region(self, seen: Region) -> Region:
        """Return as a region of the canonical parameter what a region of the part is."""
        return Region.full(self.shape)[self.index][seen.slices()]


class Viewed(Initializer):
    """Fill a stored tensor with the values of canonical parameters, each at its place; the rest is zero.

    The values are the same as of a `Parameter` of the canonical name, in any shard.

    Parameters
    ----------
    parts : sequence of (Part, Initializer)

    Examples
    --------
    >>> from numparam.initializer import Normal, initializer
    >>> transposed = Viewed([(Part("w", (3, 2), View("kernel", ..., (1, 0))), Normal(0.02))])
    >>> initializer(transposed, (2, 3)).shape
    (2, 3)
    """

    def __init__(self, parts: Sequence[tuple[Part, Initializer]]) -> None:
        self.parts = list(parts)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raise if a part does not fit, or its initializer cannot fill it."""
        for part, init in self.parts:
            init.check(part.shape, dtype)
            part.view.part(Region.full(shape))

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        """Fill `out` with the values of a region."""
        stored = out.reshape(tuple(map(len, region.ranges)))
        stored[...] = 0
        for part, init in self.parts:
            if (found := part.view.part(region)) is None:
                continue
            index, seen = found
            wanted = part.region(seen)
            values = np.empty(wanted.shape, out.dtype)
            init.fill(values, wanted, Source(source.seed, part.name))
            axes = part.view.axes
            stored[(*index, ...)] = values if axes is None else values.transpose(np.argsort(axes))
