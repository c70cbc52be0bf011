"""Eight devices on the CPU for the tests of `numparam.jax`; whoever imports this is skipped where JAX is missing."""

import os
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

# JAX reads it when its devices are first asked for, which no test does before all are collected.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"


def sharding(mesh: tuple[int, ...], *spec: Any) -> Any:
    """Lay eight devices out as a mesh with the axes a, b, c, and cut an array by a spec."""
    devices, axes = np.array(jax.devices()).reshape(mesh), tuple("abc"[: len(mesh)])
    return jax.sharding.NamedSharding(jax.sharding.Mesh(devices, axes), jax.sharding.PartitionSpec(*spec))
