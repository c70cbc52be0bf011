"""Which server holds what: rows of dense parameters by their place, rows of tables by their key."""

from __future__ import annotations

from typing import Any

import numpy as np

from numparam.layout.partition import split

Array = np.ndarray[Any, np.dtype[Any]]


def owners(keys: Array, servers: int) -> Array:
    """Return which of the servers holds each key, by the finaliser of SplitMix64."""
    x = keys.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(servers)).astype(np.int64)


def places_by_owner(keys: Array, servers: int) -> list[Any]:
    """Return for each server what takes its keys from all: a slice if these are all."""
    if servers == 1:
        return [slice(None)]
    which = owners(keys, servers)
    return [np.flatnonzero(which == server) for server in range(servers)]


def part(array: Any, servers: int, place: int) -> Any:
    """Return the rows of a dense parameter, or of anything of its shape, that a server holds."""
    return array[slice(*split(array.shape[0], servers, place))]
