"""Model specifications that ship with the package: the names, shapes and dtypes of real public architectures.

A specification is a small JSON file in ``numparam/model/specifications``. Its ``parameters`` is a list whose items are
either

* ``[name, shape]`` or ``[name, shape, dtype]`` - one parameter, of the file's ``dtype`` if it gives none, or
* ``{"repeat": 12, "as": "{i}", "parameters": [...]}`` - the inner list 12 times over, with ``{i}`` in the names
  replaced by 0, 1, ..., 11, or by ``from``, ``from`` + 1 and so on. Repeats may be nested.

``title`` describes the model and ``source`` is where it comes from.
"""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from numparam import dtypes
from numparam.checkpoint.opening import Checkpoint, open_checkpoint
from numparam.checkpoint.recipes import followed
from numparam.entry import Entry
from numparam.errors import CheckpointError, SpecificationError

_FOLDER = resources.files("numparam.model") / "specifications"


class Specification(NamedTuple):
    """Hold one architecture: what it is, where it comes from, its parameters, and the files of its index."""

    name: str
    title: str
    source: str
    entries: tuple[Entry, ...]
    files: tuple[Path, ...] = ()


def names() -> list[str]:
    """List the specifications that ship with the package.

    Examples
    --------
    >>> names()
    ['gpt2', 'kimi-k2', 'llama-3-8b', 'minilm-l6']
    """
    files = (file.name for file in _FOLDER.iterdir())
    return sorted(name.removesuffix(".json") for name in files if name.endswith(".json"))


def load(name: str) -> Specification:
    """Read a shipped specification.

    Parameters
    ----------
    name : str
        One of `names`.

    Raises
    ------
    SpecificationError
        If no specification has this name; the message lists those that exist.

    Examples
    --------
    >>> gpt2 = load("gpt2")
    >>> len(gpt2.entries), sum(entry.size for entry in gpt2.entries)
    (148, 124439808)
    """
    known = names()
    if name not in known:
        raise SpecificationError(f"no model specification is called {name!r}; known: {', '.join(known)}")
    content = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    entries = tuple(_entries(content["parameters"], dtypes.as_dtype(content["dtype"])))
    return Specification(name, content["title"], content["source"], entries)


def _entries(items: list[Any], dtype: np.dtype[Any]) -> Iterator[Entry]:
    for item in items:
        if isinstance(item, dict):
            inner = list(_entries(item["parameters"], dtype))
            first = item.get("from", 0)
            for number in map(str, range(first, first + item["repeat"])):
                for name, shape, own in inner:
                    yield Entry(name.replace(item["as"], number), shape, own)
        else:
            name, shape, *own = item
            yield Entry(name, tuple(shape), dtypes.as_dtype(own[0]) if own else dtype)


def open_model(path: Path) -> Checkpoint:
    """Open a file or an index with at least one parameter; its recipes are followed.

    Raises
    ------
    CheckpointError
        If it is damaged, or holds neither values nor recipes.
    OSError
        If a file cannot be opened.
    """
    checkpoint = followed(open_checkpoint(path))
    if not checkpoint.entries:
        raise CheckpointError(f"{path}: there are 0 parameters: its header lists no values and its metadata no recipes")
    return checkpoint


def resolve(like: str) -> Specification:
    """Find the parameters that a user means by a path or the name of a shipped specification.

    Parameters
    ----------
    like : str
        The path of a safetensors file or of an index (``*.safetensors.index.json``), or a name. A file wins over a
        name.

    Raises
    ------
    SpecificationError
        If there is neither; the message lists the names.
    CheckpointError
        If the file is damaged.

    Examples
    --------
    >>> resolve("minilm-l6").title
    'MiniLM-L6, the encoder of all-MiniLM-L6-v2'
    """
    path = Path(like)
    if path.is_file():
        checkpoint = open_model(path)
        files = tuple(sorted(checkpoint.files)) if checkpoint.is_index else ()
        return Specification(like, "the parameters of a file", like, tuple(checkpoint.entries.values()), files)
    if like in names():
        return load(like)
    raise SpecificationError(f"{like!r} is neither a file nor a model specification; known: {', '.join(names())}")
