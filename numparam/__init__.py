"""Model parameters as a pure function of (seed, name, index), written at memory speed.

>>> import numparam
>>> from numparam.initializer import Normal, initializer
>>> numparam.set_seed(7)
>>> numparam.Parameter(initializer(Normal(0.02), (4096, 4096), numparam.bfloat16), name="encoder.weight")
Parameter (name=encoder.weight, shape=(4096, 4096), dtype=BFloat16, requires_grad=True)
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from numparam import dtypes, errors
from numparam import initializer as initializer
from numparam.cell import Cell, CellDict, CellList, SequentialCell
from numparam.context import (
    ParallelMode,
    get_auto_parallel_context,
    reset_auto_parallel_context,
    set_auto_parallel_context,
)
from numparam.device import Device, device, devices, get_default_device, set_default_device
from numparam.indexing.region import Region
from numparam.layout import Layout
from numparam.parameter import Parameter
from numparam.parameter.tuple import ParameterTuple
from numparam.stream.seed import get_seed, set_seed
from numparam.stream.source import Source
from numparam.tensor import Tensor

if TYPE_CHECKING:
    bfloat16: np.dtype[Any]
    float8_e4m3fn: np.dtype[Any]
    float8_e5m2: np.dtype[Any]
    __version__: str
    from numparam import checkpoint as checkpoint
    from numparam import communication as communication
    from numparam import fingerprints as fingerprints
    from numparam import jax as jax
    from numparam import mindspore as mindspore
    from numparam import optim as optim
    from numparam import parallel as parallel
    from numparam import perturb as perturb
    from numparam import randomness as randomness
    from numparam import rules as rules
    from numparam import server as server
    from numparam import torch as torch
    from numparam import views as views
    from numparam.checkpoint.distributed_index import write_index
    from numparam.checkpoint.distributed_saving import save_distributed_checkpoint
    from numparam.checkpoint.loading import load_checkpoint, load_distributed_checkpoint, load_param_into_net
    from numparam.checkpoint.saving import save_checkpoint
    from numparam.embedding import Embedding, EmbeddingCache, EmbeddingLookup
    from numparam.fingerprints import Fingerprint, Fingerprints, Verification, View, fingerprint, identify, verify
    from numparam.layout.automatic import automatic_layouts
    from numparam.perturb import noise
    from numparam.rules import Rules
    from numparam.threads import get_num_threads, set_num_threads

bool_ = np.dtype("bool")
int8 = np.dtype("int8")
int16 = np.dtype("int16")
int32 = np.dtype("int32")
int64 = np.dtype("int64")
uint8 = np.dtype("uint8")
uint16 = np.dtype("uint16")
uint32 = np.dtype("uint32")
uint64 = np.dtype("uint64")
float16 = np.dtype("float16")
float32 = np.dtype("float32")
float64 = np.dtype("float64")
complex64 = np.dtype("complex64")
complex128 = np.dtype("complex128")

__all__ = [
    "Cell", "CellDict", "CellList", "Device", "Embedding", "EmbeddingCache", "EmbeddingLookup", "Fingerprint",
    "Fingerprints", "Layout", "ParallelMode", "Parameter", "ParameterTuple", "Region", "Rules", "SequentialCell",
    "Source", "Tensor", "Verification", "View", "automatic_layouts", "bfloat16", "bool_", "complex64", "complex128",
    "device", "devices", "dtypes", "errors", "fingerprint", "float8_e4m3fn", "float8_e5m2", "float16", "float32",
    "float64", "get_auto_parallel_context", "get_default_device", "get_num_threads", "get_seed", "identify",
    "initializer", "int8", "int16", "int32", "int64", "load_checkpoint", "load_distributed_checkpoint",
    "load_param_into_net", "noise", "reset_auto_parallel_context", "save_checkpoint", "save_distributed_checkpoint",
    "set_auto_parallel_context", "set_default_device", "set_num_threads", "set_seed", "uint8", "uint16", "uint32",
    "uint64", "verify", "write_index",
]  # fmt: skip

if not TYPE_CHECKING:
    _PACKAGES = (
        "checkpoint", "communication", "embedding", "fingerprints", "jax", "mindspore", "optim", "parallel", "perturb",
        "randomness", "rules", "server", "torch", "views",
    )  # fmt: skip
    _NAMES_OF_MODULES = {
        "checkpoint.distributed_index": ("write_index",),
        "checkpoint.distributed_saving": ("save_distributed_checkpoint",),
        "checkpoint.loading": ("load_checkpoint", "load_distributed_checkpoint", "load_param_into_net"),
        "checkpoint.saving": ("save_checkpoint",),
        "embedding": ("Embedding", "EmbeddingCache", "EmbeddingLookup"),
        "fingerprints": ("Fingerprint", "Fingerprints", "Verification", "View", "fingerprint", "identify", "verify"),
        "layout.automatic": ("automatic_layouts",),
        "perturb": ("noise",),
        "rules": ("Rules",),
        "threads": ("get_num_threads", "set_num_threads"),
    }
    _IN_MODULES = {name: f"numparam.{module}" for module, names in _NAMES_OF_MODULES.items() for name in names}

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in dtypes.EXTENSIONS:  # 7 ms for ml_dtypes, a twelfth of the import of NumPy
            return dtypes.as_dtype(name)
        if name in _IN_MODULES:  # half of the modules, and only files need them
            return getattr(import_module(_IN_MODULES[name]), name)
        if name in _PACKAGES:
            return import_module(f"numparam.{name}")
        if name == "__version__":
            from importlib.metadata import version

            return version("numparam")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted([*__all__, *_PACKAGES, "__version__"])
