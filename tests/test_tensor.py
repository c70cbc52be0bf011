"""A tensor holds values or a recipe; what it says about itself is the same either way."""

import copy
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Tensor
from numparam.indexing.region import Region
from numparam.initializer import Initializer, Normal, One, initializer


@pytest.mark.parametrize(
    "data, dtype, shape",
    [
        (3, "int64", ()),
        (2.5, "float32", ()),
        (np.float64(2.5), "float32", ()),
        (True, "bool", ()),
        ([1, 2], "int64", (2,)),
        ((1.5, 2), "float32", (2,)),
        ([[True], [False]], "bool", (2, 1)),
        ([], "float32", (0,)),
        (np.zeros((2, 0, 3), np.int8), "int8", (2, 0, 3)),
        (np.zeros(3), "float64", (3,)),
        (np.float16(1), "float16", ()),
        (np.zeros(3, ">f4"), "float32", (3,)),
        (np.zeros(2, np.complex64), "complex64", (2,)),
        ([Tensor([1, 2]), Tensor([3, 4])], "int64", (2, 2)),
    ],
    ids=repr,
)
def test_kinds_of_input(data: Any, dtype: str, shape: tuple[int, ...]) -> None:
    tensor = Tensor(data)
    assert tensor.dtype == np.dtype(dtype)
    assert tensor.dtype.isnative
    assert tensor.shape == tensor.asnumpy().shape == shape
    assert (tensor.ndim, tensor.size) == (len(shape), tensor.asnumpy().size)
    assert tensor.nbytes == tensor.asnumpy().nbytes
    assert (tensor.device, tensor.has_init, tensor.init) == ("cpu", False, None)


def test_dtype_converts() -> None:
    assert Tensor([1, 2], numparam.bfloat16).asnumpy().tolist() == [1, 2]
    assert Tensor([1.0, 2.0], "int8").dtype == np.int8
    assert Tensor(Tensor([1, 2]), "float16").dtype == np.float16
    assert Tensor(np.array([0.1j]), "complex64").asnumpy().tolist() == [np.complex64(0.1j)]
    assert Tensor([1e300]).asnumpy().tolist() == [np.inf]


def test_a_lazy_tensor_is_drawn_in_another_dtype_and_stays_lazy() -> None:
    lazy = initializer("normal", (3, 4))
    short = Tensor(lazy, "bfloat16")
    assert (lazy.has_init, short.has_init) == (True, True)
    assert np.array_equal(short.asnumpy(), lazy.asnumpy().astype(numparam.bfloat16))
    with pytest.raises(TypeError, match="draws real numbers"):
        Tensor(initializer("normal", 3), "int8")


