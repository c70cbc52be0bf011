"""A table of the parameters of a cell, for a terminal and for a notebook."""

from __future__ import annotations

from numparam.cell.tree import Tree
from numparam.text import aligned, amount, printable, size

_COLUMNS = ("parameter", "shape", "dtype", "device", "bytes", "values", "trainable", "from")
_RIGHT = ("bytes",)


class Summary:
    """Hold what is known of every parameter of a cell at one moment.

    `rows` has for each its path, shape, dtype, device and bytes, whether its values are ``made`` or still ``lazy``,
    whether it is trainable, and where the values come from, see `numparam.Parameter.origin`; `total` is the last line.
    """

    def __init__(self, cell: Tree) -> None:
        named = list(cell._walk_parameters())
        self.rows = [
            (
                printable(path),
                str(parameter.shape),
                str(parameter.dtype),
                str(parameter.device),
                size(parameter.nbytes),
                "lazy" if parameter.has_init else "made",
                "yes" if parameter.requires_grad else "no",
                printable(parameter.origin),
            )
            for path, parameter in named
        ]
        values = sum(parameter.size for _, parameter in named)
        trainable = sum(parameter.size for _, parameter in named if parameter.requires_grad)
        lazy = sum(parameter.nbytes for _, parameter in named if parameter.has_init)
        self.total = (
            f"{amount(len(named), 'parameter')}, {amount(values, 'value')}, "
            f"{size(sum(parameter.nbytes for _, parameter in named))}; trainable {amount(trainable, 'value')}; "
            f"lazy {size(lazy)}"
        )

    def __repr__(self) -> str:
        return "\n".join([*aligned([_COLUMNS, *self.rows], _RIGHT), self.total])

    def _repr_html_(self) -> str:
        from numparam import html

        return html.table(_COLUMNS, self.rows, _RIGHT, self.total)
