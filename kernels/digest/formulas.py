"""What is computed of a digest, for every target: products, sums and the weights of blocks.

Word ``i`` of an array has factor ``i % BLOCK`` of block ``i // BLOCK``. Inside a block four sums of word times factor
are taken without reduction; the weights of the block, random numbers below the modulus, join them to two numbers.
"""

from __future__ import annotations

from numparam.kernels.digest.key import MODULUS
from numparam.kernels.formula.philox import philox
from numparam.kernels.machine.compile import formula
from numparam.kernels.machine.lanes import U64, low_half, select, widened

_HIGH = 61
_LOW_29 = (1 << 29) - 1


@formula
def added(total: U64, word: U64, factor: U64) -> U64:
    """Add the product of the low halves."""
    return total + low_half(word) * low_half(factor)


@formula
def folded(x: U64) -> U64:
    """Return a number congruent to `x` and below 2**61 + 8."""
    return (x & MODULUS) + (x >> _HIGH)


@formula
def reduced(x: U64) -> U64:
    """Return the remainder of `x`."""
    y = folded(x)
    return select(y >= MODULUS, y - MODULUS, y)


@formula
def times(a: U64, b: U64) -> U64:
    """Return the remainder of the product of two remainders."""
    a_high, b_high = a >> 32, b >> 32
    middle = low_half(a) * b_high + low_half(b) * a_high
    low = low_half(a) * low_half(b)
    # 2**64 is congruent to 8, and 2**61 to 1: the middle part, times 2**32, is split where it passes 2**61.
    return reduced(folded(low) + ((middle & _LOW_29) << 32) + (middle >> 29) + ((a_high * b_high) << 3))


@formula
def _below(low: U64, high: U64) -> U64:
    return reduced((low | (high << 32)) & MODULUS)


@formula
def weights(block: U64, seed: int, stream: int) -> tuple[U64, U64, U64, U64]:
    """Return the four weights of a block, from the words of two consecutive blocks of Philox."""
    first = block << 1
    second = first | 1
    a, b, c, d = philox(first, first >> 32, stream, seed)
    e, f, g, h = philox(second, second >> 32, stream, seed)
    return (
        _below(widened(a), widened(b)),
        _below(widened(c), widened(d)),
        _below(widened(e), widened(f)),
        _below(widened(g), widened(h)),
    )


@formula
def joined(
    found: tuple[U64, U64], sums: tuple[U64, U64, U64, U64], weight: tuple[U64, U64, U64, U64]
) -> tuple[U64, U64]:
    """Add the four sums of (a part of) a block, times its weights, to the two numbers."""
    first = times(reduced(sums[0]), weight[0]) + times(reduced(sums[1]), weight[1])
    second = times(reduced(sums[2]), weight[2]) + times(reduced(sums[3]), weight[3])
    return reduced(found[0] + first), reduced(found[1] + second)
