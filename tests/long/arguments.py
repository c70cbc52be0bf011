"""Call what is public with hostile arguments: each call returns, or raises a documented error."""

from __future__ import annotations

import inspect
import logging
import math
import os
import random
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import numparam
from numparam import Cell, Layout, Parameter, ParameterTuple, Region, Rules, Tensor
from numparam.errors import MAX_MESSAGE, NumparamError
from numparam.initializer import Initializer, initializer
from numparam.text import shown

FULL = 100_000
LINE = """{calls} calls of 308 functions, classes and methods with hostile arguments, {refused} refused by an error of
numparam, {builtin} by a TypeError, ValueError, IndexError or OSError, {returned} returned, each in 30 s of CPU time"""
BEYOND_START, CPU_SECONDS = 1 << 30, 30
EXPECTED = (TypeError, ValueError, IndexError, OSError, BufferError, ZeroDivisionError)  # the last one by `Hostile`


class Hostile:
    """Fail in whatever is done with it."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __repr__(self) -> str:
        raise ZeroDivisionError("repr")

    def __len__(self) -> int:
        return -1  # noqa: PLE0303

    def __bool__(self) -> bool:
        raise ZeroDivisionError("bool")


class Large(int):
    """Be an int that is shown at length."""

    def __repr__(self) -> str:
        return "9" * 10**6


LOOP: list[Any] = []
LOOP.append(LOOP)


def values(folder: Path) -> list[Callable[[], Any]]:
    """Return what makes a fresh value of each hostile kind."""
    plain: list[Any] = [None, True, False, 0, 1, -1, 3, 2**31, 2**63, 2**64, -(2**63), 10**400, 10**5000]
    plain += [0.0, -0.5, 1e308, 1e-320, math.inf, math.nan, 1j, Fraction(1, 3), Decimal("NaN"), Large(5)]
    plain += ["", "a", "float32", "float8_e4m3fn", "normal", "cpu", "cuda:99"]
    plain += ["\ud800", "a\0b", "x" * 10**5, "\x1b[2J\u202e"]
    plain += [b"", b"\xff", [], (), {}, [[]], LOOP, range(3), (1,) * 72]
    plain += [(2**62, 2**62), (2**62, 2**62, 0), (-1,), [None]]
    plain += [(2, 3), (4,), {"a": 1}, {1: 2}, {"\ud800": None}, {"dp": 2}, ["a", "a"]]
    plain += [Ellipsis, slice(None), slice(0, 2**70)]
    plain += [Hostile, print, len, type, object(), Path("/dev/null"), Path("/proc/self/mem"), Path("x" * 300), folder]
    plain += [np.float32(math.nan), np.int8(-1), np.zeros(0), np.ones(3, complex), np.array([None, LOOP], object)]
    plain += [np.datetime64("NaT"), np.array("x"), np.ones((1,) * 64)]
    plain += [np.broadcast_to(np.float32(1), (1000, 2**40))]
    plain += [np.dtype("float32"), np.dtype("O"), np.dtype([("a", "f4")]), np.float64, float, int, complex]
    fresh: list[Callable[[], Any]] = [Hostile, Cell, lambda: Parameter([1.0], name="a"), lambda: Tensor([[1, 2]])]
    fresh += [
        lambda: initializer("normal", (2, 3)),
        lambda: initializer("orthogonal", (1000, 2**40)),
        lambda: iter(()),
    ]
    fresh += [lambda: Layout({"dp": 2}, ("dp",)), lambda: Region.full((2, 3))]
    fresh += [lambda: folder / "out", lambda: folder / "m.ckpt"]
    return fresh + [lambda value=value: value for value in plain]


def functions() -> list[tuple[str, Callable[..., Any]]]:
    """Return what is public, with the methods of an object of each class."""
    left_out = {"set_num_threads", "reset_auto_parallel_context", "devices", "errors", "dtypes", "initializer"}
    left_out |= {"Fingerprint"}  # `numparam.fingerprint` makes them
    found = [(name, getattr(numparam, name)) for name in numparam.__all__ if name not in left_out]
    found += [("initializer", initializer)]
    found += [(name, each) for name, each in vars(numparam.initializer).items() if inspect.isclass(each)]
    net = Cell()
    net.w, net.lazy = Parameter(np.ones((2, 3), np.float32)), Parameter(initializer("normal", (4, 4)))
    held = [net.w, net.lazy, net, Layout({"dp": 2, "tp": 2}, ("dp", "tp")), Region.full((2, 3)), Tensor([1, 2])]
    held += [Rules, Layout, Tensor, ParameterTuple([net.w])]
    for each in held:
        kind = each.__name__ if inspect.isclass(each) else type(each).__name__
        for name in dir(each):
            if name in ("plot", "count", "index") or (
                name.startswith("_") and name not in ("__getitem__", "__setitem__", "__call__")
            ):
                continue
            attribute = getattr(each, name, None)
            if callable(attribute) and not (inspect.isclass(each) and inspect.isfunction(attribute)):
                found.append((f"{kind}.{name}", attribute))
    return [(name, each) for name, each in found if callable(each) and each is not Initializer]


def too_long(*_: object) -> None:
    raise AssertionError("it takes too long")


def prove(count: int, seed: int, folder: Path) -> Counter[str]:
    """Call `count` times; raise for the first that fails otherwise than it should."""
    os.chdir(folder)
    logging.getLogger("numparam").addHandler(logging.NullHandler())
    logging.getLogger("numparam").propagate = False
    warnings.simplefilter("ignore")  # NumPy warns of casts as it does of its own arrays
    chance, counts = random.Random(seed), Counter[str](calls=count)
    pool, called = values(folder), functions()
    signal.signal(signal.SIGPROF, too_long)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + BEYOND_START, size + BEYOND_START))
    for _ in range(count):
        name, function = chance.choice(called)
        arguments = tuple(chance.choice(pool)() for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4))))
        options = {}
        try:
            names = [n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
        except (TypeError, ValueError):
            names = []
        for option in names:
            if chance.random() < 0.2:
                options[option] = chance.choice(pool)()
        what = f"{name}(*{shown(arguments)}, **{shown(options)})"
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            function(*arguments, **options)
        except NumparamError as error:
            counts["refused"] += 1
            if len(str(error)) > MAX_MESSAGE or not str(error).replace("\n", "").isprintable():
                raise AssertionError(f"{what}: {str(error)!r}") from None
        except BaseException as error:
            # A view of petabytes has as many pieces.
            if isinstance(error, MemoryError) and ("Unable to allocate" in str(error) or "fingerprint" in name):
                counts["builtin"] += 1
                continue
            named = isinstance(error, AttributeError) and str(error).startswith("Cell has no ")
            if not (named or isinstance(error, EXPECTED)) or isinstance(error, UnicodeError):
                raise AssertionError(what) from error
            counts["builtin"] += 1
        else:
            counts["returned"] += 1
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return counts
