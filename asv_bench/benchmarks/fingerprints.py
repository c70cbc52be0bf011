"""Fingerprints of arrays, other checks of the same bytes, and the search of `identify`."""

import hashlib
import zlib
from collections.abc import Callable

import numpy as np

import numparam
from numparam.initializer import Normal, initializer

from .common import Array, Warm, dtype, needs, touched


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


class Identify(Warm):
    """A search over the names and row starts of 2 billion parameters on one thread: for known rows and for others."""

    def setup(self) -> None:
        numparam.set_num_threads(1)
        numparam.set_seed(7)
        kind = dtype("bfloat16")
        names = [f"w{i}" for i in range(32)]
        self.model = {
            name: numparam.Parameter(initializer(Normal(0.02), (8192, 8192), kind), name=name) for name in names
        }
        self.known = self.model["w31"][1024:1536].asnumpy()
        self.other = np.random.default_rng(1).random((512, 8192), np.float32).astype(kind)
        self.time_known()

    def time_known(self) -> None:
        numparam.identify(self.known, self.model)

    def time_other(self) -> None:
        numparam.identify(self.other, self.model)
