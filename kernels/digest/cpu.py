"""Digests on a CPU."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.digest.formulas import added, folded, joined, weights
from numparam.kernels.digest.key import BLOCK, factors
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.cuda import lane
from numparam.kernels.machine.lanes import WIDTH, first_half, second_half, widened
from numparam.kernels.machine.memory import access, pair_loader

if TYPE_CHECKING:
    from numparam.kernels.digest.key import DigestKey
    from numparam.kernels.digest.words import Words

_PAIRS = 2 * WIDTH  # words that one step of the loop takes
_FACTOR = 4  # bytes
_ROW = BLOCK * _FACTOR

# --------------------------------------------------------------------------- loops

_load_factors = pair_loader(_FACTOR)
_load_factor, _, _ = access("u32", 1)
_, _store, _ = access("u64", 1)


def _halving(width: int) -> Any:
    """Make the formula that adds up the lanes, folded at each step."""
    if width == 1:
        return folded
    inner = _halving(width // 2)

    @formula
    def total(x: Any) -> Any:
        y = folded(x)
        return inner(first_half(y) + second_half(y))

    return total


_total = _halving(WIDTH)


@formula
def _added_pairs(total: Any, words: Any, pair: Any) -> Any:
    return added(added(total, words, pair), words >> 32, pair >> 32)


@cache
def _make_loop(item_bytes: int) -> Any:
    load_pairs = pair_loader(item_bytes)
    load_word, _, _ = access("u32", 1, None if item_bytes == 4 else item_bytes)

    @kernel(f"digest {item_bytes}")
    def loop(
        address: Any, start: Any, stop: Any, axes: Any, base: Any, table: Any, seed: Any, stream: Any, out: Any
    ) -> None:
        none = lane(np.uint64(0))
        found = (none, none)
        weight = (none, none, none, none)
        known, last = np.int64(-1), axes.shape[1] - 1
        length, step, byte_step = axes[0, last], axes[1, last], axes[2, last]
        at = start
        while at < stop:
            index, place, position = base, address, at
            for axis in range(last, -1, -1):
                outer = position // axes[0, axis]
                inner = position - outer * axes[0, axis]
                index += inner * axes[1, axis]
                place += inner * axes[2, axis]
                position = outer
            end = min(stop, at - at % length + length)
            while at < end:
                block = index // BLOCK
                inside = index - block * BLOCK
                count = min(end - at, BLOCK - inside) if step == 1 else 1
                keys = table + inside * _FACTOR
                sums = (none, none, none, none)
                done = 0
                if count >= _PAIRS:
                    pairs = load_pairs(place)
                    zero = pairs ^ pairs
                    a, b, c, d = zero, zero, zero, zero
                    while count - done >= _PAIRS:
                        pairs = load_pairs(place + done * item_bytes)
                        here = keys + done * _FACTOR
                        a = _added_pairs(a, pairs, _load_factors(here))
                        b = _added_pairs(b, pairs, _load_factors(here + _ROW))
                        c = _added_pairs(c, pairs, _load_factors(here + 2 * _ROW))
                        d = _added_pairs(d, pairs, _load_factors(here + 3 * _ROW))
                        done += _PAIRS
                    sums = (_total(a), _total(b), _total(c), _total(d))
                while done < count:
                    word = widened(load_word(place + done * item_bytes))
                    here = keys + done * _FACTOR
                    sums = (
                        folded(added(sums[0], word, widened(_load_factor(here)))),
                        folded(added(sums[1], word, widened(_load_factor(here + _ROW)))),
                        folded(added(sums[2], word, widened(_load_factor(here + 2 * _ROW)))),
                        folded(added(sums[3], word, widened(_load_factor(here + 3 * _ROW)))),
                    )
                    done += 1
                if block != known:
                    weight = weights(lane(np.uint64(block)), seed, stream)
                    known = block
                found = joined(found, sums, weight)
                at += count
                index += count * step
                place += count * byte_step
        _store(out, found[0])
        _store(out + 8, found[1])

    return loop


# --------------------------------------------------------------------------- entry


def digest_words(words: Words, key: DigestKey) -> tuple[int, int]:
    """Return the sums of the words; not yet reduced."""
    loop, table = _make_loop(words.item_bytes), factors(key)
    axes = np.array(words.axes, np.int64).T.copy()
    seed, stream, base = np.uint64(key.seed), np.uint64(key.weights), np.int64(words.base)
    parts: list[tuple[int, int]] = []

    def work(start: int, stop: int) -> None:
        out = np.empty(2, np.uint64)
        loop(words.address, start, stop, axes, base, table.ctypes.data, seed, stream, out.ctypes.data)
        parts.append((int(out[0]), int(out[1])))

    pool.run(work, words.size, words.item_bytes, BLOCK)
    return sum(first for first, _ in parts), sum(second for _, second in parts)
