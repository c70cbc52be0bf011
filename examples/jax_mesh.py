"""One parameter over three meshes of eight devices: numparam, and what `jax.random` gives there.

`python examples/jax_mesh.py` generates the same bfloat16 weight on the meshes 1x8, 2x4 and 8x1, each device its own
shard, and with NumPy alone; all four hashes of its bits are equal.

`jax.random` under ``jax.jit`` gives the same values on every mesh too, because JAX sees one logical array. They change
with

* the flag ``jax_threefry_partitionable``, True by default since JAX 0.5: without it the values differ, and the devices
  exchange all random bits;
* drawing in ``jax.shard_map``, each device with its own key: the values depend on the mesh.
"""

import hashlib
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")  # eight devices on any machine

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import numparam
from numparam.initializer import Normal, initializer
from numparam.jax import array, named_sharding

SHAPE = (1024, 512)


def digest(values: Any) -> str:
    """Return the first digits of a hash of the bits."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:12]


def by_numparam(sharding: Any) -> Any:
    """Generate the weight, each device its own shard."""
    numparam.set_seed(7)
    weight = numparam.Parameter(initializer(Normal(0.02), SHAPE, "bfloat16"), name="layers.0.weight")
    return weight.asnumpy() if sharding is None else array(weight, sharding)


def by_jax(sharding: Any, partitionable: bool) -> Any:
    """Draw under jit, and let the compiler distribute the work."""
    jax.config.update("jax_threefry_partitionable", partitionable)
    draw = jax.jit(lambda key: jax.random.normal(key, SHAPE, jnp.bfloat16), out_shardings=sharding)
    return draw(jax.random.key(7))


def by_hand(sharding: Any) -> Any:
    """Draw on each device with its own key."""

    def part(key: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, jax.lax.axis_index(("dp", "tp")))
        return jax.random.normal(own, sharding.shard_shape(SHAPE), jnp.bfloat16)

    return jax.shard_map(part, mesh=sharding.mesh, in_specs=P(), out_specs=sharding.spec)(jax.random.key(7))


def main() -> None:
    """Print one row for each way, one column for each mesh."""
    meshes = [(1, 8), (2, 4), (8, 1)]
    layouts = [numparam.Layout({"dp": rows, "tp": columns}, ("dp", "tp")) for rows, columns in meshes]
    shardings = [named_sharding(layout) for layout in layouts]
    ways: list[tuple[str, Callable[[Any], Any]]] = [
        ("numparam", by_numparam),
        ("jax.random", lambda sharding: by_jax(sharding, partitionable=True)),
        ("  not partitionable", lambda sharding: by_jax(sharding, partitionable=False)),
        ("  by hand", by_hand),
    ]
    print(f"{'':20} {'1x8':12} {'2x4':12} {'8x1':12} NumPy")
    for name, make in ways:
        row = [digest(make(sharding)) for sharding in shardings]
        if make is by_numparam:
            row.append(digest(make(None)))
        print(f"{name:20} {' '.join(row)}")


if __name__ == "__main__":
    main()
