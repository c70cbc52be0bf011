"""Initializers whose values depend on each other: Identity, Dirac, Sparse and Orthogonal."""

import math
from typing import Any

import numpy as np

from numparam.checks import as_int
from numparam.errors import ArgumentValueError, ShapeError
from numparam.indexing.region import Region, as_slice
from numparam.initializer.base import Initializer, PlainInitializer, RandomInitializer, check_rank, real
from numparam.initializer.constants import as_scalar
from numparam.stream.seed import Label
from numparam.stream.source import Buffer, Source
from numparam.text import shown

_SPARSE_BLOCK = 2**16  # words ranked at a time, 256 KiB; more only where one column holds more


class Identity(PlainInitializer):
    """Fill a matrix with ones on the diagonal and zeros elsewhere, in any dtype.

    Raises
    ------
    ValueError
        For a tensor that does not have two axes.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> initializer("identity", (2**30, 2**30))[5, 3:8].asnumpy()
    array([0., 0., 1., 0., 0.], dtype=float32)
    """

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().check(shape, dtype)
        check_rank(self, shape, 2, 2)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:  # noqa: ARG002
        _mark_channels(out, region, region.full_shape[0])


class Dirac(Initializer):
    """Fill a convolution that copies its input channels: ones at the centre of the kernel, zeros elsewhere.

    Output channel ``d`` of each group is input channel ``d``, for as many as there are of both. In any dtype.

    Parameters
    ----------
    groups : int
        The groups of the convolution; each gets the same values.

    Raises
    ------
    TypeError
        If `groups` is not an int.
    ValueError
        If `groups` is below 1. Also for a tensor without 3, 4 or 5 axes, or whose first is not divisible by `groups`.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> initializer(Dirac(groups=2), (4, 2, 3)).asnumpy()[:, :, 1]
    array([[1., 0.],
           [0., 1.],
           [1., 0.],
           [0., 1.]], dtype=float32)
    """

    reads = "axes"

    def __init__(self, groups: int = 1) -> None:
        self.groups = as_int("groups", groups, 1)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().check(shape, dtype)
        check_rank(self, shape, 3, 5)
        if shape[0] % self.groups:
            raise ShapeError(f"{self!r} needs a first axis that divides into {self.groups} groups, found {shape}")

    def fill(self, out: Buffer, region: Region, source: Source) -> None:  # noqa: ARG002
        _mark_channels(out, region, region.full_shape[0] // self.groups)


class Sparse(RandomInitializer):
    r"""Draw a matrix from :math:`N(0, \text{sigma}^2)` and set a fraction of each column to zero.

    The ``ceil(sparsity * rows)`` rows that are zero in a column are those with the smallest words of a second draw, the
    upper row first among equals. A slice draws these words for the full columns that it touches, a few columns at a
    time. After Martens, "Deep learning via Hessian-free optimization" (2010).

    Parameters
    ----------
    sparsity : float
        From 0 to 1.
    sigma : float
        At least 0.

    Raises
    ------
    ValueError
        If an argument is out of range. Also for a tensor without two axes.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> (initializer(Sparse(0.9), (100, 4)).asnumpy() == 0).sum(axis=0)
    array([90, 90, 90, 90])
    """

    needs_full = True
    reads = "axes"

    def __init__(self, sparsity: float, sigma: float = 0.01) -> None:
        self.sparsity = real("sparsity", sparsity, at_least=0)
        if self.sparsity > 1:
            raise ArgumentValueError(f"sparsity is a number from 0 to 1, found {shown(sparsity)}")
        self.sigma = real("sigma", sigma, at_least=0)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().check(shape, dtype)
        check_rank(self, shape, 2, 2)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        source.normal(out, region, 0.0, self.sigma)
        row_count, _ = region.full_shape
        zeros = math.ceil(self.sparsity * row_count)
        rows, columns = region.ranges
        matrix = out.reshape(len(rows), len(columns))
        if zeros == 0:
            return
        width = max(1, _SPARSE_BLOCK // row_count)
        for begin in range(0, len(columns), width):
            touched = Region.full(region.full_shape)[:, as_slice(columns[begin : begin + width])]
            words = np.empty(touched.shape, np.uint32)
            source.bits(words, touched, label=Label("sparse"))
            matrix[:, begin : begin + width][_smallest(words, zeros)[as_slice(rows)]] = 0


def _smallest(words: Buffer, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark the `count` smallest words of each column, the upper row first among equals."""
    last = np.partition(words, count - 1, axis=0)[count - 1]
    marked: np.ndarray[Any, np.dtype[np.bool_]] = words <= last
    for column in np.flatnonzero(np.count_nonzero(marked, axis=0) > count):
        equal = np.flatnonzero(words[:, column] == last[column])
        surplus = np.count_nonzero(marked[:, column]) - count
        marked[equal[len(equal) - surplus :], column] = False
    return marked


class Orthogonal(RandomInitializer):
    """Draw a matrix with orthonormal rows or columns, whichever are fewer, times `gain`.

    All axes but the first count as one. The matrix is uniformly distributed: the QR factor of a normal draw, with the
    signs fixed so that the diagonal of R is positive. After Saxe, McClelland and Ganguli, "Exact solutions to the
    nonlinear dynamics of learning in deep linear neural networks" (2014), and Mezzadri (2007).

    Notes
    -----
    A slice costs as much as the full matrix, which is drawn, decomposed in float64, rounded and sliced. Of an m by n
    matrix with m >= n this takes about ``4 * m * n**2`` operations and ``24 * m * n`` bytes. The bits do not depend on
    the processor, the number of threads or a library of linear algebra.

    Parameters
    ----------
    gain : float

    Raises
    ------
    ValueError
        For a tensor of fewer than two axes, or of a dtype that cannot hold the gain.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> matrix = initializer("orthogonal", (3, 50)).asnumpy()
    >>> abs(matrix @ matrix.T).round(6)
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]], dtype=float32)
    """

    needs_full = True
    reads = "axes"

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = real("gain", gain)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().check(shape, dtype)
        check_rank(self, shape, 2)
        as_scalar(self.gain, dtype)  # no value is larger

    def work(self, shape: tuple[int, ...]) -> int:
        rows, columns = shape[0], math.prod(shape[1:])
        return 4 * rows * columns * min(rows, columns)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        from numparam.kernels.orthogonal import orthogonalise

        shape = region.full_shape
        draw = np.empty(shape, np.float64 if out.dtype == np.float64 else np.float32)
        source.normal(draw, Region.full(shape), 0.0, 1.0)
        matrix = draw.reshape(shape[0], -1)
        wide = matrix.shape[0] < matrix.shape[1]
        factor = np.array(matrix.T if wide else matrix, np.float64, order="C")
        orthogonalise(factor)
        factor *= self.gain
        out[...] = region.take((factor.T if wide else factor).reshape(shape))


def _mark_channels(out: Buffer, region: Region, channels: int) -> None:
    """Write 1 where the row modulo `channels` is the column and every further index is the centre, else 0."""
    out[...] = 0
    rows, columns, *kernel = region.ranges
    centre = [length // 2 for length in region.full_shape[2:]]
    if not all(place in indices for place, indices in zip(centre, kernel, strict=True)):
        return
    # Where in the slice of the columns each row of the slice has its one, and whether it has it there at all.
    row = np.arange(len(rows))
    column, rest = np.divmod((rows.start + row * rows.step) % channels - columns.start, columns.step)
    marked = (rest == 0) & (column >= 0) & (column < len(columns))
    view = out.reshape([len(indices) for indices in region.ranges])
    places = (indices.index(place) for place, indices in zip(centre, kernel, strict=True))
    view[(row[marked], column[marked], *places)] = as_scalar(1, out.dtype)
