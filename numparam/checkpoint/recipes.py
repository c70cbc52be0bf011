"""Recipes as text: what a lazy tensor is generated from, in a few hundred bytes instead of its values.

A recipe is a JSON object with the keys ``init`` (the name of an initializer of numparam), ``args`` (its arguments,
reals as decimal text), ``seed``, ``stream`` (the name whose random stream it is), ``shape`` (of the full parameter),
``dtype`` and, for a slice, ``index`` (for each axis an integer, null or [start, stop, step]). With the version of the
random stream it gives every value back, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from numparam import dtypes
from numparam import initializer as initializers
from numparam.checkpoint import header
from numparam.checkpoint.opening import Checkpoint
from numparam.entry import Entry
from numparam.errors import CheckpointError, NumparamError
from numparam.indexing.region import Region, as_shape
from numparam.initializer import Initializer, Unset, by_name
from numparam.stream.seed import STREAM_VERSION, as_seed
from numparam.tensor import Recipe, Tensor
from numparam.text import printable, shown

RECIPES, STREAM = "numparam.recipes", "numparam.stream"


def encode(tensor: Tensor) -> dict[str, Any] | None:
    """Describe a lazy tensor; None if it has values, or no text can describe them.

    That is the case for an initializer that is not numparam's, and for a tensor without a name.
    """
    recipe = tensor._named()
    if not isinstance(recipe, Recipe):
        return None
    name, kind = recipe.name, type(recipe.init)
    region = recipe.region
    index = [[item.start, item.stop, item.step] if isinstance(item, slice) else item for item in region.slices()]
    if (
        not isinstance(name, str)
        or isinstance(recipe.init, Unset)
        or getattr(initializers, kind.__name__, None) is not kind
        or Region.full(region.full_shape)[_index(index)].shape != region.shape
    ):
        return None
    arguments = {key: value for key, value in vars(recipe.init).items() if not key.startswith("_")}
    content = {
        "init": kind.__name__,
        "args": {key: _as_text(value) for key, value in arguments.items()},
        "seed": recipe.seed,
        "stream": name,
        "shape": list(region.full_shape),
        "dtype": tensor.dtype.name,
    }
    return content if region.is_full else content | {"index": index}


def decode(content: Any, where: str) -> Tensor:
    """Return the lazy tensor that a text describes, with every claim checked."""
    try:
        shape, dtype = as_shape(content["shape"]), dtypes.as_dtype(content["dtype"])
        arguments = {key: _as_value(value) for key, value in content["args"].items()}
        kind = by_name(content["init"])
        if not isinstance(content["stream"], str):
            raise CheckpointError(f"{where}: the stream of a recipe is a name, found {shown(content['stream'])}")
        init: Initializer = kind(**arguments)
        init.check(shape, dtype)
        region = Region.full(shape)[_index(content["index"])] if "index" in content else Region.full(shape)
        recipe = Recipe(init, as_seed(content["seed"]), content["stream"], region, dtype)
    except (NumparamError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{where}: its recipe cannot be followed: {printable(str(error), 200)}") from None
    return Tensor._of(recipe)


def read_record(checkpoint: Checkpoint, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
    """Read the recipes in the metadata of a file or an index, as lazy tensors by name."""
    metadata, path = checkpoint.metadata, checkpoint.path
    if RECIPES not in metadata:
        return {}
    found = {}
    for name, content in header.parse_object(metadata[RECIPES].encode(), f"{path}: {RECIPES}").items():
        if metadata.get(STREAM) != str(STREAM_VERSION):
            raise CheckpointError(
                f"{path}: its recipes are for random stream {shown(metadata.get(STREAM))}; "
                f"this numparam generates the values of stream {STREAM_VERSION}"
            )
        if name in checkpoint.entries:
            raise CheckpointError(f"{path}: parameter {name!r} has both values and a recipe")
        if wanted(name):
            found[name] = decode(content, f"{path}: parameter {name!r}")
    return found


def followed(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose recipes are parameters like the others, generated when they are read."""
    tensors = read_record(checkpoint)
    entries = {name: Entry(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    lazy = {name: recipe for name, tensor in tensors.items() if isinstance(recipe := tensor._named(), Recipe)}
    return replace(checkpoint, entries=checkpoint.entries | entries, recipes=lazy)


def _index(items: Any) -> tuple[Any, ...]:
    if not isinstance(items, list) or not all(item is None or type(item) is int or _is_slice(item) for item in items):
        raise CheckpointError(f"an index holds ints, null and [start, stop, step], found {shown(items)}")
    return tuple(slice(*item) if isinstance(item, list) else item for item in items)


def _is_slice(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 3 and all(part is None or type(part) is int for part in item)


def _as_text(value: Any) -> Any:
    """Write an argument so that JSON keeps all its bits: a real as text, the rest as it is."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    return {"text": value} if isinstance(value, str) else repr(float(value))


def _as_value(value: Any) -> Any:
    if isinstance(value, dict):
        return str(value["text"])
    return float(value) if isinstance(value, str) else value
