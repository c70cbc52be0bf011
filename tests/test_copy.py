"""A copy gives what NumPy gives, whatever the layouts, and needs no memory of the size of the arrays."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numparam.kernels import copy, rows
from numparam.kernels.copy import cpu, runs, transposes
from numparam.kernels.copy.walk import walk_of
from numparam.kernels.machine import pool

LARGE = 2 << 20  # bytes: enough for every compiled path
DTYPES = ["u1", "i2", "f4", "f8", "c16", ml_dtypes.bfloat16]


def counted(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array of which neighbours differ."""
    values = np.arange(int(np.prod(shape))) * 7 % 251
    return values.astype(dtype).reshape(shape)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Any, ...], tuple[int, ...]]:
    """Draw a shape, slices that select from a larger array, and an order of axes."""
    rank = draw(st.integers(0, 6))
    longest = 12 // max(rank, 2)
    shape = tuple(draw(st.lists(st.integers(0, longest), min_size=rank, max_size=rank)))
    slices = []
    for length in shape:
        step = draw(st.sampled_from([1, 1, 2, -1, -2]))
        first = 2 + (length - 1) * -step if step < 0 and length else 2
        stop = first + step * length
        slices.append(slice(first, stop if stop >= 0 else None, step) if length else slice(0, 0))
    return shape, tuple(slices), tuple(draw(st.permutations(range(rank))))


def laid_out(layout: Any, dtype: Any) -> np.ndarray:
    """Return a view of the layout's shape into an array that is larger along every axis."""
    shape, slices, order = layout
    base = counted(tuple([shape[axis] * 2 + 4 for axis in order]), dtype)
    return base.transpose(np.argsort(order))[(*slices, ...)]


@given(st.data(), st.sampled_from(DTYPES))
@settings(deadline=None, max_examples=150)
def test_any_layout(data: st.DataObject, dtype: Any) -> None:
    source = laid_out(data.draw(layouts()), dtype)
    slices = data.draw(st.permutations(range(source.ndim)))
    target = np.zeros([source.shape[axis] for axis in slices], dtype).transpose(np.argsort(slices))
    source.flags.writeable = False
    cpu.copy_apart(target, source) if target.size else copy.copy(target, source)
    assert np.array_equal(target, source)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("thread_count", [1, 2])
