"""Which part of which parameter a tensor shows, inside third-party initialisation code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from numparam.indexing.region import Region
from numparam.indexing.strided import Strided
from numparam.initializer import Initializer
from numparam.torch.shards import held_part, narrowed
from numparam.torch.walk import Place


@dataclass(eq=False)
class Tracked:
    """A parameter or buffer, and what has been written to it so far."""

    place: Place
    name: str
    """Of the stream of its values."""
    local: torch.Tensor
    region: Region
    """Of the full tensor, that `local` holds."""
    start: Initializer | Callable[[Any], Any] | None = None
    """What fills it where nothing else does."""
    locked: bool = False
    """Whether a rule decides it, and the code of the model must not write to it."""
    written: bool = False
    is_read: bool = False
    """Whether the code of the model reads its values."""
    how: Initializer | str = "computed"
    """The last that wrote the full tensor."""
    draws: int = 0
    """How often the full tensor has been drawn."""
    log: list[tuple[Initializer, Part]] | None = None
    """What was written to a parameter that has no name yet."""
    writes: list[tuple[Initializer, Part, str, Region]] | None = None
    """If asked for, what was written without memory: also the names of the streams, and the regions."""
    version: int = -1
    _parts: list[tuple[int, int, int]] = field(default_factory=list)
    _covered: dict[Any, int] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the full tensor."""
        return self.region.full_shape

    def forget(self) -> None:
        """Start anew, as if nothing had been written."""
        self.written, self.draws, self._parts, self._covered = False, 0, [], {}

    def cover(self, part: Part) -> None:
        """Note that a part has been written."""
        if part.is_full or self.written:
            self.written = True
            return
        self._covered[part.start, part.shape] = math.prod(part.shape)
        self.written = sum(self._covered.values()) >= math.prod(self.shape)

    def number(self, part: Part) -> int:
        """Count how often the elements of a part have been drawn before, and that they are drawn again.

        The count depends on no rank and no order: two parts without common elements do not count for each other.
        """
        if part.is_full:
            number = max([self.draws, *[count + 1 for _, _, count in self._parts]])
            self.draws, self._parts = number + 1, []
            return number
        first, last = part.start, part.stop
        number = max([self.draws, *[count + 1 for low, high, count in self._parts if low < last and first < high]])
        self._parts.append((first, last, number))
        return number


@dataclass(frozen=True, eq=False)
class Part:
    """What a tensor shows of a tracked one, and what of this the rank holds."""

    tracked: Tracked
    shape: tuple[int, ...]
    """Of the tensor, on all ranks together."""
    out: torch.Tensor
    """The memory of this rank."""
    region: Region | None
    """What `out` is of the full tracked tensor; None if no strides describe it."""
    inner: Region
    """What `out` is of the tensor itself."""
    start: int
    """The flat index of its first element in the full tensor."""
    stop: int
    """A flat index behind its last element."""
    is_full: bool = False


