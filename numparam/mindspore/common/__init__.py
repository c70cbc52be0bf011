"""Tensors, parameters, dtypes and seeds under the names of ``mindspore.common``."""

from numparam.mindspore.common import dtype, initializer
from numparam.mindspore.common.api import jit, jit_class
from numparam.mindspore.common.dtype import *  # noqa: F403
from numparam.mindspore.common.dtype import __all__ as _dtypes
from numparam.mindspore.common.jit_config import JitConfig
from numparam.mindspore.common.parameter import Parameter, ParameterTuple
from numparam.mindspore.common.seed import get_seed, set_seed
from numparam.mindspore.common.tensor import Tensor, from_numpy, is_tensor, tensor

__all__ = [  # noqa: PLE0604
    *_dtypes, "JitConfig", "Parameter", "ParameterTuple", "Tensor", "dtype", "from_numpy", "get_seed", "initializer",
    "is_tensor", "jit", "jit_class", "set_seed", "tensor",
]  # fmt: skip
