"""Which elements of a parameter are covered: boxes, one range of indices for each axis."""

import math
from collections.abc import Iterable, Sequence

from numparam.indexing.region import Region

Box = tuple[range, ...]
_MAX_STEPS = 10_000  # to find what is missing, 10 ms; boxes may come from a file


def box_of(region: Region) -> Box:
    """Return the indices that a region selects along every axis, upwards."""
    return tuple(indices[::-1] if indices.step < 0 else indices for indices in region.ranges)


def size(box: Box) -> int:
    """Count the elements."""
    return math.prod(map(len, box))


def common(a: Box, b: Box) -> Box | None:
    """Return the elements that two boxes of one parameter share, None if there are none."""
    shared = tuple(_common(one, other) for one, other in zip(a, b, strict=True))
    return shared if all(map(len, shared)) else None


def _common(a: range, b: range) -> range:
    divisor = math.gcd(a.step, b.step)
    if not a or not b or (b.start - a.start) % divisor:
        return range(0)
    # Solve a.start + k * a.step = b.start modulo b.step for the least k.
    k = (b.start - a.start) // divisor * pow(a.step // divisor, -1, b.step // divisor)
    step = a.step // divisor * b.step
    first = a.start + k * a.step
    first += -((first - max(a.start, b.start)) // step) * step
    return range(first, min(a.stop, b.stop), step)


def merged(boxes: Iterable[Box], shape: tuple[int, ...]) -> tuple[Box, ...]:
    """Return the fewest boxes found for disjoint ones: the full parameter if they cover it."""
    found = [box for box in boxes if size(box)] or [tuple(range(0) for _ in shape)]
    if sum(map(size, found)) == math.prod(shape):
        return (tuple(map(range, shape)),)
    place = 0
    while place < len(found):
        for other in range(place + 1, len(found)):
            if (both := _joined(found[place], found[other])) is not None:
                found[place] = both
                del found[other]
                place = -1
                break
        place += 1
    return tuple(sorted(found, key=lambda box: [(indices.start, indices.stop, indices.step) for indices in box]))


def _joined(a: Box, b: Box) -> Box | None:
    """Return one box for two that differ along one axis only and are next to each other there."""
    differing = [axis for axis in range(len(a)) if a[axis] != b[axis]]
    if len(differing) != 1:
        return None
    axis = differing[0]
    low, high = sorted((a[axis], b[axis]), key=lambda indices: indices.start)
    if low.step != high.step or low[-1] + low.step != high.start:
        return None
    return (*a[:axis], range(low.start, high.stop, low.step), *a[axis + 1 :])


def first_missing(boxes: Sequence[Box], shape: tuple[int, ...]) -> Box | None:
    """Return a box of elements that no box covers, None if that takes long; all steps of the boxes are 1."""
    left = [(tuple(map(range, shape)), 0)]
    for _ in range(_MAX_STEPS):
        if not left:
            break
        rest, number = left.pop()
        if number == len(boxes):
            return rest
        left += [(piece, number + 1) for piece in _without(rest, boxes[number])][::-1]
    return None


def _without(box: Box, taken: Box) -> Iterable[Box]:
    if (inner := common(box, taken)) is None:
        yield box
        return
    for axis, indices in enumerate(box):
        for outside in (range(indices.start, inner[axis].start), range(inner[axis].stop, indices.stop)):
            if outside:
                yield (*inner[:axis], outside, *box[axis + 1 :])


def text(box: Box) -> str:
    """Write a box as an index, such as ``[0:4, 2:9:3]``."""
    steps = [f":{indices.step}" if indices.step != 1 else "" for indices in box]
    return f"[{', '.join(f'{r.start}:{r.stop}{step}' for r, step in zip(box, steps, strict=True))}]"
