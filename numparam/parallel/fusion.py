"""Which gradients travel together: computed without communication, the same on every rank.

* Gradients of parameters with equal ``comm_fusion`` fuse; those with 0 never do.
* Where all parameters share one ``comm_fusion`` and split indices ``[i, j, ...]`` are set, the buckets are numbered
  from 1024 instead, and a new one begins **after** gradient i, after gradient j and so on.
* Otherwise a bucket is full at a threshold, 64 MB by default: it is closed before a gradient that would not fit.
* Gradients of parameters with ``layerwise_parallel`` are in no bucket, but they count for the indices.
* A bucket has one dtype.

The rules are MindSpore 2.10's. Fusion changes the number of messages, never a bit of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from numparam.context import get_auto_parallel_context

DEFAULT_THRESHOLD = 64 << 20
FIRST_SPLIT = 1024


class Gradient(NamedTuple):
    """Describe the gradient of one parameter, as far as fusion depends on it."""

    nbytes: int
    dtype: Any = "float32"
    comm_fusion: int = 1
    layerwise_parallel: bool = False


class Bucket(NamedTuple):
    """Hold the places of gradients that travel together, and the number that they share; 0 for one that is alone."""

    number: int
    places: tuple[int, ...]


class Fusion(NamedTuple):
    """Describe how gradients are fused: up to a threshold in bytes, None for no limit, or split after some places."""

    threshold: int | None = DEFAULT_THRESHOLD
    split_indices: Sequence[int] = ()

    @classmethod
    def from_context(cls) -> Fusion:
        """Return the fusion that ``comm_fusion`` and ``all_reduce_fusion_config`` of the parallel context describe."""
        options = get_auto_parallel_context("comm_fusion")
        mode, config = options["allreduce"]["mode"], options["allreduce"]["config"]
        if not options["openstate"]:
            return cls(threshold=0)
        split = config if mode == "index" else get_auto_parallel_context("all_reduce_fusion_config")
        if split:
            return cls(None, tuple(split))
        return cls(config << 20 if mode == "size" else DEFAULT_THRESHOLD)


def plan_buckets(gradients: Iterable[Gradient], fusion: Fusion = Fusion()) -> list[Bucket]:  # noqa: B008
    """Assign gradients, in the order of the parameters, to buckets, in the order of their first gradients.

    Examples
    --------
    >>> plan_buckets([Gradient(40), Gradient(40), Gradient(40)], Fusion(threshold=100))
    [Bucket(number=1, places=(0, 1)), Bucket(number=1, places=(2,))]
    >>> plan_buckets([Gradient(40)] * 5, Fusion(None, split_indices=[0, 2]))
    [Bucket(number=1024, places=(0,)), Bucket(number=1025, places=(1, 2)), Bucket(number=1026, places=(3, 4))]
    """
    waiting = list(gradients)
    numbers = [gradient.comm_fusion for gradient in waiting]
    is_split = bool(fusion.split_indices) and len(set(numbers)) == 1 and 0 not in numbers
    if is_split:
        numbers = list(_split(len(waiting), fusion.split_indices))
    buckets: list[tuple[int, list[int]]] = []
    open_buckets: dict[tuple[int, Any], tuple[list[int], int]] = {}  # by number and dtype: the places and their bytes
    for place, (gradient, number) in enumerate(zip(waiting, numbers, strict=True)):
        if gradient.layerwise_parallel:
            continue
        key = number, gradient.dtype
        places, nbytes = open_buckets.get(key, ([], 0))
        fits = fusion.threshold is None or is_split or nbytes + gradient.nbytes <= fusion.threshold
        if not places or not number or not fits:
            places, nbytes = [], 0
            buckets.append((number, places))
        places.append(place)
        open_buckets[key] = places, nbytes + gradient.nbytes
    return [Bucket(number, tuple(places)) for number, places in buckets]


def _split(count: int, indices: Sequence[int]) -> Iterable[int]:
    """Yield the number of the bucket of each place."""
    number, passed = FIRST_SPLIT, 0
    for place in range(count):
        yield number
        if passed < len(indices) and indices[passed] <= place:
            number, passed = number + 1, passed + 1
