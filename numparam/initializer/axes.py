"""How an initializer reads a weight that is several: stacked experts, fused projections, other orders of the axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, product
from typing import Any

import numpy as np

from numparam.checks import as_int
from numparam.errors import ArgumentTypeError, ArgumentValueError, ShapeError
from numparam.indexing.region import Region
from numparam.indexing.strided import Strided
from numparam.initializer.base import Initializer
from numparam.initializer.fan import FanScaled
from numparam.stream.source import Buffer, Source
from numparam.text import shown

Axis = int | Sequence[int]
Shape = tuple[int, ...]


class Axes(Initializer):
    """Let an initializer read a weight in blocks, each with its own fans, bounds and orthogonality.

    Initializers whose values do not depend on the shape, such as `Normal`, are not changed. The others see every block
    as a weight ``(outputs, inputs, *kernel)``, but draw its values at the indices that it has in the full tensor.

    Parameters
    ----------
    init : Initializer
        For one block.
    batch_axis : int or sequence of int
        Axes that only repeat: experts stacked in one tensor, scanned or vmapped layers.
    in_axis, out_axis : int or sequence of int, optional
        The axes of the inputs and of the outputs. By default the first axis that is neither of the others counts the
        outputs, and the next one the inputs, as in torch.
    splits : int or sequence of int, optional
        The number of equal blocks along the output axis, or their sizes: 3 for a fused projection to
        queries, keys and values of one size, 2 for a fused gate.

    Raises
    ------
    TypeError
        If `init` is not an initializer, or an axis is not an int.
    ValueError
        If `splits` are not positive. Also for a tensor whose shape does not have these axes and splits.

    Examples
    --------
    Eight experts, each with the bound of its 128 inputs:

    >>> from numparam.initializer import HeUniform, initializer
    >>> experts = initializer(Axes(HeUniform(), batch_axis=0), (8, 256, 128)).asnumpy()
    >>> bool(0.216 < abs(experts).max() <= (6 / 128) ** 0.5)
    True
    """

    def __init__(
        self,
        init: Initializer,
        batch_axis: Axis = (),
        in_axis: Axis | None = None,
        out_axis: Axis | None = None,
        splits: int | Sequence[int] | None = None,
    ) -> None:
        if not isinstance(init, Initializer):
            raise ArgumentTypeError(f"Axes reads the shape for an initializer, found {shown(init)} of {type(init)}")
        self.init = init
        self.batch_axis = _tuple("batch_axis", batch_axis)
        self.in_axis = None if in_axis is None else _tuple("in_axis", in_axis)
        self.out_axis = None if out_axis is None else _tuple("out_axis", out_axis)
        self.splits = splits
        if splits is not None:
            self.splits = as_int("splits", splits) if isinstance(splits, int) else _tuple("splits", splits)
            if min(self.splits if isinstance(self.splits, tuple) else (self.splits,), default=0) < 1:
                raise ArgumentValueError(f"splits are positive, found {shown(splits)}")
            if self.out_axis is not None and len(self.out_axis) != 1:
                raise ArgumentValueError(f"splits need one output axis, found out_axis={out_axis!r}")
        self._seed = init.seed
        # Different scales along an axis, and orthogonal blocks, are put together on the host.
        self.on_device = init.on_device and init.reads != "axes" and not isinstance(self.splits, tuple)

    def fans(self, shape: Shape) -> list[tuple[int, int]]:
        """Count the inputs and outputs of one block, for each split.

        Parameters
        ----------
        shape : tuple of int
            Of the full tensor.

        Returns
        -------
        list of (int, int)
            ``fan_in`` and ``fan_out``.

        Raises
        ------
        ShapeError
            If the shape does not have the axes and splits. It is also a ValueError.

        Examples
        --------
        >>> from numparam.initializer import XavierUniform
        >>> Axes(XavierUniform(), splits=(512, 128, 128)).fans((768, 512))
        [(512, 512), (512, 128), (512, 128)]
        """
        outputs, inputs, kernel, _ = self._order(shape)
        size = math.prod(shape[axis] for axis in kernel)
        fan_in = math.prod(shape[axis] for axis in inputs) * size
        others = math.prod(shape[axis] for axis in outputs[1:]) * size
        return [(fan_in, count * others) for count in self._sizes(shape)]

    def check(self, shape: Shape, dtype: np.dtype[Any]) -> None:
        """Raise if the shape does not have the axes, or a block cannot be filled."""
        if self.init.reads == "nothing":
            self.init.check(shape, dtype)
            return
        outputs, inputs, kernel, _ = self._order(shape)
        ends = tuple([shape[axis] for axis in kernel])
        for count in set(self._sizes(shape)):
            rows = count * math.prod(shape[axis] for axis in outputs[1:])
            self.init.check((rows, math.prod(shape[axis] for axis in inputs), *ends), dtype)

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        """Fill `out` with the values of a region."""
        if isinstance(self.init, FanScaled):
            self._fill_scaled(self.init, out, region, source)
        elif self.init.reads == "axes":
            self._fill_blocks(out, region, source)
        else:
            self.init.fill(out, region, source)

    def _fill_scaled(self, init: FanScaled, out: Buffer, region: Region, source: Source) -> None:
        shape = region.full_shape
        fans = self.fans(shape)
        if len(set(fans)) == 1:
            init.fill_for_fans(out, region, source, *fans[0])
            return
        axis = self._order(shape)[0][0]
        view = out.reshape(tuple(map(len, region.ranges)))
        for (first, last), counts in zip(self._bounds(shape), fans, strict=True):
            picked = [at for at, index in enumerate(region.ranges[axis]) if first <= index < last]
            if picked:
                indices = region.ranges[axis][picked[0] : picked[-1] + 1]
                ranges = [indices if at == axis else found for at, found in enumerate(region.ranges)]
                part = np.empty(tuple(map(len, ranges)), out.dtype)
                init.fill_for_fans(part, _strided(shape, ranges), source, *counts)
                view[(slice(None),) * axis + (slice(picked[0], picked[-1] + 1),)] = part

    def _fill_blocks(self, out: Buffer, region: Region, source: Source) -> None:
        shape = region.full_shape
        outputs, inputs, kernel, batch = self._order(shape)
        order = (*outputs, *inputs, *kernel)
        view = out.reshape(tuple(map(len, region.ranges)))
        for at in product(*[range(len(region.ranges[axis])) for axis in batch]):
            place = dict(zip(batch, at, strict=True))
            for first, last in self._bounds(shape):
                ranges = [
                    range(region.ranges[axis][place[axis]], region.ranges[axis][place[axis]] + 1)
                    if axis in place
                    else range(first, last)
                    if axis == outputs[0]
                    else range(shape[axis])
                    for axis in range(len(shape))
                ]
                picked = [number for number, index in enumerate(region.ranges[outputs[0]]) if first <= index < last]
                if not picked:
                    continue
                block = self._block(out.dtype, shape, ranges, order, (outputs, inputs, kernel), source)
                wanted = [
                    slice(0, 1)
                    if axis in place
                    else [region.ranges[axis][number] - first for number in picked]
                    if axis == outputs[0]
                    else list(region.ranges[axis])
                    for axis in range(len(shape))
                ]
                for axis, indices in enumerate(wanted):
                    block = block[(slice(None),) * axis + (indices,)]
                where: list[Any] = [slice(None)] * len(shape)
                for axis, number in place.items():
                    where[axis] = slice(number, number + 1)
                where[outputs[0]] = picked
                view[tuple(where)] = block

    def _block(
        self,
        dtype: np.dtype[Any],
        shape: Shape,
        ranges: list[range],
        order: tuple[int, ...],
        groups: tuple[tuple[int, ...], ...],
        source: Source,
    ) -> Buffer:
        """Return one block, with the axes of the full tensor."""
        outputs, inputs, kernel = groups
        counts = [math.prod(len(ranges[axis]) for axis in axes) for axes in (outputs, inputs)]
        weight = (*counts, *[len(ranges[axis]) for axis in kernel])
        values = np.empty(weight, dtype)
        lengths = tuple([len(ranges[axis]) for axis in order])
        steps = _strides(shape)
        base = sum(found.start * step for found, step in zip(ranges, steps, strict=True))
        block = Strided(shape, lengths, base, tuple([steps[axis] for axis in order]))
        self.init.fill(values, Region.full(weight), _Within(source, block))  # type: ignore[arg-type]
        batch = [axis for axis in range(len(shape)) if axis not in order]
        moved = values.reshape(*lengths, *[1] * len(batch))
        return moved.transpose(np.argsort([*order, *batch]))

    def _order(self, shape: Shape) -> tuple[Shape, Shape, Shape, Shape]:
        """Return the axes of the outputs, the inputs and the kernel, and those that repeat."""
        batch = self._axes(self.batch_axis, shape)
        given = [None if axes is None else self._axes(axes, shape) for axes in (self.out_axis, self.in_axis)]
        free = [axis for axis in range(len(shape)) if axis not in {*batch, *(given[0] or ()), *(given[1] or ())}]
        for number, axes in enumerate(given):
            if axes is None:
                if not free:
                    raise ShapeError(f"{self!r} needs an axis of inputs and one of outputs, found {shape}")
                given[number] = (free.pop(0),)
        outputs, inputs = given
        assert outputs is not None
        assert inputs is not None
        if len({*outputs, *inputs, *batch}) < len(outputs) + len(inputs) + len(batch):
            raise ShapeError(f"{self!r} needs different axes, found the shape {shape}")
        return outputs, inputs, tuple(free), batch

    def _axes(self, axes: Sequence[int], shape: Shape) -> tuple[int, ...]:
        if not all(-len(shape) <= axis < len(shape) for axis in axes):
            raise ShapeError(f"{self!r} needs a shape with these axes, found {shape}")
        return tuple(dict.fromkeys([axis % len(shape) for axis in axes]))

    def _sizes(self, shape: Shape) -> tuple[int, ...]:
        """Return the sizes of the splits of the first output axis."""
        length = shape[self._order(shape)[0][0]]
        splits = (length,) if self.splits is None else self.splits
        if isinstance(splits, int):
            if length % splits:
                raise ShapeError(f"{self!r} needs {splits} equal parts, found {length} outputs in {shape}")
            splits = (length // splits,) * splits
        if sum(splits) != length:
            raise ShapeError(f"{self!r} has {sum(splits)} outputs in its splits, found {length} in {shape}")
        return tuple(splits)

    def _bounds(self, shape: Shape) -> Iterator[tuple[int, int]]:
        sizes = self._sizes(shape)
        return ((stop - size, stop) for size, stop in zip(sizes, accumulate(sizes), strict=True))


class _Within:
    """Draw the values of one block where it is in the full tensor."""

    def __init__(self, source: Source, block: Strided) -> None:
        self._source, self._block = source, block
        self.seed, self.name = source.seed, source.name

    def normal(self, out: Buffer, region: Region, mean: float, sigma: float, label: str = "") -> None:
        self._source.normal(self._shaped(out, region), self._narrowed(region), mean, sigma, label)

    def bits(self, out: Buffer, region: Region, label: str = "") -> None:
        self._source.bits(self._shaped(out, region), self._narrowed(region), label)

    def _shaped(self, out: Buffer, region: Region) -> Buffer:
        return out.reshape(self._block.shape) if region.is_full else out

    def _narrowed(self, region: Region) -> Strided:
        if region.is_full:
            return self._block
        # Only Sparse needs less: some columns of a matrix, whose two axes are the axes of the block.
        base, steps = self._block.span()
        at, inner = region.span()
        row, column = divmod(at, region.full_shape[1])
        shape = self._block.shape
        if len(shape) != 2:
            raise ShapeError(f"a sparse block has one axis of inputs and one of outputs, found {shape}")
        scaled = tuple([steps[0] if step == region.full_shape[1] else steps[1] * step for step in inner])
        return Strided(self._block.full_shape, region.shape, base + row * steps[0] + column * steps[1], scaled)


def _strides(shape: Shape) -> tuple[int, ...]:
    return tuple([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])


def _strided(shape: Shape, ranges: list[range]) -> Strided:
    steps = _strides(shape)
    base = sum(found.start * step for found, step in zip(ranges, steps, strict=True))
    taken = tuple([found.step * step for found, step in zip(ranges, steps, strict=True)])
    return Strided(shape, tuple(map(len, ranges)), base, taken)


def _tuple(argument: str, axes: Axis) -> tuple[int, ...]:
    if isinstance(axes, int):
        return (as_int(argument, axes),)
    if not isinstance(axes, list | tuple):
        raise ArgumentTypeError(f"{argument} is an int or a sequence of ints, found {shown(axes)}")
    return tuple([as_int(argument, axis) for axis in axes])
