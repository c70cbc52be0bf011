"""Model specifications: the names, shapes and dtypes of an architecture.

A specification is a small JSON file; specifications of public models ship in ``numparam/model/specifications``. Its
``parameters`` is a list whose items are either

* ``[name, shape]`` or ``[name, shape, dtype]`` - one parameter, of the file's ``dtype`` if it gives none, or
* ``{"repeat": 12, "as": "{i}", "parameters": [...]}`` - the inner list 12 times over, with ``{i}`` in the names
  replaced by 0, 1, ..., 11, or by ``from``, ``from`` + 1 and so on. Repeats may be nested.

``title`` describes the model and ``source`` is where it comes from.
"""

import json
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from numparam import dtypes
from numparam.checkpoint import header
from numparam.checkpoint.names import INDEX_SUFFIX, SUFFIX
from numparam.checkpoint.opening import Checkpoint, open_checkpoint
from numparam.checkpoint.recipes import followed
from numparam.entry import Entry
from numparam.errors import CheckpointError, NumparamError, SpecificationError
from numparam.model import huggingface
from numparam.model.huggingface import CONFIG
from numparam.text import shown

MAX_PARAMETERS = 2**20
_FOLDER = resources.files("numparam.model") / "specifications"


class Specification(NamedTuple):
    """Hold one architecture: what it is, where it comes from, its parameters, and the files of its index."""

    name: str
    title: str
    source: str
    entries: tuple[Entry, ...]
    files: tuple[Path, ...] = ()
    config: Path | None = None
    """The ``config.json`` that describes the model."""
    model: Any = None
    """The module of transformers, on the meta device."""


def names() -> list[str]:
    """List the specifications that ship with the package."""
    files = (file.name for file in _FOLDER.iterdir())
    return sorted(name.removesuffix(".json") for name in files if name.endswith(".json"))


def load(name: str) -> Specification:
    """Read a specification that ships with the package, see `names`."""
    known = names()
    if name not in known:
        raise SpecificationError(f"no model specification is called {name!r}; known: {', '.join(known)}")
    content = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    entries = tuple(_entries(content["parameters"], dtypes.as_dtype(content["dtype"])))
    return Specification(name, content["title"], content["source"], entries)


def load_file(path: Path) -> Specification:
    """Read a specification of one's own, in the format of the shipped ones; ``title`` and ``source`` are optional."""
    content, _ = header.read_index(path)
    try:
        items, dtype = content["parameters"], _dtype(content["dtype"])
        entries = tuple(_entries(items, dtype))
    except (NumparamError, KeyError, TypeError, ValueError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise SpecificationError(f"{path}: not a specification: {what}") from None
    if not entries:
        raise SpecificationError(f"{path}: there are 0 parameters: its list of parameters is empty")
    name, count = Counter(entry.name for entry in entries).most_common(1)[0]
    if count > 1:
        raise SpecificationError(f"{path}: duplicate parameter name {shown(name)}: every number needs its own name")
    title, source = (str(content.get(key, "")) for key in ("title", "source"))
    return Specification(str(path), title, source, entries, (path,))


def load_config(path: Path) -> Specification | None:
    """Read a ``config.json`` of Hugging Face; None if it is something else, or weights next to it define the same."""
    content, _ = header.read_index(path)
    if not huggingface.is_config(content):
        return None
    found = huggingface.built(path)
    if found is None:
        if any(path.parent.glob(f"*{SUFFIX}")) or any(path.parent.glob(f"*{INDEX_SUFFIX}")):
            return resolve(str(located(path.parent)))._replace(config=path)
        raise SpecificationError(
            f"{path}: to build the model it describes, install transformers and torch, or name a file of its parameters"
        )
    return Specification(str(path), str(content.get("model_type", "")), str(path), found[0], (path,), path, found[1])


def _entries(items: Any, dtype: np.dtype[Any]) -> list[Entry]:
    found: list[Entry] = []
    for item in _list(items):
        if isinstance(item, dict):
            inner, mark, first = _entries(item["parameters"], dtype), item["as"], item.get("from", 0)
            if not header.is_naturals([item["repeat"], first]) or not isinstance(mark, str) or not mark:
                raise SpecificationError(f"a repeat has a count, a mark 'as' and a first number; found {shown(item)}")
            if len(found) + item["repeat"] * max(1, len(inner)) > MAX_PARAMETERS:
                raise SpecificationError(f"a model has at most {MAX_PARAMETERS} parameters")
            for number in map(str, range(first, first + item["repeat"])):
                found += [entry._replace(name=entry.name.replace(mark, number)) for entry in inner]
        else:
            name, shape, *own = _list(item)
            if not isinstance(name, str) or len(own) > 1:
                raise SpecificationError(f"a parameter is [name, shape] or [name, shape, dtype], found {shown(item)}")
            found.append(header.describe(name, dtypes.tag(_dtype(*own) if own else dtype), shape, "its list"))
    return found


def _list(items: Any) -> list[Any]:
    if not isinstance(items, list):
        raise SpecificationError(f"expected a list, found {shown(items)}")
    return items


def _dtype(name: Any) -> np.dtype[Any]:
    if not isinstance(name, str):
        raise SpecificationError(f"a dtype is a name such as 'float32', found {shown(name)}")
    return dtypes.as_dtype(name)


def located(path: Path) -> Path:
    """Return the checkpoint that a path means: of a folder its only index, or else its only safetensors file."""
    if not path.is_dir():
        return path
    indexes, files = (sorted(path.glob(f"*{suffix}")) for suffix in (INDEX_SUFFIX, SUFFIX))
    found = indexes or files
    if len(found) != 1:
        count = f"{len(indexes)} and {len(files)}"
        raise CheckpointError(f"{path}: a folder needs one index or one safetensors file, found {count}; name the file")
    return found[0]


def open_model(path: Path) -> Checkpoint:
    """Open a file, an index, or the one in a folder, with at least one parameter; its recipes are followed."""
    checkpoint = followed(open_checkpoint(located(path)))
    if not checkpoint.entries:
        raise CheckpointError(f"{path}: there are 0 parameters: its header lists no values and its metadata no recipes")
    return checkpoint


def resolve(like: str) -> Specification:
    """Find the parameters of a path, or of the name of a shipped specification.

    The path is of a safetensors file, of an index (``*.safetensors.index.json``), of a specification (``*.json``), of a
    ``config.json`` of Hugging Face, or of a folder with one of these except the third. A file precedes a name, and a
    name precedes a folder. A config gives the parameters if transformers is installed.
    """
    path = Path(like)
    config = path / CONFIG if path.is_dir() and like not in names() else path
    if config.is_file() and config.suffix == ".json" and not config.name.endswith(INDEX_SUFFIX):
        found = load_config(config)
        if found is None and config is path:
            return load_file(path)
        if found is not None:
            return found
    if like in names() and not path.is_file():
        return load(like)
    if path.is_file() or path.is_dir():
        checkpoint = open_model(path)
        for part in (checkpoint, *checkpoint.shards):
            if shard := part.metadata.get("numparam.shard"):
                raise CheckpointError(
                    f"{part.path}: it holds shard {shown(shard)} of each parameter, not the full shapes; "
                    "name the model that the shards were made like"
                )
        files = tuple(sorted(checkpoint.files)) if checkpoint.is_index else ()
        return Specification(like, "the parameters of a file", like, tuple(checkpoint.entries.values()), files)
    raise SpecificationError(f"{like!r} is neither a file nor a model specification; known: {', '.join(names())}")
