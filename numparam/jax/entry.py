"""The function `initializer`, which makes functions shaped like the ones of ``jax.nn.initializers``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from numparam import dtypes
from numparam.entry import Entry
from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.indexing.region import Region, as_shape
from numparam.initializer import Initializer
from numparam.jax.arrays import SeededFill, assembled, filling, made
from numparam.jax.kernel import as_initializer, as_kernel
from numparam.stream.seed import choose_seed
from numparam.tensor import Array
from numparam.text import shown


def initializer(init: str | Initializer | float, name: str, seed: int | None = None) -> Callable[..., jax.Array]:
    """Return a function that JAX libraries take as an initializer.

    It is called as ``function(key, shape, dtype=float32, out_sharding=None)`` and returns a `jax.Array` with the values
    of the `numparam.Parameter` of this name. With a seed, its own or the initializer's, the key is ignored, and may be
    None. Without one the seed is the data of the key, of the new kind or the old: ``jax.random.key(7)`` gives the
    values of seed 7, and a key that is split or folded from it another seed. Keys of more than two words are hashed.

    Outside ``jax.jit`` an `out_sharding` gets its array shard by shard, as by `array`. Under ``jax.jit`` the host makes
    the values when the compiled function runs, by ``jax.pure_callback``: with an `out_sharding` each device requests
    its part; without one the full array is generated at once, wherever the compiler puts it then, so that for a large
    sharded model `init` is the better way. Under ``jax.vmap`` every key of a batch has its values, and a seed gives all
    the same.

    Parameters
    ----------
    init : str, Initializer or number
        A name of ``jax.nn.initializers``, which has the distribution that it has there by default; any other name of
        `numparam.initializer`; an initializer with its arguments; or the number that every element has. Fans are
        as in JAX, see `Kernel`.
    name : str
        Of the parameter.
    seed : int, optional
        From 0 to 2**64 - 1.

    Raises
    ------
    TypeError
        If an argument is of another kind. Also when the function is called for a dtype that the initializer cannot
        fill.
    ValueError
        If the name of an initializer is unknown or the seed out of range. Also when the function is called with neither
        a seed nor one key, or for a shape that the initializer or the sharding does not suit.

    Examples
    --------
    >>> make = initializer("glorot_uniform", "dense.kernel")
    >>> kernel = make(jax.random.key(7), (300, 100))
    >>> bool((kernel == jax.jit(make, static_argnums=1)(jax.random.key(7), (300, 100))).all())
    True
    >>> bool((kernel == initializer("glorot_uniform", "dense.kernel", seed=7)(None, (300, 100))).all())
    True
    """
    chosen = as_kernel(as_initializer(init))
    if not isinstance(name, str):
        raise ArgumentTypeError(f"the name of a parameter is a str, found {shown(name)}")
    fixed = choose_seed(chosen.seed, seed) if seed is not None or chosen.seed is not None else None

    def initialize(key: Any, shape: Any, dtype: Any = np.float32, out_sharding: Any = None) -> jax.Array:
        target = jax.dtypes.canonicalize_dtype(float if dtype is None else dtype)
        entry = Entry(name, as_shape(shape), dtypes.as_dtype(target))
        fill = filling(chosen, entry)
        # Inside jit this is traced even if it is constant; nothing else shows where we are.
        words = jnp.asarray(_words(name, key) if fixed is None else _as_words(fixed))
        if isinstance(words, jax.core.Tracer):
            return _traced(words, entry, out_sharding, fill)
        return assembled(entry, out_sharding, fill(_as_seed(words)))

    return initialize


def _traced(words: jax.Array, entry: Entry, sharding: Any, fill: SeededFill) -> jax.Array:
    """Generate the values on the host when the compiled function runs: every device its part of a sharding."""
    spec, mesh, local = P(), None, entry.shape
    if sharding is not None:
        spec = sharding if isinstance(sharding, P) else sharding.spec
        mesh = jax.sharding.get_abstract_mesh() if isinstance(sharding, P) else sharding.mesh
        local = jax.sharding.NamedSharding(mesh, spec).shard_shape(entry.shape)

    def make(words: jax.Array, *starts: jax.Array) -> Array:
        index = [slice(int(start), int(start) + length) for start, length in zip(starts, local, strict=False)]
        return made(fill(_as_seed(words)), Region.full(entry.shape)[tuple(index)], entry.dtype)

    def call(words: jax.Array) -> jax.Array:
        starts = [jax.lax.axis_index(axes) * length if axes else 0 for axes, length in zip(spec, local, strict=False)]
        result = jax.ShapeDtypeStruct(local, entry.dtype)
        return jax.pure_callback(make, result, words, *starts, vmap_method="sequential")

    if sharding is None:
        return call(words)
    return jax.shard_map(call, mesh=mesh, in_specs=P(), out_specs=spec, check_vma=False)(words)


def _words(name: str, key: Any) -> jax.Array:
    """Return the data of one key, which traced code hands on as it is."""
    if key is None:
        raise ArgumentValueError(f"parameter {name!r} needs a key, or a seed: initializer(..., seed=7)")
    words = jax.random.key_data(key)
    if words.ndim != 1:
        raise ArgumentValueError(f"parameter {name!r} takes one key, found keys of shape {words.shape[:-1]}")
    return words


def _as_words(seed: int) -> Array:
    """Write a seed as the data of ``jax.random.key(seed)``."""
    return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def _as_seed(words: jax.Array) -> int:
    """Read the seed from the data of a key: two words, the upper first, are the seed itself."""
    data = np.asarray(words, ">u4").tobytes()
    if len(data) != 8:
        from hashlib import blake2b

        data = blake2b(data, digest_size=8).digest()
    return int.from_bytes(data, "big")
