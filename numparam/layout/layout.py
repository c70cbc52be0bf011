"""The layout of a parameter over a mesh of ranks, in the form of this library and in MindSpore's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from numparam.layout import mindspore_tuple
from numparam.layout.partition import Axes, Partition


class Layout(Partition):
    """Describe how a parameter is sharded over a mesh of ranks.

    An axis of n entries over p ranks is split every ceil(n / p) entries, as ``torch.chunk`` and XLA do: where p does
    not divide n the last shard is smaller, and shards after it are empty.

    Parameters
    ----------
    mesh : mapping of str to int, or tuple of int
        The axes of the mesh and their lengths. As in MindSpore, a tuple of lengths goes with a tuple of the names of
        the axes as `spec`; calling that layout with the item of each axis of a parameter returns its layout.
    spec : sequence
        For each axis of the parameter the axis of the mesh that shards it, None if none does, or a tuple of several, of
        which the first is the slowest. A shorter one leaves the remaining axes full.
    optimizer_shard : str or sequence of str, optional
        Axes of the mesh that are not in `spec`: their ranks, which would hold the same shard, split its axis 0 further.
    rank_list : sequence of int, optional
        The rank at each place of the mesh in row-major order, of which the last axis is the fastest; by default
        0, 1, 2, ... As in MindSpore, it is the third argument where `mesh` is a tuple.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If the mesh has no such axis, or an axis is named twice, or `rank_list` does not fill the mesh.

    Examples
    --------
    >>> layout = Layout({"dp": 2, "tp": 4}, ("tp", None))
    >>> layout.region((8, 6), rank=5)
    Region((8, 6): range(2, 4), range(0, 6))
    >>> [layout.shape((5, 6), rank) for rank in range(4)]
    [(2, 6), (2, 6), (1, 6), (0, 6)]
    >>> Layout((2, 4), ("dp", "tp"))("tp", "None") == layout
    True
    """

    __slots__ = ()

    def __init__(
        self,
        mesh: Mapping[str, int] | tuple[int, ...],
        spec: Sequence[Axes],
        optimizer_shard: Axes | list[int] = None,
        rank_list: Sequence[int] | None = None,
    ) -> None:
        if isinstance(mesh, tuple):
            mesh, spec = mindspore_tuple.named_mesh(mesh, spec), ()
            if isinstance(optimizer_shard, list) and rank_list is None:
                optimizer_shard, rank_list = None, cast(list[int], optimizer_shard)
        super().__init__(mesh, spec, cast(Axes, optimizer_shard), rank_list)

    def __call__(self, *spec: Axes) -> Layout:
        """Return the layout over the same mesh with another `spec`, in which ``"None"`` means None, as in MindSpore."""
        return Layout(self.mesh, [mindspore_tuple.without_none(item) for item in spec], None, self.ranks)

    def to_dict(self) -> dict[str, Any]:
        """Return the layout as MindSpore's ``Layout.to_dict`` does.

        Examples
        --------
        >>> Layout({"dp": 2, "tp": 2}, ("tp", None)).to_dict()["tensor_map"]
        (0, -1)
        """
        return mindspore_tuple.to_dict(self)

    @classmethod
    def parse(cls, layout: Any, shape: tuple[int, ...] | None = None, name: str = "") -> Layout:
        """Read a layout from MindSpore's tuple of six or seven items; see `numparam.layout.mindspore_tuple`.

        Parameters
        ----------
        layout : tuple
        shape : tuple of int, optional
            Of the full parameter, by default ``full_shape``. Without both the slices are not checked.
        name : str
            Of the parameter, for the message of an error.

        Raises
        ------
        TypeError
            If it is not a tuple, or an item is of the wrong kind.
        ValueError
            If the number of items is wrong, one is out of range, or the parameter cannot be sharded so.

        Examples
        --------
        >>> Layout.parse(([2, 2], [1, -1], [4, 6], 0, True, ""), (8, 6))
        Layout({'1': 2, '0': 2}, ('1', None))
        """
        parsed = mindspore_tuple.parse(layout, shape, name)
        return cls(parsed.mesh, parsed.spec, parsed.optimizer_shard)

    def to_tuple(self, shape: tuple[int, ...]) -> tuple[Any, ...]:
        """Return MindSpore's tuple of seven items; a ValueError if it cannot express the layout.

        Examples
        --------
        >>> Layout({"dp": 2, "tp": 4}, ("tp", None)).to_tuple((16, 6))
        ([2, 4], [0, -1], [4, 6], 0, True, '', [16, 6])
        """
        return mindspore_tuple.to_tuple(self, shape)

    def picture(self, shape: tuple[int, ...], axes: tuple[int, int] | None = None) -> str:
        """Draw with text which ranks hold which block of a parameter.

        Parameters
        ----------
        shape : tuple of int
            Of the full parameter.
        axes : tuple of int, optional
            The two axes that are drawn, down and across; by default the first two that are sharded. A rank is drawn in
            the block that it holds a part of.

        Returns
        -------
        str
            Of at most 16 blocks a side; the middle of more is left out.

        Raises
        ------
        TypeError
            If the axes are not a pair of ints.
        ValueError
            If the parameter has no such axes, or the layout does not suit its shape.

        Examples
        --------
        >>> print(Layout({"dp": 2, "tp": 2}, ("tp",)).picture((8, 6)))
        (8, 6) over {'dp': 2, 'tp': 2}: axis 0 down, axis 1 across
        ┌─────┬──────┐
        │     │ 0:6  │
        ├─────┼──────┤
        │ 0:4 │ 0, 2 │
        ├─────┼──────┤
        │ 4:8 │ 1, 3 │
        └─────┴──────┘
        """
        from numparam.layout.picture import picture

        return picture(self, shape, axes)

    def plot(self, shape: tuple[int, ...], axes: tuple[int, int] | None = None) -> Any:
        """Draw to scale which ranks hold which block of a parameter, as `picture` does; needs matplotlib.

        Returns
        -------
        matplotlib.figure.Figure
            Notebooks show it; ``savefig`` writes it to a file.

        Raises
        ------
        ModuleNotFoundError
            If matplotlib is not installed.
        """
        from numparam.layout.picture import figure

        return figure(self, shape, axes)

    def _repr_html_(self) -> str:
        from numparam.layout.picture import page

        return page(self)
