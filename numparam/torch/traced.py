"""Rules that start a model as its own code does, for files that are written without the model in memory."""

from __future__ import annotations

import inspect
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from numparam.entry import Entry
from numparam.errors import ArgumentValueError, StateError
from numparam.indexing.region import Region
from numparam.initializer import Initializer, Normal, Zero, by_name
from numparam.initializer.computed import Computed
from numparam.initializer.padded import PaddedNormal
from numparam.rules import Rule, Rules
from numparam.stream.source import Buffer, Source
from numparam.text import shown
from numparam.torch.identity import tied
from numparam.torch.memory import shared
from numparam.torch.replay import drawn_again
from numparam.torch.rules import OwnRules
from numparam.torch.tracking import Tracked
from numparam.torch.walk import collecting_later, modules

_MOST = 4000  # characters of the globs of one rule
_MOST_BYTES = 1 << 28  # of the values that one run of a model's code computes, if one alone does not take more
_COMPUTED = {"init": "computed"}


class _ByModel(Computed):
    """Give parameters the values that the code of a model computes, by running it with memory for some at a time.

    What the code reads and numparam draws has memory in every run, and the values of the last run are kept.

    Raises
    ------
    StateError
        If the code cannot run, or does not write a parameter.
    """

    def __init__(self, model: torch.nn.Module, entries: Iterable[Entry], read: Iterable[str]) -> None:
        self._model, self._read, self._run = model, frozenset(read), lru_cache(1)(self._computed)
        self._groups: dict[str, list[str]] = {}
        group: list[str] = []
        used = 0
        for entry in sorted(entries, key=lambda entry: -entry.dtype.itemsize):  # in the order of files
            owner, _, _ = entry.name.rpartition(".")
            if group and used + entry.nbytes > _MOST_BYTES and owner != group[-1].rpartition(".")[0]:
                group, used = [], 0
            group.append(entry.name)
            self._groups[entry.name] = group
            used += entry.nbytes

    def fill(self, out: Buffer, region: Region, source: Source) -> None:
        """Fill `out` with the values of a region."""
        name = str(source.name)
        out[...] = region.take(self._run(source.seed, *self._groups[name])[name])

    def _computed(self, seed: int, *group: str) -> dict[str, Any]:
        items = _drawn(self._model, seed, self._read.union(group))
        for name in group:
            if not items[name].written:
                raise StateError(f"parameter {shown(name)}: the code of {type(self._model).__name__} does not write it")
        return {name: np.asarray(shared(items[name].local.contiguous())) for name in group}


def with_start(rules: Rules, model: torch.nn.Module, entries: Iterable[Entry]) -> Rules:
    """Add the rules that start a model as its own code does, between the user's rules and the general ones.

    What no rule can, the code of the model computes when the values are needed.

    Parameters
    ----------
    rules : Rules
        If the file of the user has disabled the general rules, nothing is added.
    model : torch.nn.Module
        On the meta device; it gets the dtypes of the entries.
    entries : iterable of Entry
        The parameters and buffers that will be written.

    Raises
    ------
    StateError
        If the code cannot run without memory.
    """
    own, general = Rules(rules.rules[: rules.own]), rules.rules[rules.own :]
    missing = [entry for entry in entries if own.find(entry) is None]
    if not general or not missing:
        return rules
    state = model.state_dict(keep_vars=True)
    for entry in missing:
        state[entry.name].data = state[entry.name].to(getattr(torch, entry.dtype.name))
    items = _drawn(model)
    parameters = dict(model.named_parameters())
    known, computed = {}, []
    for entry in missing:
        item = items.get(entry.name)
        content = _content(item)
        if content is None and item is not None and (item.written or entry.name in parameters):
            content = _COMPUTED
            computed.append(entry)
        if content is not None:
            known[entry.name] = content
    read = {name for name, item in items.items() if item.is_read} - {entry.name for entry in computed}
    by_model = _ByModel(model, computed, read)
    for fold in (True, False):
        found = Rules.from_contents([rule.content for rule in own.rules] + _tables(known, fold), "the model's start")
        chosen = {entry.name: found.find(entry) for entry in missing if entry.name in known}
        if all(rule is not None and _without_glob(rule.content) == known[name] for name, rule in chosen.items()):
            break
    start = [replace(rule, initializer=by_model) if _is_computed(rule) else rule for rule in found.rules[rules.own :]]
    return Rules((*own.rules, *start, *general), rules.own)


def _drawn(model: torch.nn.Module, seed: int = 0, held: Container[str] = ()) -> dict[str, Tracked]:
    try:
        with collecting_later():
            return drawn_again(model, seed, OwnRules(None), str, tied(modules(model)), None, held)
    except StateError as error:
        raise StateError(f"the code that starts {type(model).__name__}: {error}") from None


def _is_computed(rule: Rule) -> bool:
    return _without_glob(rule.content) == _COMPUTED


def _without_glob(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "glob"}


def _content(item: Tracked | None) -> dict[str, Any] | None:
    """Return the rule without its glob of what was written to a parameter, None if no rule does this."""
    if item is None or not isinstance(item.how, Initializer) or not item.writes:
        return None
    (how, part, name, _), *others = item.writes
    match others:
        case [(Zero(), row, _, _)] if type(how) is Normal and how.mean == 0 and row.shape == item.shape[1:]:
            how = PaddedNormal(row.start // max(row.stop - row.start, 1), how.sigma)
        case [_, *_]:
            return None
    draw = name.removeprefix(item.name)
    if not part.is_full or not re.fullmatch("(\0[0-9]+)?", draw):
        return None
    alias = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(how).__name__).lower()
    arguments = {key: getattr(how, key, None) for key in inspect.signature(type(how)).parameters}
    try:
        is_known = isinstance(how, PaddedNormal) or by_name(alias) is type(how)
    except ArgumentValueError:
        return None
    if not is_known or not all(isinstance(value, int | float | str | None) for value in arguments.values()):
        return None
    return {"init": alias, **arguments} | ({"draw": int(draw[1:])} if draw else {})


def _tables(starts: Mapping[str, dict[str, Any]], fold: bool) -> list[dict[str, Any]]:
    """Return one rule for each start; layers that differ in their numbers share a glob if asked for."""
    globs: dict[str, list[str]] = {}
    for name in starts:
        globs.setdefault(re.sub(r"(?<=\.)[0-9]+(?=\.)", "*", name) if fold else name, []).append(name)
    groups: list[tuple[dict[str, Any], list[str]]] = []
    for glob, names in globs.items():
        contents = [starts[name] for name in names]
        alike = all(content == contents[0] for content in contents)
        for text, content in [(glob, contents[0])] if alike else zip(names, contents, strict=True):
            group = next((texts for known, texts in reversed(groups) if known == content), None)
            if group is None or sum(map(len, group)) + len(text) > _MOST:
                groups.append((content, group := []))
            group.append(text)
    return [{"glob": texts, **content} for content, texts in groups]
