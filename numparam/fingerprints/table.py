"""The fingerprints of the parameters of a model: a table that adds, compares and is kept as JSON."""

import json
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from numparam.checkpoint.limits import MAX_HEADER_BYTES
from numparam.checks import read_file
from numparam.errors import ArgumentTypeError, ArgumentValueError, CheckpointError, MismatchError, MissingNameError
from numparam.fingerprints.joining import join
from numparam.fingerprints.value import Fingerprint
from numparam.text import aligned, amount, printable, shown

_FORMAT = "numparam fingerprints 1"


class Difference(NamedTuple):
    """Describe how a parameter of one table differs from the one of the same name in another."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"parameter {self.name!r}: {self.reason}"


class Fingerprints(Mapping[str, Fingerprint]):
    r"""Map the names of parameters to their fingerprints.

    Printed, it is a table. Two add up where both have a name, and keep what only one of them has.

    Examples
    --------
    >>> import numpy as np
    >>> import numparam
    >>> ones, zeros = np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)
    >>> sent = numparam.fingerprint({"up": ones, "gate": zeros})
    >>> arrived = numparam.fingerprint({"up": zeros, "gate": ones})
    >>> print(*sent.compare(arrived), sep="\n")
    parameter 'up': its values differ, and are the values of 'gate'
    parameter 'gate': its values differ, and are the values of 'up'
    >>> print(sent)
    parameter  shape   dtype    fingerprint
    up         (2, 2)  float32  01d540a33e9bdedd05682970e71966e1
    gate       (2, 2)  float32  00000000000000000000000000000000
    """

    def __init__(self, found: Mapping[str, Fingerprint]) -> None:
        if not isinstance(found, Mapping):
            raise ArgumentTypeError(f"fingerprints are a mapping by name, found {shown(found)}")
        self._found = dict(found)

    def __getitem__(self, name: str) -> Fingerprint:
        """Return the fingerprint of a parameter; a MissingNameError if there is none of this name."""
        if name not in self._found:
            raise MissingNameError(f"no fingerprint of parameter {name!r}, found {amount(len(self), 'other')}")
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __len__(self) -> int:
        return len(self._found)

    def __add__(self, other: Any) -> "Fingerprints":
        if not isinstance(other, Fingerprints):
            return NotImplemented
        both = {name: self[name] + other[name] for name in self if name in other}
        return Fingerprints(self._found | other._found | both)

    @classmethod
    def join(cls, tables: "Mapping[Any, Mapping[str, Fingerprint]]") -> "Fingerprints":
        """Add up what several ranks have computed, each of its own shards.

        Parameters
        ----------
        tables : mapping
            From a rank, or any name of one, to its table.

        Returns
        -------
        Fingerprints
            Every region is counted once, however many ranks hold it.

        Raises
        ------
        DisagreementError
            If ranks hold different values of one region; the message names the parameter, the ranks and the region.
        MismatchError
            If ranks differ in the shape, the dtype or the key of a parameter.
        StateError
            If regions overlap without being the same.

        Examples
        --------
        >>> import numpy as np
        >>> import numparam
        >>> weight, rows = np.ones((4, 2), np.float32), numparam.Region.full((4, 2))
        >>> halves = [numparam.fingerprint(weight[at], region=rows[at]) for at in (slice(2), slice(2, 4))]
        >>> found = Fingerprints.join({rank: {"weight": each} for rank, each in enumerate(halves)})
        >>> found["weight"] == numparam.fingerprint(weight)
        True
        """
        given: Any = tables
        if not isinstance(given, Mapping) or not all(isinstance(table, Mapping) for table in given.values()):
            raise ArgumentTypeError(f"a mapping from ranks to tables of fingerprints is joined, found {shown(given)}")
        for rank, table in given.items():
            for name, each in table.items():
                if not isinstance(each, Fingerprint):
                    raise ArgumentTypeError(f"rank {rank}: parameter {name!r} has no fingerprint, found {shown(each)}")
        return cls(join(tables))

    def compare(self, other: "Fingerprints") -> list[Difference]:
        """Return how `other`, what arrived, differs from this table, what was sent.

        Raises
        ------
        StateError
            If a parameter of either is not covered completely.
        MismatchError
            If the two were computed with different keys.
        """
        if not isinstance(other, Fingerprints):
            raise ArgumentTypeError(f"a table of fingerprints is compared with another, found {shown(other)}")
        if len(keys := {each.key for table in (self, other) for each in table.values()}) > 1:
            raise MismatchError(f"fingerprints of one key are compared, found {len(keys)} different keys")
        for table in (self, other):
            for each in table.values():
                each.require_complete()
        by_value: dict[Fingerprint, str] = {}
        for name, each in self.items():
            by_value.setdefault(each, name)
        found = []
        for name, each in self.items():
            if name not in other:
                found.append(Difference(name, "it is missing"))
            elif reason := _reason(each, other[name], by_value.get(other[name])):
                found.append(Difference(name, reason))
        return found + [Difference(name, "it was not expected") for name in other if name not in self]

    def _repr_html_(self) -> str:
        from numparam import html

        head, *rows = self._table()
        return html.table(head, rows, foot=amount(len(self), "parameter"))

    def __str__(self) -> str:
        return "\n".join(aligned(self._table()))

    def _table(self) -> list[tuple[str, ...]]:
        table: list[tuple[str, ...]] = [("parameter", "shape", "dtype", "fingerprint")]
        for name, each in self.items():
            partly = "" if each.complete else " (in part)"
            table.append((printable(name), str(each.shape), each.dtype, f"{each}{partly}"))
        return table

    def to_json(self) -> str:
        """Return the table as JSON, one parameter a line."""
        key = next((each.key for each in self.values()), "")
        lines = [f"  {json.dumps(name)}: {json.dumps(each.to_dict())}" for name, each in self.items()]
        head = f'{{"format": {json.dumps(_FORMAT)}, "key": {json.dumps(key)}, "parameters": {{\n'
        return head + ",\n".join(lines) + "\n}}\n"

    @classmethod
    def from_json(cls, text: str) -> "Fingerprints":
        """Read what `to_json` wrote; an ArgumentValueError if it is something else."""
        try:
            content = json.loads(text)
            key, parameters = content["key"], content["parameters"].items()
            if content["format"] != _FORMAT or not isinstance(key, str):
                raise ArgumentValueError(f"the format is {_FORMAT!r}, found {shown(content['format'])}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArgumentValueError(f"the text is not a table of fingerprints in JSON: {error}") from None
        return cls({name: Fingerprint.from_dict(each, key, name) for name, each in parameters})

    def save(self, path: str | PathLike[str]) -> None:
        """Write the table to a JSON file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Fingerprints":
        """Read a file that `save` wrote.

        Raises
        ------
        CheckpointError
            If the file holds something else.
        OSError
            If it cannot be read.
        """
        if not isinstance(path, str | PathLike):
            raise ArgumentTypeError(f"a path is expected, found {shown(path)}")
        try:
            return cls.from_json(read_file(path, MAX_HEADER_BYTES).decode())
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None


def _reason(sent: Fingerprint, arrived: Fingerprint, holder: str | None) -> str:
    if sent.shape != arrived.shape:
        return f"shape {sent.shape} was expected, found {arrived.shape}"
    if sent.dtype != arrived.dtype:
        return f"{sent.dtype} was expected, found {arrived.dtype}"
    if sent.sums == arrived.sums:
        return ""
    return "its values differ" if holder is None else f"its values differ, and are the values of {holder!r}"
