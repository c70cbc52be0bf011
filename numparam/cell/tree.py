"""The tree of a cell: what becomes a part of it by assignment, and what each part is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Self, cast

from numparam.errors import ArgumentTypeError, ArgumentValueError, NameTakenError
from numparam.parameter import Parameter
from numparam.parameter.tuple import check_members
from numparam.tensor import Tensor

_TABLES = ("_params", "_cells", "_buffers", "_listed", "_taken", "_flags", "_hooks", "_pre_hooks")


class Tree:
    """Register parameters, cells, lists of them and buffers that are assigned to attributes.

    The base of `numparam.Cell`. Parts live in three tables, by the last piece of their path; a list or tuple stays a
    plain attribute, and its members are parts beside it.
    """

    _params: dict[str, Parameter | None]
    _cells: dict[str, Tree | None]
    _buffers: dict[str, Tensor | None]
    # Made when first needed: a model has thousands of cells.
    _listed: Mapping[str, list[str]] = {}  # the parts that a list or tuple attribute brought in
    _taken: Mapping[str, Parameter] = {}  # those that brought a name of their own, by it
    _prefix = ""  # the path of this cell, with a dot behind it unless it is the root
    _auto_prefix = True
    _unnamed_members = 0
    _transient: frozenset[str] = frozenset()  # buffers that no checkpoint keeps

    def __init__(self, auto_prefix: bool = True) -> None:
        state = vars(self)
        state["_params"], state["_cells"], state["_buffers"] = {}, {}, {}
        if not auto_prefix:
            state["_auto_prefix"] = False

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._set_parameter(name, value)
        elif isinstance(value, Tree):
            self._set_cell(name, value)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Parameter | Tree):
            self._set_list(name, value)
        elif "_params" not in vars(self) or not self._is_part(name):
            object.__setattr__(self, name, value)
        else:
            self._refill(name, value)

    def __getattr__(self, name: str) -> Any:
        state = vars(self)
        for table in ("_params", "_cells", "_buffers"):
            if name in state.get(table, ()):
                return state[table][name]
        if name in ("_params", "_cells"):
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning parameters or cells")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if name in vars(self) or self._is_part(name):
            self._remove(name)
        else:
            object.__delattr__(self, name)  # raises what Python raises

    def __copy__(self) -> Self:
        """Return a cell of the same parts, which can then get others of its own."""
        twin = type(self).__new__(type(self))
        vars(twin).update({name: dict(held) if name in _TABLES else held for name, held in vars(self).items()})
        return twin

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._params, *self._cells, *self._buffers]

    def _is_part(self, name: str) -> bool:
        return name in self._params or name in self._cells or name in self._buffers or name in self._listed

    def _set_parameter(self, name: str, parameter: Parameter) -> None:
        self._check_free(name, self._params)
        self._check_name(name, parameter, {name})
        if name in self._params:
            self._free_name(self._params[name])
        else:
            self._forget(name)
        self._add_parameter(name, parameter)

    def _add_parameter(self, key: str, parameter: Parameter) -> None:
        if parameter._name_is_generated:
            parameter._rename(self._prefix + key)
        else:
            self._own("_taken")[parameter.name] = parameter
        self._params[key] = parameter

    def _own(self, name: str) -> dict[str, Any]:
        """Return a table of this cell, made when it is first needed."""
        return cast("dict[str, Any]", vars(self).setdefault(name, {}))

    def _check_name(self, key: str, parameter: Parameter, leaving: Set[str]) -> None:
        """Raise if another parameter of the cell has the same name, those at keys that are leaving left out."""
        if parameter._name_is_generated:
            return
        name = parameter.name
        for other in (self._taken.get(name), self._params.get(name.removeprefix(self._prefix))):
            # The holder of a name may have another one by now.
            if (
                other is not None
                and other is not parameter
                and other.name == name
                and any(held is other and held_as not in leaving for held_as, held in self._params.items())
            ):
                raise ArgumentValueError(
                    f"{type(self).__name__}.{key}: a parameter cannot be called so, "
                    f"its name {name!r} already exists; give it another one"
                )

    def _set_cell(self, name: str, cell: Tree) -> None:
        self._check_free(name, self._cells)
        if cell is self:
            raise ArgumentValueError(f"{type(self).__name__}.{name}: a cell cannot be a part of itself")
        if name not in self._cells:
            self._forget(name)
        self._cells[name] = cell
        if self._auto_prefix:
            cell._move_to(f"{self._prefix}{name}")

    def _set_list(self, name: str, members: Sequence[Any]) -> None:
        """Keep a list or tuple, and register its members if all of them are parameters, or all cells."""
        if all(isinstance(member, Parameter) for member in members):
            self._set_parameters(name, members)
        elif all(isinstance(member, Tree) for member in members):
            self._check_free(name, self._params)
            self._forget(name)
            for place, cell in enumerate(members):
                self._cells[f"{name}.{place}"] = cell
                if self._auto_prefix:
                    cell._move_to(f"{self._prefix}{name}.{place}")
            self._own("_listed")[name] = [f"{name}.{place}" for place in range(len(members))]
        elif self._is_part(name):
            self._refill(name, members)
        object.__setattr__(self, name, members)

    def _set_parameters(self, name: str, members: Sequence[Parameter]) -> None:
        self._check_free(name, self._params)
        check_members(members, f"{type(self).__name__}.{name}")
        leaving = {name, *self._listed.get(name, ())}
        held = {id(parameter) for key, parameter in self._params.items() if key not in leaving}
        fresh = {id(member): member for member in members if id(member) not in held}
        for member in fresh.values():
            self._check_name(name, member, leaving)
            if not member._name_is_generated and member.name in self._params and member.name not in leaving:
                raise ArgumentValueError(
                    f"{type(self).__name__}.{name}: the name {member.name!r} of a parameter already exists; "
                    "an attribute has it"
                )
        self._forget(name)
        keys = []
        for member in fresh.values():
            if member._name_is_generated:
                vars(self)["_unnamed_members"] = self._unnamed_members + 1
                key = f"Parameter${self._unnamed_members}"
            else:
                key = member.name
            self._add_parameter(key, member)
            keys.append(key)
        self._own("_listed")[name] = keys

    def _refill(self, name: str, value: Any) -> None:
        """Assign to an attribute that holds a part something that is no part itself."""
        if name in self._listed:
            self._forget(name)
            object.__setattr__(self, name, value)
        elif name in self._params:
            parameter = self._params[name]
            if value is None:
                self._free_name(parameter)
                self._params[name] = None
            elif isinstance(value, Tensor) and parameter is not None:
                parameter.set_data(value)
            else:
                held = "nothing" if parameter is None else f"parameter {parameter.name!r}"
                raise ArgumentTypeError(
                    f"{type(self).__name__}.{name} holds {held} and takes a Parameter, a Tensor of new values or None, "
                    f"found {type(value).__name__}"
                )
        elif name in self._cells:
            if value is not None:
                raise ArgumentTypeError(
                    f"{type(self).__name__}.{name} holds a cell and takes a cell or None, found {type(value).__name__}"
                )
            self._cells[name] = None
        elif value is None or isinstance(value, Tensor):
            self._buffers[name] = value
        else:
            raise ArgumentTypeError(
                f"{type(self).__name__}.{name} holds a buffer and takes a Tensor or None, found {type(value).__name__}"
            )

    def _check_free(self, name: str, table: dict[str, Any]) -> None:
        """Raise if an attribute cannot hold a part of a table."""
        if "." in name or not name:
            raise NameTakenError(f"{type(self).__name__}: {name!r} cannot name a part: it is empty or holds a dot")
        if name in table:
            return
        if hasattr(type(self), name):
            raise NameTakenError(f"{type(self).__name__}.{name} is an attribute of the class and cannot hold a part")
        for other, what in ((self._params, "parameter"), (self._cells, "cell"), (self._buffers, "buffer")):
            if name in other:
                raise NameTakenError(f"{type(self).__name__}.{name} already holds a {what}")

    def _forget(self, name: str) -> None:
        if name in vars(self) or self._is_part(name):
            self._remove(name)

    def _remove(self, name: str) -> None:
        if name in self._listed:
            for key in self._own("_listed").pop(name):
                self._free_name(self._params.pop(key, None))
                self._cells.pop(key, None)
        self._free_name(self._params.pop(name, None))
        for table in (vars(self), self._cells, self._buffers):
            table.pop(name, None)

    def _free_name(self, parameter: Parameter | None) -> None:
        if parameter is not None and self._taken:
            vars(self)["_taken"] = {name: other for name, other in self._taken.items() if other is not parameter}

    def _move_to(self, path: str) -> None:
        """Call every part of this tree by its path, which begins with `path`."""
        seen: set[int] = set()
        for place, cell in self._walk(path) if self._cells else [(path, self)]:
            prefix = place + "." if place else ""
            vars(cell)["_prefix"] = prefix
            for key, parameter in cell._params.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    parameter._rename(prefix + key)

    def _walk(self, path: str = "") -> Iterator[tuple[str, Tree]]:
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
                waiting.extend(
                    [(prefix + key, child) for key, child in reversed(cell._cells.items()) if child is not None]
                )

    def insert_param_to_cell(
        self, param_name: str, param: Parameter | None, check_name_contain_dot: bool = True
    ) -> None:
        """Register a parameter under a name.

        Parameters
        ----------
        param_name : str
        param : Parameter or None
            None keeps the place.
        check_name_contain_dot : bool
            Whether a dot in the name is an error.

        Raises
        ------
        KeyError
            If the name is empty, has a dot, or is in use for something else.
        TypeError
            If the name is no str, or `param` no parameter.
        ValueError
            If another parameter of the cell has the same name.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.insert_param_to_cell("scale", Parameter(1.0))
        >>> cell.scale
        Parameter (name=scale, shape=(), dtype=Float32, requires_grad=True)
        """
        self._check_insert(param_name, self._params, not check_name_contain_dot)
        if param is not None and not isinstance(param, Parameter):
            raise ArgumentTypeError(f"{type(self).__name__}.{param_name}: expected a Parameter, found {param!r:.80}")
        if param is None:
            self._params[param_name] = None
        else:
            self._check_name(param_name, param, {param_name})
            self._add_parameter(param_name, param)

    def insert_child_to_cell(self, child_name: str, child_cell: Tree | None) -> None:
        """Register a cell under a name, and call its parameters by their new paths.

        Raises
        ------
        KeyError
            If the name is empty, has a dot, or is in use.
        TypeError
            If the name is no str, or `child_cell` no cell.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.insert_child_to_cell("head", Cell())
        >>> list(cell.name_cells())
        ['head']
        """
        self._check_insert(child_name, self._cells)
        if child_cell is not None and not isinstance(child_cell, Tree):
            raise ArgumentTypeError(f"{type(self).__name__}.{child_name}: expected a Cell, found {child_cell!r:.80}")
        if child_cell is None:
            self._cells[child_name] = None
        else:
            self._set_cell(child_name, child_cell)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that is no parameter but belongs to the state, such as a mask.

        Parameters
        ----------
        name : str
        tensor : Tensor or None
        persistent : bool
            Whether checkpoints and `state_dict` keep it.

        Raises
        ------
        KeyError
            If the name is empty, has a dot, or is in use.
        TypeError
            If the name is no str, or `tensor` no tensor.

        Examples
        --------
        >>> from numparam import Cell
        >>> cell = Cell()
        >>> cell.register_buffer("steps", Tensor([0]))
        >>> [name for name, _ in cell.named_buffers()]
        ['steps']
        """
        self._check_insert(name, self._buffers)
        if name in self._buffers:
            raise NameTakenError(f"{type(self).__name__}.{name} already holds a buffer")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise ArgumentTypeError(f"{type(self).__name__}.{name}: expected a Tensor, found {type(tensor).__name__}")
        self._buffers[name] = tensor
        if not persistent:
            vars(self)["_transient"] = self._transient | {name}

    def _check_insert(self, name: Any, table: dict[str, Any], dots: bool = False) -> None:
        if not isinstance(name, str):
            raise ArgumentTypeError(f"{type(self).__name__}: the name of a part is a str, found {name!r}")
        self._check_free(name.replace(".", "$") if dots else name, table)
        if name in vars(self) or name in self._listed:
            raise NameTakenError(f"{type(self).__name__}.{name} already exists")
