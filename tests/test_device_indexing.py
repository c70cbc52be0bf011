"""Masks and arrays of integers index tensors on a CUDA device, which the PTX interpreter stands for, as on the CPU."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam import Tensor
from numparam.errors import ShapeError
from numparam.indexing.arrays import is_basic
from numparam.indexing.rows import select_rows

compiled = [needs_compiler[0], needs_compiler[1]]


@pytest.fixture
def driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver


# --------------------------------------------------------------------------- numbers of rows


KINDS = ["int", "slice", "None", "array", "mask", "...", "bool"]


@st.composite
def indexed(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Draw a shape and an index with everything that NumPy takes, mixed."""
    shape = draw(nps.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    together = draw(nps.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3))
    items: list[Any] = []
    axis = 0
    while axis < len(shape) and (kind := draw(st.sampled_from([*KINDS, "end"]))) != "end":
        if kind == "None":
            items.append(None)
        elif kind == "bool":
            items.append(draw(st.booleans()))
        elif kind == "...":
            assume(not any(item is ... for item in items))
            items.append(...)
            axis += draw(st.integers(0, len(shape) - axis))
        elif kind == "mask":
            axes = draw(st.integers(1, len(shape) - axis))
            items.append(draw(nps.arrays(bool, shape[axis : axis + axes])))
            axis += axes
        else:
            numbers = st.integers(-shape[axis], shape[axis] - 1)
            lengths = nps.broadcastable_shapes(together, max_dims=len(together)) if together else st.just(())
            choices = {"int": numbers, "slice": st.slices(shape[axis])}
            items.append(draw(choices[kind] if kind != "array" else nps.arrays("i1", lengths, elements=numbers)))
            axis += 1
    return shape, tuple(items)


@given(indexed())
@settings(deadline=None, max_examples=400)
def test_rows_are_those_that_numpy_selects(case: tuple[tuple[int, ...], tuple[Any, ...]]) -> None:
    shape, index = case
    assume(not is_basic(index))
    array = np.arange(np.prod(shape)).reshape(shape)
    try:
        expected = array[index]
    except IndexError:
        with pytest.raises(IndexError, match="in a tensor of shape"):
            select_rows(shape, index)
        return
    selected = select_rows(shape, index)
    assert selected.shape == expected.shape
    assert np.array_equal(array.reshape(selected.of, *selected.row)[selected.numbers], expected)


def test_numbers_take_memory_for_what_is_selected_only() -> None:
    tracemalloc.start()
    numbers = select_rows((2**40, 2**20, 3), (slice(-5, None), [7, -1])).numbers
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    first = (2**40 - 5 + np.arange(5)) * 2**20
    np.testing.assert_array_equal(numbers, np.stack([first + 7, first + 2**20 - 1], axis=1))
    assert peak < 100_000


# --------------------------------------------------------------------------- on a device

RANDOM = np.random.default_rng(7)
VALUES = RANDOM.integers(-100, 100, (6, 5, 8)).astype(np.float32)
INDICES: list[Any] = [
    VALUES > 10, VALUES[:, 0, 0] > 0, VALUES[:, :, 0] > 0, np.s_[:, VALUES[0] > 0], np.s_[..., [1, -1]],
    np.s_[[3, 1], [0, -1]], np.s_[[[3], [1]], :, [0, 7, 2]], np.s_[1, :, [2, 2]], np.s_[::-2, [4, 0]],
    np.s_[None, [0, 2], 1:3], np.s_[[True, False] * 3, 2], np.s_[np.zeros((6, 5), bool)], np.s_[[], [], 1],
    np.s_[True], np.s_[np.array(4)], (Tensor([1, 5]), ..., Tensor([True, False] + [False] * 5 + [True])),
]  # fmt: skip


