"""Parameters as arrays of JAX."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp

from numparam.cell import Cell
from numparam.optim.memory import parameters_of
from numparam.parameter import Parameter


def copies(x: Cell | Iterable[Parameter]) -> dict[str, jax.Array]:
    """Return the values of parameters as arrays of JAX, for ``jax.grad``.

    JAX relies on its arrays never changing, so they are copies: take new ones after a step. Gradients go to an
    optimizer of `numparam.optim` without a copy.

    Parameters
    ----------
    x : Cell or iterable of Parameter
        Lazy parameters are materialised.

    Returns
    -------
    dict of str to jax.Array
        By name, in the order of the parameters.

    Raises
    ------
    TypeError
        If `x` holds something else, or JAX does not have the dtype of a parameter.

    Examples
    --------
    >>> from numparam.optim import SGD
    >>> weight = Parameter([1.0, 2.0], name="w")
    >>> gradients = jax.grad(lambda arrays: (arrays["w"] ** 2).sum())(copies([weight]))
    >>> SGD([weight], 0.25)(list(gradients.values()))
    >>> weight.asnumpy()
    array([0.5, 1. ], dtype=float32)
    """
    return {parameter.name: jnp.array(parameter.asnumpy(), copy=True) for parameter in parameters_of(x)}
