"""Keys of ``jax.random`` in a tree of parameters: of the dropout of Flax, of a training state."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from numparam.entry import Entry
from numparam.indexing.region import Region
from numparam.jax.arrays import assembled
from numparam.jax.starts import Start
from numparam.stream.seed import choose_seed
from numparam.stream.source import Source
from numparam.tensor import Array


def is_key(leaf: Any) -> bool:
    """Return whether a leaf of a tree is a key, or an array of keys."""
    return bool(jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key))


def key(leaf: Any, name: str, seed: int | None) -> Any:
    """Return the key that a leaf has already, or the one whose data are the bits of the seed and the name."""
    if isinstance(leaf, Start) and leaf.value is not None:
        leaf = leaf.value
    if isinstance(leaf, jax.Array):
        return leaf
    data = jax.eval_shape(jax.random.key_data, leaf)
    source = Source(choose_seed(None, seed), name)

    def fill(out: Array, region: Region) -> None:
        source.bits(out, region)

    words = assembled(Entry(name, data.shape, np.dtype(data.dtype)), None, fill)
    kinds: list[Any] = []
    jax.eval_shape(lambda traced: kinds.append(jax.random.key_impl(traced)), leaf)
    return jax.random.wrap_key_data(words, impl=kinds[0])
