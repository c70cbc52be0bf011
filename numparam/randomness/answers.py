"""Known answers: hashes of values that are the same on every machine and device."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np

from numparam.device import devices
from numparam.initializer import HeUniform, Initializer, Normal, Orthogonal, TruncatedNormal, Uniform, initializer
from numparam.parameter import Parameter

_SEED, _NAME, _SHAPE = 7, "selftest.weight", (257, 129)

# Version 1 of the stream: another hash would be another version.
_ANSWERS: dict[tuple[Initializer, str], str] = {
    (Uniform(0.5), "float32"): "f72715a95be7f022",
    (Normal(0.02), "float32"): "becb178f4ef3d023",
    (Normal(0.02), "float64"): "39df837718976aff",
    (Normal(0.02), "bfloat16"): "10e6054bc53f29f1",
    (TruncatedNormal(1.0, 0.5, -2.0, 2.0), "float32"): "bd1af13bb59bd3cc",
    (HeUniform(), "float16"): "aa25b66ea095bb3f",
    (Orthogonal(), "float32"): "312b0ce480c065da",
}


def known_answers() -> Iterator[tuple[str, str, bool]]:
    """Generate values on every device; yield device, initializer with dtype, and whether the bits are right."""
    for device in devices():
        for (init, dtype), answer in _ANSWERS.items():
            tensor = initializer(init, _SHAPE, dtype, seed=_SEED)
            values = Parameter(tensor, name=_NAME, device=device.device).init_data().asnumpy()
            found = sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
            yield str(device), f"{init!r}, {dtype}", found == answer
