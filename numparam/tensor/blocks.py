"""The values of a tensor as a stream of small blocks, so that writing them takes no memory."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from numparam.device import Device
from numparam.entry import BUFFER_BYTES, Block
from numparam.indexing.region import Region, row_major
from numparam.initializer import Initializer
from numparam.stream.source import Source
from numparam.tensor.placed import made_on_device
from numparam.tensor.tensor import Tensor


def blocks_of(tensor: Tensor) -> Iterator[Block]:
    """Cut the values of a tensor into blocks of at most `BUFFER_BYTES`; one that is lazy stays lazy."""
    recipe = tensor._recipe
    if recipe is None and tensor.device != "cpu":
        for index in row_major(tensor.shape, BUFFER_BYTES // tensor.dtype.itemsize):
            part = Region.full(tensor.shape)[index]
            yield Block(part.shape, partial(tensor.fill_into, region=part))
    elif recipe is None:
        yield from _copied(tensor.asnumpy())
    else:
        source = Source(recipe.seed, tensor._stream_name(recipe))
        yield from blocks_to_make(recipe.init, source, recipe.region, tensor.dtype, tensor.device)


def blocks_to_make(
    initializer: Initializer, source: Source, region: Region, dtype: np.dtype[Any], device: str = "cpu"
) -> Iterator[Block]:
    """Cut what an initializer makes of a region into blocks of at most `BUFFER_BYTES`, in row-major order.

    A CUDA device makes each block in memory of its own, one block ahead of those taken; the bytes are the same.
    """
    if initializer.needs_full:
        values = np.empty(region.shape, dtype)
        if values.size:
            initializer.fill(values, region, source)
        yield from _copied(values)
        return
    parts = (region[index] for index in row_major(region.shape, BUFFER_BYTES // dtype.itemsize))
    if device == "cpu" or not initializer.on_device:
        for part in parts:
            yield Block(part.shape, partial(initializer.fill, region=part, source=source))
        return
    target, ahead = Device(device), None
    for part in parts:  # the device makes this one while the one before is copied to the host
        made = made_on_device(initializer, part, dtype, source, target)
        if ahead:
            yield ahead
        ahead = Block(part.shape, made.reader())
    if ahead:
        yield ahead


def _copied(values: np.ndarray[Any, np.dtype[Any]]) -> Iterator[Block]:
    for index in row_major(values.shape, BUFFER_BYTES // values.itemsize):
        yield Block(values[(*index, ...)].shape, partial(np.copyto, src=values[index]))
