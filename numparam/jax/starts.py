"""Shapes that know how they start: what the code of a model draws, as initializers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from numparam.errors import ArgumentTypeError
from numparam.initializer import (
    Axes,
    Constant,
    CorrectedTruncatedNormal,
    Initializer,
    Normal,
    One,
    Orthogonal,
    TruncatedNormal,
    Zero,
)
from numparam.initializer.random import TRUNCATED_SIGMA, between
from numparam.jax.kernel import Kernel
from numparam.jax.trace import Draw, Unknown, Value, follow

P = ParamSpec("P")
T = TypeVar("T")


class Start(jax.ShapeDtypeStruct):  # type: ignore[misc]
    """A shape, a dtype and a sharding with what the model's own code starts the array with; see `eval_shape`.

    Attributes
    ----------
    init : Initializer or None
        If all values are one number, or draws from one distribution.
    value : jax.Array or None
        What the code computes without random numbers, such as a table of positions or a key.
    draw : Draw or None
        Arrays for which this is equal are one draw of the code, and get the values of the first of them.
    why : str
        Why there is neither, for the error.
    """

    def __init__(
        self, like: Any, init: Initializer | None = None, value: Any = None, draw: Draw | None = None, why: str = ""
    ) -> None:
        super().__init__(like.shape, like.dtype, sharding=like.sharding, weak_type=like.weak_type)
        for name, content in {"init": init, "value": value, "draw": draw, "why": why}.items():
            object.__setattr__(self, name, content)  # the base class is frozen


def eval_shape(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the shapes of what a function returns, as ``jax.eval_shape`` does, with the initializer of each array.

    The function is traced and not run: `init` then generates the values that its own initializers describe, shard by
    shard. Keys may be any; what depends on them are the names alone. Layers that ``nn.scan``, ``nn.vmap`` or
    ``jax.vmap`` stacks are draws with the scale of one layer, states of optimizers are the zeros that optax writes, and
    keys and counters are as in the code. One draw in two places gets the values of the first place.

    Parameters
    ----------
    function : callable
        Such as ``model.init`` of linen, ``optimizer.init`` of optax, or one that returns a module of nnx or its split
        state.
    *args, **kwargs
        Pytrees of arrays, or of ``jax.ShapeDtypeStruct``.

    Returns
    -------
    pytree of jax.ShapeDtypeStruct
        What ``jax.eval_shape`` returns; the leaves have more attributes, see `numparam.jax.starts.Start`.

    Examples
    --------
    >>> def dense(key):
    ...     return {"kernel": 0.02 * jax.random.normal(key, (64, 32)), "bias": jax.numpy.zeros(32)}
    >>> shapes = eval_shape(dense, jax.random.key(0))
    >>> shapes["kernel"].shape, shapes["kernel"].init, shapes["bias"].init
    ((64, 32), Normal(sigma=0.02, mean=0.0), Zero())
    """
    if not callable(function):
        raise ArgumentTypeError(f"a function such as model.init is traced, found {type(function).__name__}")
    leaves, structure = jax.tree.flatten((args, kwargs))
    closed, results = jax.make_jaxpr(function, return_shape=True)(*args, **kwargs)
    abstract = [isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves]
    shapes, tree = jax.tree.flatten(results)
    starts = [_start(shape, value) for shape, value in zip(shapes, follow(closed, abstract), strict=True)]
    computed = [number for number, start in enumerate(starts) if start.init is None and not start.why]

    def compute(*concrete: Any) -> list[Any]:
        left = iter(concrete)
        every = [
            jax.numpy.zeros(leaf.shape, leaf.dtype) if shaped else next(left)
            for leaf, shaped in zip(leaves, abstract, strict=True)
        ]
        given, named = jax.tree.unflatten(structure, every)
        found = jax.tree.leaves(function(*given, **named))
        return [found[number] for number in computed]

    if computed:  # compiled, so that the rest, such as the random numbers, is not computed
        values = jax.jit(compute)(*[leaf for leaf, shaped in zip(leaves, abstract, strict=True) if not shaped])
        for number, value in zip(computed, values, strict=True):
            starts[number] = Start(shapes[number], value=value)
    described: T = jax.tree.unflatten(tree, starts)
    return described


def _start(shape: Any, value: Value) -> Start:
    if isinstance(value, Draw):
        init = as_initializer(value)
        return Start(shape, init, draw=value, why="" if init else f"{value.kind} numbers in their own order")
    if isinstance(value, Unknown):
        return Start(shape, why=value.why)
    if value.value is not None and not jax.dtypes.issubdtype(shape.dtype, jax.dtypes.extended):
        return Start(shape, {0: Zero(), 1: One()}.get(value.value) or Constant(value.value))
    numbers = [need for need in value.needs if isinstance(need, int)]
    return Start(shape, why=f"values of argument {min(numbers)}, which is a shape" if numbers else "")


def as_initializer(draw: Draw) -> Initializer | None:
    """Return the initializer of the distribution of a draw, with the numbers that its author wrote.

    The code computed them in float32. A scale that is within its rounding of a short decimal fraction, or of the root
    of one over a number of inputs, is this number.
    """
    mean, sigma = _decimal(draw.shift) if draw.shift else 0.0, abs(draw.scale)
    if draw.kind == "orthogonal":
        return _orthogonal(draw.labels, _decimal(draw.scale))
    if draw.kind == "uniform":
        low, high = sorted(draw.shift + draw.scale * end for end in (draw.low, draw.high))
        if abs(low + high) <= 1e-6 * high:
            high = _root(high, 3.0)
            return between(-high, high)
        return between(_decimal(low), _decimal(high))
    if draw.kind != "normal":
        return None
    low, high = (draw.low, draw.high) if draw.scale > 0 else (-draw.high, -draw.low)
    if math.isinf(low) and math.isinf(high):
        return Normal(_root(sigma), mean)
    low, high = (end if math.isinf(end) else float(f"{end:.4g}") for end in (low, high))
    if (low, high) == (-2.0, 2.0) and not _is_short(sigma) and (corrected := _written(sigma * TRUNCATED_SIGMA)):
        return CorrectedTruncatedNormal(corrected, mean)
    sigma = _root(sigma)
    return TruncatedNormal(sigma, mean, mean + sigma * low, mean + sigma * high)


def _orthogonal(labels: str, gain: float) -> Initializer:
    rows, columns, batch = (tuple(axis for axis, each in enumerate(labels) if each == letter) for letter in "rcb")
    init = Orthogonal(gain)
    if batch:
        return Axes(init, batch_axis=batch, in_axis=rows, out_axis=columns)
    return Kernel(init, rows, columns)


def _decimal(number: float) -> float:
    """Return the shortest number that float32 does not tell from this one."""
    return float(str(np.float32(number)))


def _is_short(number: float) -> bool:
    return float(f"{number:.4g}") == _decimal(number)


def _written(number: float, times: float = 1.0) -> float | None:
    """Return a short decimal number, or the root of `times` over a half-integer, within the rounding of float32."""
    if _is_short(number):
        return _decimal(number)
    inverse = times / number**2
    nearest = round(2 * inverse) / 2
    if 0 < nearest < 2**17 and abs(inverse / nearest - 1) < 4e-7:
        return math.sqrt(times * (1 / nearest))
    return None


def _root(number: float, times: float = 1.0) -> float:
    return _written(number, times) or _decimal(number)