def test_large_arrays_of_any_order(monkeypatch: pytest.MonkeyPatch, dtype: Any, thread_count: int) -> None:
    monkeypatch.setattr(pool, "_num_threads", thread_count)
    items = LARGE // np.dtype(dtype).itemsize
    source = counted((8, 33, items // (8 * 33 * 20), 20), dtype)
    for order in itertools.permutations(range(4)):
        view = source.transpose(order)
        for part in (view, view[::-1, 1:], view[..., ::-2]):
            target = np.zeros(part.shape, dtype)
            copy.copy(target, part)
            assert np.array_equal(target, part)
            back = np.zeros_like(source)
            copy.copy(back.transpose(order), view)
            assert np.array_equal(back, source)


@pytest.mark.parametrize("item_bytes", [1, 2, 4, 8])
@pytest.mark.parametrize("offset", [0, 3])
def test_transposes_of_odd_shapes(item_bytes: int, offset: int) -> None:
    block = transposes.block(item_bytes)
    for rows_, columns in [(8, 9), (block.rows + 1, block.columns - 1), (3 * block.rows - 5, 2 * block.columns + 7)]:
        source = counted((columns, rows_ + 3), f"u{item_bytes}")[:, 1:-2]
        target = np.zeros(rows_ * (columns + 2) + 8, source.dtype)[offset:][: rows_ * (columns + 2)]
        target = target.reshape(rows_, columns + 2)
        for past_caches in (False, True):
            target[...] = 0
            loop, walk = transposes.transposing(item_bytes), walk_of(target[:, 1:-1], source.T)
            cpu.copy_transposed(loop, walk, 0, item_bytes, past_caches)
            assert np.array_equal(target[:, 1:-1], source.T)
            assert not target[:, [0, -1]].any()


@pytest.mark.parametrize("item_bytes", [1, 2, 4, 8])
@pytest.mark.parametrize("pages", [1, 3])
def test_transposes_of_lines_pages_apart(item_bytes: int, pages: int) -> None:
    """Their blocks have fewer columns, of which there are one less or a few more than of any block."""
    source = counted((1031, pages * 4096 // item_bytes), f"u{item_bytes}")
    for columns, left, right in [(1031, 0, 300), (127, 5, 142), (63, 3, -2)]:
        view = source[:columns, left:right]
        target = np.zeros((view.shape[1], columns + 2), view.dtype)
        cpu.copy_apart(target[:, 1:-1], view.T)
        assert np.array_equal(target[:, 1:-1], view.T)
        assert not target[:, [0, -1]].any()


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
@pytest.mark.parametrize("inner", [16, 64, 192])
@pytest.mark.parametrize("rows, near", [(300, 17), (40, 3)])
def test_short_rows_of_the_target_are_written_as_one(dtype: str, inner: int, rows: int, near: int) -> None:
    words = np.random.default_rng(inner).integers(0, 256, (inner, near, 2, rows, np.dtype(dtype).itemsize), np.uint8)
    source = words.view(dtype)[..., 0].transpose(3, 2, 1, 0)
    target = np.zeros((rows, 2, near, inner + 16), dtype)[..., :inner]
    for out in (np.zeros(source.shape, dtype), target):
        cpu.copy_apart(out, source)
        assert out.tobytes() == source.tobytes()
    assert not target.base[..., inner:].any()


@pytest.mark.parametrize("past_caches", [False, True])
def test_runs_of_every_length_and_alignment(past_caches: bool) -> None:
    loop, axes = runs.copying(), np.array([[1, 0, 0]])
    source = counted((10_000,), "u1")
    for count in [*range(260), 2047, 2111, 2112, 2113, 4096, 9_000]:
        for start in (0, 1, 31, 63):
            target = np.zeros(10_000, "u1")
            expected = target.copy()
            first = -target.ctypes.data % 64 + start
            expected[first : first + count] = source[5 : 5 + count]
            loop(target.ctypes.data + first, source.ctypes.data + 5, 0, count, axes, max(count, 1), past_caches)
            assert np.array_equal(target, expected)


def test_any_piece_of_the_runs() -> None:
    loop, source = runs.copying(), counted((50, 1400), "u1")
    for run in (1, 2, 3, 5, 8, 11, 17, 40, 64, 100, 399, runs.SHORT, 1100):
        axes = np.array([[50, run, 1400]])
        for start, stop in [(0, 50 * run), (5, 50 * run - 3), (run, 7 * run + 1), (run // 2, run // 2 + 1)]:
            target = np.zeros((50, run), "u1")
            expected = target.copy()
            expected.reshape(-1)[start:stop] = source[:, :run].reshape(-1)[start:stop]
            loop(target.ctypes.data, source.ctypes.data, start, stop, axes, run, True)
            assert np.array_equal(target, expected)


@pytest.mark.parametrize("run", [1024, 1025, 1087, 1500, 4000])
@pytest.mark.parametrize("start", [0, 1, 40, 63])
def test_runs_that_follow_each_other_in_the_target(run: int, start: int) -> None:
    loop, source = runs.copying(), counted((23, 5000), "u1")
    for rows_ in (1, 2, 23):
        target = np.zeros(rows_ * run + 256, "u1")
        first = -target.ctypes.data % 64 + start
        expected = target.copy()
        expected[first : first + rows_ * run] = source[:rows_, 3 : 3 + run].reshape(-1)
        axes = np.array([[rows_, run, 5000]])
        loop(target.ctypes.data + first, source.ctypes.data + 3, 0, rows_ * run, axes, run, True)
        assert np.array_equal(target, expected)


# --------------------------------------------------------------------------- overlap


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_overlap_is_as_if_the_source_were_copied_first(data: st.DataObject) -> None:
    base = counted((12, 11, 10), "i4")
    picks = []
    for length in base.shape:
        size = data.draw(st.integers(0, 5))
        pair = []
        for _ in range(2):
            step = data.draw(st.sampled_from([1, 2, -1]))
            room = length - abs(step) * max(size - 1, 0)
            first = data.draw(st.integers(0, max(room - 1, 0)))
            chosen = range(first, first + abs(step) * size, abs(step))[:: step // abs(step)]
            pair.append(list(chosen))
        picks.append(pair)

    def part(which: int) -> np.ndarray:
        index = []
        for pair in picks:
            chosen = pair[which]
            step = chosen[1] - chosen[0] if len(chosen) > 1 else 1
            stop = chosen[-1] + step if chosen else 0
            index.append(slice(chosen[0] if chosen else 0, stop if stop >= 0 else None, step))
        return base[tuple(index)]

    target, source = part(0), part(1)
    expected = source.copy()
    cpu.copy_overlapping(target, source) if target.size else copy.copy(target, source)
    assert np.array_equal(target, expected)


@pytest.mark.parametrize(
    "target, source",
    [
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[::-1, :-3], np.s_[::-1, 3:]),
        (np.s_[::-1], np.s_[:]),
        (np.s_[::2], np.s_[1::2]),
        (np.s_[:], np.s_[:]),
    ],
    ids=str,
)
def test_large_overlaps(target: Any, source: Any) -> None:
    base = counted((2048, 600), "f4")
    expected = base[source].copy()
    copy.copy(base[target], base[source])
    assert np.array_equal(base[target], expected)


def test_a_matrix_transposed_onto_itself() -> None:
    base = counted((700, 700), "f8")
    expected = base.T.copy()
    copy.copy(base, base.T)
    assert np.array_equal(base, expected)


# --------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("shape", [(1,), (3000, 1), (1, 400), (3000, 400), ()])
def test_broadcast(shape: tuple[int, ...]) -> None:
    source, target = counted(shape, "f4"), np.zeros((3000, 400), "f4")
    copy.copy(target, source)
    assert np.array_equal(target, np.broadcast_to(source, target.shape))


@pytest.mark.parametrize("dtypes", [(">f4", "<f4"), ("<i8", ">i8"), (">u2", ">u2"), (">f8", "<f4"), ("<f2", ">f4")])
@pytest.mark.parametrize("shape", [(5,), (1000, 1200)])
def test_foreign_byte_order(dtypes: tuple[str, str], shape: tuple[int, ...]) -> None:
    source = counted(shape, dtypes[1])
    for view in (source, source[::-1], source.T):
        target = np.zeros(view.shape, dtypes[0])
        copy.copy(target, view)
        assert np.array_equal(target, view)


@pytest.mark.parametrize("shape", [(5,), (1000, 1000)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_read_only_target_is_refused(shape: tuple[int, ...], dtype: str) -> None:
    target = np.zeros(shape, "f4")
    target.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        copy.copy(target, np.ones(shape, dtype))


def test_a_shape_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        copy.copy(np.zeros((1000, 1000)), np.zeros((1000, 999)))


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a, lambda a: a[:, 100:1000], lambda a: a.T, lambda a: a[:, ::3], lambda a: a[::-1, ::-1],
        lambda a: a[:1].repeat(1, 0), lambda a: a.reshape(1024, 2, 1024).transpose(1, 2, 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["f4", "f2", ">f4", "f8"])
def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, view: Any, dtype: str) -> None:
    monkeypatch.setattr(pool, "_num_threads", 2)
    source = view(counted((1024, 2048), "f4"))
    target = np.zeros(source.shape, dtype)
    copy.copy(target, source)  # compiles
    tracemalloc.start()
    copy.copy(target, source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_memory_of_an_overlap_of_equal_strides_is_bounded() -> None:
    base = counted((1024, 2048), "f4")
    tracemalloc.start()
    copy.copy(base[1:, 3:], base[:-1, :-3])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


# --------------------------------------------------------------------------- rows


@pytest.mark.parametrize("width", [1, 3, 16, 100, 1000])
@pytest.mark.parametrize("thread_count", [1, 2])
def test_rows(monkeypatch: pytest.MonkeyPatch, width: int, thread_count: int) -> None:
    monkeypatch.setattr(pool, "_num_threads", thread_count)
    rng = np.random.default_rng(3)
    table = rng.random((900, width), np.float32)
    indices = rng.integers(0, 900, 2000)
    out = np.empty((2000, width), np.float32)
    rows.gather(out, table, indices)
    assert np.array_equal(out, table[indices])
    expected = table.copy()
    values = rng.random((2000, width), np.float32)
    expected[indices] = values  # most rows are written twice, and the last one stays
    rows.scatter(table, indices, values)
    assert np.array_equal(table, expected)
