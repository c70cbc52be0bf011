"""The tree of a cell: its parts, their names, and queries about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeVar, cast

import numpy as np

from numparam.errors import ArgumentTypeError, ArgumentValueError, StateError
from numparam.parameter import Parameter
from numparam.tensor import Tensor
from numparam.text import shown

_TABLES = ("_params", "_cells", "_buffers", "_listed", "_taken", "_flags", "_hooks")
_PARTS = _TABLES[:3]
Member = TypeVar("Member")
Part = TypeVar("Part")


class _Shadowable:
    """Give way to a part of the same name."""

    def __init__(self, member: Any) -> None:
        self.__wrapped__ = member
        self.__doc__ = member.__doc__

    def __get__(self, cell: Any, owner: type) -> Any:
        for table in () if cell is None else map(vars(cell).get, _PARTS):
            if self._name in (table or ()):
                return table[self._name]
        return self.__wrapped__ if self.__wrapped__ is None else self.__wrapped__.__get__(cell, owner)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name


def shadowable(member: Member) -> Member:
    """Let the parts of a cell have the name of a member of its class, one that MindSpore leaves free."""
    return cast("Member", _Shadowable(member))


def is_shadowable(member: object) -> bool:
    """Return whether a part may have the name of a member of a class, as it is in the class."""
    return isinstance(member, _Shadowable)


class Hook(NamedTuple):
    """Hold a function, what it runs at, and whether it takes keyword arguments as a dict."""

    kind: str
    run: Callable[..., Any]
    with_kwargs: bool = False


class Tree:
    """Hold parameters, cells and buffers, and answer questions about all of them; the base of `numparam.Cell`.

    Parts are in three tables, by the last piece of their path. `numparam.cell.assign` puts them there.
    """

    _params: dict[str, Parameter | None]
    _cells: dict[str, Tree | None]
    _buffers: dict[str, Tensor | None]
    # Created when first needed: a model has thousands of cells.
    _listed: Mapping[str, list[str]] = {}  # the parts that a list or tuple attribute brought in
    _guests: frozenset[str] = frozenset()  # cells in a list that keep the names of their places elsewhere
    _taken: Mapping[str, Parameter] = {}  # parameters that brought a name with them, by it
    _hooks: Mapping[int, Hook] = {}
    _flags: Mapping[str, Any] = {}
    _prefix = ""  # the path of this cell, with a dot behind it unless it is the root
    _auto_prefix = True
    _unnamed_members = 0
    _transient: frozenset[str] = frozenset()  # buffers that no checkpoint keeps
    _inputs: tuple[Any, ...] | dict[str, Any] | None = None
    jit_config_dict: Mapping[str, Any] = {}
    training: bool = False
    phase: str = "predict"
    requires_grad: bool = False
    cell_type: str = ""
    compute_dtype: np.dtype[Any] | None = shadowable(None)
    construct: Callable[..., Any]

    def __init__(self, auto_prefix: bool = True) -> None:
        state = vars(self)
        state["_params"], state["_cells"], state["_buffers"] = {}, {}, {}
        if not auto_prefix:
            state["_auto_prefix"] = False

    def __getattr__(self, name: str) -> Any:
        state = vars(self)
        for table in _PARTS:
            if name in state.get(table, ()):
                return state[table][name]
        if name in ("_params", "_cells"):
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning parameters or cells")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __copy__(self) -> Self:
        """Return a cell of the same parts, which can then get others without changing this one."""
        twin = type(self).__new__(type(self))
        vars(twin).update({name: dict(held) if name in _TABLES else held for name, held in vars(self).items()})
        return twin

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._params, *self._cells, *self._buffers]

    def _walk(self, path: str = "", guests: bool = True) -> Iterator[tuple[str, Tree]]:
        """Yield this cell and all below it once each, parents before children, with their paths."""
        seen: set[int] = set()
        waiting: list[tuple[str, Tree]] = [(path, self)]
        while waiting:
            place, cell = waiting.pop()
            if id(cell) in seen:
                continue
            seen.add(id(cell))
            yield place, cell
            if cell._cells:
                prefix = place + "." if place else ""
                hidden = () if guests else cell._guests
                waiting += [
                    (prefix + key, child)
                    for key, child in reversed(cell._cells.items())
                    if child is not None and key not in hidden
                ]

    def _walk_parameters(self, path: str = "", deep: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter once with its path: of a cell first, then of the cells in it."""
        seen: set[int] = set()
        for place, cell in self._walk(path) if deep else [(path, self)]:
            prefix = place + "." if place else ""
            for key, parameter in cell._params.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield prefix + key, parameter

    def _state_buffers(self, path: str = "", deep: bool = True) -> Iterator[tuple[str, Tensor, bool]]:
        """Yield every buffer once with its path and whether it is persistent."""
        seen: set[int] = set()
        for place, cell in self._walk(path) if deep else [(path, self)]:
            prefix = place + "." if place else ""
            for key, buffer in cell._buffers.items():
                if buffer is not None and id(buffer) not in seen:
                    seen.add(id(buffer))
                    yield prefix + key, buffer, key not in cell._transient

    def parameters_and_names(self, name_prefix: str = "", expand: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter once with its path: of a cell first, then of the cells in it.

        Parameters
        ----------
        name_prefix : str
            The path of this cell.
        expand : bool
            Whether to go into the cells below this one.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.w = Parameter(1.0, name="weight")
        >>> [(path, parameter.name) for path, parameter in cell.parameters_and_names("net")]
        [('net.w', 'weight')]
        """
        return self._walk_parameters(name_prefix, expand)

    def get_parameters(self, expand: bool = True) -> Iterator[Parameter]:
        """Yield every parameter once."""
        for _, parameter in self._walk_parameters(deep=expand):
            yield parameter

    def parameters_dict(self, recurse: bool = True) -> dict[str, Parameter]:
        """Return every parameter by its name.

        Raises
        ------
        ValueError
            If two parameters have the same name, unless a cell has ``auto_prefix=False``; then the last one is kept.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.w = Parameter(1.0, name="weight")
        >>> list(cell.parameters_dict())
        ['weight']
        """
        return self._by_name(recurse, folds=any(not cell._auto_prefix for _, cell in self._walk()))

    def _by_name(self, recurse: bool, folds: bool) -> dict[str, Parameter]:
        found: dict[str, Parameter] = {}
        for path, parameter in self._walk_parameters(deep=recurse):
            if not folds and parameter.name in found:
                raise ArgumentValueError(
                    f"parameter {path!r}: duplicate parameter name {parameter.name!r} in {type(self).__name__}; "
                    "choose another, or call check_names_and_refresh_name()"
                )
            found[parameter.name] = parameter
        return found

    def trainable_params(self, recurse: bool = True) -> list[Parameter]:
        """Return the parameters with ``requires_grad``."""
        return [parameter for _, parameter in self._walk_parameters(deep=recurse) if parameter.requires_grad]

    def untrainable_params(self, recurse: bool = True) -> list[Parameter]:
        """Return the parameters without ``requires_grad``."""
        return [parameter for _, parameter in self._walk_parameters(deep=recurse) if not parameter.requires_grad]

    def parameters_broadcast_dict(self, recurse: bool = True) -> dict[str, Parameter] | None:
        """Return by name the parameters without ``layerwise_parallel``, which are broadcast; None if all have it."""
        named = Tree.parameters_dict(self, recurse).items()
        return {name: parameter for name, parameter in named if not parameter.layerwise_parallel} or None

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Yield every buffer once with its path."""
        for path, buffer, _ in self._state_buffers(prefix, recurse):
            yield path, buffer

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield every buffer once."""
        for _, buffer, _ in self._state_buffers(deep=recurse):
            yield buffer

    @shadowable
    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter at a path; AttributeError if nothing is there."""
        return self._found("parameter", target, self._walk_parameters())

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer at a path; AttributeError if nothing is there."""
        return self._found("buffer", target, ((path, buffer) for path, buffer, _ in self._state_buffers()))

    def _found(self, what: str, target: str, parts: Iterable[tuple[str, Part]]) -> Part:
        for path, part in parts:
            if path == target:
                return part
        raise AttributeError(f"{type(self).__name__} has no {what} {shown(target)}")

    def check_names(self) -> None:
        """Raise a ValueError, which names both, if two different parameters have the same name."""
        self._by_name(recurse=True, folds=False)

    def check_names_and_refresh_name(self) -> None:
        """Call every parameter by its path, if two of them have the same name."""
        try:
            Tree.check_names(self)
        except ArgumentValueError:
            Tree.update_parameters_name(self)

    def update_parameters_name(self, prefix: str = "", recurse: bool = True) -> None:
        """Call every parameter by its path, with a prefix right before it.

        Parameters
        ----------
        prefix : str
            Letters, digits, underscores, dots and hyphens.
        recurse : bool
            Whether to rename the parameters of the cells below this one.

        Raises
        ------
        TypeError
            If the prefix is not a str.
        ValueError
            If it has other letters.
        """
        if not isinstance(prefix, str):
            raise ArgumentTypeError(f"a prefix is a str, found {shown(prefix)}")
        if not re.fullmatch(r"\w*[0-9a-zA-Z_.-]*", prefix):
            raise ArgumentValueError(
                f"a prefix has letters, digits, underscores, dots and hyphens, found {shown(prefix)}"
            )
        for path, parameter in self._walk_parameters(deep=recurse):
            parameter.name = prefix + path

    def _own(self, name: str) -> dict[Any, Any]:
        """Return a table of this cell, created when it is first needed."""
        return cast("dict[Any, Any]", vars(self).setdefault(name, {}))

    @shadowable
    def uninitialized(self) -> list[str]:
        """Return the paths of the lazy parameters that no file was loaded into.

        They will have the values of their initializers. After loading a checkpoint, they are what it left out.

        Examples
        --------
        >>> from numparam import Cell
        >>> from numparam.initializer import initializer
        >>> cell = Cell()
        >>> cell.w = Parameter(initializer("normal", (2, 3)))
        >>> cell.b = Parameter([0.0, 0.0, 0.0])
        >>> cell.uninitialized()
        ['w']
        """
        return [path for path, held in self._walk_parameters() if held.has_init and not held.origin_file]

    @shadowable
    def check_initialized(self) -> None:
        """Raise a RuntimeError that names the `uninitialized` parameters, if there are any."""
        if missing := Tree.uninitialized(self):
            shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            raise StateError(f"{len(missing)} parameters of the {type(self).__name__} hold no values yet: {shown}")
