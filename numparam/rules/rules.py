r"""Rules: which initializer each parameter gets, by its name and its number of axes.

A file of rules is TOML, tried from top to bottom; the first rule that matches a parameter decides::

    [[rules]]
    glob = "*.lm_head.weight"       # full name; * and ? also match dots; a list of globs matches if any does
    init = "zeros"

    [[rules]]
    regex = 'layers\.\d+\.mlp\..*'  # or a regular expression for the full name
    min_ndim = 2                    # optional: only parameters of at least, or with max_ndim of at most, so many axes
    init = "truncated_normal"       # any alias of numparam.initializer, or one of the buffers below
    sigma = 0.006                   # every other key is an argument of the initializer

    [[rules]]
    glob = "*.experts.*"
    init = "he_uniform"
    batch_axis = 0                  # several weights in one, as for numparam.initializer.Axes: batch_axis, in_axis,
                                    # out_axis, splits

The rules of `numparam.default_rules` follow, unless the file has ``defaults = false`` at its top: norms one, biases
zero, embeddings and matrices normal with sigma 0.02, convolutions He normal. They guess no further: a parameter that no
rule matches is an error that names it.

Checkpoints also hold buffers, whose values are fixed and not random. Some initializers exist for rules alone:
``arange`` counts 0, 1, 2, ... along the last axis (``position_ids``), and ``lower_triangle`` is one on and below the
diagonal of the last two axes (causal masks). ``padded_normal`` is normal with a row ``padding_idx`` of zeros, and the
key ``draw = 1`` takes the second draw of a parameter, as the code of some models does.
"""

import inspect
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numparam.checks import as_int, read_file
from numparam.entry import Entry
from numparam.errors import ArgumentTypeError, ArgumentValueError, NumparamError
from numparam.initializer import Axes, Initializer, by_name
from numparam.initializer.buffers import BUFFERS
from numparam.initializer.computed import Computed
from numparam.initializer.padded import PaddedNormal
from numparam.initializer.redrawn import Redrawn
from numparam.rules.defaults import DEFAULT_RULES
from numparam.rules.globs import Glob, GlobIndex, Regex
from numparam.text import printable, shown

MAX_RULES = 1000
MAX_RULES_BYTES = 4_000_000  # of a file of rules
_AXES = ("batch_axis", "in_axis", "out_axis", "splits")
_OWN_KEYS = ("glob", "regex", "min_ndim", "max_ndim", "init", "draw")
_KINDS: dict[str, type[Initializer]] = {**BUFFERS, "padded_normal": PaddedNormal, "computed": Computed}
"""The initializers for rules alone."""


class RuleError(ArgumentValueError):
    """Report an invalid rule, or a parameter that no rule covers."""


@dataclass(frozen=True)
class Rule:
    """Give an initializer to the parameters that match.

    Parameters
    ----------
    content : mapping
        The rule as it was written.
    pattern : Glob or Regex
        Must match the full name.
    initializer : Initializer
        Generates the values.
    """

    content: Mapping[str, Any]
    pattern: Glob | Regex
    initializer: Initializer

    @classmethod
    def parse(cls, content: Any, where: str) -> "Rule":
        """Check one rule; a RuleError if it makes no sense; `where` begins the message."""
        if not isinstance(content, dict) or not isinstance(content.get("init"), str):
            raise RuleError(f'{where}: a rule is a table with an init, such as init = "zeros"; found {shown(content)}')
        for key in ("min_ndim", "max_ndim"):
            if type(content.get(key, 0)) is not int:
                raise RuleError(f"{where}: {key} must be an integer, found {shown(content[key])}")
        arguments = {key: value for key, value in content.items() if key not in _OWN_KEYS + _AXES}
        axes = {key: content[key] for key in _AXES if key in content}
        alias = content["init"]
        try:
            pattern = _pattern(content)
        except (TypeError, ValueError) as error:
            raise RuleError(f"{where}: {error}") from None
        try:
            kind = _KINDS.get(alias) or by_name(alias)
            known = inspect.signature(kind).parameters
            for key in arguments.keys() - known.keys():
                raise RuleError(f"{shown(alias)} takes {', '.join(known) or 'no arguments'}, not {shown(key)}")
            initializer = kind(**arguments)
            if axes:
                initializer = Axes(initializer, **axes)
            if "draw" in content:
                initializer = Redrawn(initializer, as_int("draw", content["draw"], 1))
        except (NumparamError, TypeError) as error:
            raise RuleError(f"{where}: {error}") from None
        return cls(content, pattern, initializer)

    @property
    def globs(self) -> list[str]:
        """Return the globs, of which one matches the name of every parameter that the rule covers."""
        found: list[str] = _globs(self.content) if isinstance(self.pattern, Glob) else ["*"]
        return found

    @property
    def names(self) -> str:
        """Return the pattern of names as it was written, in quotes."""
        return shown(self.content.get("glob", self.content.get("regex", "*")))

    def matches(self, entry: Entry) -> bool:
        """Return whether the rule covers a parameter.

        Raises
        ------
        RuleError
            If its regular expression takes too much work for the name.
        """
        ndim = len(entry.shape)
        low, high = self.content.get("min_ndim", 0), self.content.get("max_ndim", ndim)
        try:
            return low <= ndim <= high and self.pattern.matches(entry.name)
        except ValueError as error:
            raise RuleError(str(error)) from None

    def __str__(self) -> str:
        arguments = [f"{key}={shown(value)}" for key, value in self.content.items() if key not in _OWN_KEYS]
        return f"{printable(self.content['init'], 80)}({', '.join(arguments)})"


