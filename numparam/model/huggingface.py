"""Models that a ``config.json`` of Hugging Face describes: their parameters, as transformers builds them on meta."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numparam import dtypes
from numparam.checkpoint import header
from numparam.entry import Entry
from numparam.errors import SpecificationError
from numparam.text import shown

CONFIG = "config.json"


def is_config(content: dict[str, Any]) -> bool:
    """Return whether the JSON of a file describes a model of transformers."""
    return "model_type" in content or "architectures" in content


def built(path: Path) -> tuple[tuple[Entry, ...], Any] | None:
    """Return what a checkpoint of the model has, and the model on meta; None without transformers.

    A checkpoint has parameters and buffers, tied ones once. Code that comes with a model is never run.
    """
    if find_spec("transformers") is None or find_spec("torch") is None:
        return None
    content, _ = header.read_index(path)
    names = content.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise SpecificationError(f'{path}: "architectures" names the class of the model, found {shown(names)}')
    import torch
    import transformers

    model_class: Any = getattr(transformers, names[0], None) if names[0].isidentifier() else None
    if transformers.PreTrainedModel not in getattr(model_class, "__mro__", ()):
        raise SpecificationError(
            f"{path}: transformers {transformers.__version__} has no model {shown(names[0])}; name a file with its "
            "parameters, or a specification"
        )
    try:
        config = model_class.config_class.from_json_file(path)
        dtype = config.dtype or torch.float32
        with torch.device("meta"):
            model = model_class._from_config(config, dtype=dtype)
        state = model.state_dict(keep_vars=True)
    except Exception as error:
        raise SpecificationError(f"{path}: transformers cannot build {names[0]}: {shown(str(error))}") from error
    found = {id(tensor): (name, tensor) for name, tensor in reversed(state.items())}
    entries = [
        Entry(name, tuple(tensor.shape), dtypes.as_dtype(str(tensor.dtype).removeprefix("torch.")))
        for name, tensor in reversed(found.values())
    ]
    return tuple(entries), model
