"""A region selects what NumPy selects, and knows where in the whole its elements are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from numparam.indexing.region import Region, as_shape

SHAPES = st.lists(st.integers(0, 6), max_size=4).map(tuple)


def flat_indices(region: Region) -> np.ndarray:
    base, strides = region.span()
    steps = np.array(strides, np.int64).reshape(len(strides), *[1] * len(strides))
    return base + (np.indices(region.shape) * steps).sum(axis=0)


def check(region: Region, expected: np.ndarray) -> None:
    whole = np.arange(np.prod(region.full_shape, dtype=int)).reshape(region.full_shape)
    assert region.shape == expected.shape
    assert region.size == expected.size
    if expected.size:
        assert np.array_equal(flat_indices(region), expected)
    assert np.array_equal(region.take(whole), expected)
    assert np.shares_memory(region.take(whole), whole) or not expected.size
    assert Region.full(region.full_shape)[region.slices()].shape == expected.shape or not expected.size


@given(st.data(), SHAPES)
def test_region_selects_what_numpy_selects(data: st.DataObject, shape: tuple[int, ...]) -> None:
    expected = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    region = Region.full(shape)
    for _ in range(3):
        index = data.draw(basic_indices(expected.shape, allow_newaxis=True, max_dims=8))
        # An integer for every axis gives a NumPy scalar; with `...` it stays an array.
        expected = expected[(*index, ...) if isinstance(index, tuple) and ... not in index else index]
        region = region[index]
        check(region, np.asarray(expected))


@given(SHAPES)
def test_whole_is_the_whole_in_its_order(shape: tuple[int, ...]) -> None:
    region = Region.full(shape)
    assert region.is_full
    assert region[...].is_full
    assert not region[None].is_full
    if any(length > 1 for length in shape) and 0 not in shape:
        assert not region[tuple([slice(None, None, -1)] * len(shape))].is_full


def test_integers_of_numpy() -> None:
    region = Region.full((4, 5))[np.int64(-1), np.uint8(1) : np.array(4)]
    assert region.span() == (16, (1,))
    assert region.shape == (3,)


def test_sizes_beyond_memory_and_beyond_64_bit_products_of_parts() -> None:
    region = Region.full((2**31, 2**31, 2))[-1, :: -(2**30), 0]
    assert region.shape == (2,)
    assert region.span() == ((2**31 - 1) * 2**32 + (2**31 - 1) * 2, (-(2**31),))
    assert Region.full((2**63 - 1,)).size == 2**63 - 1


@pytest.mark.parametrize(
    "index, words",
    [
        (4, r"index 4 is out of bounds for axis 0 of shape \(4, 5\)"),
        ((0, -6), r"index -6 is out of bounds for axis 1 of shape \(4, 5\)"),
        ((0, 0, 0), r"too many indices: shape \(4, 5\) has 2 axes, found 3"),
        ((..., ...), "only one ellipsis"),
        ([0, 1], "not a basic index"),
        (np.array([0, 1]), "not a basic index"),
        (True, "not a basic index"),
        (np.True_, "not a basic index"),
        (np.array([True]), "not a basic index"),
        (1.0, "not a basic index"),
        ("name", "not a basic index"),
    ],
)
def test_wrong_index_is_an_index_error(index: Any, words: str) -> None:
    with pytest.raises(IndexError, match=words):
        Region.full((4, 5))[index]


def test_error_names_the_axis_that_the_user_sees() -> None:
    with pytest.raises(IndexError, match=r"index 9 is out of bounds for axis 1 of shape \(1, 5\)"):
        Region.full((4, 5))[0][None][:, 9]


def test_step_zero() -> None:
    with pytest.raises(ValueError, match="step cannot be zero"):
        Region.full((4,))[::0]


@pytest.mark.parametrize(
    "shape, expected",
    [
        (3, (3,)),
        (np.int64(3), (3,)),
        ((), ()),
        ([2, np.uint8(3)], (2, 3)),
        (np.array([2, 3]), (2, 3)),
        ((0, 3), (0, 3)),
        (True, (1,)),
    ],
)
def test_shapes(shape: Any, expected: tuple[int, ...]) -> None:
    assert as_shape(shape) == expected
    assert all(type(length) is int for length in as_shape(shape))


@pytest.mark.parametrize(
    "shape",
    [-1, (2, -1), 2.0, (2.0,), "3", "ab", (None,), None, {2, 3}, (2**63,), (2**32, 2**31), [1] * 65, (2**70, 0)],
)
def test_wrong_shapes_are_value_errors(shape: Any) -> None:
    with pytest.raises(ValueError, match="shape"):
        as_shape(shape)
