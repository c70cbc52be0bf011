"""A parameter is a tensor with a name and flags, lazy as long as the tensor it was made from."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Parameter, Tensor
from numparam.initializer import XavierUniform, initializer


@pytest.mark.parametrize(
    "given, dtype, shape",
    [
        (3, "int32", ()),
        (2.5, "float32", ()),
        (np.float64(2.5), "float32", ()),
        (np.float16(2.5), "float16", ()),
        (np.int64(2), "int64", ()),
        ([1, 2], "int64", (2,)),
        ([1.5], "float32", (1,)),
        ([True], "bool", (1,)),
        ([], "float32", (0,)),
        ([Tensor([1, 2]), Tensor([3, 4])], "int64", (2, 2)),
        (np.zeros((2, 3), np.float16), "float16", (2, 3)),
        (np.zeros((0, 3)), "float64", (0, 3)),
        (np.array(1, np.uint8), "uint8", ()),
        (Tensor([1.0], "bfloat16"), "bfloat16", (1,)),
    ],
    ids=repr,
)
def test_kinds_of_input(given: Any, dtype: str, shape: tuple[int, ...]) -> None:
    parameter = Parameter(given, "w")
    assert (parameter.dtype.name, parameter.shape) == (dtype, shape)
    assert not parameter.has_init


@pytest.mark.parametrize(
    "given, error, words",
    [
        (True, ValueError, "Parameter 'w': the input cannot be a bool"),
        (np.True_, ValueError, "the input cannot be a bool"),
        (2**31, ValueError, "not exactly representable in int32"),
        (2**80, ValueError, "no integer dtype"),
        ((1, 2), TypeError, "the input is a Tensor, int, float, ndarray or list, found tuple"),
        (1j, TypeError, "found complex"),
        ("zeros", TypeError, "found str"),
        (None, TypeError, "found NoneType"),
        ({}, TypeError, "found dict"),
        (XavierUniform(), TypeError, "found XavierUniform"),
        (["a"], TypeError, "values are numbers or bools"),
        ([[1], [1, 2]], TypeError, "same length"),
        (np.array([None]), TypeError, "values are numbers or bools"),
    ],
    ids=str,
)
def test_wrong_input(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Parameter(given, "w")


def test_input_is_never_shared() -> None:
    array = np.zeros(3, np.float32)
    tensor = Tensor(array)
    first, second = Parameter(array), Parameter(tensor)
    third = Parameter(first)
    array[0] = tensor.asnumpy()[1] = first.asnumpy()[2] = 9
    assert second.asnumpy().tolist() == third.asnumpy().tolist() == [0, 0, 0]


def test_parameter_is_a_tensor() -> None:
    assert issubclass(Parameter, Tensor)
    assert type(Parameter(1)) is Parameter

    class Scale(Parameter):
        pass

    assert isinstance(Scale(1), Parameter)


@pytest.mark.parametrize("name", [None, "", "  \n"])
def test_generated_names_are_unique(name: str | None) -> None:
    one, two = Parameter(1, name), Parameter(1, name)
    assert one.name.startswith("Parameter#")
    assert one.name != two.name


@pytest.mark.parametrize(
    "given, name", [(" w ", "w"), ("a.b/c\nd", "a.b/c\nd"), ("权重", "权重"), ("x" * 1024 + " ", "x" * 1024)]
)
def test_names(given: str, name: str) -> None:
    parameter = Parameter(1, given)
    assert parameter.name == name
    parameter.name = "other"
    parameter.name = given
    assert parameter.name == name


@pytest.mark.parametrize("name", [3, b"w", ["w"], True, "x" * 1025])
def test_wrong_names_are_value_errors(name: Any) -> None:
    with pytest.raises(ValueError, match="the name of a parameter"):
        Parameter(1, name)
    parameter = Parameter(1, "w")
    with pytest.raises(ValueError, match="the name of a parameter"):
        parameter.name = name
    assert parameter.name == "w"


@pytest.mark.parametrize("flag", ["requires_grad", "layerwise_parallel", "parallel_optimizer"])
def test_flags(flag: str) -> None:
    default = flag != "layerwise_parallel"
    parameter = Parameter(1, "w")
    assert getattr(parameter, flag) is default
    assert getattr(Parameter(1, **{flag: not default}), flag) is not default
    setattr(parameter, flag, not default)
    assert getattr(parameter, flag) is not default
    for wrong in (1, 0, "yes", None, np.True_):
        with pytest.raises(TypeError, match=f"Parameter 'w': {flag} is True or False, found"):
            setattr(parameter, flag, wrong)
        with pytest.raises(TypeError, match=f"{flag} is True or False"):
            Parameter(1, **{flag: wrong})


def test_arguments_by_position() -> None:
    parameter = Parameter(1, "w", False, True, False)
    assert (parameter.requires_grad, parameter.layerwise_parallel, parameter.parallel_optimizer) == (False, True, False)


def test_repr_is_that_of_mindspore_and_makes_nothing() -> None:
    lazy = Parameter(initializer("normal", (2, 3)), name="w")
    expected = "Parameter (name=w, shape=(2, 3), dtype=Float32, requires_grad=True)"
    assert repr(lazy) == str(lazy) == expected
    assert lazy.has_init
    lazy.init_data()
    assert repr(lazy) == expected


def test_init_data_returns_the_parameter() -> None:
    lazy = Parameter(initializer("normal", (2, 3)), name="w")
    assert lazy.init_data() is lazy
    assert not lazy.has_init
    values = lazy.asnumpy()
    assert lazy.init_data().asnumpy() is values


def test_lazy_parameter_leaves_its_tensor_alone() -> None:
    tensor = initializer("normal", (2, 3))
    parameter = Parameter(tensor)
    assert np.array_equal(parameter.asnumpy(), tensor[...].asnumpy())
    assert tensor.has_init
    parameter.asnumpy()[0] = 9
    assert not np.array_equal(parameter.asnumpy(), tensor.asnumpy())


def test_name_decides_the_values_of_a_lazy_parameter() -> None:
    tensor = initializer("normal", (2, 3))
    named = Parameter(tensor, name="w")
    assert not np.array_equal(named.asnumpy(), tensor[...].asnumpy())
    assert np.array_equal(named.asnumpy(), Parameter(tensor, name="w").asnumpy())


def test_slice_of_a_lazy_parameter_has_the_name_of_that_moment() -> None:
    lazy = Parameter(initializer("normal", (4, 3)), name="w")
    part = lazy[1:3]
    lazy.name = "other"
    assert not np.array_equal(part.asnumpy(), lazy.asnumpy()[1:3])
    assert np.array_equal(part.asnumpy(), Parameter(initializer("normal", (4, 3)), name="w").asnumpy()[1:3])


def test_parameter_of_a_parameter_has_its_values_but_not_its_name() -> None:
    numparam.set_seed(7)
    lazy = Parameter(initializer("normal", (4, 3)), name="w", requires_grad=False)
    twin = Parameter(lazy, name="twin")
    assert twin.requires_grad
    assert twin.has_init
    assert np.array_equal(twin.asnumpy(), lazy.asnumpy())
    assert Parameter(lazy).name.startswith("Parameter#")


def test_shard_of_a_parameter_is_the_slice_of_the_whole() -> None:
    numparam.set_seed(7)
    whole = Parameter(initializer("xavier_uniform", (8, 6)), name="w").asnumpy()
    for rank in range(4):
        shard = Parameter(initializer("xavier_uniform", (8, 6))[rank * 2 : rank * 2 + 2], name="w")
        assert shard.shape == (2, 6)
        assert np.array_equal(shard.asnumpy(), whole[rank * 2 : rank * 2 + 2])


def test_single_elements_of_a_parameter_larger_than_any_memory() -> None:
    lazy = Parameter(initializer("normal", (2**20, 2**20)), name="w")
    elements = [lazy[-1, column].asnumpy() for column in range(-4, 0)]
    assert np.array_equal(np.stack(elements), lazy[-1, -4:].asnumpy())
    assert lazy.has_init


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_of_a_lazy_parameter(duplicate: Any) -> None:
    lazy = Parameter(initializer("normal", (4, 3), "bfloat16"), "w", False, True, False)
    twin = duplicate(lazy)
    assert repr(twin) == repr(lazy)
    assert (twin.layerwise_parallel, twin.parallel_optimizer) == (True, False)
    assert twin.has_init
    assert np.array_equal(twin.asnumpy(), lazy.asnumpy())


def test_attributes_of_users() -> None:
    parameter = Parameter(1, "w")
    parameter.anything = 3  # type: ignore[attr-defined]
    assert parameter.anything == 3  # type: ignore[attr-defined]
