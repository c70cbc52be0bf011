"""MindSpore's names under MindSpore's module paths: replace ``mindspore`` by ``numparam.mindspore`` in the imports.

The objects are numparam's own, under other names. There are no layers, operators and optimizers: what is here is the
parameters, initializers, cells, contexts and checkpoints. ``docs/mindspore.md`` has every name: which is the same,
which differs and how, and which is absent.

>>> import numparam.mindspore as ms
>>> from numparam.mindspore import nn
>>> from numparam.mindspore.common.initializer import Normal, initializer
>>> class Net(nn.Cell):
...     def __init__(self):
...         super().__init__()
...         self.weight = ms.Parameter(initializer(Normal(0.02), (2, 3), ms.float32))
>>> Net().trainable_params()
[Parameter (name=weight, shape=(2, 3), dtype=Float32, requires_grad=True)]
"""

from numparam.context import ParallelMode
from numparam.layout import Layout
from numparam.mindspore import common, communication, context, log, nn, ops, parallel, train
from numparam.mindspore._absent import absent
from numparam.mindspore.common import *  # noqa: F403
from numparam.mindspore.common import __all__ as _common
from numparam.mindspore.common import dtype
from numparam.mindspore.context import *  # noqa: F403
from numparam.mindspore.context import __all__ as _context
from numparam.mindspore.log import get_level
from numparam.mindspore.train import *  # noqa: F403
from numparam.mindspore.train import __all__ as _train

__all__ = [  # noqa: PLE0604
    *_common, *_context, *_train, "Layout", "ParallelMode", "common", "communication", "context", "dtype", "get_level",
    "log", "nn", "ops", "parallel", "train",
]  # fmt: skip

__version__ = "2.10.0"
"""The version of MindSpore whose names are here."""

__getattr__ = absent(__name__)
