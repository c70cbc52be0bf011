"""Parameters: tensors with a name, a layout and flags, alone or in tuples."""

from numparam.parameter.parameter import Parameter
from numparam.parameter.tuple import ParameterTuple

__all__ = ["Parameter", "ParameterTuple"]
