"""Arithmetic of tensors, which NumPy computes: what numparam adds to it."""

import operator

from numparam import Tensor

from .common import Warm, dtype, touched

OPERATIONS = {
    "add": lambda tensor: tensor + tensor,
    "scale": lambda tensor: 2.0 * tensor,
    "compare": lambda tensor: tensor > 0.5,
    "negate": operator.neg,
    "matmul": lambda tensor: tensor @ tensor,
    "in place": lambda tensor: operator.iadd(tensor, 1.0),
}


class Arithmetic(Warm):
    params = (tuple(OPERATIONS), ("small", "large"))
    param_names = ("operation", "size")

    def setup(self, operation: str, size: str) -> None:
        side = 8 if size == "small" else 512
        self.call, self.tensor = OPERATIONS[operation], Tensor(touched((side, side)))

    def time_call(self, operation: str, size: str) -> None:
        self.call(self.tensor)


class Bfloat16(Warm):
    """A dtype that NumPy has only through ml_dtypes."""

    def setup(self) -> None:
        self.tensor = Tensor(touched((512, 512)).astype(dtype("bfloat16")))

    def time_add(self) -> None:
        self.tensor + self.tensor
