"""The user's rules for a module, in any of the forms that `numparam.torch.init_` takes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from fnmatch import translate
from pathlib import Path
from typing import Any, TypeAlias

import torch

from numparam.entry import Entry
from numparam.errors import ArgumentTypeError, NumparamError
from numparam.initializer import Initializer
from numparam.initializer.buffers import BUFFERS
from numparam.initializer.entry import as_initializer
from numparam.rules import GlobIndex, Rule, Rules
from numparam.text import shown
from numparam.torch.draws import by_torch
from numparam.torch.memory import dtype_of
from numparam.torch.stored import as_stored
from numparam.torch.walk import Place

Choice = Callable[[str, torch.nn.Module, torch.nn.Parameter], Initializer | str | float | None]
ChosenRules: TypeAlias = Mapping[str, Initializer | str | float] | Choice | Rules | str | os.PathLike[str]


class OwnRules:
    """Hold rules in order; the first that has an initializer for a parameter decides.

    Parameters
    ----------
    given : mapping, callable, Rules, path or None
        As `numparam.torch.init_` takes it.

    Attributes
    ----------
    layers : bool
        Whether the layers of ``torch.nn`` decide what no rule decides.
    texts : list of str
        What the rules are called in reports.

    Examples
    --------
    >>> from numparam.torch.walk import places
    >>> rules = OwnRules({"*.bias": 0.5, "head.*": "xavier_uniform"})
    >>> [rules.find(place) for place in places(torch.nn.Linear(2, 2), "head.")]
    [(XavierUniform(gain=1.0), 'head.*'), (Constant(value=0.5), '*.bias')]
    """

    def __init__(self, given: Any = None) -> None:
        self.layers = True
        self._choices: list[tuple[str, Callable[[Place], Initializer | None]]] = []
        self._used: set[str] = set()
        globs: list[Any] | None = None
        if isinstance(given, str | os.PathLike):
            given = Rules.from_file(Path(given))
        if isinstance(given, Rules):
            own = _own(given)
            self.layers = len(own) < len(given.rules)
            self._choices = [(_text(rule), _by_rule(rule)) for rule in own]
            globs = [rule.globs for rule in own]
        elif isinstance(given, Mapping):
            self._choices = [(glob, _by_glob(glob, init)) for glob, init in given.items()]
            globs = list(given)
        elif callable(given) and not isinstance(given, Initializer):
            self._choices = [(getattr(given, "__qualname__", repr(given)), _by_call(given))]
        elif given is not None:
            raise ArgumentTypeError(
                'rules are a mapping such as {"*.bias": "zeros"}, a callable, Rules or the path of a file of them, '
                f"found {shown(given)}"
            )
        self.texts = [text for text, _ in self._choices]
        self._index = GlobIndex(["*"] * len(self.texts) if globs is None else globs)

    def find(self, place: Place) -> tuple[Initializer, str] | None:
        """Return the initializer of a parameter and the rule that chose it, or None if no rule matches."""
        for at in self._index.find(place.name):
            text, choose = self._choices[at]
            if not place.is_parameter and not text.endswith(place.key):
                continue
            init = choose(place)
            if init is not None:
                self._used.add(text)
                return as_stored(init, place), text
        return None

    @property
    def unused(self) -> list[str]:
        """Return the rules that have matched nothing."""
        return [text for text in self.texts if text not in self._used]


def _own(rules: Rules) -> tuple[Rule, ...]:
    """Leave out the default rules at the end: they go by names, and torch's layers know better."""
    general = [rule.content for rule in Rules.from_toml("").rules]
    count = len(rules.rules) - len(general)
    return rules.rules[:count] if [rule.content for rule in rules.rules[max(count, 0) :]] == general else rules.rules


def _text(rule: Rule) -> str:
    return str(rule.content.get("glob", rule.content.get("regex", "*")))


def _by_rule(rule: Rule) -> Callable[[Place], Initializer | None]:
    def choose(place: Place) -> Initializer | None:
        entry = Entry(place.name, tuple(place.tensor.shape), dtype_of(place.tensor))
        return rule.initializer if rule.matches(entry) else None

    return choose


def _by_glob(glob: Any, given: Any) -> Callable[[Place], Initializer | None]:
    if not isinstance(glob, str):
        raise ArgumentTypeError(f"rules map globs to initializers, found the glob {glob!r}")
    try:
        find = _by_shape(given)
    except NumparamError as error:
        raise type(error)(f"rule {glob!r}: {error}") from None
    matches = re.compile(translate(glob)).match
    return lambda place: find(place) if matches(place.name) else None


def _by_shape(given: Any) -> Callable[[Place], Initializer]:
    """Return the initializer of a rule, which for a function of `torch.nn.init` depends on the shape."""
    if callable(given) and by_torch(given, (1, 1, 1)) is not None:
        return lambda place: by_torch(given, tuple(place.tensor.shape))  # type: ignore[return-value]
    init = BUFFERS[given]() if isinstance(given, str) and given in BUFFERS else as_initializer(given)
    return lambda _: init


def _by_call(function: Choice) -> Callable[[Place], Initializer | None]:
    def choose(place: Place) -> Initializer | None:
        init = function(place.name, place.owner, place.tensor)
        return None if init is None else _by_shape(init)(place)

    return choose
