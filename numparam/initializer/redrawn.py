"""A later draw of the same parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numparam.initializer.base import Initializer
from numparam.stream.source import Source

if TYPE_CHECKING:
    import numpy as np

    from numparam.indexing.region import Region
    from numparam.stream.source import Buffer


def name_of_draw(name: str, draw: int) -> str:
    """Return the name in the stream of a parameter's draw, which are counted from 0."""
    return f"{name}\0{draw}" if draw else name


class Redrawn(Initializer):
    """Draw as an initializer does, from the stream of a later draw of the same parameter.

    The code of a model may draw a parameter several times, and ``numparam.torch.drawing`` counts the draws from 0.
    """

    def __init__(self, init: Initializer, draw: int) -> None:
        self.init, self.draw = init, draw
        self.needs_full, self.reads = init.needs_full, init.reads

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.init.check(shape, dtype)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        """Fill `out` with the values of a region."""
        self.init.fill(out, region, Source(source.seed, name_of_draw(str(source.name), self.draw)))
