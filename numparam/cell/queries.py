"""What a cell says of its tree: its parameters, cells and buffers, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

from numparam.cell.tree import Tree
from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.parameter import Parameter
from numparam.tensor import Tensor

if TYPE_CHECKING:
    from numparam.cell.cell import Cell

_PREFIX = re.compile(r"\w*[0-9a-zA-Z_.-]*")


class Queries(Tree):
    """Answer questions about a tree; every walk takes time in proportion to the tree.

    A path is made of the attributes that lead to a part, with dots between them. A part that stands in several places
    is met once, at the first.
    """

    def cells_and_names(self, cells: set[Cell] | None = None, name_prefix: str = "") -> Iterator[tuple[str, Cell]]:
        """Yield every cell with its path, itself first with an empty one, parents before children.

        Parameters
        ----------
        cells : set of Cell, optional
            Cells to leave out with all below them; those that were met are added to it.
        name_prefix : str
            The path of this cell.

        Yields
        ------
        tuple of (str, Cell)

        Examples
        --------
        >>> from numparam import Cell, CellList
        >>> [path for path, _ in CellList([Cell(), Cell()]).cells_and_names()]
        ['', '0', '1']
        """
        for path, cell in self._walk(name_prefix):
            if cells is None:
                yield path, cast("Cell", cell)
            elif cell not in cells:
                cells.add(cast("Cell", cell))
                yield path, cast("Cell", cell)

    def parameters_and_names(self, name_prefix: str = "", expand: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter once with its path: those of a cell, then those of the cells in it.

        Parameters
        ----------
        name_prefix : str
            The path of this cell.
        expand : bool
            Whether to go into the cells below this one.

        Yields
        ------
        tuple of (str, Parameter)

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.w = Parameter(1.0, name="weight")
        >>> [(path, parameter.name) for path, parameter in cell.parameters_and_names("net")]
        [('net.w', 'weight')]
        """
        seen: set[int] = set()
        for path, cell in self._walk(name_prefix) if expand else [(name_prefix, self)]:
            prefix = path + "." if path else ""
            for key, parameter in cell._params.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield prefix + key, parameter

    def get_parameters(self, expand: bool = True) -> Iterator[Parameter]:
        """Yield every parameter once.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.w = Parameter(1.0)
        >>> list(cell.get_parameters())
        [Parameter (name=w, shape=(), dtype=Float32, requires_grad=True)]
        """
        for _, parameter in self.parameters_and_names(expand=expand):
            yield parameter

    def parameters_dict(self, recurse: bool = True) -> dict[str, Parameter]:
        """Return every parameter by its name.

        Raises
        ------
        ValueError
            If two parameters have the same name.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.w = Parameter(1.0, name="weight")
        >>> list(cell.parameters_dict())
        ['weight']
        """
        found: dict[str, Parameter] = {}
        for path, parameter in self.parameters_and_names(expand=recurse):
            if parameter.name in found:
                raise ArgumentValueError(
                    f"parameter {path!r}: its name {parameter.name!r} already exists in the {type(self).__name__}; "
                    "give it another one, or call check_names_and_refresh_name()"
                )
            found[parameter.name] = parameter
        return found

    def trainable_params(self, recurse: bool = True) -> list[Parameter]:
        """Return the parameters with ``requires_grad``.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().trainable_params()
        []
        """
        return [parameter for parameter in self.get_parameters(recurse) if parameter.requires_grad]

    def untrainable_params(self, recurse: bool = True) -> list[Parameter]:
        """Return the parameters without ``requires_grad``.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().untrainable_params()
        []
        """
        return [parameter for parameter in self.get_parameters(recurse) if not parameter.requires_grad]

    def parameters_broadcast_dict(self, recurse: bool = True) -> dict[str, Parameter] | None:
        """Return by name the parameters without ``layerwise_parallel``, which are broadcast; None if there are none.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.w = Parameter(1.0, layerwise_parallel=True)
        >>> cell.parameters_broadcast_dict() is None
        True
        """
        named = self.parameters_dict(recurse).items()
        return {name: parameter for name, parameter in named if not parameter.layerwise_parallel} or None

    def cells(self) -> Iterable[Cell]:
        """Return the cells right below this one, each once.

        Examples
        --------
        >>> from numparam import CellList, Cell
        >>> len(list(CellList([Cell(), Cell()]).cells()))
        2
        """
        return self.name_cells().values()

    def name_cells(self) -> dict[str, Cell]:
        """Return the cells right below this one by name, each once.

        Examples
        --------
        >>> from numparam import CellList, Cell
        >>> list(CellList([Cell(), Cell()]).name_cells())
        ['0', '1']
        """
        distinct = {id(cell): name for name, cell in reversed(self._cells.items()) if cell is not None}
        return {name: cast("Cell", self._cells[name]) for name in reversed(distinct.values())}

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Yield every buffer once with its path.

        Examples
        --------
        >>> from numparam import Cell
        >>> list(Cell().named_buffers())
        []
        """
        for path, buffer, _ in self._state_buffers(prefix, recurse):
            yield path, buffer

    def _state_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor, bool]]:
        """Yield every buffer with its path and whether it is persistent."""
        seen: set[int] = set()
        for path, cell in self._walk(prefix) if recurse else [(prefix, self)]:
            before = path + "." if path else ""
            for key, buffer in cell._buffers.items():
                if buffer is not None and id(buffer) not in seen:
                    seen.add(id(buffer))
                    yield before + key, buffer, key not in cell._transient

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield every buffer once.

        Examples
        --------
        >>> from numparam import Cell
        >>> list(Cell().buffers())
        []
        """
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_sub_cell(self, target: str) -> Cell:
        """Return the cell at a path; this one for an empty path.

        Raises
        ------
        AttributeError
            If there is none.

        Examples
        --------
        >>> from numparam import Cell, CellList
        >>> cells = CellList([Cell()])
        >>> cells.get_sub_cell("0") is cells[0]
        True
        """
        for path, cell in self.cells_and_names():
            if path == target:
                return cell
        raise AttributeError(f"{type(self).__name__} has no cell {target!r}")

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter at a path.

        Raises
        ------
        AttributeError
            If there is none.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.w = Parameter(1.0)
        >>> cell.get_parameter("w") is cell.w
        True
        """
        for path, parameter in self.parameters_and_names():
            if path == target:
                return parameter
        raise AttributeError(f"{type(self).__name__} has no parameter {target!r}")

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer at a path.

        Raises
        ------
        AttributeError
            If there is none.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.register_buffer("mask", Tensor([True]))
        >>> cell.get_buffer("mask") is cell.mask
        True
        """
        for path, buffer in self.named_buffers():
            if path == target:
                return buffer
        raise AttributeError(f"{type(self).__name__} has no buffer {target!r}")

    def check_names(self) -> None:
        """Raise if two different parameters have the same name.

        Raises
        ------
        ValueError
            The message names both.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().check_names()
        """
        self.parameters_dict()

    def check_names_and_refresh_name(self) -> None:
        """Call every parameter by its path, if two of them have the same name.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().check_names_and_refresh_name()
        """
        try:
            self.check_names()
        except ArgumentValueError:
            self.update_parameters_name()

    def update_parameters_name(self, prefix: str = "", recurse: bool = True) -> None:
        """Call every parameter by its path, with a prefix right before it.

        Parameters
        ----------
        prefix : str
            Letters, digits, underscores, dots and hyphens.
        recurse : bool
            Whether to rename those of the cells below this one.

        Raises
        ------
        TypeError
            If the prefix is no str.
        ValueError
            If it has other letters.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.w = Parameter(1.0)
        >>> cell.update_parameters_name("net.")
        >>> cell.w.name
        'net.w'
        """
        if not isinstance(prefix, str):
            raise ArgumentTypeError(f"a prefix is a str, found {prefix!r}")
        if not _PREFIX.fullmatch(prefix):
            raise ArgumentValueError(f"a prefix has letters, digits, underscores, dots and hyphens, found {prefix!r}")
        for path, parameter in self.parameters_and_names(expand=recurse):
            parameter.name = prefix + path

    def uninitialized(self) -> list[str]:
        """Return the paths of the parameters that hold no values yet, and that no file was loaded into.

        Their values will be those of their initializers. After loading a checkpoint, these are the parameters that it
        left out.

        Examples
        --------
        >>> from numparam import Cell, initializer
        >>> cell = Cell()
        >>> cell.w = Parameter(initializer.initializer("normal", (2, 3)))
        >>> cell.b = Parameter([0.0, 0.0, 0.0])
        >>> cell.uninitialized()
        ['w']
        """
        return [
            path for path, parameter in self.parameters_and_names() if parameter.has_init and not parameter.origin_file
        ]

    def check_initialized(self) -> None:
        """Raise if a parameter holds no values yet, see `uninitialized`.

        Raises
        ------
        RuntimeError
            The message names them.

        Examples
        --------
        >>> from numparam import Cell
        >>> Cell().check_initialized()
        """
        if missing := self.uninitialized():
            shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            raise StateError(f"{len(missing)} parameters of the {type(self).__name__} hold no values yet: {shown}")
