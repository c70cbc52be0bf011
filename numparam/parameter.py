"""A parameter: a tensor with a name and the flags that training reads."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.tensor import Array, Recipe, Tensor, as_array

_MAX_NAME = 1024
_generated = count()


class Parameter(Tensor):
    """Hold a tensor that a model learns.

    A parameter made from a lazy tensor is lazy too. Its values are a pure function of the seed that the tensor was made
    under, its own name at the moment they are made, and the index. A parameter without a name has the values of the
    tensor it was made from. A slice of a tensor may be given to make one shard of a parameter.

    Parameters
    ----------
    default_input : Tensor, int, float, numpy.ndarray, NumPy scalar or list
        The values, which are copied, never shared. An int becomes int32 and a float float32; a list of ints int64.
    name : str, optional
        Stripped of surrounding blanks, at most 1024 characters. None or blank: ``Parameter#N``.
    requires_grad : bool
        Whether the parameter is trained.
    layerwise_parallel : bool
        Whether broadcasts and gradient aggregation leave it out.
    parallel_optimizer : bool
        Whether the optimizer may shard it.

    Raises
    ------
    TypeError
        If the input or a flag is of a kind that is not accepted.
    ValueError
        If the input is a bool or does not fit its dtype, or the name is no str or too long.

    Examples
    --------
    >>> from numparam.initializer import Normal, initializer
    >>> Parameter(initializer(Normal(0.02), (2, 3)), name="w")
    Parameter (name=w, shape=(2, 3), dtype=Float32, requires_grad=True)
    >>> Parameter([1.0, 2.0], name="b", requires_grad=False).asnumpy()
    array([1., 2.], dtype=float32)
    """

    def __init__(
        self,
        default_input: Any,
        name: str | None = None,
        requires_grad: bool = True,
        layerwise_parallel: bool = False,
        parallel_optimizer: bool = True,
    ) -> None:
        self.name = name
        self.requires_grad = requires_grad
        self.layerwise_parallel = layerwise_parallel
        self.parallel_optimizer = parallel_optimizer
        if isinstance(default_input, Tensor):
            self._copy(default_input)
        else:
            self._hold(_values(self._name, default_input))

    def _stream_name(self, recipe: Recipe) -> str | int:
        # A recipe that has a name is a copy of another parameter's.
        return recipe.name if self._name_is_generated or isinstance(recipe.name, str) else self._name

    @property
    def name(self) -> str:
        """Get or set the name; it decides the values of a lazy parameter."""
        return self._name

    @name.setter
    def name(self, name: str | None) -> None:
        if name is not None and not isinstance(name, str):
            raise ArgumentValueError(f"the name of a parameter is a str or None, found {name!r}")
        given = (name or "").strip()
        if len(given) > _MAX_NAME:
            raise ArgumentValueError(f"the name of a parameter has at most {_MAX_NAME} characters, found {len(given)}")
        self._name_is_generated = not given
        self._name = given or f"Parameter#{next(_generated)}"

    @property
    def requires_grad(self) -> bool:
        """Get or set whether the parameter is trained."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._requires_grad = self._flag("requires_grad", value)

    @property
    def layerwise_parallel(self) -> bool:
        """Get or set whether broadcasts and gradient aggregation leave the parameter out."""
        return self._layerwise_parallel

    @layerwise_parallel.setter
    def layerwise_parallel(self, value: bool) -> None:
        self._layerwise_parallel = self._flag("layerwise_parallel", value)

    @property
    def parallel_optimizer(self) -> bool:
        """Get or set whether the optimizer may shard the parameter."""
        return self._parallel_optimizer

    @parallel_optimizer.setter
    def parallel_optimizer(self, value: bool) -> None:
        self._parallel_optimizer = self._flag("parallel_optimizer", value)

    def _flag(self, flag: str, value: bool) -> bool:
        if not isinstance(value, bool):
            raise ArgumentTypeError(f"Parameter {self._name!r}: {flag} is True or False, found {value!r}")
        return value

    def init_data(self) -> Parameter:
        """Make the values now if the parameter is lazy.

        Returns
        -------
        Parameter
            This parameter.
        """
        self.asnumpy()
        return self

    def __repr__(self) -> str:
        return (
            f"Parameter (name={self._name}, shape={self.shape}, dtype={dtypes.type_name(self._dtype)}, "
            f"requires_grad={self._requires_grad})"
        )


def _values(name: str, given: Any) -> Array:
    """Copy the values that a parameter was given, of the kinds that it takes."""
    if isinstance(given, bool | np.bool_):
        raise ArgumentValueError(f"Parameter {name!r}: the input cannot be a bool; use an array of dtype bool")
    if not isinstance(given, int | float | list | np.ndarray | np.number):
        raise ArgumentTypeError(
            f"Parameter {name!r}: the input is a Tensor, int, float, ndarray or list, found {type(given).__name__}"
        )
    return as_array(given, "int32" if isinstance(given, int) else None)
