"""What becomes a part of a cell by assignment, and what each part is called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence, Set
from typing import Any

from numparam.cell.tree import Tree, is_shadowable
from numparam.errors import ArgumentTypeError, ArgumentValueError, NameTakenError
from numparam.parameter import Parameter
from numparam.parameter.tuple import check_members
from numparam.tensor import Tensor
from numparam.text import shown


def assign(tree: Tree, name: str, value: Any) -> bool:
    """Assign to an attribute of a cell; return whether the value is an attribute as well, like any other."""
    if isinstance(value, Parameter):
        _set_parameter(tree, name, value)
        return False
    if isinstance(value, Tree):
        set_cell(tree, name, value)
        return False
    if isinstance(value, list | tuple) and value and isinstance(value[0], Parameter | Tree):
        _set_list(tree, name, value)
        return True
    return "_params" not in vars(tree) or not is_part(tree, name) or _refill(tree, name, value)


def delete(tree: Tree, name: str) -> bool:
    """Take out the part or attribute of a name; return whether there is one."""
    there = name in vars(tree) or is_part(tree, name)
    if there:
        remove(tree, name)
    return there


def insert_parameter(tree: Tree, name: str, parameter: Parameter | None, dots: bool) -> None:
    """Register a parameter, or a place for one."""
    check_insert(tree, name, tree._params, parameter, Parameter, dots)
    if parameter is None:
        tree._params[name] = None
    else:
        _check_name(tree, name, parameter, {name})
        _add_parameter(tree, name, parameter)


def insert_cell(tree: Tree, name: str, cell: Tree | None) -> None:
    """Register a cell, or a place for one."""
    check_insert(tree, name, tree._cells, cell, Tree)
    if cell is None:
        tree._cells[name] = None
    else:
        set_cell(tree, name, cell)


def insert_buffer(tree: Tree, name: str, buffer: Tensor | None, persistent: bool) -> None:
    """Register a buffer, or a place for one."""
    check_insert(tree, name, tree._buffers, buffer, Tensor)
    if name in tree._buffers:
        raise NameTakenError(f"{type(tree).__name__}.{name} already holds a buffer")
    tree._buffers[name] = buffer
    if not persistent:
        vars(tree)["_transient"] = tree._transient | {name}


def is_part(tree: Tree, name: str) -> bool:
    """Return whether an attribute holds a part, or a list of parts."""
    return name in tree._params or name in tree._cells or name in tree._buffers or name in tree._listed


def _set_parameter(tree: Tree, name: str, parameter: Parameter) -> None:
    _check_free(tree, name, tree._params)
    _check_name(tree, name, parameter, {name})
    if name in tree._params:
        _free_name(tree, tree._params[name])
    else:
        delete(tree, name)
    _add_parameter(tree, name, parameter)


def _add_parameter(tree: Tree, key: str, parameter: Parameter) -> None:
    if parameter._name_is_generated:
        parameter._rename(tree._prefix + key)
    else:
        tree._own("_taken")[parameter.name] = parameter
    tree._params[key] = parameter


def _check_name(tree: Tree, key: str, parameter: Parameter, leaving: Set[str]) -> None:
    """Raise if another parameter of the cell has the same name, not counting keys that are leaving."""
    if parameter._name_is_generated:
        return
    name = parameter.name
    for other in (tree._taken.get(name), tree._params.get(name.removeprefix(tree._prefix))):
        # The holder of a name may have another one by now.
        if (
            other is not None
            and other is not parameter
            and other.name == name
            and any(held is other and held_as not in leaving for held_as, held in tree._params.items())
        ):
            raise ArgumentValueError(
                f"{type(tree).__name__}.{key}: duplicate parameter name, its name {name!r} already exists; "
                "choose another"
            )


def set_cell(tree: Tree, name: str, cell: Tree) -> None:
    """Let an attribute hold a cell, which is called by its path from now on."""
    _check_free(tree, name, tree._cells)
    if cell is tree:
        raise ArgumentValueError(f"{type(tree).__name__}.{name}: a cell cannot be a part of itself")
    if name not in tree._cells:
        delete(tree, name)
    for keys in tree._listed.values():  # an attribute is a better place than a list
        for key in [key for key in keys if tree._cells.get(key) is cell]:
            keys.remove(key)
            del tree._cells[key]
    leave(tree, name)
    tree._cells[name] = cell
    if tree._auto_prefix:
        move_to(cell, f"{tree._prefix}{name}")


def _set_list(tree: Tree, name: str, members: Sequence[Any]) -> None:
    """Register the members of a list or tuple if all of them are parameters, or all cells."""
    if all(isinstance(member, Parameter) for member in members):
        _set_parameters(tree, name, members)
    elif all(isinstance(member, Tree) for member in members):
        _set_cells(tree, name, members)
    elif is_part(tree, name):
        _refill(tree, name, members)


def _set_parameters(tree: Tree, name: str, members: Sequence[Parameter]) -> None:
    check_members(members, f"{type(tree).__name__}.{name}")
    leaving = {name, *tree._listed.get(name, ())}
    held = {id(parameter) for key, parameter in tree._params.items() if key not in leaving}
    if any(id(member) not in held and not member._name_is_generated for member in members):
        below = (cell for cell in tree._cells.values() if cell is not None)
        held.update(id(parameter) for cell in below for _, parameter in cell._walk_parameters())
    fresh = {id(member): member for member in members if id(member) not in held}
    _check_free(tree, name, tree._params, shadows=not fresh)
    for member in fresh.values():
        _check_name(tree, name, member, leaving)
        if not member._name_is_generated and member.name in tree._params and member.name not in leaving:
            raise ArgumentValueError(
                f"{type(tree).__name__}.{name}: duplicate parameter name, its name {member.name!r} already exists "
                "as an attribute; choose another"
            )
    delete(tree, name)
    keys = []
    for member in fresh.values():
        if member._name_is_generated:
            vars(tree)["_unnamed_members"] = tree._unnamed_members + 1
            key = f"Parameter${tree._unnamed_members}"
        else:
            key = member.name
        _add_parameter(tree, key, member)
        keys.append(key)
    tree._own("_listed")[name] = keys


def _set_cells(tree: Tree, name: str, members: Sequence[Tree]) -> None:
    leaving = {name, *tree._listed.get(name, ())}
    below = [cell for key, cell in tree._cells.items() if cell is not None and key not in leaving]
    held = {id(cell) for cell in below}
    if any(id(member) not in held and member._prefix for member in members):
        held.update(id(cell) for top in below for _, cell in top._walk())
    fresh = {place: member for place, member in enumerate(members) if id(member) not in held}
    _check_free(tree, name, tree._params, shadows=not fresh)
    delete(tree, name)
    for place, cell in fresh.items():
        key = f"{name}.{place}"
        tree._cells[key] = cell
        if cell._prefix:
            vars(tree)["_guests"] = tree._guests | {key}
        elif tree._auto_prefix:
            move_to(cell, tree._prefix + key)
    tree._own("_listed")[name] = [f"{name}.{place}" for place in fresh]


def _refill(tree: Tree, name: str, value: Any) -> bool:
    """Assign to an attribute that holds a part something that is not a part; return whether it is plain from now on."""
    if name in tree._listed:
        remove(tree, name)
        return True
    if name in tree._params:
        parameter = tree._params[name]
        if value is None:
            _free_name(tree, parameter)
            tree._params[name] = None
        elif isinstance(value, Tensor) and parameter is not None:
            parameter.set_data(value)
        else:
            held = "nothing" if parameter is None else f"parameter {parameter.name!r}"
            raise ArgumentTypeError(
                f"{type(tree).__name__}.{name} holds {held} and takes a Parameter, a Tensor of new values or None, "
                f"found {type(value).__name__}"
            )
    elif name in tree._cells:
        if value is not None:
            raise ArgumentTypeError(
                f"{type(tree).__name__}.{name} holds a cell and takes a cell or None, found {type(value).__name__}"
            )
        leave(tree, name)
        tree._cells[name] = None
    elif value is None or isinstance(value, Tensor):
        tree._buffers[name] = value
    else:
        raise ArgumentTypeError(
            f"{type(tree).__name__}.{name} holds a buffer and takes a Tensor or None, found {type(value).__name__}"
        )
    return False


def _check_free(tree: Tree, name: str, table: Mapping[str, Any], shadows: bool = False) -> None:
    """Raise if an attribute cannot hold a part of a table; one that shadows may have a name of the class."""
    if "." in name or not name:
        raise NameTakenError(f"{type(tree).__name__}: {name!r} cannot name a part: it is empty or holds a dot")
    if name in table:
        return
    own = hasattr(type(tree), name) and not shadows
    if own and not is_shadowable(inspect.getattr_static(type(tree), name)):
        raise NameTakenError(f"{type(tree).__name__}.{name} is an attribute of the class and cannot hold a part")
    for other, what in ((tree._params, "parameter"), (tree._cells, "cell"), (tree._buffers, "buffer")):
        if name in other:
            raise NameTakenError(f"{type(tree).__name__}.{name} already holds a {what}")


def remove(tree: Tree, name: str) -> None:
    """Take out an attribute, and the parts that it brought in if it is a list."""
    for key in (name, *(tree._own("_listed").pop(name) if name in tree._listed else ())):
        _free_name(tree, tree._params.pop(key, None))
        leave(tree, key)
        tree._cells.pop(key, None)
        if key in tree._guests:
            vars(tree)["_guests"] = tree._guests - {key}
    for table in (vars(tree), tree._buffers):
        table.pop(name, None)


def leave(tree: Tree, key: str) -> None:
    """Note that the cell at a key has no place any more."""
    cell = tree._cells.get(key)
    if cell is not None and cell._prefix == f"{tree._prefix}{key}.":
        vars(cell)["_prefix"] = ""


def _free_name(tree: Tree, parameter: Parameter | None) -> None:
    if parameter is not None and tree._taken:
        vars(tree)["_taken"] = {name: other for name, other in tree._taken.items() if other is not parameter}


def move_to(tree: Tree, path: str) -> None:
    """Call every part of this tree by its path, which begins with `path`; guests keep their names."""
    seen: set[int] = set()
    for place, cell in tree._walk(path, guests=False) if tree._cells else [(path, tree)]:
        prefix = place + "." if place else ""
        vars(cell)["_prefix"] = prefix
        for key, parameter in cell._params.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                parameter._rename(prefix + key)


def check_insert(
    tree: Tree, name: Any, table: Mapping[str, Any], part: object = None, kind: type = object, dots: bool = False
) -> None:
    """Raise unless a part can be registered under a new name."""
    if not isinstance(name, str):
        raise ArgumentTypeError(f"{type(tree).__name__}: the name of a part is a str, found {shown(name)}")
    _check_free(tree, name.replace(".", "$") if dots else name, table)
    if name in vars(tree) or name in tree._listed:
        raise NameTakenError(f"{type(tree).__name__}.{name} already exists")
    if part is not None and not isinstance(part, kind):
        expected = "Cell" if kind is Tree else kind.__name__
        raise ArgumentTypeError(f"{type(tree).__name__}.{name}: expected a {expected}, found {shown(part)}")
