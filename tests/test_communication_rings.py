"""Arrays go through a ring of shared memory whole, in order, and are read where they lie if they fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from numparam.communication import ring
from numparam.communication.exchange import arriving, world
from numparam.communication.group import Group
from numparam.communication.ring import SLOTS, Flow, Ring, new_rings, rings_of
from numparam.errors import LateRankError
from numparam.kernels.meeting import HAS_MEETINGS

pytestmark = pytest.mark.skipif(not HAS_MEETINGS, reason="rings need Linux")
SLOT = 64


@pytest.fixture(params=["to", "of"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Ring, Ring]:
    monkeypatch.setattr(ring, "SLOT_BYTES", SLOT)
    made = new_rings(1)
    assert made is not None
    (to, of), file = made
    opened = rings_of(0, os.getpid(), file)
    os.close(file)
    assert opened is not None
    return (to, opened[1]) if request.param == "to" else (opened[0], of)


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


@pytest.mark.parametrize("size", [SLOT // 4, SLOT // 4 + 1, 0])
def test_array_that_fits_is_read_in_the_ring_until_the_next_is_asked_for(ends: tuple[Ring, Ring], size: int) -> None:
    sent = np.arange(3 * size, dtype=np.float32).reshape(3, size)
    write, rooms = Flow(ends[0], sent), []

    def room(_: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        rooms.append(np.empty(shape, dtype))
        return rooms[-1]

    def batches() -> Iterator[Any]:
        for _ in range(3):
            while write.moves():
                pass
            yield [ends[1]], (size,), sent.dtype

    for number, [array] in enumerate(arriving(Group("", (0,), 0), "a test", batches(), room)):
        while write.moves():
            pass
        assert array.tobytes() == sent[number].tobytes()
        assert np.shares_memory(array, ends[1]._slots) == (size == SLOT // 4)
    assert len(rooms) == (0 if size == SLOT // 4 else 3)
    assert ends[1].slot is None


def test_rank_that_writes_nothing_is_named(ends: tuple[Ring, Ring], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "timeout", 0.01)
    with pytest.raises(LateRankError, match=r"rank [01] sent nothing for 0\.01 s in operation 0 of group 'few'"):
        next(arriving(Group("few", (0,), 0), "a test", [([ends[1]], (1,), np.dtype(np.uint8))], np.empty))


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
    assert rings_of(0, os.getpid(), 1 << 20) is None
    assert rings_of(0, None, 0) is None
    reading, writing = os.pipe()
    assert rings_of(0, os.getpid(), reading) is None
    os.close(reading)
    os.close(writing)
