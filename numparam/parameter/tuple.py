"""A tuple of parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable

from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.initializer import Initializer
from numparam.parameter.parameter import Parameter
from numparam.tensor import Tensor
from numparam.text import shown


class ParameterTuple(tuple[Parameter, ...]):
    """Hold parameters in order; a cell registers them as it does a list of parameters.

    Parameters
    ----------
    parameters : iterable of Parameter

    Raises
    ------
    TypeError
        If it is not an iterable of parameters.
    ValueError
        If two different parameters have the same name.

    Examples
    --------
    >>> weights = ParameterTuple([Parameter(1.0, name="a"), Parameter(2.0, name="b")])
    >>> [parameter.name for parameter in weights.clone("adam", "zeros")]
    ['adam.a', 'adam.b']
    """

    __slots__ = ()

    def __new__(cls, parameters: Iterable[Parameter]) -> ParameterTuple:
        """Check the parameters."""
        if isinstance(parameters, Tensor) or not isinstance(parameters, Iterable):
            raise ArgumentTypeError(
                f"a ParameterTuple takes an iterable of parameters, found {type(parameters).__name__}"
            )
        members = tuple(parameters)
        check_members(members, "a ParameterTuple")
        return super().__new__(cls, members)

    def clone(self, prefix: str, init: Tensor | Initializer | str | float = "same") -> ParameterTuple:
        """Clone every parameter, and put a prefix and a dot before its name.

        Parameters
        ----------
        prefix : str
            ASCII letters, digits and underscores, then dots too.
        init : Tensor, Initializer, str or number
            As in `Parameter.clone`.

        Raises
        ------
        TypeError
            If `prefix` is not a str.
        ValueError
            If `prefix` has other letters.
        """
        if not isinstance(prefix, str):
            raise ArgumentTypeError(f"a prefix is a str, found {shown(prefix)}")
        if not re.fullmatch(r"\w+[0-9a-zA-Z_.]*", prefix, re.ASCII):
            raise ArgumentValueError(
                f"a prefix consists of letters, digits, underscores and dots, found {shown(prefix)}"
            )
        clones = [parameter.clone(init) for parameter in self]
        for clone in clones:
            clone.name = f"{prefix}.{clone.name}"
        return ParameterTuple(clones)


def check_members(members: Iterable[object], what: str) -> None:
    """Raise if something is not a parameter, or two different parameters have the same name."""
    named: dict[str, Parameter] = {}
    for place, member in enumerate(members):
        if not isinstance(member, Parameter):
            raise ArgumentTypeError(f"{what} holds parameters, found {type(member).__name__} at {place}")
        if named.setdefault(member.name, member) is not member:
            raise ArgumentValueError(
                f"{what}: duplicate parameter name at {place}, its name {member.name!r} already exists; choose another"
            )
