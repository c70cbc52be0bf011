"""Layouts as shardings of JAX, and back."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.layout import Layout
from numparam.text import shown


def named_sharding(layout: Layout, devices: Sequence[jax.Device] | None = None) -> jax.sharding.NamedSharding:
    """Return the sharding that gives every device what a layout gives its rank.

    JAX does not split an axis into parts of different lengths, as a layout may.

    Parameters
    ----------
    layout : Layout
        Axes by which the optimizer shards axis 0 are the fastest of the axes that shard it.
    devices : sequence of jax.Device, optional
        The device of rank r at place r; by default the first of ``jax.devices()``. Surplus devices are left out.

    Raises
    ------
    ValueError
        If there are fewer devices than ranks.

    Examples
    --------
    >>> tuple(named_sharding(Layout({"dp": 1, "tp": 1}, (None, ("dp", "tp")))).spec)
    (None, ('dp', 'tp'))
    """
    found = jax.devices() if devices is None else list(devices)
    if len(found) <= max(layout.ranks):
        raise ArgumentValueError(f"{layout!r} has ranks up to {max(layout.ranks)}, found {len(found)} devices")
    grid = np.empty(layout.size, object)
    grid[:] = [found[rank] for rank in layout.ranks]
    mesh = jax.sharding.Mesh(grid.reshape(tuple(layout.mesh.values())), tuple(layout.mesh))
    spec = list(layout.spec)
    if layout.optimizer_shard:
        spec[:1] = [(*spec[0], *layout.optimizer_shard) if spec else layout.optimizer_shard]
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*[axes or None for axes in spec]))


def layout(sharding: jax.sharding.NamedSharding) -> Layout:
    """Return the layout of a sharding: rank r is device r of the mesh, in row-major order.

    Raises
    ------
    TypeError
        If it is not a ``NamedSharding``.

    Examples
    --------
    >>> mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("tp",))
    >>> layout(jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("tp")))
    Layout({'tp': 1}, ('tp',))
    """
    if not isinstance(sharding, jax.sharding.NamedSharding):
        raise ArgumentTypeError(f"expected a NamedSharding to make a layout of, found {shown(sharding)}")
    return Layout(dict(sharding.mesh.shape), tuple(sharding.spec))
