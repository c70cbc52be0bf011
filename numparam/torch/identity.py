"""Which name decides the values of a parameter: tied weights, and models whose names have moved."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from numparam.errors import ArgumentTypeError
from numparam.text import shown
from numparam.torch.walk import Visit

Rename = Callable[[str], str] | Mapping[str, str]


def renaming(rename: Rename | None) -> Callable[[str], str]:
    """Return the function that a user's `rename` describes.

    Parameters
    ----------
    rename : callable, mapping or None
        A mapping has patterns: a ``*`` of the new name is what the ``*`` of the old one at the same place matched. A
        pattern without ``*`` also matches what begins with it and a dot, which an empty new name takes away. The first
        that matches decides.

    Examples
    --------
    >>> renaming({"layers.0": "layers.8", "block_*.w": "blocks.*.weight"})("layers.0.bias")
    'layers.8.bias'
    >>> renaming({"block_*.w": "blocks.*.weight"})("block_3.w")
    'blocks.3.weight'
    """
    if rename is None:
        return str
    if not isinstance(rename, Mapping):
        if not callable(rename):
            raise ArgumentTypeError(f"rename is a callable or a mapping of patterns, found {shown(rename)}")
        return _checked(rename)
    patterns = []
    for old, new in rename.items():
        pieces = [re.escape(piece) for piece in old.split("*")]
        patterns.append((re.compile("(.*?)".join(pieces) + (r"(\..*)?" if "*" not in old else "")), "*" in old, new))

    def by_pattern(name: str) -> str:
        for pattern, has_stars, new in patterns:
            match = pattern.fullmatch(name)
            if match is not None:
                if not has_stars:
                    rest = match.group(1) or ""
                    return new + rest if new else rest.removeprefix(".")
                first, *pieces = new.split("*")
                return first + "".join(map("".join, zip(match.groups(), pieces, strict=False)))
        return name

    return by_pattern


def _checked(rename: Callable[[str], str]) -> Callable[[str], str]:
    def call(name: str) -> str:
        new = rename(name)
        if not isinstance(new, str):
            raise ArgumentTypeError(f"rename({name!r}) must return a name, found {shown(new)}")
        return new

    return call


@contextmanager
def untied(visits: Iterable[Visit], ties: Mapping[str, str]) -> Iterator[None]:
    """Take shared parameters out of the modules that borrow them, so that the code of the owner decides the values."""
    lent = []
    by_name = {
        inside + key: (part, key, parameter)
        for inside, part, _ in (visits if ties else ())
        for key, parameter in part._parameters.items()
    }
    for target, source in ties.items():
        part, key, parameter = by_name.get(target, (None, "", None))
        if part is not None and parameter is not None and parameter is by_name.get(source, (None, "", None))[2]:
            lent.append((part, key, parameter))
            part._parameters[key] = torch.nn.Parameter(torch.empty(parameter.shape, device="meta"))
    try:
        yield
    finally:
        for part, key, parameter in lent:
            part._parameters[key] = parameter


def tied(visits: Iterable[Visit]) -> dict[str, str]:
    """Return the ties that models of transformers declare, by names: which parameter is another one.

    Examples
    --------
    >>> from numparam.torch.walk import modules
    >>> class Net(torch.nn.Module):
    ...     all_tied_weights_keys = {"head.weight": "embed.weight"}
    >>> tied(modules(Net()))
    {'head.weight': 'embed.weight'}
    """
    found: dict[str, str] = {}
    for inside, part, _ in visits:
        kind: Any = type(part)
        if not _may_tie(kind):
            continue
        keys: Any = getattr(part, "all_tied_weights_keys", None)
        if keys is None and getattr(getattr(part, "config", None), "tie_word_embeddings", False):
            keys = getattr(part, "_tied_weights_keys", None)
        if isinstance(keys, Mapping):
            for target, source in keys.items():
                found.setdefault(inside + target, inside + source)
    return {target: found.get(source, source) for target, source in found.items()}


@lru_cache(maxsize=1024)  # models have thousands of modules of a few classes
def _may_tie(kind: Any) -> bool:
    return hasattr(kind, "all_tied_weights_keys") or hasattr(kind, "_tied_weights_keys")
