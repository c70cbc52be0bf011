"""Fingerprints of JAX arrays are those of the full parameter, whatever the sharding."""

import ml_dtypes
import numpy as np
import pytest

import numparam
from jax_devices import jax, sharding
from numparam.errors import ArgumentTypeError, DisagreementError
from numparam.jax import fingerprint

VALUES = np.random.default_rng(5).normal(size=(16, 24))
SPECS = [(), ("a",), (None, "b"), ("a", "b"), (("a", "b"),), ("b", "a")]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_sharding_has_the_fingerprint_of_the_full_array(spec: tuple[object, ...], dtype: type) -> None:
    values = VALUES.astype(dtype)
    assert fingerprint(jax.device_put(values, sharding((2, 4), *spec))) == numparam.fingerprint(values)
    keyed = fingerprint(jax.device_put(values, sharding((2, 4), *spec)), key="secret")
    assert keyed == numparam.fingerprint(values, key="secret") != numparam.fingerprint(values)


def test_a_tree_is_compared_by_name() -> None:
    tree = {"dense": {"kernel": VALUES.astype(np.float32), "bias": np.zeros(24, np.float32)}}
    sent = fingerprint(jax.tree.map(lambda leaf: jax.device_put(leaf, sharding((8,), "a")), tree))
    tree["dense"]["bias"][3] = 1
    (difference,) = sent.compare(fingerprint(tree))
    assert "dense.bias" in str(difference)


def test_replicas_that_differ_are_named() -> None:
    replicated = sharding((8,))
    parts = [jax.device_put(np.full(8, at == 3, np.float32), device) for at, device in enumerate(jax.devices())]
    broken = jax.make_array_from_single_device_arrays((8,), replicated, parts)
    with pytest.raises(DisagreementError, match=r"parameter 'w'.*ranks .* and .* hold different values"):
        fingerprint({"w": broken})


def test_what_is_not_an_array_is_refused() -> None:
    with pytest.raises(ArgumentTypeError, match="parameter 'n' must be an array of JAX, found int"):
        fingerprint({"n": 3})
