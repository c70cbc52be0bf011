"""Patterns for the names of parameters, matched in bounded work.

A rule may come from a file of unknown origin, and the backtracking of `re` takes more than a lifetime for some
patterns. So `re` matches a name only if the ways to try are few. Otherwise the expression is evaluated here for all
positions of the name at once: a set of positions is the bits of one integer, and each part of the expression maps the
positions where it may begin to those where it may end. The work is a small multiple of the length of the expression
for each repetition; beyond a limit it is an error. What needs backtracking, such as a backreference, is refused.
"""

import importlib
import math
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from fnmatch import translate
from typing import Any

from numparam.text import shown

MAX_PATTERN = 4096  # characters of a regular expression
MAX_STEPS = 10_000  # parts of an expression evaluated for one name: 50 ms
_MAX_WAYS = 100_000  # of backtracking to match a name: 1 ms

_parser: Any = importlib.import_module("re._parser")  # what `re` itself compiles from, since Python 3.11


class Glob:
    """Match names by globs, of which one must match the full name.

    Parameters
    ----------
    globs : sequence of str
        ``*`` and ``?`` also match dots.

    Examples
    --------
    >>> Glob(["*.bias", "h.?"]).matches("encoder.0.bias")
    True
    """

    def __init__(self, globs: Sequence[str]) -> None:
        _check_length("".join(globs))
        self._matches = re.compile("|".join(map(translate, globs))).fullmatch  # globs do not backtrack

    def matches(self, name: str) -> bool:
        """Return whether a name matches."""
        return self._matches(name) is not None


class GlobIndex:
    """Find the few of many globs that may match a name, by what they begin and end with, or by a word between dots.

    Parameters
    ----------
    globs : sequence of str, or of sequences of str
        Of several at one place, any may match.

    Examples
    --------
    >>> globs = ["layers.0.*", "layers.1.*", "*.bias", "layers.2?.*", "*.head.*"]
    >>> GlobIndex(globs).find("layers.1.bias"), GlobIndex(globs).find("a.head.scale")
    ([1, 2], [4])
    """

    def __init__(self, globs: Sequence[str | Sequence[str]]) -> None:
        self._by_word: dict[str, list[int]] = {}
        self._by_ends: dict[tuple[int, int], dict[tuple[str, str], list[int]]] = {}
        flat = [(at, glob) for at, some in enumerate(globs) for glob in ([some] if isinstance(some, str) else some)]
        count = Counter(word for _, glob in flat for word in _words(glob))
        for place, glob in flat:
            if words := _words(glob):
                self._by_word.setdefault(min(words, key=count.__getitem__), []).append(place)
                continue
            head, *others = re.split(r"[*?[]", glob)
            tail = re.split(r"[*?\]]", glob)[-1] if others else ""
            by_ends = self._by_ends.setdefault((len(head), len(tail)), {})
            by_ends.setdefault((head, tail), []).append(place)

    def find(self, name: str) -> list[int]:
        """Return the places of the globs that may match, in order."""
        found: list[int] = []
        for (first, last), by_ends in self._by_ends.items():
            found += by_ends.get((name[:first], name[len(name) - last :] if last else ""), ())
        if self._by_word:
            for word in name.split("."):
                found += self._by_word.get(word, ())
        return found if len(found) < 2 else sorted(set(found))


def _words(glob: str) -> list[str]:
    """Return words that a name has between two dots if the glob matches it, as far as they are in its middle."""
    middle = [] if "[" in glob else re.split(r"[*?]", glob)[1:-1]
    return [word for piece in middle for word in piece.split(".")[1:-1]]


class Regex:
    r"""Match full names by a regular expression.

    Examples
    --------
    >>> regex = Regex(r"layers\.\d+\.(?!norm).*weight")
    >>> regex.matches("layers.12.mlp.weight"), regex.matches("layers.12.norm.weight")
    (True, False)
    """

    def __init__(self, expression: str) -> None:
        _check_length(expression)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of what will mean something else one day
                self._tree = _parser.parse(expression)
        except (re.error, RecursionError, OverflowError, Warning) as error:
            raise ValueError(f"{shown(expression)} is not a regular expression: {error}") from None
        self._fold = bool(self._tree.state.flags & re.IGNORECASE)
        self._dot = bool(self._tree.state.flags & re.DOTALL)
        self._expression = expression
        self._slowly("")  # refuses what it cannot evaluate
        self._matches = re.compile(expression).fullmatch

    def matches(self, name: str) -> bool:
        """Return whether a full name matches."""
        if _ways(self._tree, len(name) + 1) <= _MAX_WAYS:
            return self._matches(name) is not None
        return self._slowly(name)

    def _slowly(self, name: str) -> bool:
        return bool(_Match(name, self._fold, self._dot, self._expression).ends(self._tree, 1) >> len(name) & 1)


