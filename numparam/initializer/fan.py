"""Initializers whose spread follows from the number of inputs and outputs of a weight."""

import math
from typing import Any

import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.indexing.region import Region
from numparam.initializer.base import RandomInitializer, check_rank, real
from numparam.initializer.random import draw_corrected
from numparam.stream.source import Buffer, Source
from numparam.text import shown

_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("uniform", "truncated_normal", "untruncated_normal")
_GAINS = {
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d"), 1.0),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1.0),
}


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return ``fan_in`` and ``fan_out`` of a full weight ``(outputs, inputs, *kernel)``; the kernel multiplies both.

    Examples
    --------
    >>> fans((8, 4)), fans((8, 4, 3, 3))
    ((4, 8), (36, 72))
    """
    outputs, inputs, *kernel = shape
    return inputs * math.prod(kernel), outputs * math.prod(kernel)


def gain(nonlinearity: str, negative_slope: float | None = None) -> float:
    r"""Return the factor that a nonlinearity needs on the standard deviation of its weight.

    1 for linear, convolution and sigmoid; 5/3 for tanh; :math:`\sqrt2` for relu; :math:`\sqrt{2 / (1 + s^2)}` for
    leaky_relu of negative slope s, 0.01 if None (He, Zhang, Ren and Sun, 2015).

    Raises
    ------
    ArgumentValueError
        If the nonlinearity is unknown, or the slope of leaky_relu is not a number. It is also a ValueError.

    Examples
    --------
    >>> gain("relu"), gain("leaky_relu", 1.0)
    (1.4142135623730951, 1.0)
    """
    if nonlinearity == "leaky_relu":
        try:
            slope = 0.01 if negative_slope is None else real("negative_slope", negative_slope, is_squared=True)
        except ArgumentTypeError as error:
            raise ArgumentValueError(f"for leaky_relu, {error}") from None
        return math.sqrt(2.0 / (1.0 + slope**2))
    if nonlinearity not in _GAINS:
        raise ArgumentValueError(f"nonlinearity is one of leaky_relu, {', '.join(_GAINS)}; found {shown(nonlinearity)}")
    return _GAINS[nonlinearity]


class FanScaled(RandomInitializer):
    """Draw values of mean 0 and of the variance that a subclass computes from the shape of the full tensor."""

    on_device = True
    reads = "fans"
    _distribution: str

    def _variance(self, fan_in: int, fan_out: int) -> float:
        raise NotImplementedError

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().check(shape, dtype)
        check_rank(self, shape, 2)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        self.fill_for_fans(out, region, source, *fans(region.full_shape))

    def fill_for_fans(self, out: Buffer, region: Region, source: Source, fan_in: int, fan_out: int) -> None:
        """Fill `out` with the values of a region of a tensor with these fans."""
        variance = self._variance(fan_in, fan_out)
        if self._distribution == "uniform":
            bound = math.sqrt(3.0 * variance)
            source.uniform(out, region, -bound, bound)
        elif self._distribution == "truncated_normal":
            draw_corrected(out, region, source, 0.0, math.sqrt(variance))
        else:
            source.normal(out, region, 0.0, math.sqrt(variance))


class _Xavier(FanScaled):
    def __init__(self, gain: float = 1.0) -> None:
        self.gain = real("gain", gain, at_least=0, is_squared=True)

    def _variance(self, fan_in: int, fan_out: int) -> float:
        return self.gain**2 * 2.0 / (fan_in + fan_out)


class XavierNormal(_Xavier):
    r"""Draw from the normal distribution of sigma :math:`\text{gain} \sqrt{2 / (\text{fan\_in} + \text{fan\_out})}`.

    After Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010).

    Parameters
    ----------
    gain : float
        At least 0.

    Raises
    ------
    ValueError
        If `gain` is negative. Also for a tensor of fewer than two axes.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> round(float(initializer(XavierNormal(), (300, 500)).asnumpy().std()), 3)  # (2 / 800) ** 0.5
    0.05
    """

    _distribution = "untruncated_normal"


class XavierUniform(_Xavier):
    r"""Draw from the uniform distribution of bound :math:`\text{gain} \sqrt{6 / (\text{fan\_in} + \text{fan\_out})}`.

    The paper, arguments and errors as of `XavierNormal`.

    Examples
    --------
    A slice has the bound of the full tensor:

    >>> from numparam.initializer import initializer
    >>> lazy = initializer(XavierUniform(), (2**20, 96))
    >>> round(float(abs(lazy[:80].asnumpy()).max()), 5)  # below (6 / (2**20 + 96)) ** 0.5 = 0.00239
    0.00239
    """

    _distribution = "uniform"


class _He(FanScaled):
    def __init__(
        self, negative_slope: float | None = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
    ) -> None:
        gain(nonlinearity, negative_slope)
        if str(mode).lower() not in ("fan_in", "fan_out"):
            raise ArgumentValueError(f"mode is fan_in or fan_out, found {shown(mode)}")
        self.negative_slope = negative_slope
        self.mode = mode
        self.nonlinearity = nonlinearity

    def _variance(self, fan_in: int, fan_out: int) -> float:
        fan = fan_in if self.mode.lower() == "fan_in" else fan_out
        return gain(self.nonlinearity, self.negative_slope) ** 2 / fan


class HeNormal(_He):
    r"""Draw from the normal distribution of sigma :math:`\text{gain} / \sqrt{\text{fan}}`.

    After He, Zhang, Ren and Sun, "Delving deep into rectifiers" (2015). `gain` maps the nonlinearity to its gain. Also
    known as ``KaimingNormal``.

    Parameters
    ----------
    negative_slope : float or None
        Of the leaky_relu after the weight; None means 0.01.
    mode : {"fan_in", "fan_out"}
        Whether to keep the variance of the forward or of the backward pass; upper case is accepted.
    nonlinearity : str
        A key of `gain`.

    Raises
    ------
    ValueError
        If an argument is not one of these. Also for a tensor of fewer than two axes.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> weight = initializer(HeNormal(mode="fan_out", nonlinearity="relu"), (64, 64, 7, 7)).asnumpy()
    >>> round(float(weight.std()), 3)  # (2 / (64 * 7 * 7)) ** 0.5
    0.025
    """

    _distribution = "untruncated_normal"


class HeUniform(_He):
    r"""Draw from the uniform distribution of bound :math:`\text{gain} \sqrt{3 / \text{fan}}`.

    The paper, arguments and errors as of `HeNormal`. Also known as ``KaimingUniform``.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> round(float(abs(initializer(HeUniform(), (100, 600)).asnumpy()).max()), 2)  # (6 / 600) ** 0.5
    0.1
    """

    _distribution = "uniform"


class VarianceScaling(FanScaled):
    r"""Draw values of mean 0 and variance :math:`\text{scale} / n`, with n the fan that `mode` chooses.

    The truncated normal is `CorrectedTruncatedNormal`: bounded at two sigmas, and widened so that the result has this
    variance, as in Keras and JAX.

    Parameters
    ----------
    scale : float
        Above 0.
    mode : {"fan_in", "fan_out", "fan_avg"}
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}

    Raises
    ------
    ValueError
        If an argument is not one of these. Also for a tensor of fewer than two axes.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> values = initializer(VarianceScaling(2.0, "fan_out"), (200, 5000)).asnumpy()
    >>> round(float(values.std()), 3), round(float(values.max()), 3)
    (0.1, 0.227)
    """

    def __init__(self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal") -> None:
        self.scale = real("scale", scale)
        if self.scale <= 0:
            raise ArgumentValueError(f"scale is above 0, found {shown(scale)}")
        if mode not in _MODES:
            raise ArgumentValueError(f"mode is one of {', '.join(_MODES)}; found {shown(mode)}")
        if distribution not in _DISTRIBUTIONS:
            raise ArgumentValueError(f"distribution is one of {', '.join(_DISTRIBUTIONS)}; found {shown(distribution)}")
        self.mode = mode
        self.distribution = self._distribution = distribution

    def _variance(self, fan_in: int, fan_out: int) -> float:
        return self.scale / {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]


class _Lecun(FanScaled):
    def _variance(self, fan_in: int, fan_out: int) -> float:  # noqa: ARG002
        return 1.0 / fan_in


class LecunNormal(_Lecun):
    r"""Draw from the truncated normal distribution of variance :math:`1 / \text{fan\_in}`, as Keras and JAX do.

    After LeCun, Bottou, Orr and Müller, "Efficient BackProp" (1998), and Klambauer, Unterthiner, Mayr and Hochreiter,
    "Self-normalizing neural networks" (2017). The distribution is `CorrectedTruncatedNormal`.

    Raises
    ------
    ValueError
        For a tensor of fewer than two axes.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> round(float(initializer("lecun_normal", (1000, 400)).asnumpy().std()), 3)
    0.05
    """

    _distribution = "truncated_normal"


class LecunUniform(_Lecun):
    r"""Draw from the uniform distribution of bound :math:`\sqrt{3 / \text{fan\_in}}`, as Keras and JAX do.

    After LeCun, Bottou, Orr and Müller, "Efficient BackProp" (1998).

    Raises
    ------
    ValueError
        For a tensor of fewer than two axes.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> round(float(abs(initializer("lecun_uniform", (1000, 300)).asnumpy()).max()), 2)  # (3 / 300) ** 0.5
    0.1
    """

    _distribution = "uniform"