@pytest.mark.parametrize(
    "data, dtype, error, words",
    [
        ([1.5], "int8", ValueError, "not exactly representable in int8"),
        ([300], "uint8", ValueError, "not exactly representable in uint8"),
        ([float("nan")], "int32", ValueError, "not exactly representable in int32"),
        ([2], "bool", ValueError, "not exactly representable in bool"),
        (2**70, None, ValueError, "no integer dtype can hold"),
        ([[1], [1, 2]], None, TypeError, "every row of the values needs the same length"),
        (["a"], None, TypeError, "values are numbers or bools"),
        ("a", None, TypeError, "values are numbers or bools"),
        (None, None, TypeError, "values are numbers or bools"),
        ({"a": 1}, None, TypeError, "values are numbers or bools"),
        (np.array([object()]), None, TypeError, "values are numbers or bools"),
        ([1], "float31", TypeError, "no dtype"),
        ([1], "(3,", TypeError, "no dtype"),
        ([1j], "float32", TypeError, "float32 has no imaginary parts, found values of dtype complex128"),
    ],
)
def test_wrong_input(data: Any, dtype: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Tensor(data, dtype)


@pytest.mark.parametrize(
    "arguments",
    [{"init": One()}, {"init": One(), "shape": 2, "input_data": 1}, {"shape": 2}, {"shape": 2, "input_data": 1}],
)
def test_values_and_initializer_exclude_each_other(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="shape"):
        Tensor(**arguments)


def test_input_is_copied() -> None:
    array = np.zeros((3, 4), np.float32)
    tensors = [Tensor(array), Tensor(array.T), Tensor(array[::2])]
    array[...] = 1
    assert all((tensor.asnumpy() == 0).all() for tensor in tensors)
    assert all(tensor.asnumpy().flags.c_contiguous for tensor in tensors)
    other = Tensor(tensors[0])
    other.asnumpy()[...] = 2
    assert (tensors[0].asnumpy() == 0).all()


def test_lazy_tensor_takes_no_memory() -> None:
    lazy = initializer("normal", (2**20, 2**20), "float64")
    assert lazy.has_init
    assert (lazy.shape, lazy.size, lazy.nbytes) == ((2**20, 2**20), 2**40, 2**43)
    assert isinstance(lazy.init, Normal)
    assert repr(lazy) == "Tensor(shape=[1048576, 1048576], dtype=Float64, init=Normal(sigma=0.01, mean=0.0))"
    assert lazy.has_init


def test_memory_of_a_slice_is_that_of_its_values() -> None:
    lazy = initializer("normal", (2**20, 2**20))
    lazy[0:8, ::1024].asnumpy()  # compiles
    tracemalloc.start()
    lazy[5:13, ::1024].asnumpy()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("touch", [Tensor.asnumpy, Tensor.init_data, np.asarray])
def test_touching_a_lazy_tensor_makes_its_values_once(touch: Any) -> None:
    lazy = initializer("normal", (3, 4))
    expected = lazy[...].asnumpy()
    touch(lazy)
    assert not lazy.has_init
    assert lazy.init is None
    assert np.array_equal(lazy.asnumpy(), expected)
    assert lazy.asnumpy() is lazy.asnumpy()
    assert lazy.init_data() is lazy


def test_asnumpy_is_the_storage() -> None:
    lazy = initializer("normal", (3,))
    lazy.asnumpy()[1] = 9
    assert lazy.asnumpy()[1] == 9


def test_slices_of_values_are_copies() -> None:
    tensor = Tensor(np.arange(12).reshape(3, 4))
    part = tensor[1:, ::-2]
    assert isinstance(part, Tensor)
    assert part.asnumpy().tolist() == [[7, 5], [11, 9]]
    part.asnumpy()[...] = 0
    assert tensor.asnumpy()[1, 3] == 7
    assert tensor[1, 2].shape == ()
    assert tensor[[2, 0]].asnumpy().tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert tensor[tensor.asnumpy() > 9].asnumpy().tolist() == [10, 11]


def test_slice_keeps_its_values_when_the_tensor_changes() -> None:
    lazy = initializer("normal", (3, 4))
    part = lazy[1]
    expected = lazy.asnumpy()[1].copy()
    lazy.asnumpy()[...] = 0
    assert np.array_equal(part.asnumpy(), expected)


@pytest.mark.parametrize("lazy", [True, False])
def test_wrong_indices(lazy: bool) -> None:
    tensor = initializer("normal", (3, 4))
    if not lazy:
        tensor.init_data()
    for index in (3, (0, 4), (0, 0, 0), -4):
        with pytest.raises(IndexError):
            tensor[index]
    assert tensor.has_init is lazy


def test_lazy_data_refuses_advanced_indices() -> None:
    with pytest.raises(IndexError, match=r"lazy data takes ints, slices, ... and None; call asnumpy\(\) first"):
        initializer("normal", (3, 4))[[0, 1]]


def test_length_and_iteration() -> None:
    lazy = initializer("normal", (3, 4))
    assert len(lazy) == 3
    assert np.array_equal([row.asnumpy() for row in lazy], lazy.asnumpy())
    for touch in (len, iter):
        with pytest.raises(TypeError, match="no length"):
            touch(Tensor(1))


def test_array_protocol() -> None:
    tensor = Tensor([1.0, 2.0])
    assert np.asarray(tensor) is tensor.asnumpy()
    assert not np.shares_memory(np.array(tensor), tensor.asnumpy())
    assert np.asarray(tensor, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.array(tensor, np.float64, copy=False)


def test_repr_shows_values_once_they_exist() -> None:
    assert repr(Tensor([[1, 2]])) == "Tensor(shape=[1, 2], dtype=Int64, value=\n[[1 2]])"


def test_fill_into_streams_a_lazy_tensor() -> None:
    lazy = initializer("normal", (10, 6), "bfloat16")[2:, ::2]
    whole = Region.full(lazy.shape)
    out = np.empty((3, 3), numparam.bfloat16)
    rows = []
    for begin in range(0, 8, 3):
        rows.append(out[: min(3, 8 - begin)])
        lazy.fill_into(rows[-1], whole[begin : begin + 3])
        rows[-1] = rows[-1].copy()
    assert lazy.has_init
    assert np.array_equal(np.concatenate(rows), lazy.asnumpy())
    lazy.fill_into(out, whole[-1:-4:-1])
    assert np.array_equal(out, lazy.asnumpy()[-1:-4:-1])


@pytest.mark.parametrize(
    "out, error, words",
    [
        (
            np.zeros((2, 3)),
            TypeError,
            "values of dtype float32 go into a NumPy array of that dtype, found dtype float64",
        ),
        ([0.0], TypeError, "found <class 'list'>"),
        (np.zeros((3, 2), np.float32), ValueError, r"values of shape \(2, 3\) .* found \(3, 2\)"),
        (np.zeros((3, 2), np.float32).T, ValueError, "c_contiguous=False"),
        (np.broadcast_to(np.float32(0), (2, 3)), ValueError, "writeable=False"),
    ],
    ids=str,
)
@pytest.mark.parametrize("lazy", [True, False])
def test_fill_into_a_wrong_buffer(lazy: bool, out: Any, error: type[Exception], words: str) -> None:
    tensor = initializer("normal", (2, 3))
    if not lazy:
        tensor.init_data()
    with pytest.raises(error, match=words):
        tensor.fill_into(out)


def test_fill_into_with_a_region_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"a region of a tensor of shape \(2, 3\) was asked for"):
        initializer("normal", (2, 3)).fill_into(np.empty(3, np.float32), Region.full((3, 3))[0])
    with pytest.raises(ValueError, match="was asked for, found 0"):
        initializer("normal", (2, 3)).fill_into(np.empty(3, np.float32), 0)  # type: ignore[arg-type]


def test_threads_that_touch_a_lazy_tensor_get_the_same_storage() -> None:
    everybody_draws = Barrier(4, timeout=30)

    class Meeting(Initializer):
        def _initialize(self, arr: np.ndarray) -> None:
            everybody_draws.wait()
            arr[...] = 1

    lazy = initializer(Meeting(), (3,))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: lazy.asnumpy(), range(4)))
    assert all(array is lazy.asnumpy() for array in found)
    assert not lazy.has_init


