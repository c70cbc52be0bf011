"""Tensors take part in NumPy's arithmetic, in DLPack and in pickling, and change shape and dtype without sharing."""

from __future__ import annotations

import copy
import gc
import operator
import pickle
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Parameter, Tensor
from numparam.initializer import initializer

ARRAY = np.array([[1.5, -2.0, 3.0], [4.0, 5.0, -6.25]], np.float32)


def same(tensor: Any, expected: Any) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.dtype == np.asarray(expected).dtype
        and np.array_equal(tensor.asnumpy(), expected)
    )


@pytest.mark.parametrize("make", [Tensor, lambda array: Parameter(array, name="w")])
@pytest.mark.parametrize(
    "operation",
    [
        operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
        operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
    ],
)  # fmt: skip
@pytest.mark.parametrize("other", [2, 1.5, np.float32(2), ARRAY[0], [1.0, 2.0, 3.0], Tensor(ARRAY[1])], ids=type)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_binary_operators(make: Any, operation: Any, other: Any) -> None:
    plain = other.asnumpy() if isinstance(other, Tensor) else np.float32(other) if isinstance(other, list) else other
    assert same(operation(make(ARRAY), other), np.asarray(operation(ARRAY, plain))) or operation is operator.pow
    if not isinstance(other, list):
        assert operation(other, make(ARRAY)).shape == (2, 3)
        expected = operation(plain, ARRAY)
        assert np.array_equal(operation(other, make(ARRAY)).asnumpy(), expected, equal_nan=True)


def test_integer_and_unary_operators() -> None:
    bits = Tensor([1, 6])
    assert same(bits & 3, [1, 2])
    assert same(8 | bits, [9, 14])
    assert same(bits ^ bits, [0, 0])
    assert same(bits << 1, [2, 12])
    assert same(1 >> bits, [0, 0])
    assert same(~bits, [-2, -7])
    assert same(-Tensor(ARRAY), -ARRAY)
    assert same(abs(Tensor(ARRAY)), abs(ARRAY))
    assert same(Tensor(ARRAY) @ Tensor(ARRAY.T), ARRAY @ ARRAY.T)
    assert [part.tolist() for part in divmod(bits, 4)] == [[0, 1], [1, 2]]


def test_an_operator_in_place_changes_a_parameter_and_no_other_tensor() -> None:
    parameter = kept = Parameter([1.0, 2.0], name="w")
    parameter += 1
    assert parameter is kept
    assert kept.tolist() == [2, 3]
    tensor = old = Tensor([1.0, 2.0])
    tensor += 1
    assert (tensor.tolist(), old.tolist()) == ([2, 3], [1, 2])


@pytest.mark.parametrize("other", [None, "a", {}, object()], ids=lambda other: type(other).__name__)
def test_what_is_no_number_is_not_equal(other: Any) -> None:
    assert (Tensor(ARRAY) == other) is False
    assert (Tensor(ARRAY) != other) is True
    with pytest.raises(TypeError):
        Tensor(ARRAY) + other


def test_tensors_are_hashed_by_identity() -> None:
    one, other = Tensor(1), Tensor(1)
    assert len({one, other, one}) == 2


def test_ufuncs() -> None:
    tensor = Tensor(ARRAY)
    assert same(np.exp(tensor), np.exp(ARRAY))
    assert same(np.add.reduce(tensor, axis=1), ARRAY.sum(axis=1))
    assert same(np.sum(tensor), ARRAY.sum())
    assert same(np.multiply.outer(tensor, Tensor([1, 2])), np.multiply.outer(ARRAY, np.float32([1, 2])))
    assert [same(*pair) for pair in zip(np.frexp(tensor), np.frexp(ARRAY), strict=True)] == [True, True]
    out = Tensor(np.zeros((2, 3), np.float32))
    assert np.add(tensor, 1, out=out, where=tensor > 0) is out
    assert np.array_equal(out.asnumpy(), np.where(ARRAY > 0, ARRAY + 1, 0))
    array = np.zeros((2, 3), np.float32)
    assert np.negative(tensor, out=array) is array
    np.add.at(out, ([0], [0]), 5)
    assert out[0, 0].item() == 7.5
    assert np.array_equal(np.concatenate([tensor, tensor]), np.concatenate([ARRAY, ARRAY]))


