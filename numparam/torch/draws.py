"""What torch's random operations and the functions of `torch.nn.init` write, as initializers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import init

from numparam.errors import ShapeError
from numparam.initializer import (
    Constant,
    Dirac,
    Identity,
    Initializer,
    Normal,
    One,
    Orthogonal,
    Sparse,
    TruncatedNormal,
    Uniform,
    Zero,
)
from numparam.initializer.fan import fans
from numparam.initializer.random import between

if TYPE_CHECKING:
    from numparam.indexing.region import Region
    from numparam.stream.source import Buffer, Source

Shape = tuple[int, ...]


class Transformed(Initializer):
    """Transform uniform or normal values, in float64 on the host, so that no shard changes a rounding.

    The distribution is one of `torch.Tensor`'s in-place methods, without the underscore, with its arguments:
    ``"exponential"``, ``"log_normal"``, ``"cauchy"``, ``"geometric"``, ``"bernoulli"`` or ``"random"``.
    """

    def __init__(self, distribution: str, *arguments: float) -> None:
        self.distribution, self.arguments = distribution, arguments

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        """Fill `out` with the values of a region."""
        values = np.empty(region.shape)
        if self.distribution == "log_normal":
            mean, sigma = self.arguments
            source.normal(values, region, mean, sigma)
            np.exp(values, out=values)
        else:
            source.uniform(values, region, 0.0, 1.0)
            np.minimum(values, 1 - 2.0**-53, out=values)
            values = _TRANSFORMS[self.distribution](values, *self.arguments)
        out[...] = values


_TRANSFORMS: dict[str, Callable[..., Any]] = {
    "exponential": lambda u, rate: -np.log1p(-u) / rate,
    "cauchy": lambda u, median, sigma: median + sigma * np.tan(np.pi * (u - 0.5)),
    "geometric": lambda u, p: np.maximum(np.ceil(np.log1p(-u) / math.log1p(-p)), 1),
    "bernoulli": lambda u, p: u < p,
    "random": lambda u, low, high: low + np.floor(u * (high - low)),
}


def _random(tensor: torch.Tensor, low: int = 0, high: int | None = None, **_: Any) -> Initializer:
    """Return the distribution of ``Tensor.random_``, whose only argument is the upper bound if there is one."""
    if tensor.dtype.is_floating_point:
        most = 2 ** round(1 - math.log2(torch.finfo(tensor.dtype).eps))
    else:
        most = 2 if tensor.dtype == torch.bool else torch.iinfo(tensor.dtype).max
    return Transformed("random", low, most + (tensor.dtype != torch.bool) if high is None else high)


def _one_bound(tensor: torch.Tensor, *bounds: Any, **named: Any) -> Initializer:
    if "to" in named:
        named["high"] = named.pop("to")
    if "from" in named:
        named["low"] = named.pop("from")
    return _random(tensor, 0, bounds[0]) if len(bounds) == 1 and not named else _random(tensor, *bounds, **named)


def _uniform(_: torch.Tensor, *bounds: float, **named: float) -> Initializer:
    low, high = [*bounds, *(0.0, 1.0)[len(bounds) :]]
    return between(named.get("from", low), named.get("to", high))


METHODS: dict[str, Callable[..., Initializer | None]] = {
    "normal_": lambda _, mean=0.0, std=1.0: Normal(std, mean),
    "uniform_": _uniform,
    "exponential_": lambda _, lambd=1.0: Transformed("exponential", lambd),
    "log_normal_": lambda _, mean=1.0, std=2.0: Transformed("log_normal", mean, std),
    "cauchy_": lambda _, median=0.0, sigma=1.0: Transformed("cauchy", median, sigma),
    "geometric_": lambda _, p: Transformed("geometric", p),
    "bernoulli_": lambda _, p=0.5: None if isinstance(p, torch.Tensor) else Transformed("bernoulli", p),
    "random_": _one_bound,
    "zero_": lambda _: Zero(),
    "fill_": lambda _, value: constant(value),
}
"""How the in-place methods of `torch.Tensor` fill a tensor; None where it depends on more than numbers."""


def constant(value: Any) -> Initializer | None:
    """Return the initializer of a constant, None if it is not one real number."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_meta or value.is_complex():
            return None
        value = value.item()
    if isinstance(value, complex):
        return None
    return Zero() if value == 0 else One() if value == 1 else Constant(value)


