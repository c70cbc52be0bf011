"""Parameters under the names of ``mindspore.common.parameter``."""

from numparam.parameter import Parameter, ParameterTuple
from numparam.tensor import Tensor

__all__ = ["Parameter", "ParameterTuple", "Tensor"]