def test_short_types_compute_too() -> None:
    half = Tensor([1.0, 2.0], "bfloat16")
    assert (half + 1).dtype == numparam.bfloat16
    assert (half * Tensor([1.0, 2.0])).dtype == np.float32
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(TypeError, match="no dtype"):
            half + np.longdouble(1)


def test_numpy_testing() -> None:
    np.testing.assert_array_equal(Tensor(ARRAY), ARRAY)
    np.testing.assert_allclose(ARRAY, Parameter(ARRAY), rtol=0)
    with pytest.raises(AssertionError, match="Mismatched elements: 1 / 6"):
        np.testing.assert_array_equal(Tensor(ARRAY), np.where(ARRAY == 5, 0, ARRAY))


def test_single_numbers() -> None:
    assert (float(Tensor(2.5)), int(Tensor([3])), bool(Tensor([[0]])), complex(Tensor(1j))) == (2.5, 3, False, 1j)
    assert "abc"[Tensor(1)] == "b"
    assert Tensor([[2.5]]).item() == 2.5
    assert Tensor(7).tolist() == 7
    for convert in (float, int, bool, Tensor.item):
        with pytest.raises(ValueError, match=r"one element is needed, found the shape \(2, 3\)"):
            convert(Tensor(ARRAY))
    with pytest.raises(TypeError, match="an index is a tensor of integers, found dtype float32"):
        operator.index(Tensor(1.0))


def test_shapes() -> None:
    tensor = Tensor(ARRAY)
    for made, expected in [
        (tensor.reshape(3, 2), ARRAY.reshape(3, 2)), (tensor.reshape((-1, 1, 2)), ARRAY.reshape(-1, 1, 2)),
        (tensor.flatten(), ARRAY.ravel()), (tensor.T, ARRAY.T), (tensor.transpose(1, 0), ARRAY.T),
        (tensor.transpose((0, 1)), ARRAY), (np.transpose(tensor), ARRAY.T),
        (tensor.reshape(1, 2, 3, 1).squeeze(), ARRAY), (tensor.reshape(1, 2, 3, 1).squeeze(3), ARRAY[None]),
    ]:  # fmt: skip
        assert same(made, expected)
        assert made.asnumpy().flags.c_contiguous
        made[...] = 0
    assert same(tensor, ARRAY)