def _pattern(content: Mapping[str, Any]) -> Glob | Regex:
    """Return what the glob or regex of a rule matches; a rule with neither matches every name."""
    if "regex" in content:
        if "glob" in content:
            raise TypeError("a rule has a glob or a regex, not both")
        if not isinstance(content["regex"], str):
            raise TypeError(f"regex must be text, found {shown(content['regex'])}")
        return Regex(content["regex"])
    globs = _globs(content)
    if not isinstance(globs, list) or not globs or not all(isinstance(glob, str) for glob in globs):
        raise TypeError(f"glob must be text or a list of texts, found {shown(globs)}")
    return Glob(globs)


def _globs(content: Mapping[str, Any]) -> Any:
    globs = content.get("glob", "*")
    return [globs] if isinstance(globs, str) else globs


@dataclass(frozen=True)
class Rules:
    r"""Hold rules in order; the first that matches a parameter decides.

    Parameters
    ----------
    rules : tuple of Rule
        The rules.
    own : int
        How many of them, from the first, come from the user.

    Examples
    --------
    >>> import numpy as np
    >>> rules = Rules.from_toml('[[rules]]\nglob = "head.*"\ninit = "zeros"')
    >>> str(rules.find(Entry("head.weight", (2, 3), np.dtype("float32"))))
    'zeros()'
    >>> str(rules.find(Entry("body.weight", (2, 3), np.dtype("float32"))))
    'normal(sigma=0.02)'
    """

    rules: tuple[Rule, ...]
    own: int = 0

    @classmethod
    def from_toml(cls, text: str, where: str = "rules") -> "Rules":
        """Read rules; the default rules follow unless the text disables them.

        Parameters
        ----------
        text : str
            TOML, as the module's page describes it; empty for the default rules alone.
        where : str
            Begins the messages of errors: the name of the file.

        Raises
        ------
        RuleError
            If the text is not TOML, or a rule makes no sense.
        """
        if not isinstance(text, str):
            raise ArgumentTypeError(f"{where}: the text of rules is a str, found {shown(text)}")
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise RuleError(f"{where}: not TOML: {error}") from None
        rules, defaults = table.get("rules", []), table.get("defaults", True)
        if table.keys() - {"rules", "defaults"} or not isinstance(rules, list) or not isinstance(defaults, bool):
            found = printable(", ".join(table), 80)
            raise RuleError(f"{where}: expected [[rules]] tables and perhaps defaults = false, found {found}")
        general = tomllib.loads(DEFAULT_RULES)["rules"] if defaults else []
        return cls.from_contents(rules + general, where, len(rules))

    @classmethod
    def from_file(cls, path: Path) -> "Rules":
        """Read a file of rules.

        Raises
        ------
        RuleError
            If its text is wrong.
        OSError
            If it cannot be read.
        """
        try:
            return cls.from_toml(read_file(path, MAX_RULES_BYTES).decode(), str(path))
        except UnicodeDecodeError as error:
            raise RuleError(f"{path}: not TOML: {error}") from None

    @classmethod
    def from_json(cls, text: str, where: str) -> "Rules":
        """Read what `to_json` wrote."""
        try:
            rules = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RuleError(f"{where}: the recorded rules are not JSON: {error}") from None
        if not isinstance(rules, list):
            raise RuleError(f"{where}: the recorded rules must be a list, found {shown(text)}")
        return cls.from_contents(rules, where)

    @classmethod
    def from_contents(cls, rules: list[Any], where: str, own: int = 0) -> "Rules":
        """Check rules that are tables already; `where` begins the messages of errors."""
        if len(rules) > MAX_RULES:
            raise RuleError(f"{where}: at most {MAX_RULES} rules, found {len(rules)}")
        return cls(tuple(Rule.parse(rule, f"{where}: rule {number}") for number, rule in enumerate(rules, 1)), own)

    def to_json(self) -> str:
        """Write the rules, the defaults among them, in one canonical way."""
        return json.dumps([rule.content for rule in self.rules], sort_keys=True, separators=(",", ":"))

    def find(self, entry: Entry) -> Rule | None:
        """Return the first rule that matches a parameter, if there is one."""
        return next((self.rules[at] for at in self._index.find(entry.name) if self.rules[at].matches(entry)), None)

    @cached_property
    def _index(self) -> GlobIndex:
        return GlobIndex([rule.globs for rule in self.rules])

    def assign(self, entries: Iterable[Entry]) -> dict[str, Rule]:
        """Give every parameter its rule; a RuleError if no rule matches some parameter; the message names the first."""
        found = {entry: self.find(entry) for entry in entries}
        missing = [entry for entry, rule in found.items() if rule is None]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise RuleError(
                f"no rule initialises parameter {shown(missing[0].name)} of shape {missing[0].shape}{more}; "
                f'add one to --rules, such as [[rules]] glob = "{printable(missing[0].name, 80)}" init = "zeros"'
            )
        return {entry.name: rule for entry, rule in found.items() if rule is not None}