def _variance(shape: Shape, fan: str, gain: float) -> float:
    if len(shape) < 2:
        raise ShapeError(f"fan in and fan out need a shape of 2 or more axes, found {shape}")
    fan_in, fan_out = fans(shape)
    count = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[fan]
    return gain**2 / count if count else 0.0


def _kaiming(draw: Callable[[float], Initializer]) -> Callable[..., Initializer]:
    def choose(shape: Shape, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Initializer:
        return draw(_variance(shape, mode.lower(), init.calculate_gain(nonlinearity, a)))

    return choose


def _xavier(draw: Callable[[float], Initializer]) -> Callable[..., Initializer]:
    return lambda shape, gain=1.0: draw(_variance(shape, "fan_avg", gain))


def _spread(variance: float) -> Initializer:
    return Uniform(math.sqrt(3 * variance))


def _normal(variance: float) -> Initializer:
    return Normal(math.sqrt(variance))


FUNCTIONS: dict[str, Callable[..., Initializer | None]] = {
    "uniform_": lambda _, a=0.0, b=1.0: between(a, b),
    "normal_": lambda _, mean=0.0, std=1.0: Normal(std, mean),
    "trunc_normal_": lambda _, mean=0.0, std=1.0, a=-2.0, b=2.0: TruncatedNormal(std, mean, a, b),
    "constant_": lambda _, val: constant(val),
    "ones_": lambda _: One(),
    "zeros_": lambda _: Zero(),
    "eye_": lambda _: Identity(),
    "dirac_": lambda _, groups=1: Dirac(groups),
    "xavier_uniform_": _xavier(_spread),
    "xavier_normal_": _xavier(_normal),
    "kaiming_uniform_": _kaiming(_spread),
    "kaiming_normal_": _kaiming(_normal),
    "orthogonal_": lambda _, gain=1: Orthogonal(gain),
    "sparse_": lambda _, sparsity, std=0.01: Sparse(sparsity, std),
}
"""How the functions of `torch.nn.init` fill a tensor of a shape."""


def choose(table: dict[str, Callable[..., Initializer | None]], name: str, first: Any, *args: Any, **named: Any) -> Any:
    """Look up how an operation fills a tensor; torch's generator, which is not used, may be among its arguments."""
    named.pop("generator", None)
    return table[name](first, *[arg for arg in args if not isinstance(arg, torch.Generator)], **named)


def is_random(init: Initializer) -> bool:
    """Return whether an initializer draws, so that its values depend on the name."""
    return not isinstance(init, Constant | Dirac | Identity)


def needs_axes(init: Initializer) -> bool:
    """Return whether the values depend on the axes of the tensor, not on the flat index alone."""
    return isinstance(init, Dirac | Identity | Orthogonal | Sparse)


def by_torch(function: Any, shape: Shape) -> Initializer | None:
    """Return what a function of `torch.nn.init`, or a partial of one, fills a tensor of a shape with, None if unknown.

    Examples
    --------
    >>> from functools import partial
    >>> by_torch(partial(init.trunc_normal_, std=0.02), (3, 4))
    TruncatedNormal(sigma=0.02, mean=0.0, a=-2.0, b=2.0)
    """
    args, named = getattr(function, "args", ()), getattr(function, "keywords", {})
    function = getattr(function, "func", function)
    if getattr(function, "__module__", None) != init.__name__ or function.__name__ not in FUNCTIONS:
        return None
    found: Initializer | None = choose(FUNCTIONS, function.__name__, shape, *args, **named)
    return found
