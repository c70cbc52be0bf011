"""Rules that start a model as its own code does, for files that are written without the model in memory."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from numparam.entry import Entry
from numparam.errors import ArgumentValueError
from numparam.initializer import Initializer, Normal, Zero, by_name
from numparam.initializer.padded import PaddedNormal
from numparam.rules import RuleError, Rules
from numparam.text import shown
from numparam.torch.identity import tied
from numparam.torch.replay import drawn_again
from numparam.torch.rules import OwnRules
from numparam.torch.tracking import Tracked
from numparam.torch.walk import collecting_later, modules

_MOST = 4000  # characters of the globs of one rule


def with_start(rules: Rules, model: torch.nn.Module, entries: Iterable[Entry]) -> Rules:
    """Add the rules that start a model as its own code does, between the user's rules and the general ones.

    Parameters
    ----------
    rules : Rules
        If the file of the user has disabled the general rules, nothing is added.
    model : torch.nn.Module
        On the meta device.
    entries : iterable of Entry
        The parameters and buffers that will be written.

    Raises
    ------
    RuleError
        If the code computes a parameter that no rule of the user covers, or cannot run without memory.
    """
    own, general = Rules(rules.rules[: rules.own]), rules.rules[rules.own :]
    missing = [entry for entry in entries if own.find(entry) is None]
    if not general or not missing:
        return rules
    with collecting_later():
        items = drawn_again(model, 0, OwnRules(None), str, tied(modules(model)), None)
    starts = {entry.name: _content(items.get(entry.name)) for entry in missing}
    parameters = dict(model.named_parameters())
    for name, content in starts.items():
        if content is None and name in parameters:
            raise RuleError(
                f"parameter {shown(name)}: the code of {type(model).__name__} computes its start, which no rule can; "
                f'add one to --rules, such as [[rules]] glob = "{name}" init = "zeros"'
            )
    known = {name: content for name, content in starts.items() if content is not None}
    for fold in (True, False):
        found = Rules.from_contents([rule.content for rule in own.rules] + _tables(known, fold), "the model's start")
        chosen = {entry.name: found.find(entry) for entry in missing if entry.name in known}
        if all(rule is not None and _without_glob(rule.content) == known[name] for name, rule in chosen.items()):
            break
    return Rules((*found.rules, *general), rules.own)


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
