"""The random values of one tensor, for any region of it."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from numparam.errors import ArgumentValueError
from numparam.indexing.region import Region
from numparam.stream.seed import check_label, stream, streams

Buffer = np.ndarray[Any, np.dtype[Any]]


class Source:
    """Draw the random values of one tensor: a pure function of its seed, its name and the index.

    `Initializer.fill` takes one. Each method fills a buffer, a C-contiguous array of the
    region's shape, with exactly the bits that the full tensor has there. Draws with different labels are
    independent; labels that name draws of numparam, see `numparam.stream.seed`, are refused.

    Parameters
    ----------
    seed : int
        From 0 to 2**64 - 1.
    name : str or int
        The name of the parameter, or the number of a tensor without a name.

    Examples
    --------
    >>> full = Region.full((4, 4))
    >>> out, part = np.empty((4, 4), np.float32), np.empty((2, 4), np.float32)
    >>> Source(7, "w").uniform(out, full, -1.0, 1.0)
    >>> Source(7, "w").uniform(part, full[::-2], -1.0, 1.0)
    >>> bool((part == out[::-2]).all())
    True
    """

    __slots__ = ("name", "seed")

    def __init__(self, seed: int, name: str | int) -> None:
        self.seed = seed
        self.name = name

    def uniform(self, out: Buffer, region: Region, low: float, high: float, label: str = "") -> None:
        """Fill `out` from the uniform distribution between `low` and `high`."""
        self._draw("uniform", out, region, label, low, high)

    def normal(self, out: Buffer, region: Region, mean: float, sigma: float, label: str = "") -> None:
        """Fill `out` from the normal distribution."""
        self._draw("normal", out, region, label, mean, sigma)

    def truncated_normal(
        self, out: Buffer, region: Region, mean: float, sigma: float, low: float, high: float, label: str = ""
    ) -> None:
        """Fill `out` from the normal distribution restricted to the absolute interval from `low` to `high`."""
        self._draw("truncated_normal", out, region, label, mean, sigma, low, high)

    def either(self, out: Buffer, region: Region, chance: float, chosen: float, other: float, label: str = "") -> None:
        """Fill `out` with `chosen` with a probability, and with `other` elsewhere."""
        self._draw("either", out, region, label, chance, chosen, other)

    def bits(self, out: Buffer, region: Region, label: str = "") -> None:
        """Fill `out`, of dtype uint32, with the words of the stream."""
        self._draw("bits", out, region, label)

    def _draw(self, kind: str, out: Buffer, region: Region, label: str, *arguments: float) -> None:
        if label:
            check_label(label)
        fill, high = _kernels(), self._stream(label)
        # Only float64 has low words, and a digest costs as much as a small fill.
        low = self._stream("refine" + label) if out.dtype == np.float64 else high * 0
        key = fill.Key(self.seed, high, low)
        try:
            getattr(fill, kind)(out, key, *arguments, self._place(region))
        except ValueError as error:
            raise ArgumentValueError(f"{self}: {error}") from None

    def _stream(self, label: str) -> Any:
        return stream(self.name, label)

    def _place(self, region: Region) -> Any:
        return None if region.is_full else _kernels().Span(*region.span())

    def __str__(self) -> str:
        return f"parameter {self.name!r}" if isinstance(self.name, str) else f"tensor number {self.name}"


class Sources(Source):
    """Draw the same region of many small tensors, each under its own name, into ``Arrays`` of the kernels."""

    __slots__ = ("names",)

    def __init__(self, seed: int, names: Sequence[str]) -> None:
        super().__init__(seed, names[0])
        self.names = names

    def _stream(self, label: str) -> Any:
        return streams(self.names, label)


class RowSource(Source):
    """Draw rows of a table by their keys, any int64: what a `Source` draws for a table that has so many rows.

    Parameters
    ----------
    seed, name
        As for a `Source`.
    keys : ndarray of int64
        Of the rows of every buffer; a negative key is a row from 2**63 on. Regions are not looked at.

    Examples
    --------
    >>> full, rows = np.empty((9, 4), np.float32), np.empty((2, 4), np.float32)
    >>> Source(7, "w").normal(full, Region.full((9, 4)), 0.0, 1.0)
    >>> RowSource(7, "w", np.array([8, 3])).normal(rows, Region.full((9, 4)), 0.0, 1.0)
    >>> bool((rows == full[[8, 3]]).all())
    True
    """

    __slots__ = ("keys",)

    def __init__(self, seed: int, name: str | int, keys: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        super().__init__(seed, name)
        self.keys = keys

    def _place(self, region: Region) -> Any:  # noqa: ARG002
        return _kernels().Rows(self.keys)


@cache
def _kernels() -> Any:
    """Import the kernels at the first fill: they take a third of a second."""
    from numparam.kernels import fill

    return fill
