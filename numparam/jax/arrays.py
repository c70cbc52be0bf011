"""Arrays of JAX whose shards are generated one by one, each where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from numparam.entry import Entry
from numparam.errors import ArgumentTypeError, ArgumentValueError, DtypeError, NumparamError, ShapeError
from numparam.indexing.region import Region
from numparam.initializer import Initializer
from numparam.tensor import Array, Recipe, Tensor
from numparam.text import shown

Fill = Callable[[Array, Region], None]
SeededFill = Callable[[int], Fill]


def array(tensor: Tensor, sharding: jax.sharding.Sharding | jax.Device | None = None) -> jax.Array:
    """Return a `jax.Array` with the values of a tensor or parameter, generated shard by shard.

    Every device of this process gets its own part, with the bits that the tensor has there. The parts are generated one
    after the other, and once for all devices that hold the same; the full array is never materialised,
    unless the initializer needs it for any part, as `Orthogonal` does. On the CPU the array adopts the memory in which
    they were generated, which nothing else can write to. A lazy tensor stays lazy.

    Parameters
    ----------
    tensor : Tensor
        Or a `Parameter`; of any shape, and of a dtype that JAX has.
    sharding : jax.sharding.Sharding or PartitionSpec, optional
        Of one process or of many, each of which makes its own parts. A spec is one of the mesh of ``jax.set_mesh``. The
        default device of JAX if absent.

    Returns
    -------
    jax.Array
        Of the shape and dtype of the tensor, committed to the sharding, or uncommitted without one.

    Raises
    ------
    TypeError
        If it is not a sharding, or JAX does not have the dtype, as float64 without ``jax_enable_x64``.
    ValueError
        If the sharding does not suit the shape, because JAX does not split an axis into parts of different lengths,
        or has no mesh.

    Examples
    --------
    >>> from jax.sharding import Mesh, NamedSharding, PartitionSpec
    >>> from numparam.initializer import Normal
    >>> weight = Tensor(shape=(4, 6), init=Normal(0.02))
    >>> mesh = Mesh(np.array(jax.devices()[:1]), ("tp",))
    >>> sharded = array(weight, NamedSharding(mesh, PartitionSpec(None, "tp")))
    >>> weight.has_init, bool((np.asarray(sharded) == weight.asnumpy()).all())
    (True, True)
    """
    entry = Entry(getattr(tensor, "name", "unnamed"), tensor.shape, tensor.dtype)
    return assembled(entry, sharding, tensor.fill_into)


def callback(tensor: Tensor) -> Callable[[tuple[slice, ...]], Array]:
    """Return the callback of `jax.make_array_from_callback` for the part at an index.

    Parameters
    ----------
    tensor : Tensor
        Or a `Parameter`. If it is lazy it stays lazy, and an index generates only its part.

    Examples
    --------
    >>> from numparam.initializer import Normal
    >>> weight = Tensor(shape=(2**20, 2**20), init=Normal(0.02))
    >>> callback(weight)((slice(7, 9), slice(0, 3))).shape
    (2, 3)
    """
    full = Region.full(tensor.shape)
    return lambda index: made(tensor.fill_into, full[index], tensor.dtype)


def assembled(entry: Entry, sharding: Any, fill: Fill) -> jax.Array:
    """Return the array of a parameter from what `fill` writes into its parts; see `array`."""
    name, shape, dtype = entry
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise DtypeError(
            f'parameter {name!r} has dtype {dtype}: JAX has it after jax.config.update("jax_enable_x64", True)'
        )
    if sharding is None:
        return jax.device_put(made(fill, Region.full(shape), dtype))
    sharding = _on_devices(name, sharding)
    try:
        indices = sharding.addressable_devices_indices_map(shape)
    except (IndexError, ValueError) as error:  # IndexError for a spec with more entries than there are axes
        raise ShapeError(f"parameter {name!r}: {sharding} does not suit the shape {shape}: {error}") from None
    holders: dict[tuple[range, ...], tuple[Region, list[Any]]] = {}
    for device, index in indices.items():
        region = Region.full(shape)[index]
        holders.setdefault(region.ranges, (region, []))[1].append(device)
    shards = []
    for region, devices in holders.values():
        values = made(fill, region, dtype)
        places = [jax.sharding.SingleDeviceSharding(device, memory_kind=sharding.memory_kind) for device in devices]
        shards += [jax.device_put(values, place) for place in places]
    return jax.make_array_from_single_device_arrays(shape, sharding, shards, dtype=dtype)


def _on_devices(name: str, sharding: Any) -> Any:
    """Return a sharding itself, or what a spec or the sharding of a traced shape means on the present mesh."""
    if not isinstance(sharding, jax.sharding.Sharding | P):
        raise ArgumentTypeError(f"parameter {name!r} needs a jax.sharding.Sharding, found {shown(sharding)}")
    if not isinstance(sharding, P) and not isinstance(getattr(sharding, "mesh", None), jax.sharding.AbstractMesh):
        return sharding
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        raise ArgumentValueError(f"parameter {name!r}: {sharding} needs a mesh; call jax.set_mesh(mesh) first")
    return jax.sharding.NamedSharding(mesh, sharding if isinstance(sharding, P) else sharding.spec)


def filling(init: Initializer, entry: Entry) -> SeededFill:
    """Return the function from a seed to the function that writes the values of a parameter."""
    try:
        recipe = Recipe.of(init, entry.name, Region.full(entry.shape), entry.dtype, 0)
    except NumparamError as error:
        raise type(error)(f"parameter {entry.name!r}: {error}") from None
    return lambda seed: recipe.replace(seed=seed).fill_into


def made(fill: Fill, region: Region, dtype: np.dtype[Any]) -> Array:
    """Return a new array of what `fill` writes into a region, in memory that JAX need not copy."""
    from numparam.kernels.machine.memory import empty_at_line

    values = empty_at_line(region.shape, dtype)  # the CPU client of JAX adopts what begins at 64 bytes
    fill(values, region)
    return values