def test_a_thread_that_reads_while_values_are_set_finds_the_old_or_the_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parameter = numparam.Parameter(initializer("zeros", 8), name="w").init_data()
    given, read = Tensor(np.ones(8, np.float32)), []

    def set_and_read(tensor: Tensor, name: str, value: Any) -> None:  # as another thread may, before and after
        read.append(parameter.asnumpy()[0])
        object.__setattr__(tensor, name, value)
        read.append(parameter.asnumpy()[0])

    monkeypatch.setattr(numparam.Parameter, "__setattr__", set_and_read)
    parameter.set_data(given)
    assert (read[0], read[-1]) == (0, 1)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda tensor: pickle.loads(pickle.dumps(tensor))])
def test_copies_of_a_lazy_tensor_are_lazy_and_have_its_values(duplicate: Any) -> None:
    lazy = initializer("normal", (50, 60), "bfloat16")[::7, 3]
    twin = duplicate(lazy)
    assert twin.has_init
    assert np.array_equal(twin.asnumpy(), lazy.asnumpy())
    assert not np.shares_memory(twin.asnumpy(), lazy.asnumpy())


def test_a_view_is_a_reshape_that_shares_storage_or_says_why_it_cannot() -> None:
    tensor = Tensor(np.arange(6))
    tensor.view(2, -1)[1, 0] = 9
    assert tensor.tolist() == [0, 1, 2, 9, 4, 5]
    assert tensor.view((3, 2)).shape == (3, 2)
    assert tensor.view(6).shape == (6,)
    assert initializer("ones", (2, 3)).view(6).tolist() == [1] * 6
    with pytest.raises(ValueError, match=r"of shape \(2, 3\) cannot be viewed as 6: .*copy"):
        Tensor.from_numpy(np.arange(6).reshape(3, 2).T).view(6)
    with pytest.raises(ValueError, match=r"of shape \(6,\) cannot be viewed as \(4, 2\)"):
        tensor.view(4, 2)
    for index in ((), (...,), (slice(2),), ((slice(None), 0),)):
        with pytest.raises(ValueError, match="cannot be viewed as"):
            tensor.view(*index)
