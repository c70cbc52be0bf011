"""Initializers that give every element the same value."""

import math
from numbers import Real
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.indexing.region import Region
from numparam.initializer.base import Initializer
from numparam.stream.source import Buffer, Source
from numparam.text import shown


class Constant(Initializer):
    """Give every element the same value.

    Works for every dtype. Integer and bool dtypes must hold the value exactly; floating ones hold it rounded to
    nearest.

    Parameters
    ----------
    value : number, bool or array of one element

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If `value` is an array of more than one element. Also for a tensor whose dtype cannot hold the value.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> initializer(Constant(3), (2, 2), "int8").asnumpy()
    array([[3, 3],
           [3, 3]], dtype=int8)
    """

    on_device = True
    value: Any

    def __init__(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            if value.size != 1:
                raise ArgumentValueError(f"value is one number, found an array of {value.size}")
            value = value.item()
        if not isinstance(value, Real | np.bool_):
            raise ArgumentTypeError(
                f"value is a real number or a bool, found {shown(value)} of type {type(value).__name__}"
            )
        self.value = value

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().check(shape, dtype)
        if dtype.kind != "f" or not 0 <= self.value <= 1:  # which every floating dtype holds, and most constants are
            as_scalar(self.value, dtype)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:  # noqa: ARG002
        from numparam.kernels.fill import constant

        constant.fill(out, as_scalar(self.value, out.dtype))


class Zero(Constant):
    """Give every element the value 0.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> initializer("zeros", 3).asnumpy()
    array([0., 0., 0.], dtype=float32)
    """

    value = 0

    def __init__(self) -> None:
        """Take no arguments."""


class One(Constant):
    """Give every element the value 1.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> initializer("ones", 3).asnumpy()
    array([1., 1., 1.], dtype=float32)
    """

    value = 1

    def __init__(self) -> None:
        """Take no arguments."""


def as_scalar(value: Any, dtype: np.dtype[Any]) -> Any:
    """Convert a real number to a scalar of a dtype; an ArgumentValueError if the dtype cannot hold it."""
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            scalar = dtype.type(float(value) if dtypes.is_floating(dtype) else value)
            fits = bool(scalar == value)
        except (OverflowError, ValueError):  # an integer that is too large, an infinity or a NaN
            scalar, fits = None, False
    if scalar is not None and dtypes.is_floating(dtype):
        fits = math.isnan(value) or (math.isinf(value) == np.isinf(scalar) and not np.isnan(scalar))
    if scalar is not None and dtype.kind == "c":
        fits = math.isnan(value) or math.isinf(value) == np.isinf(scalar)
    if not fits:
        raise ArgumentValueError(f"dtype {dtype} cannot hold the value {shown(value)}; {dtypes.unchecked(dtype)}")
    return scalar
