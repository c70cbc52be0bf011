"""Initializers of buffers: values that are fixed by their index and stored next to the parameters of a model."""

from typing import Any

import numpy as np

from numparam.errors import ShapeError
from numparam.indexing.region import Region
from numparam.initializer.base import Initializer, PlainInitializer, check_rank
from numparam.initializer.constants import as_scalar
from numparam.stream.source import Source


class Arange(PlainInitializer):
    """Count 0, 1, 2, ... along the last axis, as ``position_ids`` do."""

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if not shape:
            raise ShapeError("arange counts along the last axis, which a scalar lacks")
        as_scalar(max(shape[-1] - 1, 0), dtype)

    def fill(self, out: np.ndarray[Any, np.dtype[Any]], region: Region, source: Source) -> None:  # noqa: ARG002
        _spread(out, region, np.array(region.ranges[-1]))


class LowerTriangle(PlainInitializer):
    """Write one on and below the diagonal of the last two axes and zero above it, as causal masks do."""

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:  # noqa: ARG002
        check_rank(self, shape, 2)

    def fill(self, out: np.ndarray[Any, np.dtype[Any]], region: Region, source: Source) -> None:  # noqa: ARG002
        rows, columns = region.ranges[-2:]
        _spread(out, region, np.greater_equal.outer(np.array(rows), np.array(columns)))


def _spread(out: np.ndarray[Any, np.dtype[Any]], region: Region, values: np.ndarray[Any, np.dtype[Any]]) -> None:
    """Repeat the values of the last axes along all others."""
    out[...] = np.broadcast_to(values, [len(indices) for indices in region.ranges]).reshape(out.shape)


BUFFERS: dict[str, type[Initializer]] = {"arange": Arange, "lower_triangle": LowerTriangle}
