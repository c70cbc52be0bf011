"""Noise by key for training loops: dropout masks and Gaussian noise of (seed, name, step, index)."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from numparam import dtypes
from numparam.checks import as_int
from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.indexing.region import Region, Shape, as_shape
from numparam.initializer.base import RandomInitializer, real
from numparam.stream.seed import Label, as_seed
from numparam.stream.source import Buffer, Source
from numparam.tensor import Recipe, Tensor


class _Normal(RandomInitializer):
    on_device = True

    def __init__(self, sigma: float, label: str) -> None:
        self.sigma, self._label = real("sigma", sigma, at_least=0), label

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        source.normal(out, region, 0.0, self.sigma, self._label)


class _Dropout(RandomInitializer):
    on_device = True

    def __init__(self, rate: float, scale: float, label: str) -> None:
        self.rate, self.scale, self._label = rate, scale, label

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        source.either(out, region, self.rate, 0.0, self.scale, self._label)


class LoopNoise:
    """Draw the noise of one place of a model in one step of training; create one with `noise`."""

    def __init__(self, seed: int, name: str, step: int) -> None:
        self.seed, self.name, self.step = seed, name, step

    def normal(
        self, shape: Shape | Region, sigma: float = 1.0, dtype: np.typing.DTypeLike = "float32", device: str = "cpu"
    ) -> Tensor:
        """Return normal values with the mean 0, lazy: a slice or region costs only itself.

        Parameters
        ----------
        shape : int, sequence of int, or Region
            Of the full tensor, or a region of it.
        sigma : float
            The standard deviation.
        dtype : numpy.dtype or str
            A floating-point dtype.
        device : str
        """
        return self._tensor(_Normal(sigma, self._label("g")), shape, dtype, device)

    def dropout(
        self, shape: Shape | Region, rate: float, dtype: np.typing.DTypeLike = "float32", device: str = "cpu"
    ) -> Tensor:
        """Return what activations are multiplied by: 0 with the probability `rate`, else ``1 / (1 - rate)``.

        Parameters
        ----------
        shape, dtype, device
            As for `normal`.
        rate : float
            From 0 to below 1.
        """
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise ArgumentTypeError(f"rate must be a number, found {rate!r:.80}")
        if not 0.0 <= rate < 1.0:
            raise ArgumentValueError(f"rate must be at least 0 and below 1, found {rate!r}")
        return self._tensor(_Dropout(float(rate), 1.0 / (1.0 - rate), self._label("d")), shape, dtype, device)

    def _label(self, draw: str) -> Label:
        return Label(f"{draw}{self.step:x}")

    def _tensor(
        self, init: RandomInitializer, shape: Shape | Region, dtype: np.typing.DTypeLike, device: str
    ) -> Tensor:
        region = shape if isinstance(shape, Region) else Region.full(as_shape(shape))
        tensor = Tensor._of(Recipe.of(init, self.name, region, dtypes.as_dtype(dtype), self.seed))
        return tensor if device == tensor.device else tensor.to(device)

    def __repr__(self) -> str:
        return f"noise(seed={self.seed}, name={self.name!r}, step={self.step})"


def noise(seed: SupportsIndex, name: str, step: SupportsIndex) -> LoopNoise:
    """Return the noise of one place of a model in one step of training: a function of seed, name, step and index.

    Every rank draws its own region, and all regions together are the noise of the full tensor, whatever the layout.

    Parameters
    ----------
    seed : int
        From 0 to 2**64 - 1.
    name : str
        Of the place, such as ``"layers.3.mlp.dropout"``.
    step : int
        From 0 to 2**36 - 1.

    Returns
    -------
    LoopNoise

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the seed or step is out of range.

    Examples
    --------
    >>> from numparam import Region
    >>> mask = noise(7, "mlp.dropout", step=12).dropout((4, 1000), 0.25)
    >>> part = noise(7, "mlp.dropout", step=12).dropout(Region.full((4, 1000))[2:, 500:], 0.25)
    >>> bool((mask.asnumpy()[2:, 500:] == part.asnumpy()).all()), float(mask.asnumpy().max())
    (True, 1.3333333730697632)
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"name must be a str, found {name!r:.80}")
    number = as_int("step", step, 0)
    if number >= 2**36:
        raise ArgumentValueError(f"step must be below 2**36, found {number}")
    return LoopNoise(as_seed(seed), name, number)
