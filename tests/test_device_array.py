"""Views of arrays on a device are those of NumPy, and copies between any strides, dtypes and devices are exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from interpreted_device import InterpretedDriver, interpreted, missing
from numparam.kernels import fill, rows
from numparam.kernels.array import DeviceArray
from numparam.kernels.copy import copy, duplicate
from numparam.kernels.fill import constant

WHOLE = np.arange(6 * 5 * 4, dtype=np.float32).reshape(6, 5, 4)


@pytest.fixture(autouse=True)
def _driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver


def values_of(array: DeviceArray) -> np.ndarray[Any, Any]:
    """Return the elements of a view by reading all of the memory that it is in."""
    owner = array
    while isinstance(owner._owner, DeviceArray):
        owner = owner._owner
    whole = DeviceArray((WHOLE.size,), WHOLE.dtype, array.device, owner._owner.handle, owner).to_host()
    start = (array.address - owner._owner.handle) // whole.itemsize
    return np.lib.stride_tricks.as_strided(whole[start:], array.shape, array.strides)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda a: a[2], lambda a: a[-1, ::-1], lambda a: a[::-2, 1:, ::3], lambda a: a[..., 0],
        lambda a: a[None, :, 2:3],
        lambda a: a[1, 2, 3], lambda a: a[:0], lambda a: a.transpose(), lambda a: a.transpose(1, 2, 0),
        lambda a: a.reshape((30, 4)), lambda a: a.reshape((2, 3, 20))[:, ::2], lambda a: a.transpose()[1:, ::-1, 2],
        lambda a: a[:, ::-1].reshape((6, 5, 2, 2)),
    ],
)  # fmt: skip
def test_views_are_those_of_numpy(arrange: Any) -> None:
    there = arrange(DeviceArray.from_host(WHOLE, 0))
    expected = arrange(WHOLE)
    assert there.shape == np.shape(expected)
    np.testing.assert_array_equal(values_of(there), expected)
    assert there.is_contiguous == np.asarray(expected).flags.c_contiguous


def test_a_broadcast_view_repeats_elements() -> None:
    there = DeviceArray.from_host(WHOLE, 0)[:, :1].broadcast_to((2, 6, 5, 4))
    np.testing.assert_array_equal(values_of(there), np.broadcast_to(WHOLE[:, :1], (2, 6, 5, 4)))
    with pytest.raises(ValueError, match=r"an array of shape \(6, 5, 4\) cannot be broadcast to \(5, 4\)"):
        DeviceArray.from_host(WHOLE, 0).broadcast_to((5, 4))


def test_what_needs_another_order_is_refused() -> None:
    view = DeviceArray.from_host(WHOLE, 0).transpose()
    with pytest.raises(ValueError, match="copy"):
        view.reshape((120,))
    for operation in (
        view.ravel, view.to_host, lambda: view.view(np.dtype("u1")), lambda: view.write(WHOLE),
        lambda: constant.fill(view, 0), lambda: fill.uniform(view, fill.Key(1, 2, 3), 0.0, 1.0),
        lambda: rows.gather(view, view, np.zeros(4, np.int64)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="row-major"):
            operation()
    with pytest.raises(BufferError, match="copy it first"):
        view[::-1].__dlpack__()
    with pytest.raises(IndexError):
        view[4]


def test_bytes_are_seen_as_other_elements() -> None:
    there = DeviceArray.from_host(WHOLE, 0)
    np.testing.assert_array_equal(there.view(np.dtype("u1")).to_host(), WHOLE.view("u1"))
    np.testing.assert_array_equal(there.view(np.dtype("f8")).to_host(), WHOLE.view("f8"))
    with pytest.raises(ValueError, match="rows of 12 bytes do not hold whole elements of float64"):
        DeviceArray.from_host(np.zeros((2, 3), "f4"), 0).view(np.dtype("f8"))


VIEWS = [
    lambda a: a[1:, ::-2], lambda a: a.transpose(2, 0, 1), lambda a: a[2:3, 1, ..., None], lambda a: a[:0],
    lambda a: a,
]  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", ["f4", "f2", "i4", "c8"])
@pytest.mark.parametrize("target, source", [("cpu", 0), (0, "cpu"), (0, 0), (0, 1), ("cpu", "cpu")])
@pytest.mark.usefixtures("_compiler")
def test_copies_between_any_devices_strides_and_dtypes(view: Any, dtype: str, target: Any, source: Any) -> None:
    values = WHOLE + np.float32(0.25)
    expected = np.full(WHOLE.shape, 7, dtype)
    np.copyto(view(expected), view(values), casting="unsafe")
    to: Any = np.full(WHOLE.shape, 7, dtype)
    origin: Any = values
    to = to if target == "cpu" else DeviceArray.from_host(to, target)
    origin = origin if source == "cpu" else DeviceArray.from_host(origin, source)
    copy(view(to), view(origin))
    np.testing.assert_array_equal(to if target == "cpu" else to.to_host(), expected)


@pytest.fixture
def _compiler() -> None:

    if missing():
        pytest.skip(missing())


@pytest.mark.usefixtures("_compiler")
def test_a_copy_inside_one_array_gives_what_was_there_before() -> None:
    there, expected = DeviceArray.from_host(WHOLE, 0), WHOLE.copy()
    copy(there[1:], there[:-1])
    expected[1:] = WHOLE[:-1]
    np.testing.assert_array_equal(there.to_host(), expected)


def test_a_read_only_target_is_refused() -> None:
    there = DeviceArray.from_host(WHOLE, 0)
    there.writable = False
    for source in (WHOLE, DeviceArray.from_host(WHOLE, 0)):
        with pytest.raises(ValueError, match="must be writable"):
            copy(there[...], source)
    np.testing.assert_array_equal(there.to_host(), WHOLE)


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="a NumPy or device array was expected, found list"):
        copy(np.zeros(3), [1, 2, 3])


@pytest.mark.usefixtures("_compiler")
def test_a_copy_is_row_major() -> None:
    view = DeviceArray.from_host(WHOLE, 0).transpose()
    copied = duplicate(view)
    assert copied.is_contiguous
    np.testing.assert_array_equal(copied.to_host(), WHOLE.T)
