"""Fingerprints of JAX arrays of any sharding, from the shards of this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from numparam.errors import ArgumentTypeError
from numparam.fingerprints import Fingerprint, Fingerprints
from numparam.fingerprints.measure import of_array
from numparam.indexing.region import Region
from numparam.jax.tree import name_of


def fingerprint(tree: Any, key: str | bytes | None = None, *, by_device: bool = False) -> Any:
    """Return the fingerprint of an array, or of each array of a pytree, shard by shard.

    Each shard is read where it is, replicas are compared with each other and counted once, and no array is gathered.
    In a job of several processes each one covers the shards that it can address: `Fingerprints.join` adds up what all
    have found. Where replicas of some shards are in other processes than those of other shards, it needs what each
    device has.

    Parameters
    ----------
    tree : jax.Array or pytree of jax.Array
        Of any sharding; the names are those that `init` gives.
    key : str or bytes, optional
        See `numparam.fingerprint`.
    by_device : bool
        Whether to return what each device has.

    Returns
    -------
    Fingerprint, Fingerprints or dict of str to Fingerprints
        A `Fingerprint` of an array, else a table by name; of each device a table, where an array has the name ``""``.

    Raises
    ------
    TypeError
        If a leaf is not a concrete array of JAX or NumPy.
    DisagreementError
        If replicas of a shard differ; the message names the parameter and the devices.

    Examples
    --------
    >>> import numparam
    >>> kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    >>> fingerprint(jax.numpy.array(kernel)) == numparam.fingerprint(kernel)
    True
    >>> tables = fingerprint({"kernel": jax.numpy.array(kernel)}, by_device=True)  # and those of other processes
    >>> numparam.Fingerprints.join(tables) == numparam.fingerprint({"kernel": kernel})
    True
    """
    tables: dict[str, dict[str, Fingerprint]] = {}
    leaves, _ = jax.tree.flatten_with_path(tree)
    names = [name_of(path) for path, _ in leaves]
    for name, (_, leaf) in zip(names, leaves, strict=True):
        for device, part in _parts(name, leaf, key):
            tables.setdefault(device, {})[name] = part
    if by_device:
        return {device: Fingerprints(table) for device, table in tables.items()}
    joined = Fingerprints.join(tables)
    return (
        joined[""] if isinstance(tree, jax.Array | np.ndarray) else Fingerprints({name: joined[name] for name in names})
    )


def _parts(name: str, leaf: Any, key: str | bytes | None) -> Iterator[tuple[str, Fingerprint]]:
    """Yield what each device of this process has."""
    if isinstance(leaf, np.ndarray):
        yield f"process {jax.process_index()}", of_array(leaf, key, None, name)
    elif not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
        raise ArgumentTypeError(f"parameter {name!r} must be an array of JAX, found {type(leaf).__name__}")
    else:
        for shard in leaf.addressable_shards:
            region = Region.full(leaf.shape)[shard.index]
            yield str(shard.device), of_array(np.asarray(shard.data), key, region, name)
