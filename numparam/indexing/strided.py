"""A view of a tensor by strides, for what basic indexing does not select."""

from __future__ import annotations

from numparam.indexing.region import Region


class Strided(Region):
    """Describe a view of a tensor that indexing alone does not give, such as a transposed or a flattened one.

    `base` is the flat index of the first element; `steps` are its steps along each axis of the view.
    """

    __slots__ = ("_span",)

    def __init__(self, full_shape: tuple[int, ...], shape: tuple[int, ...], base: int, steps: tuple[int, ...]) -> None:
        self.full_shape, self.shape = full_shape, shape
        self._chosen = ()  # not the full tensor in its own order
        self._span = base, steps

    @property
    def is_full(self) -> bool:
        """Return False: the view is not the tensor itself."""
        return False

    def span(self) -> tuple[int, tuple[int, ...]]:
        """Locate the view in the row-major order of the tensor."""
        return self._span

    def __repr__(self) -> str:
        return f"Strided({self.full_shape}: {self.shape}, {self._span})"