def test_large_transposes() -> None:
    array = np.random.default_rng(0).random((300, 200, 5), np.float32)
    for axes in ((2, 1, 0), (1, 0, 2), (0, 2, 1), (1, 2, 0)):
        assert same(Tensor(array).transpose(axes), array.transpose(axes))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda t: t.reshape(4), r"a tensor of shape \(2, 3\) cannot be reshaped to 4"),
        (lambda t: t.reshape(-1, -1), "cannot be reshaped"),
        (lambda t: t.squeeze(0), "cannot be squeezed along 0"),
        (lambda t: t.transpose(0, 0), r"cannot be transposed by \(0, 0\)"),
    ],
)
def test_wrong_shapes(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(Tensor(ARRAY))


def test_astype() -> None:
    tensor = Tensor(ARRAY)
    assert same(tensor.astype("float16"), ARRAY.astype(np.float16))
    assert same(tensor.astype(np.int32), ARRAY.astype(np.int32))
    assert tensor.astype("float32").asnumpy() is not tensor.asnumpy()
    assert np.isinf(Tensor([1e6]).astype("float16").asnumpy()).all()
    with pytest.raises(TypeError, match="no dtype"):
        tensor.astype("float31")


def test_from_numpy_shares_and_contiguous_does_not() -> None:
    array = ARRAY.copy()
    tensor = Tensor.from_numpy(array.T)
    array[0, 0] = 9
    assert tensor[0, 0].item() == 9
    tensor[1, 1] = 8
    assert array[1, 1] == 8
    assert same(tensor.contiguous(), array.T)
    assert tensor.contiguous().asnumpy().flags.c_contiguous
    assert Tensor(ARRAY).contiguous().shape == (2, 3)
    for wrong, words in [([1], "a NumPy array is needed, found list"), (ARRAY.astype(">f4"), "foreign byte order")]:
        with pytest.raises(TypeError, match=words):
            Tensor.from_numpy(wrong)


def test_copies_are_lazy_if_the_tensor_is() -> None:
    lazy = initializer("normal", (3, 4))
    for twin in (lazy.copy(), pickle.loads(pickle.dumps(lazy)), copy.deepcopy(lazy)):
        assert twin.has_init
        np.testing.assert_array_equal(twin, lazy[...])
    tensor = Tensor(ARRAY, "bfloat16")
    for twin in (tensor.copy(), pickle.loads(pickle.dumps(tensor)), copy.deepcopy(tensor), copy.copy(tensor)):
        assert twin.dtype == numparam.bfloat16
        twin[...] = 0
        assert same(tensor.astype("float32"), ARRAY)
    assert type(Parameter(1.0).copy()) is Parameter


# --------------------------------------------------------------------------- DLPack


def test_numpy_by_dlpack() -> None:
    tensor = Tensor(ARRAY)
    array = np.from_dlpack(tensor)
    assert np.shares_memory(array, tensor.asnumpy())
    assert tensor.__dlpack_device__() == (1, 0)
    Tensor.from_dlpack(tensor)[0, 0] = 9
    assert tensor[0, 0].item() == 9
    with pytest.raises(TypeError, match="an array with __dlpack__ is needed, found list"):
        Tensor.from_dlpack([1.0])


def test_torch_by_dlpack() -> None:
    torch = pytest.importorskip("torch")
    tensor = Tensor(ARRAY)
    shared = torch.from_dlpack(tensor)
    shared[0, 0] = 9
    assert tensor[0, 0].item() == 9
    back = Tensor.from_dlpack(shared.T)
    back[0, 1] = 8
    assert tensor[1, 0].item() == 8
    lazy = initializer("normal", (3, 4))
    assert np.array_equal(torch.from_dlpack(lazy).numpy(), lazy.asnumpy())


SMALL = ["bfloat16", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("make", [Tensor, lambda array: Parameter(array, name="w")])
def test_torch_shares_the_dtypes_that_numpy_lacks(name: str, make: Any) -> None:
    torch = pytest.importorskip("torch")
    words = np.arange(2 ** (4 * np.dtype(getattr(numparam, name)).itemsize), dtype=np.uint64)
    words = (words * 0x9E37).astype(f"u{np.dtype(getattr(numparam, name)).itemsize}").reshape(2, -1)
    tensor = make(words.view(getattr(numparam, name)))
    bits = torch.uint8 if words.itemsize == 1 else torch.int16
    shared = torch.from_dlpack(tensor)
    assert shared.dtype == getattr(torch, name)
    assert np.array_equal(shared.view(bits).numpy().view(words.dtype), words)
    shared[0, 1] = 1.5
    assert tensor[0, 1].item() == 1.5
    tensor[0, 1] = 2
    assert shared[0, 1].item() == 2
    column = torch.from_dlpack(tensor.alias((slice(None), 1)))  # strided
    assert column.tolist()[0] == 2
    assert column.data_ptr() == shared.data_ptr() + words.itemsize
    expected = tensor.asnumpy().view(words.dtype).copy()
    del tensor, column
    gc.collect()
    assert np.array_equal(shared.view(bits).numpy().view(words.dtype), expected)


@pytest.mark.parametrize("name", SMALL)
def test_the_dtypes_that_numpy_lacks_come_from_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    dtype = np.dtype(getattr(numparam, name))
    source = torch.arange(256, dtype=torch.uint8).repeat(dtype.itemsize)
    held = source.view(getattr(torch, name)).reshape(2, -1)
    back = Tensor.from_dlpack(held.T)
    assert back.dtype == dtype
    assert np.array_equal(back.asnumpy().T.view(np.uint8), source.numpy().reshape(2, -1))
    back[1, 0] = 1.5
    assert held[0, 1].item() == 1.5
    held[1, 0] = 0.5
    assert back[0, 1].item() == 0.5
    expected = source.numpy().copy().reshape(2, -1)
    del source, held
    gc.collect()
    assert np.array_equal(back.asnumpy().T.view(np.uint8), expected)
    scalar = Tensor.from_dlpack(torch.tensor(1.5, dtype=getattr(torch, name)))
    assert (scalar.shape, scalar.dtype, scalar.item()) == ((), dtype, 1.5)


@pytest.mark.parametrize("options", [{}, {"max_version": (1, 0)}])
@pytest.mark.parametrize("name", SMALL)
def test_both_kinds_of_capsule(name: str, options: Any) -> None:
    class Exporter:
        def __dlpack_device__(self) -> tuple[int, int]:
            return tensor.__dlpack_device__()

        def __dlpack__(self, **_: Any) -> Any:
            return tensor.__dlpack__(**options)

    tensor = Tensor(ARRAY).astype(name)
    assert ("versioned" in repr(tensor.__dlpack__(**options))) == bool(options)
    shared = Tensor.from_dlpack(Exporter())
    assert same(shared, tensor.asnumpy())
    assert np.shares_memory(shared.asnumpy(), tensor.asnumpy())


def test_a_read_only_array_stays_read_only_through_dlpack() -> None:
    array = ARRAY.astype(numparam.bfloat16)
    array.flags.writeable = False
    tensor = Tensor.from_numpy(array)
    with pytest.raises(BufferError):
        tensor.__dlpack__()  # which has no word for read-only
    with pytest.raises(ValueError, match="read-only"):
        Tensor.from_dlpack(tensor)[0, 0] = 1


def test_jax_by_dlpack() -> None:
    jax = pytest.importorskip("jax")
    tensor = Tensor(ARRAY)
    assert np.array_equal(np.asarray(jax.dlpack.from_dlpack(tensor)), ARRAY)
    back = Tensor.from_dlpack(jax.numpy.asarray(ARRAY))
    assert same(back, ARRAY)
    assert same(Tensor.from_dlpack(jax.numpy.asarray(ARRAY, "bfloat16")), ARRAY.astype(numparam.bfloat16))
    with pytest.raises(ValueError, match="read-only"):
        back[0, 0] = 1


# --------------------------------------------------------------------------- torch and JAX compute


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_torch_computes_with_its_tensors_on_the_same_storage(name: str) -> None:
    torch = pytest.importorskip("torch")
    weight = Parameter(np.arange(1, 4), name="w").set_dtype(name)
    ones = torch.ones(3, dtype=getattr(torch, name), requires_grad=True)
    found = [ones + weight, weight + ones, torch.add(ones, other=weight), ones.detach().clone().copy_(weight) + 1]
    assert all(type(each) is torch.Tensor and each.dtype == ones.dtype and each.tolist() == [2, 3, 4] for each in found)
    assert ((weight == ones).tolist(), (ones < weight).tolist()) == ([True, False, False], [False, True, True])
    assert torch.stack([ones, weight]).tolist() == [[1, 1, 1], [1, 2, 3]]
    (ones * weight).sum().backward()
    assert ones.grad.tolist() == [1, 2, 3]
    torch.mul(ones.detach(), 5, out=weight)
    assert weight.tolist() == [5, 5, 5]


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_jax_computes_with_its_arrays_on_a_copy(name: str) -> None:
    jax = pytest.importorskip("jax")
    weight = Parameter(np.arange(1, 4), name="w").set_dtype(name)
    ones = jax.numpy.ones(3, name)
    added = jax.jit(lambda x: x + weight)(ones)
    for found in (ones + weight, weight + ones, added):
        assert isinstance(found, jax.Array)
        assert (found.dtype, found.tolist()) == (name, [2, 3, 4])
    assert (weight == ones).tolist() == [True, False, False]
    array = jax.numpy.asarray(weight)
    weight[...] = 0
    assert array.tolist() == [1, 2, 3]
    with pytest.raises((TypeError, ValueError), match=r"jax\.numpy\.array\(\)"):
        jax.jit(abs)(weight)


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_functions_of_numpy_and_writes_take_arrays_of_other_libraries(library: str) -> None:
    module = pytest.importorskip("torch" if library == "torch" else "jax.numpy")
    ones = module.ones(3, dtype=module.bfloat16)
    weight = Parameter(np.arange(1, 4), name="w").set_dtype("bfloat16")
    assert same(np.add(weight, ones), np.array([2, 3, 4], numparam.bfloat16))
    assert same(np.add(ones, weight), np.array([2, 3, 4], numparam.bfloat16))
    weight += ones
    assert weight.tolist() == [2, 3, 4]
    weight[1:] = ones[1:]
    assert weight.tolist() == [2, 1, 1]
    assert weight.set_data(ones).tolist() == [1, 1, 1]
