"""The initializer of parameters that the code of a model computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numparam.errors import StateError
from numparam.initializer.base import PlainInitializer

if TYPE_CHECKING:
    from numparam.indexing.region import Region
    from numparam.stream.source import Buffer, Source


class Computed(PlainInitializer):
    """Hold the place of values that the code of a model computes; without the model, needing them is a RuntimeError."""

    def fill(self, out: Buffer, region: Region, source: Source) -> None:  # noqa: ARG002
        raise StateError(f"{source} is computed by the code of its model: no rule can, only --like config.json does")
