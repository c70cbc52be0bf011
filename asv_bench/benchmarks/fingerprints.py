"""Fingerprints of arrays, other checks of the same bytes, and the search of `identify`."""

import hashlib
import zlib
from collections.abc import Callable

import numpy as np

import numparam
from numparam.initializer import Normal, initializer

from .common import Array, OneThread, Warm, dtype, needs, touched

Model = dict[str, numparam.Parameter]


def _transposed(array: Array) -> Callable[[], object]:
    matrix = array.reshape(4096, -1).T
    return lambda: numparam.fingerprint(matrix)


def _read(array: Array) -> Callable[[], object]:
    words = array.view(np.uint64)
    return lambda: np.bitwise_xor.reduce(words)


def _xxhash(array: Array) -> Callable[[], object]:
    needs("xxhash")
    import xxhash

    content = array.view(np.uint8)
    return lambda: xxhash.xxh3_128(content).digest()


def _torch(array: Array) -> Callable[[], object]:
    needs("torch")
    import torch

    torch.set_num_threads(1)
    if not hasattr(torch, "hash_tensor"):
        raise NotImplementedError("skipped: this torch has no hash_tensor")
    tensor = torch.from_numpy(array.view(f"i{array.itemsize}"))
    return lambda: torch.hash_tensor(tensor)


CHECKS: dict[str, Callable[[Array], Callable[[], object]]] = {
    "numparam": lambda array: lambda: numparam.fingerprint(array),
    "numparam, transposed": _transposed,
    "read (XOR of NumPy)": _read,
    "zlib.crc32": lambda array: lambda: zlib.crc32(array.view(np.uint8)),
    "SHA-256": lambda array: lambda: hashlib.sha256(array.view(np.uint8)).digest(),
    "xxhash.xxh3_128": _xxhash,
    "torch.hash_tensor": _torch,
}
"""Each prepares a call for an array of one axis."""


class Fingerprint(Warm):
    """One thread, 64 MiB."""

    params = (tuple(CHECKS), ("float32", "bfloat16"))
    param_names = ("check", "dtype")

    def setup(self, check: str, name: str) -> None:
        numparam.set_num_threads(1)
        kind = dtype(name)
        self.call = CHECKS[check](touched(2**26 // kind.itemsize, name))
        self.call()

    def time_warm(self, check: str, name: str) -> None:
        self.call()


def rows_of_others(shape: tuple[int, int]) -> Callable[[Model], Array]:
    return lambda model: np.random.default_rng(1).random(shape, np.float32).astype(model["embed"].dtype)


def rows_of_the_last_layer(model: Model) -> Array:
    return model["layers.79.down"][1024:1088].asnumpy()


ROWS: dict[str, Callable[[Model], Array]] = {
    "64 rows of the last layer": rows_of_the_last_layer,
    "64 columns of the last layer": lambda model: rows_of_the_last_layer(model).T,
    "64 other rows of 28672": rows_of_others((64, 28672)),
    "64 other rows of 8192": rows_of_others((64, 8192)),
    "64 other rows of 1024": rows_of_others((64, 1024)),
    "8192 other rows of 1024": rows_of_others((8192, 1024)),
}
"""Arrays that are looked for, by a model."""


def model_of_70_billion(name: str) -> Model:
    """Return the lazy matrices of a model of 70 billion parameters: names and shapes of Llama."""
    numparam.set_seed(7)
    shapes = {"embed": (128256, 8192), "head": (128256, 8192)}
    layer = {"q": (8192, 8192), "k": (1024, 8192), "v": (1024, 8192), "o": (8192, 8192)}
    layer |= {"gate": (28672, 8192), "up": (28672, 8192), "down": (8192, 28672)}
    shapes |= {f"layers.{at}.{part}": shape for at in range(80) for part, shape in layer.items()}
    kind = dtype(name)
    return {
        name: numparam.Parameter(initializer(Normal(0.02), shape, kind), name=name) for name, shape in shapes.items()
    }


class Identify(OneThread):
    """A search of the names and row starts of 70 billion parameters on one thread."""

    params = (tuple(ROWS), ("float32", "bfloat16"))
    param_names = ("rows", "dtype")
    rounds, number, repeat = 2, 1, (2, 4, 10.0)

    def setup(self, rows: str, name: str) -> None:
        numparam.set_num_threads(1)
        self.model = model_of_70_billion(name)
        self.array = ROWS[rows](self.model)

    def time_search(self, rows: str, name: str) -> None:
        numparam.identify(self.array, self.model)
