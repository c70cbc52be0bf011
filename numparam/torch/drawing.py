"""Run third-party initialisation code with the values of numparam."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import SupportsIndex

import torch

from numparam.torch.filling import common_seed
from numparam.torch.mode import Drawing
from numparam.torch.report import Report, row
from numparam.torch.seeing import seeing
from numparam.torch.tracking import tracked
from numparam.torch.walk import Visit, modules, places


@contextmanager
def drawing(module: torch.nn.Module, seed: SupportsIndex | None = None, *, prefix: str = "") -> Iterator[Report]:
    """Give initialisation code that runs inside the block the values of numparam.

    Every random operation of torch that writes a parameter or a buffer of `module`, or a view of one, writes a function
    of the seed, the name of the parameter, how often these elements have been drawn before, and the index in the full
    parameter: a shard gets its part of the full values, without communication. So ``nn.init.*``, ``Tensor.normal_`` and
    its kin, ``reset_parameters``, ``init_weights`` and constructors start a model with the same bits on any mesh.
    Random temporary tensors, such as from ``torch.rand``, depend on the seed, the module whose code draws them and
    how many it made before. torch's generators are neither read nor changed.

    Parameters
    ----------
    module : torch.nn.Module
        On any device, and with ``DTensor`` parameters of any placements; what is on ``meta`` stays there.
    seed : int, optional
        From 0 to 2**64 - 1, the same on all ranks; by default the seed of `numparam.set_seed`.
    prefix : str
        The name of the module inside a larger one, such as ``"layers.3"``.

    Yields
    ------
    Report
        Filled at the end of the block: what was written, what was not (``left``), and random operations that do not go
        through torch's functions (``uncaught``).

    Raises
    ------
    TypeError
        If an argument is of another kind, or a parameter cannot hold the values.
    RuntimeError
        If code reads a part of a sharded parameter, or each of several ranks would draw its own seed.

    Examples
    --------
    >>> from torch import nn
    >>> layer = nn.Linear(4, 2)
    >>> with drawing(layer, seed=7) as report:
    ...     _ = nn.init.trunc_normal_(layer.weight, std=0.02)
    ...     _ = layer.bias.data.zero_()
    >>> print(report)
    parameter  shape   here    dtype    device  values                                                rule
    weight     (2, 4)  (2, 4)  float32  cpu     TruncatedNormal(sigma=0.02, mean=0.0, a=-2.0, b=2.0)  drawing
    bias       (2,)    (2,)    float32  cpu     Zero()                                                drawing
    2 tensors, 40 B here; seed 7
    """
    prefix = f"{prefix}." if prefix and not prefix.endswith(".") else prefix
    number = common_seed(seed)
    report = Report(number)
    visits = modules(module, prefix)
    mode = Drawing(number, map(tracked, places(module, prefix, visits)), module_names(visits))
    with seeing(mode, mode.uncaught):
        yield report
    mode.adopt(module, prefix, str)
    report.filled.extend(
        row(item.name, item.place.tensor, item.local, item.how, "drawing")
        for item in mode.tracker.all
        if item.written and item.log is None
    )
    report.left.extend(item.name for item in mode.tracker.all if not item.written and item.log is None)
    report.uncaught.extend(mode.uncaught)


def module_names(visits: Iterable[Visit], rename: Callable[[str], str] = str) -> dict[int, str]:
    """Return the names of modules, by their identity."""
    return {id(part): rename(inside + "*").removesuffix("*") for inside, part, _ in visits}