class Tracker:
    """Know the parameters and buffers of a module by their memory.

    Examples
    --------
    >>> from numparam.torch.walk import places
    >>> layer = torch.nn.Linear(4, 3)
    >>> tracker = Tracker(map(tracked, places(layer)))
    >>> tracker.find(layer.weight.data[1:].t()).region
    Strided((3, 4): (4, 2), (4, (1, 4)))
    """

    def __init__(self, all_tracked: Iterator[Tracked]) -> None:
        self.all: list[Tracked] = []
        self._by_memory: dict[int, list[Tracked]] = {}
        self._standing: dict[int, tuple[torch.Tensor, Tracked, Region]] = {}
        for item in all_tracked:
            self.add(item)

    def add(self, item: Tracked) -> None:
        """Know one more tensor."""
        self.all.append(item)
        self._by_memory.setdefault(_memory(item.local), []).append(item)

    def is_replaced(self, item: Tracked) -> bool:
        """Return whether code has put another tensor in the place of one."""
        current = item.place.current
        local: Any = getattr(current, "_local_tensor", current)
        try:
            return _memory(local) != _memory(item.local)
        except (RuntimeError, NotImplementedError):  # a tensor without a storage
            return False

    def moved(self, item: Tracked) -> None:
        """Take the memory that ``tensor.data = ...`` has given to a tensor, or the one of the tensor in its place."""
        tensor = item.place.current
        for known in self._by_memory.values():
            if item in known:
                known.remove(item)
        item.local, item.region = held_part(tensor)
        self._by_memory.setdefault(_memory(item.local), []).append(item)

    def stand_in(self, item: Tracked, region: Region) -> torch.Tensor:
        """Return a tensor without memory for a part of a sharded one, which no view of torch shows."""
        tensor = torch.empty(region.shape, dtype=item.local.dtype, device="meta")
        self._standing[id(tensor)] = tensor, item, region
        return tensor

    def standing(self, tensor: Any) -> tuple[Tracked, Region] | None:
        """Return the sharded tensor of which another one shows a region, if one does."""
        found = self._standing.get(id(tensor))
        return None if found is None else found[1:]

    def tracked(self, tensor: torch.Tensor) -> Tracked | None:
        """Return the tensor whose memory another one shares."""
        standing = self._standing.get(id(tensor))
        if standing is not None:
            return standing[1]
        local: Any = getattr(tensor, "_local_tensor", tensor)
        try:
            found = self._by_memory.get(_memory(local))
        except (RuntimeError, NotImplementedError):  # a tensor without a storage
            return None
        if found is None:
            return None
        offset = local.storage_offset()
        for item in found:
            first = item.local.storage_offset()
            if len(found) == 1 or item.local is local or first <= offset < first + max(_extent(item.local), 1):
                return item
        return None

    def find(self, tensor: torch.Tensor) -> Part | None:
        """Return what a tensor shows of a tracked one, if it does."""
        item = self.tracked(tensor)
        if item is None:
            return None
        if id(tensor) in self._standing:
            return _part_of_shard(item, self._standing[id(tensor)][2])
        shape = tuple(tensor.shape)
        local: Any = getattr(tensor, "_local_tensor", tensor)
        is_local = (local.shape, local.stride()) == (item.local.shape, item.local.stride())
        if not is_local and local is item.place.current:  # `where` shows it in other axes
            is_local = local.numel() == item.local.numel()
        is_local = is_local and local.storage_offset() == item.local.storage_offset()
        # What the rank holds, written as if it were the full tensor, counts as all: all ranks together write all of it.
        if is_local and shape in (item.shape, tuple(local.shape)):
            return full(item)
        if local.dtype != item.local.dtype:
            return None
        region = _strided(item, local)
        base, steps = (0, ()) if region is None else region.span()
        stop = base + 1 + sum(step * (length - 1) for step, length in zip(steps, local.shape, strict=False))
        inner = Region.full(tuple(local.shape))
        return Part(item, shape, local, region, inner, base, stop)


def tracked(place: Place, name: str | None = None) -> Tracked:
    """Track the tensor of a place under the name of its stream."""
    local, region = held_part(place.tensor)
    return Tracked(place, place.name if name is None else name, local, region)


def full(item: Tracked) -> Part:
    """Return all of a tensor as a part."""
    return Part(item, item.shape, item.local, item.region, item.region, 0, math.prod(item.shape), is_full=True)


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _extent(tensor: torch.Tensor) -> int:
    last: int = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if n > 1)
    return last + 1


def _strided(item: Tracked, view: torch.Tensor) -> Region | None:
    """Return the flat indices in the full tensor of a view of what this rank holds of it; None if no strides do."""
    base, steps = item.region.span()
    offset = view.storage_offset() - item.local.storage_offset()
    axes = [
        (stride, step, length)
        for stride, step, length in zip(item.local.stride(), steps, item.local.shape, strict=True)
        if length > 1
    ]
    if all(stride == step for stride, step, _ in axes):  # full, or a block of rows
        return Strided(item.shape, tuple(view.shape), base + offset, tuple(view.stride()))
    axes.sort(reverse=True)
    reached = []
    for stride, step, _ in axes:
        index, offset = divmod(offset, stride)
        base += index * step
        reached.append(index)
    found = []
    for stride, length in zip(view.stride(), view.shape, strict=True):
        axis = next((at for at, (own, _, _) in enumerate(axes) if stride and stride % own == 0), None)
        if length <= 1:
            found.append(0)
            continue
        if axis is None:
            return None
        times = stride // axes[axis][0]
        reached[axis] += times * (length - 1)
        found.append(times * axes[axis][1])
    if offset or any(index >= length for index, (_, _, length) in zip(reached, axes, strict=True)):
        return None
    return Strided(item.shape, tuple(view.shape), base, tuple(found))


def _part_of_shard(item: Tracked, region: Region) -> Part:
    """Return what this rank holds of a region of a sharded tensor."""
    base, steps = region.span()
    stop = base + 1 + sum(step * (length - 1) for step, length in zip(steps, region.shape, strict=True))
    out, held, inner = narrowed(item.local, item.region, region)
    return Part(item, region.shape, out, held, inner, base, stop, is_full=region.is_full)
