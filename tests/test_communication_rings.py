"""Arrays go through a ring of shared memory whole, in order, and are read where they lie if they fit."""

from __future__ import annotations

import os

import numpy as np
import pytest

from numparam.communication import ring
from numparam.communication.ring import SLOTS, Flow, Ring, new_ring, ring_of
from numparam.kernels.meeting import HAS_MEETINGS

pytestmark = pytest.mark.skipif(not HAS_MEETINGS, reason="rings need Linux")
SLOT = 64


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> tuple[Ring, Ring]:
    monkeypatch.setattr(ring, "SLOT_BYTES", SLOT)
    made = new_ring(1)
    assert made is not None
    writer, file = made
    reader = ring_of(0, os.getpid(), file)
    os.close(file)
    assert reader is not None
    return writer, reader


def test_arrays_of_any_size_arrive_in_order(ends: tuple[Ring, Ring]) -> None:
    rng = np.random.default_rng(0)
    sizes = (1, SLOT - 1, SLOT, SLOT + 1, 0, 2 * SLOT, 7 * SLOT + 3)
    sent = [rng.integers(0, 256, size, np.uint8) for size in sizes] + [rng.normal(size=(5, 7)), np.arange(3) > 1]
    received = [np.zeros_like(array) for array in sent]
    write, read = Flow(ends[0], sent), Flow(ends[1], received)
    while write or read:
        moved = [flow.moves() for flow in (write, read) for _ in range(int(rng.integers(1, 2 * SLOTS)))]
        assert any(moved)
    assert not write.moves()
    assert not read.moves()
    for a, b in zip(sent, received, strict=True):
        assert a.tobytes() == b.tobytes()


def test_array_that_fits_is_read_in_the_ring_until_it_is_left(ends: tuple[Ring, Ring]) -> None:
    sent = np.arange(SLOT // 4, dtype=np.float32).reshape(2, -1)
    write, read = Flow(ends[0], [sent] * (SLOTS + 1)), Flow(ends[1], [np.empty_like(sent)], in_place=True)
    while write.moves():
        pass
    assert read.moves()
    assert not read.moves()
    assert np.shares_memory(read.array, ends[1].slot)
    assert (read.array == sent).all()
    assert not write.moves()
    read.leave()
    assert write.moves()


def test_array_longer_than_a_slot_is_copied_out(ends: tuple[Ring, Ring]) -> None:
    sent = np.arange(2 * SLOT, dtype=np.float32)
    write, read = Flow(ends[0], [sent]), Flow(ends[1], [np.empty_like(sent)], in_place=True)
    while write or read:
        assert write.moves() | read.moves()
    read.leave()
    assert (read.array == sent).all()
    assert ends[1].slot is None


def test_writer_waits_for_a_slot_that_the_reader_has(ends: tuple[Ring, Ring]) -> None:
    writer, reader = ends
    write = Flow(writer, [np.full(SLOT, number, np.uint8) for number in range(SLOTS + 1)])
    assert [write.moves() for _ in range(SLOTS + 1)] == [True] * SLOTS + [False]
    assert reader.slot is not None
    assert reader.slot[0] == 0
    reader.leave()
    assert write.moves()
    assert not write


def test_ring_of_a_process_without_it_is_none() -> None:
    assert ring_of(0, os.getpid(), 1 << 20) is None
    assert ring_of(0, None, 0) is None
    reading, writing = os.pipe()
    assert ring_of(0, os.getpid(), reading) is None
    os.close(reading)
    os.close(writing)
