"""Recipes: values that an initializer will generate from a seed and a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from numparam.indexing.region import Region, row_major
from numparam.stream.seed import choose_seed
from numparam.stream.source import Source
from numparam.tensor.values import CPU, HOLDERS, Host, Lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    import numpy as np

    from numparam.device import Device
    from numparam.entry import Block

    class Generator(Protocol):
        """List what a recipe needs of an initializer; `numparam.initializer.Initializer` documents it."""

        @property
        def seed(self) -> int | None: ...

        @property
        def on_device(self) -> bool: ...

        @property
        def needs_full(self) -> bool: ...

        def fill(self, out: Any, region: Region, source: Source) -> None: ...

        def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None: ...


class Recipe(Lazy):
    """Describe a region of the values that an initializer generates from a seed and a name, on a device.

    The name is that of the parameter, or the number of a tensor without one. `of` checks that the initializer can.
    """

    def __init__(
        self, init: Generator, seed: int, name: str | int, region: Region, dtype: np.dtype[Any], target: Device = CPU
    ) -> None:
        self.init, self.seed, self.name = init, seed, name
        self.region, self.dtype, self.device = region, dtype, target  # type: ignore[misc]

    @classmethod
    def of(
        cls,
        init: Generator,
        name: str | int,
        region: Region,
        dtype: np.dtype[Any],
        seed: SupportsIndex | None = None,
        target: Device = CPU,
    ) -> Recipe:
        """Check that an initializer suits a tensor, and choose the seed by `numparam.stream.seed.choose_seed`."""
        init.check(region.full_shape, dtype)
        return cls(init, choose_seed(init.seed, seed), name, region, dtype, target)

    @property
    def on_device(self) -> bool:  # type: ignore[override]
        """Return whether `fill_into` also takes device arrays."""
        return self.init.on_device

    def named(self, name: str) -> Recipe:
        return (
            self
            if isinstance(self.name, str)
            else Recipe(self.init, self.seed, name, self.region, self.dtype, self.device)
        )

    def fill_into(self, out: Any, region: Region | None = None) -> None:
        """Generate the values of a region of these ones, or all, in a C-contiguous array of its shape.

        With `on_device` the array may also be a row-major device array.
        """
        if out.size:
            selected = self.region
            if region is not None:
                selected = region if selected.is_full else selected[region.slices()]
            self.init.fill(out, selected, Source(self.seed, self.name))

    def read(self, index: Any, name: str | None = None) -> Recipe:
        # Half of the time of `named` and `replace`, and lazy tensors are sliced often.
        name_of_part = self.name if name is None or isinstance(self.name, str) else name
        return Recipe(self.init, self.seed, name_of_part, self.region[index], self.dtype, self.device)

    def convert(
        self,
        dtype: np.dtype[Any],
        checked: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] | None = None,  # noqa: ARG002
    ) -> Self:
        self.init.check(self.region.full_shape, dtype)
        return self.replace(dtype=dtype)

    def blocks(self, limit: int | None = None) -> Iterator[Block]:
        """Split the values into blocks, see `Values.blocks`.

        An initializer with `needs_full` generates them once. A CUDA device generates each block in new memory,
        one block ahead of the blocks that were taken; the bytes are the same.
        """
        from numparam.entry import BUFFER_BYTES, Block

        if self.init.needs_full:
            yield from self.replace(device=CPU).settle().blocks(limit)
            return
        if not self.on_device or HOLDERS[self.device.kind] is Host:
            yield from super().blocks(limit)
            return
        ahead: Block | None = None
        for index in row_major(self.shape, (limit or BUFFER_BYTES) // self.dtype.itemsize):
            part = self.read(index).settle()  # the device generates this one while the one before goes to the host
            if ahead:
                yield ahead
            ahead = Block(part.shape, part.array.reader())
        if ahead:
            yield ahead

    def __str__(self) -> str:
        return f"init={self.init}"
