"""The function `initializer`, and the names by which it knows the initializers."""

import re
from numbers import Number
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from numparam import dtypes
from numparam.errors import ArgumentTypeError, ArgumentValueError, ShapeError
from numparam.indexing.region import Shape, as_shape
from numparam.initializer.base import Initializer
from numparam.initializer.constants import Constant, One, Zero
from numparam.initializer.fan import (
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
)
from numparam.initializer.random import CorrectedTruncatedNormal, Normal, TruncatedNormal, Uniform
from numparam.initializer.structured import Dirac, Identity, Orthogonal, Sparse
from numparam.initializer.unset import Unset
from numparam.tensor import Tensor
from numparam.text import shown

KaimingNormal = HeNormal
KaimingUniform = HeUniform
GlorotNormal = XavierNormal
GlorotUniform = XavierUniform

_CLASSES: tuple[type[Initializer], ...] = (
    Zero, One, Constant, Normal, Uniform, TruncatedNormal, CorrectedTruncatedNormal, XavierNormal, XavierUniform,
    HeNormal, HeUniform, LecunNormal, LecunUniform, VarianceScaling, Orthogonal, Sparse, Identity, Dirac, Unset,
)  # fmt: skip
_BY_CLASS_NAME: dict[str, type[Initializer]] = {found.__name__: found for found in _CLASSES} | {
    "Zeros": Zero, "Ones": One, "GlorotNormal": XavierNormal, "GlorotUniform": XavierUniform,
    "KaimingNormal": HeNormal, "KaimingUniform": HeUniform,
}  # fmt: skip
_SNAKE = {re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower(): found for name, found in _BY_CLASS_NAME.items()}
_ALIASES = _SNAKE | {name.lower(): found for name, found in _BY_CLASS_NAME.items()}


def by_name(name: str) -> type[Initializer]:
    """Return the initializer class of a name.

    Parameters
    ----------
    name : str
        The name of a class of this module in any case, with or without underscores between its words:
        ``"XavierNormal"``, ``"xavier_normal"`` or ``"xaviernormal"``; also ``"zeros"`` and ``"ones"``.

    Raises
    ------
    ArgumentTypeError
        If it is not a str. It is also a TypeError.
    ArgumentValueError
        If no class has the name. It is also a ValueError.

    Examples
    --------
    >>> by_name("kaiming_uniform")
    <class 'numparam.initializer.fan.HeUniform'>
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"the name of an initializer is a str, found {shown(name)}")
    if (found := _ALIASES.get(name.lower())) is None:
        from difflib import get_close_matches

        close = get_close_matches(name.lower(), _ALIASES, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_SNAKE)}"
        raise ArgumentValueError(f"no initializer is called {shown(name)}; {hint}")
    return found


def as_initializer(init: str | Initializer | float) -> Initializer:
    """Return the initializer that a name, a number or an initializer means; see `initializer`."""
    if isinstance(init, str):
        found = by_name(init)
        try:
            return found()
        except TypeError:
            raise ArgumentTypeError(f"{init!r} needs arguments: give {found.__name__}(...) itself") from None
    if isinstance(init, Initializer):
        return init
    if isinstance(init, Number | np.bool_):
        return Constant(init)
    raise ArgumentTypeError(
        f"an initializer is a Tensor, a name, an Initializer or a number, found {shown(init)} of {type(init)}"
    )


def initializer(
    init: Tensor | str | Initializer | float,
    shape: Shape | None = None,
    dtype: npt.DTypeLike = "float32",
    *,
    seed: SupportsIndex | None = None,
) -> Tensor:
    """Describe a tensor by an initializer, without materialising its values.

    Parameters
    ----------
    init : str, Initializer, number or Tensor
        The name of an initializer with its default arguments (see `by_name`), an initializer, the value of all
        elements, or a tensor, which is returned as it is.
    shape : int or sequence of int
        Python or NumPy integers; 0 is a length too. Optional if `init` is a tensor.
    dtype : numpy.dtype or str
        Ignored if `init` is a tensor. Random initializers need a floating dtype.
    seed : int, optional
        From 0 to 2**64 - 1, for this tensor; see `numparam.stream.seed.choose_seed`. Not for a tensor as `init`.

    Returns
    -------
    Tensor
        Lazy: it keeps the current seed, and materialises its values when they are needed.

    Raises
    ------
    TypeError
        If `init` is of another kind or needs arguments, or the initializer cannot fill the dtype.
    ValueError
        If the name is unknown, `shape` is missing or invalid, or the initializer cannot fill it.

    Examples
    --------
    >>> lazy = initializer("xavier_uniform", (1000, 1000), "float16")
    >>> lazy.has_init, lazy.nbytes
    (True, 2000000)
    >>> lazy[-1, :3].asnumpy().dtype
    dtype('float16')
    >>> initializer(1.5, (2,)).asnumpy()
    array([1.5, 1.5], dtype=float32)
    """
    if isinstance(init, Tensor):
        if seed is not None:
            raise ArgumentTypeError("a seed goes with an initializer, found a Tensor as init")
        if shape is not None and as_shape(shape) != init.shape:
            raise ShapeError(f"a tensor of shape {as_shape(shape)} was asked for, found one of shape {init.shape}")
        return init
    init = as_initializer(init)
    if shape is None:
        raise ShapeError(f"{init!r} needs a shape")
    return Tensor(shape=shape, dtype=dtypes.as_dtype(dtype), init=init, seed=seed)
