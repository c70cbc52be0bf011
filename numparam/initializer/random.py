"""Initializers that draw every element from one distribution."""

from numparam.errors import ArgumentValueError
from numparam.indexing.region import Region
from numparam.initializer.base import RandomInitializer, real
from numparam.initializer.constants import Constant
from numparam.stream.source import Buffer, Source

# The standard deviation of the standard normal distribution restricted to [-2, 2].
TRUNCATED_SIGMA = 0.87962566103423978


class Normal(RandomInitializer):
    r"""Draw from the normal distribution :math:`N(\text{mean}, \text{sigma}^2)`.

    Parameters
    ----------
    sigma : float
        The standard deviation, at least 0.
    mean : float

    Raises
    ------
    ValueError
        If `sigma` is negative.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> initializer(Normal(0.02), (1000, 1000), "bfloat16")
    Tensor(shape=[1000, 1000], dtype=BFloat16, init=Normal(sigma=0.02, mean=0.0))
    """

    on_device = True

    def __init__(self, sigma: float = 0.01, mean: float = 0.0) -> None:
        self.sigma = real("sigma", sigma, at_least=0)
        self.mean = real("mean", mean)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        source.normal(out, region, self.mean, self.sigma)


class Uniform(RandomInitializer):
    r"""Draw from the uniform distribution :math:`U(-\text{scale}, \text{scale})`.

    Parameters
    ----------
    scale : float
        The bound; its sign does not matter.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> values = initializer(Uniform(0.5), 100_000).asnumpy()
    >>> round(float(values.min()), 3), round(float(values.max()), 3)
    (-0.5, 0.5)
    """

    on_device = True

    def __init__(self, scale: float = 0.07) -> None:
        self.scale = real("scale", scale)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        source.uniform(out, region, -abs(self.scale), abs(self.scale))


class Between(RandomInitializer):
    """Draw from the uniform distribution between two bounds."""

    on_device = True

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = real("low", low), real("high", high)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        source.uniform(out, region, self.low, self.high)


def between(low: float, high: float) -> RandomInitializer:
    """Return the uniform distribution between two bounds, `Uniform` where they are symmetric."""
    return Uniform(high) if low == -high and high >= 0 else Between(low, high)


class TruncatedNormal(RandomInitializer):
    r"""Draw from the normal distribution :math:`N(\text{mean}, \text{sigma}^2)` restricted to :math:`[a, b]`.

    The bounds are absolute, as in MindSpore and PyTorch: with the default sigma they truncate nothing. For bounds in
    sigmas write ``TruncatedNormal(sigma, mean, mean - 2 * sigma, mean + 2 * sigma)``. The standard deviation of the
    values is below `sigma`, which `CorrectedTruncatedNormal` corrects.

    Parameters
    ----------
    sigma : float
        The standard deviation before the restriction, at least 0; with 0 every element is the mean, moved into the
        bounds.
    mean : float
    a, b : float
        The lower and the upper bound, ``a < b``; either may be infinite.

    Raises
    ------
    ValueError
        If `sigma` is negative or `a` is not below `b`.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> values = initializer(TruncatedNormal(1.0, 0.0, -0.5, 2.0), 100_000).asnumpy()
    >>> round(float(values.min()), 2), round(float(values.max()), 2)
    (-0.5, 2.0)
    """

    on_device = True

    def __init__(self, sigma: float = 0.01, mean: float = 0.0, a: float = -2.0, b: float = 2.0) -> None:
        self.sigma = real("sigma", sigma, at_least=0)
        self.mean = real("mean", mean)
        self.a = real("a", a, finite=False)
        self.b = real("b", b, finite=False)
        if not self.a < self.b:
            raise ArgumentValueError(f"the lower bound a must be below the upper bound b, found a={a!r} and b={b!r}")

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        if self.sigma == 0:
            Constant(min(max(self.mean, self.a), self.b)).fill(out, region, source)
        else:
            source.truncated_normal(out, region, self.mean, self.sigma, self.a, self.b)


class CorrectedTruncatedNormal(RandomInitializer):
    r"""Draw from a normal distribution truncated at two sigmas, whose result has the standard deviation `sigma`.

    This is the truncated normal of the variance scaling of Keras and JAX: a normal distribution of standard deviation
    :math:`s = \text{sigma} / 0.87962566103423978`, restricted to :math:`[\text{mean} - 2s, \text{mean} + 2s]`.

    Parameters
    ----------
    sigma : float
        The standard deviation of the values, at least 0.
    mean : float

    Raises
    ------
    ValueError
        If `sigma` is negative.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> values = initializer(CorrectedTruncatedNormal(0.02), (1000, 1000)).asnumpy()
    >>> round(float(values.std()), 4), round(float(values.max()), 4)
    (0.02, 0.0455)
    """

    on_device = True

    def __init__(self, sigma: float = 0.01, mean: float = 0.0) -> None:
        self.sigma = real("sigma", sigma, at_least=0)
        self.mean = real("mean", mean)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        draw_corrected(out, region, source, self.mean, self.sigma)


def draw_corrected(out: Buffer, region: Region, source: Source, mean: float, sigma: float) -> None:
    """Fill `out` from the normal distribution truncated at two sigmas, corrected to the standard deviation `sigma`."""
    parent = sigma / TRUNCATED_SIGMA
    if parent == 0:
        Constant(mean).fill(out, region, source)
    else:
        source.truncated_normal(out, region, mean, parent, mean - 2 * parent, mean + 2 * parent)
