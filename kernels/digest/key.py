"""What weighs the words of a digest: a secret or public seed, and the factors inside a block that follow from it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numparam.kernels.machine.memory import empty_at_line

MODULUS = 2**61 - 1
"""A Mersenne prime: a product is reduced by shifts."""

BLOCK = 1024
"""Words of a block. A lane of the CPU adds up at most 128 products of 32 and 25 bits, which 64 bits hold."""

SUMS = 4
"""Sums over a block, two for each of the two numbers of a digest."""

FACTOR_BITS = 25

LOW_BITS = 13
"""Of a factor, in the part that is multiplied with short words."""

_PERSON = b"numparam digest1"


class DigestKey(NamedTuple):
    """The Philox seed and the two streams that a digest takes its factors and weights from."""

    seed: int
    factors: int
    weights: int

    @classmethod
    def from_secret(cls, secret: bytes = b"") -> DigestKey:
        """Derive the key from at most 64 secret bytes; without any it is public."""
        words = hashlib.blake2b(digest_size=24, key=secret, person=_PERSON).digest()
        return cls(*(int.from_bytes(words[at : at + 8], "little") for at in (0, 8, 16)))


@lru_cache(maxsize=16)
def factors(key: DigestKey) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Return the factor of each word of a block in each sum, below ``2**FACTOR_BITS``: row `t` is sum `t`."""
    from numparam.kernels import fill

    words = np.empty((BLOCK, SUMS), np.uint32)
    fill.bits(words, fill.Key(key.seed, key.factors, 0))
    return _at_a_line(words.T >> np.uint32(32 - FACTOR_BITS))


@lru_cache(maxsize=16)
def short_factors(key: DigestKey) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return what short words need, row by row of `factors`.

    First each row in two parts of int16, the lower one from 1 - 2**12 to 2**12, and the rest, at most 2**12, times
    2**13; then the sums of the factors before each place, as uint64.
    """
    table = factors(key).astype(np.int64)
    before = np.zeros((SUMS, BLOCK + 1), np.int64)
    np.cumsum(table, 1, out=before[:, 1:])
    high = (table + (1 << LOW_BITS - 1) - 1) >> LOW_BITS
    parts = np.stack([table - (high << LOW_BITS), high], 1).astype(np.int16)
    return _at_a_line(np.concatenate([parts.view(np.uint8).ravel(), before.view(np.uint8).ravel()]))


def _at_a_line(table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a copy for reading that begins at a cache line."""
    copy = empty_at_line(table.shape, table.dtype)
    copy[...] = table
    copy.flags.writeable = False
    return copy
