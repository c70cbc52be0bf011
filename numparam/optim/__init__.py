"""Optimizers that update parameters in place, in one pass over memory, with the same bits on every device and shard.

>>> from numparam import Parameter
>>> from numparam.optim import Adam
>>> weight = Parameter([1.0, 2.0], name="w")
>>> optimizer = Adam([weight], learning_rate=0.1)
>>> optimizer([weight.asnumpy() * 2])
>>> weight.asnumpy().round(4)
array([0.9, 1.9], dtype=float32)
"""

from numparam.optim.gradients import SparseRows
from numparam.optim.optimizer import Optimizer
from numparam.optim.optimizers import (
    FTRL,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    AdamWeightDecay,
    Lamb,
    LazyAdam,
    Momentum,
    RowwiseAdagrad,
)

__all__ = [
    "FTRL",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "AdamWeightDecay",
    "Lamb",
    "LazyAdam",
    "Momentum",
    "Optimizer",
    "RowwiseAdagrad",
    "SparseRows",
]
