"""Random bits: a pure function of (key, counter).

Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). A block is four
words of 32 bits; the counter of a block is (block low, block high, stream low, stream high) and the key is the 64-bit
seed.

Words travel in the low half of 64-bit lanes with anything above them, because a round is then two widening multiplies,
two shifts and four xors with no shuffle at all. The last round works on packed words. The rounds come in two halves,
so that a loop can work on the second half of one tile and on the first half of the next at the same time.
"""

from __future__ import annotations

from typing import Any

from numparam.kernels.machine.avx512 import xor3
from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import U32, U64, broadcast, high_word, low_half, low_word

MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85


@formula
def _round(c: tuple[U64, U64, U64, U64], key_low: U64, key_high: U64) -> tuple[U64, U64, U64, U64]:
    product_0 = low_half(c[0]) * MULTIPLIER_0
    product_1 = low_half(c[2]) * MULTIPLIER_1
    # The key is xored to the word that is ready first: five cycles a round instead of six.
    return (product_1 >> 32) ^ (c[1] ^ key_low), product_1, (product_0 >> 32) ^ (c[3] ^ key_high), product_0


@formula
def first_product(block: U64) -> U64:
    """Return the product of the first round, `MULTIPLIER_0` more for the next block up to a multiple of 2**32."""
    return low_half(block) * MULTIPLIER_0


@formula
def first_rounds(product_0: U64, block_high: U64, stream: int, key: int) -> Any:
    """Return the state of each block after five rounds; only the low half of `block_high` counts."""
    k, s = broadcast(key, block_high), broadcast(stream, block_high)
    h = k >> 32
    product_1 = low_half(s) * MULTIPLIER_1
    c = (product_1 >> 32) ^ (block_high ^ low_half(k)), product_1, (product_0 >> 32) ^ ((s >> 32) ^ h), product_0
    # Written out: a loop would stay one, and a function of the number of a round is compiled for each number, which
    # took a third of the time that a kernel compiles.
    c = _round(c, low_half(k + 1 * WEYL_0), low_half(h + 1 * WEYL_1))
    c = _round(c, low_half(k + 2 * WEYL_0), low_half(h + 2 * WEYL_1))
    c = _round(c, low_half(k + 3 * WEYL_0), low_half(h + 3 * WEYL_1))
    return _round(c, low_half(k + 4 * WEYL_0), low_half(h + 4 * WEYL_1))


@formula
def last_rounds(c: tuple[U64, U64, U64, U64], key: int) -> tuple[U32, U32, U32, U32]:
    """Return the four words of each block from its state after the `first_rounds`."""
    k = broadcast(key, c[0])
    h = k >> 32
    c = _round(c, low_half(k + 5 * WEYL_0), low_half(h + 5 * WEYL_1))
    c = _round(c, low_half(k + 6 * WEYL_0), low_half(h + 6 * WEYL_1))
    c = _round(c, low_half(k + 7 * WEYL_0), low_half(h + 7 * WEYL_1))
    c = _round(c, low_half(k + 8 * WEYL_0), low_half(h + 8 * WEYL_1))
    product_0 = low_half(c[0]) * MULTIPLIER_0
    product_1 = low_half(c[2]) * MULTIPLIER_1
    return (
        xor3(high_word(product_1), low_word(c[1]), low_word(k + 9 * WEYL_0)),
        low_word(product_1),
        xor3(high_word(product_0), low_word(c[3]), low_word(h + 9 * WEYL_1)),
        low_word(product_0),
    )


@formula
def philox(block: U64, block_high: U64, stream: int, key: int) -> Any:
    """Return the four words of each block; only the low halves of `block` and `block_high` count."""
    return last_rounds(first_rounds(first_product(block), block_high, stream, key), key)
