"""Fingerprints of JAX arrays of any sharding, from the shards of this process."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from numparam.errors import ArgumentTypeError, DisagreementError
from numparam.fingerprints import Fingerprint, Fingerprints
from numparam.fingerprints.measure import of_array
from numparam.indexing.region import Region
from numparam.jax.tree import name_of


def fingerprint(tree: Any, key: str | bytes | None = None) -> Any:
    """Return the fingerprint of an array, or of each array of a pytree, shard by shard.

    Each shard is read where it is, replicas are compared with each other and counted once, and no array is gathered.
    In a job of several processes each one covers the shards that it can address: add the results of all.

    Parameters
    ----------
    tree : jax.Array or pytree of jax.Array
        Of any sharding; the names are those that `init` gives.
    key : str or bytes, optional
        See `numparam.fingerprint`.

    Returns
    -------
    Fingerprint or Fingerprints
        A `Fingerprint` of an array, else a table by name.

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
    """
    if isinstance(tree, jax.Array | np.ndarray):
        return _of_leaf("", tree, key)
    leaves, _ = jax.tree.flatten_with_path(tree)
    return Fingerprints({name_of(path): _of_leaf(name_of(path), leaf, key) for path, leaf in leaves})


def _of_leaf(name: str, leaf: Any, key: str | bytes | None) -> Fingerprint:
    if isinstance(leaf, np.ndarray):
        return of_array(leaf, key, None, name)
    if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
        raise ArgumentTypeError(f"parameter {name!r} must be an array of JAX, found {type(leaf).__name__}")
    found: dict[tuple[range, ...], tuple[Fingerprint, Any]] = {}
    for shard in leaf.addressable_shards:
        region = Region.full(leaf.shape)[shard.index]
        part = of_array(np.asarray(shard.data), key, region, name)
        first, device = found.setdefault(region.ranges, (part, shard.device))
        if first != part:
            raise DisagreementError(
                f"parameter {name!r}: {device} and {shard.device} hold different replicas of {region}"
            )
    parts = [part for part, _ in found.values()]
    return sum(parts[1:], parts[0])
