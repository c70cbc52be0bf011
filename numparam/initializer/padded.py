"""The initializer of an embedding with a padding row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numparam.errors import ShapeError
from numparam.indexing.region import Region, as_slice
from numparam.initializer.constants import Zero
from numparam.initializer.random import Normal

if TYPE_CHECKING:
    import numpy as np

    from numparam.stream.source import Buffer, Source


class PaddedNormal(Normal):
    """Draw from the normal distribution, and set one row to zero.

    The other rows are the same as with ``Normal(sigma)``. ``torch.nn.Embedding(..., padding_idx=0)`` starts like this.

    Parameters
    ----------
    padding_idx : int
        The row of zeros, counted from 0.
    sigma : float
        The standard deviation, at least 0.

    Raises
    ------
    ValueError
        If `sigma` is negative, or when a tensor is created that has no such row.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> initializer(PaddedNormal(1), (2**40, 3))[1:2].asnumpy()
    array([[0., 0., 0.]], dtype=float32)
    """

    on_device = True

    def __init__(self, padding_idx: int, sigma: float = 1.0) -> None:
        self.padding_idx = padding_idx
        super().__init__(sigma)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().check(shape, dtype)
        if not shape or not 0 <= self.padding_idx < shape[0]:
            raise ShapeError(f"{self!r} needs a row {self.padding_idx}, found shape {shape}")

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        rows = region.ranges[0]
        if self.padding_idx not in rows:
            super().fill(out, region, source)
            return
        # No element is written twice, so the launches of a batch need no order.
        held = Region.full(region.full_shape)[tuple(map(as_slice, region.ranges))]
        values, at = out.reshape(held.shape), rows.index(self.padding_idx)
        for others in (slice(0, at), slice(at + 1, len(rows))):
            if values[others].size:
                super().fill(values[others], held[others], source)
        Zero().fill(values[at : at + 1], held[at : at + 1], source)
