"""The bridges to PyTorch and JAX, skipped where the library is absent."""

from typing import Any

import numparam
from numparam.initializer import Normal

from .common import SIGMA, Warm, lazy, needs


class Torch(Warm):
    def setup(self) -> None:
        needs("torch")
        import torch

        import numparam.torch

        numparam.set_num_threads(2)
        self.layer = torch.nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
        self.many = torch.nn.Sequential(*[torch.nn.Linear(16, 16) for _ in range(200)])
        self.weight = torch.empty(1024, 1024)
        for call in (self.time_init_layer, self.time_init_many, self.time_fill, self.time_drawing):
            call()

    def time_init_layer(self) -> None:
        numparam.torch.init_(self.layer, seed=7)

    def time_init_many(self) -> None:
        numparam.torch.init_(self.many, seed=7)

    def time_fill(self) -> None:
        numparam.torch.fill_(self.weight, Normal(SIGMA), name="w", seed=7)

    def time_drawing(self) -> None:
        import torch

        with numparam.torch.drawing(self.layer, seed=7):
            torch.nn.init.normal_(self.layer.linear1.weight)


class Jax(Warm):
    def setup(self) -> None:
        needs("jax")
        import jax

        import numparam.jax

        numparam.set_num_threads(2)
        struct = jax.ShapeDtypeStruct
        self.shapes: dict[str, Any] = {
            f"layers_{layer}": {"kernel": struct((512, 512), "float32"), "bias": struct((512,), "float32")}
            for layer in range(4)
        }
        self.parameter = lazy((1024, 1024))
        self.kernel_init = numparam.jax.initializer("lecun_normal", "dense.kernel", seed=7)
        for call in (self.time_init, self.time_array, self.time_initializer):
            call()

    def time_init(self) -> None:
        numparam.jax.init(self.shapes, {"*.bias": 0.5, "*": "lecun_normal"}, seed=7)

    def time_array(self) -> None:
        numparam.jax.array(self.parameter)

    def time_initializer(self) -> None:
        self.kernel_init(None, (512, 256))
