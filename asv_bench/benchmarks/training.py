"""Training: steps of optimizers and perturbations, next to a copy of as many bytes and a fill of as many values."""

import numpy as np

import numparam
from numparam import Parameter, Region, Source
from numparam.kernels import copy
from numparam.optim import FTRL, SGD, Adagrad, AdamW, Lamb, RowwiseAdagrad
from numparam.perturb import antithetic, perturb_, perturbed, snap_

from .common import Warm

SHAPE = (2048, 2048)
OPTIMIZERS = {
    "SGD": lambda weights: SGD(weights, 0.01),
    "momentum": lambda weights: SGD(weights, 0.01, 0.9),
    "AdamW": lambda weights: AdamW(weights, 0.01),
    "Adagrad": Adagrad,
    "RowwiseAdagrad": RowwiseAdagrad,
    "FTRL": FTRL,
    "Lamb": lambda weights: Lamb(weights, 0.01),
    "AdamW bfloat16 stochastic": lambda weights: AdamW(weights, 0.01, rounding="stochastic", seed=7),
}


class Steps(Warm):
    """One step; `peer_optimizers.py` compares with torch and with a copy of as many bytes."""

    params = tuple(OPTIMIZERS)
    param_names = ("optimizer",)

    def setup(self, name: str) -> None:
        numparam.set_num_threads(2)
        dtype = numparam.bfloat16 if "bfloat16" in name else np.float32
        self.gradient = np.ones(SHAPE, dtype)
        self.optimizer = OPTIMIZERS[name]([Parameter(np.ones(SHAPE, dtype), name="w")])
        self.optimizer([self.gradient])

    def time_warm(self, name: str) -> None:
        self.optimizer([self.gradient])


class Perturbations(Warm):
    """``copy`` reads and writes what one perturbation does, and ``fill`` draws as many values."""

    params = ("copy", "fill", "one", "eight", "rademacher", "low rank", "antithetic", "in place")
    param_names = ("call",)

    def setup(self, name: str) -> None:
        numparam.set_num_threads(2)
        weight = Parameter(np.zeros(SHAPE, np.float32), name="w")
        out, other, full = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32), Region.full(SHAPE)
        snap_(weight)
        self.call = {
            "copy": lambda: copy.copy(out, weight.asnumpy()),
            "fill": lambda: Source(7, "w").normal(out, full, 0.0, 1.0),
            "one": lambda: perturbed(weight, 7, 1e-3, out),
            "eight": lambda: perturbed(weight, range(8), 1e-3, out),
            "rademacher": lambda: perturbed(weight, 7, 1e-3, out, noise="rademacher"),
            "low rank": lambda: perturbed(weight, 7, 1e-3, out, rank=4),
            "antithetic": lambda: antithetic(weight, 7, 1e-3, (out, other)),
            "in place": lambda: perturb_(weight, 7, 1e-9),
        }[name]
        self.call()

    def time_warm(self, name: str) -> None:
        self.call()
