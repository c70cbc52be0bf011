"""Which values fit which parameters, by name, shape and dtype, and the report of what did not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np

from numparam import dtypes
from numparam.checkpoint.saving import region_of
from numparam.indexing.region import Region
from numparam.parameter import Parameter
from numparam.tensor import Tensor
from numparam.text import printable, shown

_SHOWN = 100


class LoadReport(tuple[list[str], list[str]]):
    """Hold what a load left out: ``(param_not_load, ckpt_not_load)``, as MindSpore gives it, and why.

    Attributes
    ----------
    param_not_load : list of str
        The parameters that got no values.
    ckpt_not_load : list of str
        The values that went nowhere.
    skipped : dict of str to str
        The reason for each name in either.
    renamed : dict of str to str
        The parameters that got values of another name, and that name.
    """

    skipped: dict[str, str]
    renamed: dict[str, str]

    def __new__(
        cls,
        param_not_load: list[str],
        ckpt_not_load: list[str],
        skipped: dict[str, str],
        renamed: dict[str, str] | None = None,
    ) -> LoadReport:
        """Make the pair."""
        report = super().__new__(cls, (param_not_load, ckpt_not_load))
        report.skipped, report.renamed = skipped, renamed or {}
        return report

    def __getnewargs__(self) -> tuple[list[str], list[str], dict[str, str], dict[str, str]]:
        return *self, self.skipped, self.renamed

    @property
    def param_not_load(self) -> list[str]:
        """Return the parameters that got no values."""
        return self[0]

    @property
    def ckpt_not_load(self) -> list[str]:
        """Return the values that went nowhere."""
        return self[1]

    def _repr_html_(self) -> str:
        from numparam import html

        moved = {name: f"loaded from {shown(original)}" for name, original in self.renamed.items()}
        rows = (moved | self.skipped).items()
        return html.table(("parameter", "what happened"), rows, foot="" if rows else str(self))

    def __str__(self) -> str:
        if not self.skipped and not self.renamed:
            return "everything was loaded"
        moved = {name: f"loaded from {shown(original)}" for name, original in self.renamed.items()}
        said = moved | self.skipped
        lines = [printable(f"{name}: {reason}", 300) for name, reason in islice(said.items(), _SHOWN)]
        more = len(said) - _SHOWN
        return "\n".join(lines if more <= 0 else [*lines, f"and {more} more"])


def match_ends(there: Iterable[str], given: Mapping[str, object]) -> dict[str, str]:
    """Return the names in a cell for values of other names, among the names that are left on both sides.

    A value and a parameter belong together if the name of one ends with that of the other, after a dot. If several
    values belong to one parameter, the prefix decides that most pairs have, and of these the shortest.

    Examples
    --------
    >>> match_ends(["weight", "bias"], {"net.weight": 0, "net.bias": 0, "net.extra.bias": 0})
    {'net.weight': 'weight', 'net.bias': 'bias'}
    >>> match_ends(["layers.0.weight"], {"0.weight": 0})
    {'0.weight': 'layers.0.weight'}
    """
    names = set(there)
    missing = [name for name in names if name not in given]
    pairs = _pairs(missing, (name for name in given if name not in names))
    prefixes: dict[str, int] = defaultdict(int)
    for prefix, _, _ in pairs:
        prefixes[prefix] += 1
    by_name: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for pair in pairs:
        by_name[pair[1]].append(pair)
    chosen = list(filter(None, (_commonest(rivals, prefixes) for rivals in by_name.values())))
    values: dict[str, int] = defaultdict(int)
    for _, _, value in chosen:
        values[value] += 1
    found = {value: name for _, name, value in chosen if values[value] == 1}
    return {value: found[value] for value in given if value in found}


def _pairs(missing: Iterable[str], surplus: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return a sign of the prefix with a parameter and a value of which one name ends with the other."""
    missing, surplus = set(missing), set(surplus)
    dropped = [(f"-{end[0]}", end[1], value) for value in surplus for end in _ends(value) if end[1] in missing]
    return dropped + [(f"+{end[0]}", name, end[1]) for name in missing for end in _ends(name) if end[1] in surplus]


def _ends(name: str) -> Iterable[tuple[str, str]]:
    """Yield a name split at each of its dots."""
    place = name.find(".")
    while place >= 0:
        yield name[:place], name[place + 1 :]
        place = name.find(".", place + 1)


def _commonest(pairs: list[tuple[str, str, str]], prefixes: Mapping[str, int]) -> tuple[str, str, str] | None:
    """Return the pair with the commonest prefix, the shortest of several; None if that leaves more than one."""
    ranks = [(-prefixes[prefix], len(prefix)) for prefix, _, _ in pairs]
    best = min(ranks)
    return pairs[ranks.index(best)] if ranks.count(best) == 1 else None


def misfit(holders: Iterable[Tensor], value: Tensor, strict: bool) -> str | None:
    """Return why values cannot go into parameters of one name; None if they can."""
    return next(filter(None, (_misfit_of(held, value, strict) for held in holders)), None)


def _misfit_of(held: Tensor, value: Tensor, strict: bool) -> str | None:
    file = value.origin_file if isinstance(value, Parameter) else None
    source = f"{file} has" if file else "found"
    region = region_of(held)
    if not is_cut(held, value) and held.shape != value.shape:
        part = "" if region.is_full else f", or {region.full_shape} to take {region} of"
        return f"expected shape {held.shape}{part}, {source} shape {value.shape}"
    if not (region.is_full or region_of(value).is_full or _same(region, region_of(value))):
        return f"expected {region}, {source} {region_of(value)}"
    kinds = [_kind(held.dtype), _kind(value.dtype)]
    if held.dtype != value.dtype and (strict or kinds[0] != kinds[1]):
        return f"expected dtype {held.dtype}, {source} dtype {value.dtype}"
    return None


def _kind(dtype: np.dtype[Any]) -> str:
    return "f" if dtypes.is_floating(dtype) else "i" if dtype.kind in "iu" else dtype.kind


def is_cut(held: Tensor, value: Tensor) -> bool:
    """Return whether values are of the full parameter, of which a rank holds a region."""
    region = region_of(held)
    return not region.is_full and region_of(value).is_full and value.shape == region.full_shape


def _same(one: Region, other: Region) -> bool:
    return (one.full_shape, one.slices()) == (other.full_shape, other.slices())
