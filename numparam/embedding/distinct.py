"""The distinct ones of the keys of a call."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any

import numpy as np

from numparam.embedding.mapped import Mapped
from numparam.errors import ArgumentTypeError

Array = np.ndarray[Any, np.dtype[Any]]


class Distinct:
    """Hold the distinct ones of some keys, in the order of their first use.

    Attributes
    ----------
    keys : ndarray of int64
    which : ndarray of int64
        For each of the given keys, which of the distinct ones it is.
    found : ndarray of int64
        The numbers of their rows, -1 where there is none.
    scores : ndarray of int64 or None
        The last one that is given for each.
    """

    def __init__(self, keys: Array, rows: Mapped, scores: Any = None) -> None:
        first, self.which, self.found = rows.distinct(keys)
        self.keys = keys if first.size == keys.size else keys[first]
        self.scores: Array | None = None
        if scores is not None:
            given = np.asarray(scores)
            if given.dtype.kind not in "iu" or given.size != keys.size:
                raise ArgumentTypeError(
                    f"table {rows.schema.name!r}: expected {keys.size} scores of int64, found {given.dtype} of "
                    f"{given.shape}"
                )
            self.scores = np.empty(first.size, np.int64)
            self.scores[self.which] = given.reshape(-1)

    @cached_property
    def uses(self) -> Array:
        """Count the uses of each key."""
        return np.bincount(self.which, minlength=self.keys.size)

    def part(self, chosen: Array) -> Distinct:
        """Return the keys at some places, without `which`."""
        part = copy(self)
        part.keys, part.found, part.uses = self.keys[chosen], self.found[chosen], self.uses[chosen]
        part.scores = None if self.scores is None else self.scores[chosen]
        return part
