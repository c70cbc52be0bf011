"""Cells that hold other cells: in a list, in a chain, by name."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, Self, SupportsIndex, TypeVar, cast, overload

from numparam.cell import assign
from numparam.cell.cell import Cell
from numparam.errors import ArgumentTypeError, ArgumentValueError, MissingNameError, RegionError
from numparam.text import shown

C = TypeVar("C", bound=Cell)


class _Numbered(Cell, Generic[C]):
    """Hold cells in order; their names are 0, 1, 2, ... and follow every change."""

    def _arrange(self, cells: Iterable[C], names: Iterable[str] | None = None) -> None:
        """Hold these cells from now on."""
        members = list(cells)
        for place, cell in enumerate(members):
            self._check_cell(cell, f" at place {place}")
        for key in self._cells:
            assign.leave(self, key)
        self._cells.clear()
        self._cells.update(zip(map(str, range(len(members))) if names is None else names, members, strict=True))
        if self._auto_prefix:
            assign.move_to(self, self._prefix[:-1])

    def _check_cell(self, cell: object, where: str = "") -> None:
        if not isinstance(cell, Cell):
            raise ArgumentTypeError(f"{type(self).__name__} holds cells, found {type(cell).__name__}{where}")

    @property
    def _members(self) -> list[C]:
        return cast("list[C]", list(self._cells.values()))

    def _place(self, index: SupportsIndex, room: int = 0) -> int:
        try:
            place = operator.index(index)
        except TypeError:
            raise ArgumentTypeError(
                f"{type(self).__name__}: an index is an int or a slice, found {shown(index)}"
            ) from None
        length = len(self._cells)
        if not -length <= place < length + room:
            raise RegionError(f"{type(self).__name__}: index {place} is out of range for {length} cells")
        return place

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[C]:
        return iter(self._members)

    @overload
    def __getitem__(self, index: SupportsIndex) -> C: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: SupportsIndex | slice) -> C | Self:
        if isinstance(index, slice):
            part = type(self)(auto_prefix=False)  # the cells keep the names that they have here
            part._arrange(self._members[index])
            return part
        return self._members[self._place(index)]

    def __setitem__(self, index: SupportsIndex, cell: C) -> None:
        members = self._members
        members[self._place(index)] = cell
        self._arrange(members)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        members = self._members
        del members[index if isinstance(index, slice) else self._place(index)]
        self._arrange(members)

    def append(self, cell: C) -> Self:
        """Add a cell at the end."""
        place = str(len(self._cells))
        if place in self._cells:  # an OrderedDict brought this name
            self._arrange([*self._members, cell])
            return self
        self._check_cell(cell)
        self._cells[place] = cell
        if self._auto_prefix:
            assign.move_to(cell, self._prefix + place)
        return self

    def extend(self, cells: Iterable[C]) -> Self:
        """Add cells at the end."""
        if isinstance(cells, Mapping | str) or not hasattr(cells, "__iter__"):
            raise ArgumentTypeError(f"{type(self).__name__} takes an iterable of cells, found {type(cells).__name__}")
        self._arrange([*self._members, *cells])
        return self

    __iadd__ = extend

    def insert(self, index: SupportsIndex, cell: C) -> None:
        """Add a cell before another one; IndexError if the place does not exist."""
        members = self._members
        members.insert(self._place(index, room=1), cell)
        self._arrange(members)


class CellList(_Numbered[C]):
    """Hold cells in a list; they are called 0, 1, 2, ... in the order of the list.

    Annotate it with the class of its cells, as ``CellList[Dense]``, to have their attributes known to type checkers.

    Parameters
    ----------
    cells : list of Cell, optional
    auto_prefix : bool
        See `Cell`.

    Examples
    --------
    >>> from numparam import Parameter
    >>> layers = CellList([Cell(), Cell()])
    >>> layers[1].w = Parameter(1.0)
    >>> layers.insert(0, Cell())
    >>> len(layers), [parameter.name for parameter in layers.get_parameters()]
    (3, ['2.w'])
    """

    def __init__(self, cells: list[C] | CellList[C] | None = None, auto_prefix: bool = True) -> None:
        super().__init__(auto_prefix)
        if cells is None:
            return
        if not isinstance(cells, list | CellList):
            raise ArgumentTypeError(f"a CellList takes one list of cells, found {type(cells).__name__}")
        self._arrange(cells)

    def construct(self, *inputs: Any, **options: Any) -> Any:
        """Raise a NotImplementedError."""
        raise NotImplementedError("a CellList cannot be called: call its cells, or use a SequentialCell")


class SequentialCell(_Numbered[C]):
    """Chain cells: each takes the output of the one before it.

    Parameters
    ----------
    *cells : Cell, or one list or OrderedDict of them
        The keys of an OrderedDict are the names of the cells.
    auto_prefix : bool
        See `Cell`.

    Examples
    --------
    >>> class Double(Cell):
    ...     def construct(self, x):
    ...         return 2 * x
    >>> SequentialCell(Double(), Double())(3)
    12
    """

    def __init__(self, *cells: C | list[C] | OrderedDict[str, C], auto_prefix: bool = True) -> None:
        super().__init__(auto_prefix)
        given: Any = cells[0] if len(cells) == 1 and not isinstance(cells[0], Cell) else list(cells)
        if isinstance(given, OrderedDict):
            for name in given:
                assign.check_insert(self, name, self._cells)
            self._arrange(given.values(), given)
        elif isinstance(given, list):
            self._arrange(given)
        else:
            raise ArgumentTypeError(
                f"a SequentialCell takes cells, a list or an OrderedDict of them, found {type(given).__name__}"
            )

    def construct(self, x: Any) -> Any:
        """Pass the input to the first cell, its output to the second, and so on."""
        for cell in self:
            x = cell(x)
        return x


class CellDict(Cell, Generic[C]):
    """Hold cells by name, in the order in which they were put in.

    Parameters
    ----------
    cells : mapping of str to Cell, or iterable of pairs, optional
    auto_prefix : bool
        See `Cell`.

    Raises
    ------
    KeyError
        If a name is empty, has a dot, or is an attribute of the class.
    TypeError
        If a name is not a str, or something not a cell.

    Examples
    --------
    >>> from numparam import Parameter
    >>> heads = CellDict({"first": Cell(), "second": Cell()})
    >>> heads["second"].w = Parameter(1.0)
    >>> [parameter.name for parameter in heads.get_parameters()]
    ['second.w']
    """

    def __init__(
        self, cells: Mapping[str, C] | Iterable[tuple[str, C]] | None = None, auto_prefix: bool = True
    ) -> None:
        super().__init__(auto_prefix)
        if cells is not None:
            self.update(cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __contains__(self, name: object) -> bool:
        return name in self._cells

    def __getitem__(self, name: str) -> C:
        if name not in self._cells:
            raise MissingNameError(f"the CellDict has no cell {name!r}; it has {', '.join(self._cells) or 'no cells'}")
        return cast("C", self._cells[name])

    def __setitem__(self, name: str, cell: C) -> None:
        self._check(name, cell)
        assign.set_cell(self, name, cell)

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def _check(self, name: Any, cell: Any) -> None:
        if not isinstance(cell, Cell) or isinstance(cell, _Numbered | CellDict):
            raise ArgumentTypeError(f"a CellDict holds cells that are not containers, found {type(cell).__name__}")
        assign.check_insert(self, name, self._cells)

    def update(self, cells: Mapping[str, C] | CellDict[C] | Iterable[tuple[str, C]]) -> None:
        """Put in cells by name; on an error nothing changes."""
        if not isinstance(cells, Iterable):
            raise ArgumentTypeError(f"a CellDict takes a mapping or pairs, found {type(cells).__name__}")
        pairs = list(cells.items() if isinstance(cells, Mapping | CellDict) else cells)
        for pair in list[Any](pairs):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ArgumentValueError(f"a CellDict takes pairs of a name and a cell, found {shown(pair)}")
            self._check(*pair)
        for name, cell in pairs:
            assign.set_cell(self, name, cell)

    def keys(self) -> Iterable[str]:
        """Return the names."""
        return self._cells.keys()

    def values(self) -> Iterable[C]:
        """Return the cells."""
        return cast("Iterable[C]", self._cells.values())

    def items(self) -> Iterable[tuple[str, C]]:
        """Return the names and cells."""
        return cast("Iterable[tuple[str, C]]", self._cells.items())

    def pop(self, name: str) -> C:
        """Take a cell out and return it."""
        cell = self[name]
        assign.remove(self, name)
        return cell

    def clear(self) -> None:
        """Take all cells out."""
        for name in list(self._cells):
            assign.remove(self, name)

    def construct(self, *inputs: Any, **options: Any) -> Any:
        """Raise a NotImplementedError."""
        raise NotImplementedError("a CellDict cannot be called: call its cells")
