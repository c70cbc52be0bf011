"""Checkpoints: parameters in safetensors files, saved, loaded and joined by an index."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name == "loading":  # most files of this room do not need it
        return import_module("numparam.checkpoint.loading")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
