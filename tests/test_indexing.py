"""Tensors are indexed, read and written, as NumPy arrays are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

import numparam
from numparam import Parameter, Tensor
from numparam.initializer import initializer

SHAPES = nps.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=4)


def counted(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


@st.composite
def indexed(draw: st.DrawFn) -> tuple[np.ndarray, Any]:
    """Draw an array and an index: basic, with None, of integer arrays, or a mask."""
    shape = draw(SHAPES)
    array = counted(shape)
    kind = draw(st.sampled_from(["basic", "integers", "mask"]))
    if kind == "mask":
        return array, draw(nps.arrays(bool, shape[: draw(st.integers(0, len(shape)))]))
    if kind == "integers":
        assume(shape and 0 not in shape)
        axes = draw(st.integers(1, len(shape)))
        result = draw(nps.broadcastable_shapes((2, 3), max_dims=2, min_side=1))
        return array, tuple([draw(nps.arrays(np.int64, result, elements=st.integers(-n, n - 1))) for n in shape[:axes]])
    return array, draw(nps.basic_indices(shape, allow_newaxis=True))


@given(indexed())
@settings(deadline=None, max_examples=300)
def test_reading(case: tuple[np.ndarray, Any]) -> None:
    array, index = case
    part = Tensor(array)[index]
    assert isinstance(part, Tensor)
    assert part.shape == array[index].shape
    assert np.array_equal(part.asnumpy(), array[index])
    assert part.asnumpy().flags.c_contiguous


@given(indexed(), st.data())
@settings(deadline=None, max_examples=300)
def test_writing(case: tuple[np.ndarray, Any], data: st.DataObject) -> None:
    array, index = case
    tensor, expected = Tensor(array), array.copy()
    shape = expected[index].shape
    given_shape = data.draw(nps.broadcastable_shapes(shape, max_dims=len(shape))) if 0 not in shape else ()
    assume(np.broadcast_shapes(given_shape, shape) == shape)
    value = -1 - counted(given_shape)
    storage = tensor.asnumpy()
    expected[index] = value
    tensor[index] = value
    assert tensor.asnumpy() is storage
    assert np.array_equal(storage, expected)


@pytest.mark.parametrize(
    "index", [Tensor([2, 0]), [2, 0], (Tensor([1, 1]), slice(1, 3)), Tensor([True, False, True]), []]
)
def test_tensors_and_lists_as_indices(index: Any) -> None:
    array = counted((3, 4))
    plain = tuple(map(as_plain, index)) if isinstance(index, tuple) else as_plain(index)
    assert np.array_equal(Tensor(array)[index].asnumpy(), array[plain])


def as_plain(index: Any) -> Any:
    return index.asnumpy() if isinstance(index, Tensor) else index


def test_a_part_is_no_alias() -> None:
    tensor = Tensor(counted((3, 4)))
    for index in (..., 0, (slice(None), 1), [0, 1], tensor.asnumpy() > 2):
        part = tensor[index]
        part[...] = -1
        assert tensor.asnumpy().min() == 0


def test_a_view_is_one() -> None:
    tensor = Tensor(counted((3, 4)))
    tensor.alias()[0, 0] = 5
    tensor.alias((slice(None, None, -1), 1)).alias(0)[...] = 7
    assert tensor[0, 0].item() == 5
    assert tensor[2, 1].item() == 7
    with pytest.raises(IndexError, match="an alias takes ints"):
        tensor.alias([0, 1])


def test_rows_of_a_large_table() -> None:
    table = np.random.default_rng(0).random((500, 300), np.float32)
    indices = np.random.default_rng(1).integers(-500, 500, (40, 10))
    tensor = Tensor(table)
    assert np.array_equal(tensor[indices].asnumpy(), table[indices])
    assert np.array_equal(tensor[indices.astype(np.int32)].asnumpy(), table[indices])
    values = np.random.default_rng(2).random((40, 10, 300), np.float32)
    tensor[indices] = values
    table[indices] = values
    assert np.array_equal(tensor.asnumpy(), table)
    tensor[np.arange(499, -1, -1)] = tensor.alias()
    assert np.array_equal(tensor.asnumpy(), table[::-1])
    for wrong in (500, -501):
        indices[3, 3] = wrong
        with pytest.raises(IndexError, match=rf"index {wrong} is out of bounds for axis 0 with size 500"):
            tensor[indices]
        with pytest.raises(IndexError, match=f"index {wrong} is out of bounds for axis 0 with size 500"):
            tensor[indices] = values


@pytest.mark.parametrize(
    "index, words",
    [
        (3, "index 3 is out of bounds for axis 0 with size 3"),
        ((0, -5), "index -5 is out of bounds for axis 1 with size 4"),
        ([0, 7], "index 7 is out of bounds for axis 0 with size 3"),
        ((slice(None), [4]), "index 4 is out of bounds for axis 1 with size 4"),
        ((0, 0, 0), "too many indices"),
        (np.ones((2, 4), bool), "boolean index did not match .* axis 0"),
        ("a", "arrays used as indices"),
        (1.5, "arrays used as indices"),
    ],
)
def test_wrong_indices(index: Any, words: str) -> None:
    tensor = Tensor(counted((3, 4)))
    with pytest.raises(IndexError, match=words):
        tensor[index]
    with pytest.raises(IndexError, match=words) as caught:
        tensor[index] = 0
    assert isinstance(caught.value, numparam.errors.NumparamError)


def test_writing_keeps_the_parameter_and_makes_lazy_values_first() -> None:
    parameter = Parameter(initializer("ones", (3, 4)), name="w", requires_grad=False)
    parameter[1, ::2] = [5, 6]
    assert not parameter.has_init
    assert parameter.tolist() == [[1, 1, 1, 1], [5, 1, 6, 1], [1, 1, 1, 1]]
    assert (parameter.name, parameter.requires_grad) == ("w", False)


@pytest.mark.parametrize(
    "dtype, value, error, words",
    [
        ("int8", 1.5, TypeError, "a tensor of dtype int8 takes no values of dtype float64"),
        ("int8", np.float16(1), TypeError, "takes no values of dtype float16"),
        ("bool", 1, TypeError, "a tensor of dtype bool takes no values of dtype int64"),
        ("float32", 1j, TypeError, "no imaginary parts, found values of dtype complex128; give their real parts"),
        ("float32", "a", TypeError, "takes no values of .*; they are not numbers or bools"),
        ("float32", None, TypeError, "takes no values of dtype object; they are not numbers"),
        ("int8", 128, ValueError, "dtype int8 cannot hold values from 128 to 128"),
        ("uint8", np.array([3, -1]), ValueError, "dtype uint8 cannot hold values from -1 to 3"),
        ("float32", [1, 2, 3], ValueError, r"values of shape \(3,\) cannot be broadcast to the shape \(2,\)"),
    ],
)
def test_values_that_do_not_fit(dtype: str, value: Any, error: type[Exception], words: str) -> None:
    tensor = Tensor(np.zeros(2, dtype))
    with pytest.raises(error, match=words):
        tensor[...] = value
    if not words.startswith("values of shape"):
        with pytest.raises(error, match=words):
            tensor[[0, 1]] = value
    assert not tensor.asnumpy().any()


@pytest.mark.parametrize("dtype", ["int8", "float16", "bfloat16", "float8_e4m3fn", "float64", "complex64"])
@pytest.mark.parametrize("value", [True, 3, np.int64(3), np.arange(2), np.array([True, False]), Tensor([3, 4])])
def test_values_that_fit(dtype: str, value: Any) -> None:
    tensor, expected = Tensor([0, 0], dtype), np.asarray(value)
    for index in (..., [0, 1], slice(None)):
        tensor[index] = value
        assert np.array_equal(tensor.asnumpy().astype(complex), np.broadcast_to(expected, 2))


def test_floats_are_rounded_once_on_their_way_in() -> None:
    tensor = Tensor([0.0], "bfloat16")
    tensor[0] = 1 + 2**-8 + 2**-40
    assert tensor.item() == 1 + 2**-7
    tensor[[0]] = np.array([1 + 2**-8])
    assert tensor.item() == 1


def test_a_read_only_storage_refuses() -> None:
    array = np.zeros(3)
    array.flags.writeable = False
    tensor = Tensor.from_numpy(array)
    with pytest.raises(ValueError, match="read-only"):
        tensor[0] = 1
    tensor.copy()[0] = 1
