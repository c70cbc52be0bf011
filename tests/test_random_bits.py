"""The random words are those of Philox4x32-10, for every counter that a tensor can reach."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

import reference
from numparam.kernels import fill
from numparam.kernels.fill import Key, Span
from numparam.kernels.formula.philox import philox
from numparam.kernels.machine.lanes import WIDTH
from numparam.kernels.machine.memory import POSITION, load_indices, store_lanes

ONES = 2**64 - 1
KNOWN_ANSWERS = [  # Random123, kat_vectors: (block, stream, key, words)
    (0, 0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (ONES, ONES, ONES, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (0x85A308D3243F6A88, 0x0370734413198A2E, 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
"""Words are written low first in the standard's tables, so its counter 243f6a88 85a308d3 is this block."""


@numba.njit
def _words_of_blocks(blocks: Any, stream: Any, key: Any, out: Any) -> None:
    lanes = load_indices(blocks)
    a, b, c, d = philox(lanes, lanes >> 32, stream, key)
    store_lanes(out[0], 0, a)
    store_lanes(out[1], 0, b)
    store_lanes(out[2], 0, c)
    store_lanes(out[3], 0, d)


@pytest.mark.parametrize("block, stream, key, words", KNOWN_ANSWERS)
def test_formula_gives_the_known_answers(block: int, stream: int, key: int, words: str) -> None:
    """Every lane holds its own block: lane l holds the known one plus l."""
    blocks = np.empty(WIDTH, np.uint64)
    blocks[POSITION] = [(block + lane) % 2**64 for lane in range(WIDTH)]
    out = np.empty((4, WIDTH), np.uint32)
    _words_of_blocks(blocks, np.uint64(stream), np.uint64(key), out)
    assert [f"{word:08x}" for word in out[:, 0]] == words.split()
    for lane in range(WIDTH):
        assert out[:, lane].tolist() == list(reference.philox(key, stream, (block + lane) % 2**64))


@pytest.mark.parametrize("block, stream, key, words", KNOWN_ANSWERS)
def test_reference_gives_the_known_answers(block: int, stream: int, key: int, words: str) -> None:
    assert [f"{word:08x}" for word in reference.philox(key, stream, block)] == words.split()


def test_words_are_those_of_the_cpp_engine() -> None:
    """C++26 requires this 10000th number of a default-constructed ``std::philox4x32``, whose seed is 20111115."""
    out = np.empty(10_000, np.uint32)
    fill.bits(out, Key(20111115, 0, 0))
    assert out[-1] == 1955073260


KEY = Key(0x0123456789ABCDEF, 0xFEDCBA9876543210, 0)


def expected_bits(indices: np.ndarray) -> np.ndarray:
    return np.array([reference.stream_bits("bits", (), "uint32", KEY, int(i)) for i in indices], np.uint32)


@pytest.mark.parametrize("base", [0, 2**32 - 3, 2**34 - 300, 2**34, 3 * 2**34 - 201, 2**61 + 5, 2**62 - 517, 2**62 + 1])
@pytest.mark.parametrize("skip", range(4))
def test_runs_anywhere_in_a_tensor(base: int, skip: int) -> None:
    """The block number outgrows 32 bits at element 2**34: runs may start before it and end after it."""
    out = np.empty(700, np.uint32)
    fill.bits(out, KEY, Span(base + skip, (1,)))
    assert np.array_equal(out, expected_bits(base + skip + np.arange(700)))


@pytest.mark.parametrize(
    "base, step", [(2**34 - 1000, 7), (2**62, -(2**53)), (5, 2**55 + 1), (2**63 - 1, -(2**40) - 1)]
)
def test_strides_anywhere_in_a_tensor(base: int, step: int) -> None:
    out = np.empty(250, np.uint32)
    fill.bits(out, KEY, Span(base, (step,)))
    assert np.array_equal(out, expected_bits(base + step * np.arange(250)))


@pytest.mark.parametrize(
    "key", [Key(0, 0, 0), Key(ONES, 0, 0), Key(0, ONES, 0), Key(2**32, 2**32, 0), Key(ONES, ONES, 5)]
)
def test_all_bits_of_seed_and_stream_count(key: Key) -> None:
    out = np.empty(100, np.uint32)
    fill.bits(out, key)
    assert out.tolist() == [reference.stream_bits("bits", (), "uint32", key, i) for i in range(100)]
