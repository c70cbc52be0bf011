"""The names of ``jax.nn.initializers``, each with the distribution that JAX gives it."""

from __future__ import annotations

from numparam.initializer import Initializer, Normal, TruncatedNormal, VarianceScaling
from numparam.initializer import entry as by_mindspore
from numparam.initializer.random import Between

# Under these names MindSpore, and so numparam, has other distributions: JAX truncates the normals of Glorot and He at
# two sigmas and widens them, starts its uniform at 0, and counts the bounds of its truncated normal in sigmas.
_BY_NAME: dict[str, Initializer] = {
    "glorotnormal": VarianceScaling(1.0, "fan_avg", "truncated_normal"),
    "xaviernormal": VarianceScaling(1.0, "fan_avg", "truncated_normal"),
    "henormal": VarianceScaling(2.0, "fan_in", "truncated_normal"),
    "kaimingnormal": VarianceScaling(2.0, "fan_in", "truncated_normal"),
    "normal": Normal(0.01),
    "truncatednormal": TruncatedNormal(0.01, 0.0, -0.02, 0.02),
    "uniform": Between(0.0, 0.01),
}


def as_initializer(init: str | Initializer | float) -> Initializer:
    """Return the initializer that a name, a number or an initializer means to users of JAX."""
    found = _BY_NAME.get(init.lower().replace("_", "")) if isinstance(init, str) else None
    return by_mindspore.as_initializer(init) if found is None else found
