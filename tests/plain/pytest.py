"""As much of pytest as the tests for cards use, for a machine that lacks it and cannot install it.

``python -m pytest FILE ...`` with this folder at the end of ``PYTHONPATH`` runs every test of the files. Options other
than ``-k "WORD or WORD"`` are ignored.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Skipped(Exception):  # noqa: N818, RUF100
    """Ends a test that cannot run here."""


class Failed(AssertionError):
    """Ends a test."""


def skip(reason: str = "", **_: Any) -> None:
    raise Skipped(reason)


def fail(reason: str = "", **_: Any) -> None:
    raise Failed(reason)


def importorskip(name: str, **_: Any) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Skipped(str(error)) from None


@contextlib.contextmanager
def raises(kind: Any, match: str = "") -> Iterator[Any]:
    """Expect an exception whose text holds a match."""
    caught = type("Caught", (), {"value": None})()
    try:
        yield caught
    except kind as error:
        caught.value = error
        if not re.search(match, str(error)):
            raise Failed(f"{match!r} does not match {str(error)!r}") from error
    else:
        raise Failed(f"{kind} was not raised")


class Mark:
    """A mark, which is a decorator too."""

    def __init__(self, name: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> None:
        self.name, self.args, self.kwargs = name, args, kwargs or {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and inspect.isfunction(args[0]) and not kwargs:
            args[0].pytestmark = [*getattr(args[0], "pytestmark", []), self]
            return args[0]
        return Mark(self.name, args, kwargs)


class _Marks:
    def __getattr__(self, name: str) -> Mark:
        return Mark(name)


mark = _Marks()


def fixture(function: Any = None, *, autouse: bool = False, **_: Any) -> Any:
    if function is None:
        return lambda function: fixture(function, autouse=autouse)
    function.fixture, function.autouse = True, autouse
    return function


class MonkeyPatch:
    """Changes that end with the test."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def setattr(self, target: Any, name: str, value: Any) -> None:
        before = getattr(target, name)
        setattr(target, name, value)
        self._stack.callback(setattr, target, name, before)

    def undo(self) -> None:
        self._stack.close()

    @classmethod
    @contextlib.contextmanager
    def context(cls) -> Iterator[MonkeyPatch]:
        patch = cls()
        try:
            yield patch
        finally:
            patch.undo()


# --------------------------------------------------------------------------- running


def cases(function: Any) -> Iterator[dict[str, Any]]:
    """Yield the arguments that the marks of a test give it."""
    grids = []
    for one in getattr(function, "pytestmark", []):
        if one.name == "parametrize":
            names = [name.strip() for name in one.args[0].split(",")]
            grids.append([dict(zip(names, row if len(names) > 1 else (row,), strict=True)) for row in one.args[1]])
    for parts in itertools.product(*grids):
        yield {name: value for part in parts for name, value in part.items()}


@contextlib.contextmanager
def provided(module: Any, function: Any, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Make the fixtures that a test asks for, and end them."""
    with contextlib.ExitStack() as stack:
        made: dict[str, Any] = dict(given)

        def value_of(name: str) -> Any:
            if name not in made:
                if name == "monkeypatch":
                    made[name] = stack.enter_context(MonkeyPatch.context())
                elif name == "tmp_path":
                    made[name] = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                else:
                    maker = getattr(module, name)
                    value = maker(**{part: value_of(part) for part in inspect.signature(maker).parameters})
                    is_generator = inspect.isgenerator(value)
                    made[name] = (
                        stack.enter_context(contextlib.contextmanager(lambda: value)()) if is_generator else value
                    )
            return made[name]

        for name, maker in vars(module).items():
            if getattr(maker, "autouse", False):
                value_of(name)
        yield {name: value_of(name) for name in inspect.signature(function).parameters}


def run(module: Any, words: list[str]) -> dict[str, int]:
    """Run the tests of a module, print a line for each, and count the outcomes."""
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for name, function in list(vars(module).items()):
        if not name.startswith("test_") or not inspect.isfunction(function):
            continue
        for given in cases(function):
            title = f"{module.__name__}.py::{name}" + (f"[{'-'.join(map(str, given.values()))}]" if given else "")
            if words and not any(word in title for word in words):
                continue
            outcome = "passed"
            try:
                with warnings.catch_warnings(), provided(module, function, given) as arguments:
                    warnings.simplefilter("ignore")
                    function(**arguments)
            except Skipped as error:
                outcome = f"skipped ({error})"
            except Exception:
                traceback.print_exc()
                outcome = "failed"
            counts[outcome.split()[0]] += 1
            print(title, outcome.upper(), flush=True)
    return counts


def main(arguments: list[str]) -> int:
    words = arguments[arguments.index("-k") + 1].split(" or ") if "-k" in arguments else []
    total = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for path in (Path(argument) for argument in arguments if argument.endswith(".py")):
        sys.path.insert(0, str(path.parent))
        try:
            counts = run(importlib.import_module(path.stem), words)
        except Skipped as error:
            print(f"{path.name} SKIPPED ({error})")
            counts = {"skipped": 1}
        except Exception:
            traceback.print_exc()
            counts = {"failed": 1}
        for outcome, count in counts.items():
            total[outcome] += count
    print(", ".join(f"{count} {outcome}" for outcome, count in total.items()))
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.modules["pytest"] = sys.modules["__main__"]
    sys.exit(main(sys.argv[1:]))