@pytest.mark.ptx
@compiled[1]
@pytest.mark.parametrize("dtype", [np.float32, np.int8, ml_dtypes.bfloat16, np.complex128], ids=str)
def test_any_index_is_read_and_written_on_the_device(driver: InterpretedDriver, dtype: Any) -> None:
    values = VALUES.astype(dtype)
    there, here = Tensor(values, device="cuda:1"), Tensor(values)
    for number, index in enumerate(INDICES):
        expected = here[index]
        driver.read = []
        part = there[index]
        given = np.arange(expected.size, dtype=np.int8).reshape(expected.shape)
        given = given if number % 2 else given[..., :1] if given.ndim and given.shape[-1] else np.int8(number)
        there[index] = [given, Tensor(given, device="cuda:1"), Tensor(given).astype(dtype)][number % 3]
        here[index] = given
        assert driver.read == []
        assert (part.device, part.shape, part.dtype) == ("cuda:1", expected.shape, expected.dtype)
        np.testing.assert_array_equal(part.asnumpy(), expected.asnumpy())
        np.testing.assert_array_equal(there.asnumpy(), here.asnumpy())
    assert {name.split("_")[0] for name, _ in driver.launches} >= {"gather", "scatter"}


@pytest.mark.parametrize(
    "index, words",
    [
        ((slice(None), [5]), "index 5 is out of bounds for axis 1 with size 5"),
        (([0, -7], [0]), "index -7 is out of bounds for axis 0 with size 6"),
        (([0, 1], [0, 1, 2]), "could not be broadcast together"),
        (np.ones((6, 4), bool), "boolean index did not match .* axis 1"),
        (([0], 0, 0, 0), "too many indices for array: array is 3-dimensional, but 4 were indexed"),
        ((..., [0], ...), "single ellipsis"),
        ("a", "arrays used as indices"),
        ([1.5], "arrays used as indices"),
    ],
)
def test_wrong_indices_are_refused_as_on_the_cpu(driver: InterpretedDriver, index: Any, words: str) -> None:
    for device in ("cpu", "cuda"):
        tensor = Tensor(VALUES, device=device)
        with pytest.raises(IndexError, match=rf"{words}.*, in a tensor of shape \(6, 5, 8\)"):
            tensor[index]
        with pytest.raises(IndexError, match=words):
            tensor[index] = 0
    assert driver.launches == []


def test_values_that_do_not_fit_are_refused(driver: InterpretedDriver) -> None:
    tensor = Tensor(VALUES, device="cuda")
    for value, error in [(np.zeros(3), ValueError), (1j, TypeError)]:
        with pytest.raises(error):
            tensor[VALUES > 10] = value
    assert driver.launches == []


# --------------------------------------------------------------------------- parts that share storage


@pytest.mark.ptx
@compiled[1]
@pytest.mark.usefixtures("driver")
def test_parts_on_the_device_share_storage_as_on_the_cpu() -> None:
    there, here = (Tensor(np.arange(60, dtype=np.float32).reshape(3, 4, 5), device=name) for name in ("cuda:1", "cpu"))
    found = []
    for tensor in (there, here):
        part = tensor.alias((slice(None, None, -2), slice(1, None), 2))
        part[0, 1] = -1
        part[[1, 0], [2, 2]] = np.float32([7, 8])
        part[...] = part.alias(slice(None, None, -1))
        tensor.alias((slice(None), 1)).alias(0)[...] = 3
        tensor[[0, 2], 0, :2] = part.alias((..., slice(2)))
        results = (
            part,
            part[[1, 0]],
            part.reshape(-1),
            part.T,
            part.astype("bfloat16"),
            part.copy(),
            part.view(2, 3, 1),
        )
        found.append([(result.device == tensor.device, result.tolist()) for result in results])
        found[-1] += [(copied.strides, copied.tolist()) for copied in (copy.deepcopy(part), part.contiguous())]
        out = np.empty(part.shape, np.float32)
        part.fill_into(out)
        found[-1].append((part.strides, out.tolist()))
        with pytest.raises(ShapeError, match=r"shape \(2, 3\) cannot be viewed as -1"):
            part.view(-1)
    assert found[0] == found[1]
    assert pickle.loads(pickle.dumps(there.alias(0))).tolist() == here.alias(0).tolist()
    np.testing.assert_array_equal(there.asnumpy(), here.asnumpy())
