"""What an initialisation did."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch

from numparam.initializer import Initializer
from numparam.text import amount, printable, size


class Filled(NamedTuple):
    """A parameter or buffer that was filled."""

    name: str
    """The name that decided the values."""
    shape: tuple[int, ...]
    """Of the full tensor."""
    held: tuple[int, ...]
    """Of the shard that this rank holds and filled."""
    dtype: str
    device: str
    nbytes: int
    """Of the shard."""
    init: Initializer | str
    """``"computed"`` where a model's own code wrote more than one distribution."""
    rule: str
    """The user's glob, regular expression or function that chose the initializer, or the layer of torch."""


@dataclass(frozen=True)
class Report:
    """Report what `numparam.torch.init_` did; printed, it is a table.

    Attributes
    ----------
    seed : int
        The seed that was used.
    filled : list of Filled
        In the order of the module.
    left : list of str
        The names of tensors that were left unchanged: parameters with the rule ``unset``, and buffers that torch does
        not initialise, such as the tables of a position encoding. After ``to_empty`` their values are undefined.
    unused : list of str
        The rules that matched no parameter, perhaps misspelt.
    uncaught : list of str
        Where the model's own code drew from other generators, so that the values are not numparam's.

    Examples
    --------
    >>> import torch
    >>> from numparam.torch import init_
    >>> print(init_(torch.nn.Linear(4, 2), {"*.weight": 0.5}, seed=7))
    parameter  shape   here    dtype    device  values              rule
    weight     (2, 4)  (2, 4)  float32  cpu     Uniform(scale=0.5)  torch.nn.Linear
    bias       (2,)    (2,)    float32  cpu     Uniform(scale=0.5)  torch.nn.Linear
    2 tensors, 40 B here; seed 7
    the rule '*.weight' matched no parameter
    """

    seed: int
    filled: list[Filled] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    uncaught: list[str] = field(default_factory=list)

    def _repr_html_(self) -> str:
        from numparam import html

        head, *rows = self._table()
        return html.table(head, rows, foot="\n".join(self._notes()))

    def __str__(self) -> str:
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join(["  ".join(map(str.ljust, row, widths)).rstrip() for row in table] + self._notes())

    def _table(self) -> list[tuple[str, ...]]:
        return [
            ("parameter", "shape", "here", "dtype", "device", "values", "rule"),
            *(
                (printable(row.name), str(row.shape), str(row.held), row.dtype, row.device, str(row.init), row.rule)
                for row in self.filled
            ),
        ]

    def _notes(self) -> list[str]:
        here = size(sum(row.nbytes for row in self.filled))
        lines = [f"{amount(len(self.filled), 'tensor')}, {here} here; seed {self.seed}"]
        lines += [f"{printable(name)} was left as it was" for name in self.left]
        lines += [f"not drawn by numparam: {printable(what)}" for what in self.uncaught]
        lines += [f"the rule {rule!r} matched no parameter" for rule in self.unused]
        return lines


def row(name: str, tensor: torch.Tensor, local: torch.Tensor, how: Initializer | str, rule: str) -> Filled:
    """Describe what was filled: a tensor, of which this rank holds `local`."""
    held, dtype, device, nbytes = _called(local.shape, local.dtype, local.device)
    return Filled(name, held if local is tensor else tuple(tensor.shape), held, dtype, device, nbytes, how, rule)


@lru_cache(maxsize=1024)  # models have thousands of tensors of a few shapes
def _called(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> tuple[tuple[int, ...], str, str, int]:
    return tuple(shape), str(dtype).removeprefix("torch."), str(device), shape.numel() * dtype.itemsize
