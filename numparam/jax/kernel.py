"""Initializers as JAX has them: which axes are inputs and outputs, and what its names mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from numparam.errors import ArgumentTypeError, ShapeError
from numparam.indexing.region import Region
from numparam.initializer import Initializer, Normal, TruncatedNormal, VarianceScaling
from numparam.initializer import entry as by_mindspore
from numparam.initializer.random import Between
from numparam.stream.source import Buffer, Source
from numparam.text import shown

Axes = int | Sequence[int]


class Kernel(Initializer):
    """Let an initializer read a shape as JAX does: inputs and outputs last, ``(*kernel, inputs, outputs)``.

    Fans are counted as in JAX: ``fan_in`` is the size of the weight over its outputs, ``fan_out`` its size over its
    inputs. `Orthogonal`, `Sparse` and `Dirac` make a weight ``(outputs, inputs, *kernel)``, whose axes are then put
    where JAX has them; any part costs as much as the full weight. Initializers that do not read the shape stay as they
    are.

    Parameters
    ----------
    init : Initializer
        Generates the values.
    in_axis, out_axis : int or sequence of int
        The axes that count as inputs and as outputs; an axis that is named twice counts once.
    batch_axis : int or sequence of int
        The axes that number independent weights, and count for no fan.

    Raises
    ------
    TypeError
        If `init` is not an initializer.
    ValueError
        For a tensor without these axes, or one that the initializer cannot fill.

    Examples
    --------
    An attention projection of Flax, ``(features, heads, features of a head)``:

    >>> from numparam.initializer import LecunUniform, initializer
    >>> query = Kernel(LecunUniform(), in_axis=0, out_axis=(1, 2))
    >>> query.fans((300, 8, 64))
    (300, 512)
    >>> bool(abs(initializer(query, (300, 8, 64)).asnumpy()).max() <= 0.1)
    True
    """

    def __init__(self, init: Initializer, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> None:
        if not isinstance(init, Initializer):
            raise ArgumentTypeError(f"Kernel reads the shape for an Initializer, found {shown(init)} of {type(init)}")
        self.init = init
        self.in_axis, self.out_axis, self.batch_axis = in_axis, out_axis, batch_axis
        self.reads = init.reads
        self.on_device = init.on_device and init.reads != "axes"
        self.needs_full = init.needs_full or init.reads == "axes"

    @Initializer.seed.getter  # type: ignore[attr-defined, untyped-decorator]
    def seed(self) -> int | None:
        """Get or set the seed of this initializer, by default the seed of the wrapped one."""
        return self.init.seed if self._seed is None else self._seed

    def fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Count the inputs and the outputs of a weight of at least one element.

        Returns
        -------
        tuple of (int, int)
            ``fan_in`` and ``fan_out``.

        Raises
        ------
        ShapeError
            If the shape has not the axes. It is also a ValueError.
        """
        inputs, outputs, batch = (
            math.prod(shape[axis] for axis in self._axes(axes, shape))
            for axes in (self.in_axis, self.out_axis, self.batch_axis)
        )
        return math.prod(shape) // (outputs * batch), math.prod(shape) // (inputs * batch)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if self.init.reads == "axes":
            self.init.check(self._as_weight(shape)[1], dtype)
        else:
            self.init.check(shape, dtype)
            if self.init.reads == "fans":
                self._axes((*_tuple(self.in_axis), *_tuple(self.out_axis), *_tuple(self.batch_axis)), shape)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        init: Any = self.init
        if init.reads == "fans":
            init.fill_for_fans(out, region, source, *self.fans(region.full_shape))
        elif init.reads == "axes":
            order, weight = self._as_weight(region.full_shape)
            full = np.empty(weight, out.dtype)
            init.fill(full, Region.full(weight), source)
            moved = full.reshape([region.full_shape[axis] for axis in order])
            out[...] = region.take(moved.transpose(np.argsort(order)))
        else:
            init.fill(out, region, source)

    def _as_weight(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the axes as ``(*outputs, *inputs, *kernel)``, and the shape ``(outputs, inputs, *kernel)``."""
        outputs, inputs = self._axes(self.out_axis, shape), self._axes(self.in_axis, shape)
        if set(outputs) & set(inputs):
            raise ShapeError(f"{self!r} needs inputs and outputs on different axes, found the shape {shape}")
        kernel = tuple([axis for axis in range(len(shape)) if axis not in outputs + inputs])
        counts = [math.prod(shape[axis] for axis in axes) for axes in (outputs, inputs)]
        return outputs + inputs + kernel, (*counts, *[shape[axis] for axis in kernel])

    def _axes(self, axes: Axes, shape: tuple[int, ...]) -> tuple[int, ...]:
        found = _tuple(axes)
        if not all(-len(shape) <= axis < len(shape) for axis in found):
            raise ShapeError(f"{self!r} needs a shape with these axes, found {shape}")
        return tuple(dict.fromkeys([axis % len(shape) for axis in found]))


def _tuple(axes: Axes) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def as_kernel(init: Initializer) -> Initializer:
    """Let an initializer read shapes as JAX does, unless it declares how it reads them."""
    return init if isinstance(init, Kernel) else Kernel(init)


# Under these names MindSpore, and so numparam, has other distributions: JAX truncates the normals of Glorot and He at
# two sigmas and widens them, starts its uniform at 0, and counts the bounds of its truncated normal in sigmas.
_BY_NAME: dict[str, Initializer] = {
    "glorotnormal": VarianceScaling(1.0, "fan_avg", "truncated_normal"),
    "xaviernormal": VarianceScaling(1.0, "fan_avg", "truncated_normal"),
    "henormal": VarianceScaling(2.0, "fan_in", "truncated_normal"),
    "kaimingnormal": VarianceScaling(2.0, "fan_in", "truncated_normal"),
    "normal": Normal(0.01),
    "truncatednormal": TruncatedNormal(0.01, 0.0, -0.02, 0.02),
    "uniform": Between(0.0, 0.01),
}


def as_initializer(init: str | Initializer | float) -> Initializer:
    """Return the initializer that a name, a number or an initializer means to users of JAX."""
    found = _BY_NAME.get(init.lower().replace("_", "")) if isinstance(init, str) else None
    return by_mindspore.as_initializer(init) if found is None else found
