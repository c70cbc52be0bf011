"""Digests on a CPU."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.kernels.digest.formulas import added, folded, joined, reduced, weights
from numparam.kernels.digest.key import BLOCK, LOW_BITS, factors, short_factors
from numparam.kernels.formula.formats import unchanged
from numparam.kernels.machine import pool
from numparam.kernels.machine.compile import formula, kernel
from numparam.kernels.machine.cuda import lane
from numparam.kernels.machine.lanes import WIDTH, dot, first_half, second_half, sign_extended, widened
from numparam.kernels.machine.memory import POSITION, access, pair_loader, stack

if TYPE_CHECKING:
    from numparam.kernels.digest.key import DigestKey
    from numparam.kernels.digest.words import Words

_PAIRS = 2 * WIDTH  # words that one step of the loop takes
_FACTOR = 4  # bytes
_ROW = BLOCK * _FACTOR
_SHORT_ROW, _SUMS_ROW = BLOCK * 2, (BLOCK + 1) * 8
_ROW_KEPT = WIDTH * 8
_PLACE = np.array(POSITION, np.int64)  # of the number of a block whose random words come to each lane
_UNWIDENED = 8 * _PAIRS
"""Short words whose products are added up in 32 bits: two in each step and lane, of 15 and 12 bits and a sign."""

_load_pairs = _load_factors = pair_loader(_FACTOR)
_load_factor, _, _ = access("u32", 1)
_load_shorts, _, _ = access("u32", WIDTH)
_load, _store, _ = access("u64", 1)
_load_lanes, _, _ = access("u64", WIDTH)


def _halving(width: int, step: Any) -> Any:
    """Make the formula that adds up the lanes, each changed by a formula at each step."""
    if width == 1:
        return step
    inner = _halving(width // 2, step)

    @formula
    def total(x: Any) -> Any:
        y = step(x)
        return inner(first_half(y) + second_half(y))

    return total


_total, _sum, _remainder = (_halving(WIDTH, step) for step in (folded, unchanged, reduced))


@formula
def _added_pairs(total: Any, words: Any, pair: Any) -> Any:
    return added(added(total, words, pair), words >> 32, pair >> 32)


@formula
def _sums(place: Any, inside: Any, count: Any, table: Any, shorts: Any) -> Any:  # noqa: ARG001
    """Return the sums of as many words of a block as fill lanes, and how many these are."""
    keys, done = table + inside * _FACTOR, 0
    pairs = _load_pairs(place)
    zero = pairs ^ pairs
    a, b, c, d = zero, zero, zero, zero
    while count - done >= _PAIRS:
        pairs = _load_pairs(place + done * _FACTOR)
        here = keys + done * _FACTOR
        a = _added_pairs(a, pairs, _load_factors(here))
        b = _added_pairs(b, pairs, _load_factors(here + _ROW))
        c = _added_pairs(c, pairs, _load_factors(here + 2 * _ROW))
        d = _added_pairs(d, pairs, _load_factors(here + 3 * _ROW))
        done += _PAIRS
    return (_total(a), _total(b), _total(c), _total(d)), done


@formula
def _joined_parts(total: Any, low: Any, high: Any) -> Any:
    return total + sign_extended(low) + (sign_extended(high) << LOW_BITS)


@cache
def _make_short_sums(item_bytes: int) -> Any:
    """Make `_sums` for words of at most 16 bits, two in a lane of 32, with factors in two parts of 13 bits.

    Words of 16 bits are read as signed ones, less 2**15; what that lacks in the sums is 2**15 times the sum of their
    factors.
    """
    load, flip = pair_loader(item_bytes, "u32"), 0x80008000 if item_bytes == 2 else 0
    lacks = int(item_bytes == 2)

    @formula
    def lacking(before: Any, done: Any) -> Any:
        return (_load(before + done * 8) - _load(before)) * (lacks << 15)

    @formula
    def sums(place: Any, inside: Any, count: Any, table: Any, shorts: Any) -> Any:  # noqa: ARG001
        before, keys, done = shorts + 8 * _SHORT_ROW + inside * 8, shorts + inside * 2, 0
        none = _load_shorts(keys) ^ _load_shorts(keys)
        zero = sign_extended(none)
        a, b, c, d = zero, zero, zero, zero
        while count - done >= _PAIRS:
            stop = min(count, done + _UNWIDENED)
            a0, b0, c0, d0, a1, b1, c1, d1 = none, none, none, none, none, none, none, none
            while stop - done >= _PAIRS:
                words = load(place + done * item_bytes) ^ flip
                here = keys + done * 2
                a0 = a0 + dot(words, _load_shorts(here))
                a1 = a1 + dot(words, _load_shorts(here + _SHORT_ROW))
                b0 = b0 + dot(words, _load_shorts(here + 2 * _SHORT_ROW))
                b1 = b1 + dot(words, _load_shorts(here + 3 * _SHORT_ROW))
                c0 = c0 + dot(words, _load_shorts(here + 4 * _SHORT_ROW))
                c1 = c1 + dot(words, _load_shorts(here + 5 * _SHORT_ROW))
                d0 = d0 + dot(words, _load_shorts(here + 6 * _SHORT_ROW))
                d1 = d1 + dot(words, _load_shorts(here + 7 * _SHORT_ROW))
                done += _PAIRS
            a, b = _joined_parts(a, a0, a1), _joined_parts(b, b0, b1)
            c, d = _joined_parts(c, c0, c1), _joined_parts(d, d0, d1)
        return (
            _sum(a) + lacking(before, done),
            _sum(b) + lacking(before + _SUMS_ROW, done),
            _sum(c) + lacking(before + 2 * _SUMS_ROW, done),
            _sum(d) + lacking(before + 3 * _SUMS_ROW, done),
        ), done

    return sums


# What one block has after its sums, random weights and products of remainders, would take as long as the sums. So the
# sums of as many blocks as fill lanes are kept in rows: the numbers of the blocks, then each of the four sums.


@formula
def _keep(kept: Any, place: Any, block: Any, sums: Any) -> None:
    here = kept + place * 8
    _store(kept + _PLACE[place] * 8, lane(block))
    _store(here + _ROW_KEPT, sums[0])
    _store(here + 2 * _ROW_KEPT, sums[1])
    _store(here + 3 * _ROW_KEPT, sums[2])
    _store(here + 4 * _ROW_KEPT, sums[3])


@formula
def _joined_kept(found: Any, kept: Any, seed: Any, stream: Any) -> Any:
    sums = (
        _load_lanes(kept + _ROW_KEPT),
        _load_lanes(kept + 2 * _ROW_KEPT),
        _load_lanes(kept + 3 * _ROW_KEPT),
        _load_lanes(kept + 4 * _ROW_KEPT),
    )
    return joined(found, sums, weights(_load_lanes(kept), seed, stream))


@cache
def _make_loop(item_bytes: int) -> Any:
    full_sums = _sums if item_bytes == 4 else _make_short_sums(item_bytes)
    load_word, _, _ = access("u32", 1, None if item_bytes == 4 else item_bytes)
    reserve = stack(5 * _ROW_KEPT)

    @kernel(f"digest {item_bytes}")
    def loop(
        address: Any,
        start: Any,
        stop: Any,
        axes: Any,
        base: Any,
        table: Any,
        shorts: Any,
        seed: Any,
        stream: Any,
        out: Any,
    ) -> None:
        none, zero, kept = lane(np.uint64(0)), np.uint64(0), reserve()
        for place in range(WIDTH):
            _keep(kept, place, zero, (none, none, none, none))
        found, filled, last = (_load_lanes(kept), _load_lanes(kept)), 0, axes.shape[1] - 1
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
                sums, done = (none, none, none, none), 0
                if count >= _PAIRS:
                    sums, done = full_sums(place, inside, count, table, shorts)
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
                _keep(kept, filled, np.uint64(block), sums)
                filled += 1
                if filled == WIDTH:
                    found, filled = _joined_kept(found, kept, seed, stream), 0
                at += count
                index += count * step
                place += count * byte_step
        for place in range(filled, WIDTH):
            _keep(kept, place, zero, (none, none, none, none))
        found = _joined_kept(found, kept, seed, stream)
        _store(out, _remainder(found[0]))
        _store(out + 8, _remainder(found[1]))

    return loop


def digest_words(words: Words, key: DigestKey) -> tuple[int, int]:
    """Return the sums of the words; not yet reduced."""
    loop, table, shorts = _make_loop(words.item_bytes), factors(key), short_factors(key)
    axes = np.array(words.axes, np.int64).T.copy()
    seed, stream, base = np.uint64(key.seed), np.uint64(key.weights), np.int64(words.base)
    tables = table.ctypes.data, shorts.ctypes.data
    parts: list[tuple[int, int]] = []

    def work(start: int, stop: int) -> None:
        out = np.empty(2, np.uint64)
        loop(words.address, start, stop, axes, base, *tables, seed, stream, out.ctypes.data)
        parts.append((int(out[0]), int(out[1])))

    pool.run(work, words.size, words.item_bytes, BLOCK)
    return sum(first for first, _ in parts), sum(second for _, second in parts)