def _ways(tree: Any, length: int) -> float:
    """Return a bound on the ways in which a sequence of parts can match within a name of a length."""
    ways = 1.0
    for kind, value in tree:
        match str(kind):
            case "BRANCH":
                ways *= sum(_ways(branch, length) for branch in value[1])
            case "SUBPATTERN":
                ways *= _ways(value[3], length)
            case "ASSERT" | "ASSERT_NOT":
                ways *= _ways(value[1], length)
            case "MAX_REPEAT" | "MIN_REPEAT":
                low, high, body = value
                if len(body) == 1 and str(body[0][0]) in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
                    ways *= min(high - low + 1, length)
                else:
                    ways *= 1 + _ways(body, length) if high == 1 else math.inf
    return ways


def _check_length(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters, found {len(pattern)}")


class _Match:
    """Evaluate the parts of an expression for one name; bit i of a set of positions is the one before character i."""

    def __init__(self, name: str, fold: bool, dot: bool, expression: str) -> None:
        self.name, self.fold, self.dot, self.expression = name, fold, dot, expression
        self.all = (2 << len(name)) - 1
        self.left = MAX_STEPS
        self.places: dict[str, int] = {}
        for place, letter in enumerate(name):
            self.places[letter] = self.places.get(letter, 0) | 1 << place

    def ends(self, tree: Any, begins: int) -> int:
        """Return where a sequence of parts may end."""
        for kind, value in tree:
            begins = self._part(str(kind), value, begins, False)
        return begins

    def begins(self, tree: Any, ends: int) -> int:
        """Return where a sequence of parts may begin."""
        for kind, value in reversed(list(tree)):
            ends = self._part(str(kind), value, ends, True)
        return ends

    def _part(self, kind: str, value: Any, at: int, back: bool) -> int:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"{shown(self.expression)} takes too much work for the name {shown(self.name)}")
        follow = self.begins if back else self.ends
        match kind:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                fits = self._fits(kind, value)
                return (at >> 1) & fits if back else (at & fits) << 1
            case "BRANCH":
                found = 0
                for branch in value[1]:
                    found |= follow(branch, at)
                return found
            case "SUBPATTERN":
                if value[1] or value[2]:
                    raise ValueError(f"{shown(self.expression)}: flags of a group are not supported")
                return follow(value[3], at)
            case "MAX_REPEAT" | "MIN_REPEAT":
                low, high, tree = value
                return self._repeat(low, high, tree, at, back)
            case "AT":
                return at & self._boundary(str(value))
            case "ASSERT" | "ASSERT_NOT":
                direction, tree = value
                holds = self.begins(tree, self.all) if direction > 0 else self.ends(tree, self.all)
                return at & (holds if kind == "ASSERT" else self.all & ~holds)
        raise ValueError(f"{shown(self.expression)}: {kind.lower()} needs backtracking, which is not supported")

    def _repeat(self, low: int, high: int, tree: Any, at: int, back: bool) -> int:
        follow = self.begins if back else self.ends
        for _ in range(low):
            if (after := follow(tree, at)) == at:
                break
            at = after
        found = new = at
        for _ in range(high - low):
            new = follow(tree, new) & ~found
            if not new:
                break
            found |= new
        return found

    def _fits(self, kind: str, value: Any) -> int:
        """Return the positions whose character is one of a set."""
        fits = 0
        for letter, places in self.places.items():
            forms = {letter, letter.lower(), letter.upper()} if self.fold else {letter}
            match kind:
                case "ANY":
                    chosen = self.dot or letter != "\n"
                case "IN":
                    chosen = any(_within(value, form) for form in forms)
                case _:
                    chosen = (chr(value) in forms) == (kind == "LITERAL")
            fits |= places if chosen else 0
        return fits

    def _boundary(self, kind: str) -> int:
        first, last = 1, 1 << len(self.name)
        words = sum(_is_word(letter) << place for place, letter in enumerate(self.name))
        edges = words ^ (words << 1)
        match kind:
            case "AT_BEGINNING" | "AT_BEGINNING_STRING":
                return first
            case "AT_END_STRING":
                return last
            case "AT_END":
                return last | (last >> 1 if self.name.endswith("\n") else 0)
            case "AT_BOUNDARY":
                return edges
        return self.all & ~edges


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


_CATEGORIES = {"DIGIT": str.isdecimal, "SPACE": str.isspace, "WORD": _is_word}


def _within(items: Any, letter: str) -> bool:
    """Return whether a letter is in a set such as ``[^a-z_]``."""
    items = [(str(kind), value) for kind, value in items]
    inside = False
    for kind, value in items:
        match kind:
            case "LITERAL":
                inside |= value == ord(letter)
            case "RANGE":
                inside |= value[0] <= ord(letter) <= value[1]
            case "CATEGORY":
                name = str(value).removeprefix("CATEGORY_")
                inside |= _CATEGORIES[name.removeprefix("NOT_")](letter) != name.startswith("NOT_")
    return bool(inside != (items[0][0] == "NEGATE"))
