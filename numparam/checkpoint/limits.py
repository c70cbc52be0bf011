"""Limits for files from others; `docs/reliability.md` gives the reasons.

Each limit is checked before the work that it bounds, so that the time and the memory that a file takes are in
proportion to its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from numparam.errors import CheckpointError
from numparam.indexing.region import Region
from numparam.text import printable, shown, size

MAX_HEADER_BYTES = 100_000_000  # of a header or an index: the limit of the safetensors library
MAX_JSON_ITEMS = 8_000_000  # brackets and braces of a header: a million parameters have three million
MAX_FILE_BYTES = 2**63 - 1
MAX_NAME = 1024  # characters of the name of a parameter
MAX_FIELDS = 4_000_000  # of a .ckpt file, which has about ten for each tensor
MAX_FULL_BYTES = 2**30  # of a parameter that is computed in full for the slice that a file records
MAX_FULL_WORK = 2**37  # operations for all such slices of a file: 8 s of one core
_ANY_COST: ContextVar[bool] = ContextVar("any_cost", default=False)


@contextmanager
def any_cost(follow: bool) -> Iterator[None]:
    """Follow the records of files whatever that costs, or not."""
    token = _ANY_COST.set(follow)
    try:
        yield
    finally:
        _ANY_COST.reset(token)


class Work:
    """Add up what the slices that a file records cost, where each needs the full parameter."""

    def __init__(self) -> None:
        self._total = 0

    def add(self, init: Any, region: Region, itemsize: int, where: str) -> None:
        """Refuse a slice of less than an eighth of a parameter that takes too much memory or work to compute."""
        shape, full = region.full_shape, math.prod(region.full_shape)
        if not init.needs_full or full <= 8 * region.size or _ANY_COST.get():
            return
        work = init.work(shape)
        self._total += work
        if full * itemsize > MAX_FULL_BYTES or self._total > MAX_FULL_WORK:
            what = f"its {shown(region.shape)} slice of {shown(shape)} {printable(str(init), 80)} needs the full one"
            raise CheckpointError(
                f"{where}: {what}: more than {size(full * itemsize)} of memory and {work:.1e} operations; to follow it "
                "all the same, call load_checkpoint with any_cost=True or the command with --any-cost"
            )
