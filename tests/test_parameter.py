"""A parameter is a tensor with a name and flags, lazy as long as the tensor it was made from."""

import copy
import operator
import pickle
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Cell, Parameter, Tensor
from numparam.initializer import XavierUniform, initializer


@pytest.mark.parametrize(
    "given, dtype, shape",
    [
        (3, "int32", ()),
        (2.5, "float32", ()),
        (np.float64(2.5), "float32", ()),
        (np.float16(2.5), "float16", ()),
        (np.int64(2), "int64", ()),
        (np.asarray(2, numparam.bfloat16)[()], "bfloat16", ()),
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


def test_numbers_of_the_integer_flags_may_be_those_of_numpy() -> None:
    parameter = Parameter(1, "w")
    parameter.comm_fusion, parameter.key = np.int64(3), np.uint8(5)
    assert [type(parameter.comm_fusion), parameter.comm_fusion, parameter.key] == [int, 3, 5]


@pytest.mark.parametrize(
    "flag, value, error, words",
    [
        ("comm_fusion", -1, ValueError, "comm_fusion is at least 0, found -1"),
        ("comm_fusion", True, TypeError, "comm_fusion is an int, found True"),
        ("key", "7", TypeError, "key is an int"),
        ("cache_enable", 1, TypeError, "cache_enable is True or False"),
        ("cache_shape", 3, TypeError, "cache_shape is a list or tuple"),
        ("cache_shape", [1, None], TypeError, "cache_shape is a list or tuple of ints"),
        ("parallel_optimizer_comm_recompute", None, TypeError, "is True or False"),
    ],
)
def test_wrong_flags_leave_the_old_value(flag: str, value: Any, error: type[Exception], words: str) -> None:
    parameter = Parameter(1, "w")
    before = getattr(parameter, flag)
    with pytest.raises(error, match=f"Parameter 'w': {words}" if words.startswith(flag) else words):
        setattr(parameter, flag, value)
    assert getattr(parameter, flag) == before


@pytest.mark.parametrize(
    "duplicate",
    [Parameter.clone, Parameter.copy, copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],
)
@pytest.mark.parametrize("lazy", [True, False])
def test_every_copy_keeps_every_attribute_and_shares_nothing(duplicate: Any, lazy: bool) -> None:
    original = Parameter(initializer("normal", (4, 3)), "w", False, True, False)
    original.comm_fusion, original.sliced, original.unique, original.key = 3, True, True, 9
    original.parallel_optimizer_comm_recompute, original.cache_shape = True, [1, 2]
    original.set_param_ps(init_in_server=True)
    original.mine = "x"  # type: ignore[attr-defined]
    if not lazy:
        original.init_data()
    twin = duplicate(original)
    assert (twin.has_init, original.has_init) == (lazy, lazy)
    for flag in (
        *(
            "name",
            "requires_grad",
            "layerwise_parallel",
            "parallel_optimizer",
            "comm_fusion",
            "sliced",
            "unique",
            "key",
        ),
        *("parallel_optimizer_comm_recompute", "cache_shape", "is_param_ps", "init_in_server", "mine", "origin"),
    ):
        assert getattr(twin, flag) == getattr(original, flag)
    np.testing.assert_array_equal(twin.asnumpy(), original.asnumpy())
    twin.asnumpy()[0] = 9
    twin.cache_shape.append(3)
    assert original.cache_shape == [1, 2]
    assert not (original.asnumpy() == 9).any()


def test_clone_of_a_subclass_and_with_a_cache() -> None:
    class Scale(Parameter):
        pass

    scale = Scale(1.0, "s")
    scale.cache_enable = True
    first, second = scale.clone(), scale.clone("zeros")
    assert type(first) is type(second) is Scale
    assert len({scale.key, first.key, second.key}) == 3
    assert second.asnumpy() == 0


def test_clone_keeps_its_values_under_another_name_and_a_copy_does_not() -> None:
    original = Parameter(initializer("normal", (4, 3)), "w")
    clone, twin = original.clone(), copy.deepcopy(original)
    clone.name = twin.name = "other"
    np.testing.assert_array_equal(clone.asnumpy(), original.asnumpy())
    fresh = Parameter(initializer("normal", (4, 3)), "other")
    np.testing.assert_array_equal(twin.asnumpy(), fresh.asnumpy())


def test_clone_with_another_initializer_has_the_values_of_its_name() -> None:
    original = Parameter([[1.0, 2.0]], "w").set_dtype("float16")
    clone = original.clone("normal")
    assert (clone.has_init, clone.dtype, clone.origin) == (True, np.float16, "initializer")
    expected = Parameter(initializer("normal", (1, 2), "float16"), "w").asnumpy()
    np.testing.assert_array_equal(clone.asnumpy(), expected)


@pytest.mark.parametrize("made", [True, False])
def test_lazy_data_are_the_same_whether_the_parameter_has_values_or_not(made: bool) -> None:
    parameter = Parameter(initializer("zeros", (4, 3)), "w")
    if made:
        parameter.init_data()
    data = initializer("normal", (4, 3))
    assert parameter.set_data(data) is parameter
    assert parameter.has_init is not made
    assert data.has_init
    expected = Parameter(initializer("normal", (4, 3)), "w").asnumpy()
    np.testing.assert_array_equal(parameter.asnumpy(), expected)
    named = Parameter(initializer("normal", (4, 3)), "v")
    parameter.set_data(named)
    np.testing.assert_array_equal(parameter.asnumpy(), named.asnumpy())


def test_lazy_data_of_another_dtype_are_not_lost() -> None:
    parameter = Parameter(initializer(3.0, (2,)), "w")
    parameter.set_data(initializer(7.0, (2,), "float16"))
    assert parameter.dtype == np.float32
    assert parameter.asnumpy().tolist() == [7, 7]


@pytest.mark.parametrize(
    "dtype, data, words",
    [
        ("int32", np.array([2**31]), "dtype int32 cannot hold values from 2147483648 to 2147483648"),
        ("int64", np.array([2.0**63]), "cannot hold"),
        ("uint8", np.array([-1.0]), "cannot hold"),
        ("int8", np.array([np.nan]), "cannot hold"),
        ("int8", np.array([np.inf]), "cannot hold"),
    ],
    ids=str,
)
def test_integers_that_do_not_fit(dtype: str, data: Any, words: str) -> None:
    parameter = Parameter(np.zeros(1, dtype), "w")
    with pytest.raises(ValueError, match=f"Parameter 'w': .*{words}"):
        parameter.set_data(Tensor(data))
    assert parameter.asnumpy().tolist() == [0]


def test_setting_data_to_itself_and_through_the_property() -> None:
    parameter = Parameter([1.0, 2.0], "w")
    assert parameter.set_data(parameter).asnumpy().tolist() == [1, 2]
    parameter.data = Tensor([3, 4])
    assert parameter.asnumpy().tolist() == [3, 4]
    with pytest.raises(ValueError, match=r"Parameter 'w': expected data of shape \(2,\), found \(3,\)"):
        parameter.data = Tensor([1, 2, 3])
    with pytest.raises(TypeError, match="Parameter 'w': dtype float32 has no imaginary parts"):
        parameter.data = Tensor([1j, 2j])
    parameter.set_data(Tensor([1, 2, 3]), slice_shape=True)
    assert (parameter.shape, parameter.sliced, parameter.dtype) == ((3,), True, np.float32)


def test_dtype_of_a_parameter_changes_in_place() -> None:
    lazy = Parameter(initializer("normal", (4, 3)), "w")
    expected = lazy.clone().asnumpy().astype(np.float16)
    assert lazy.set_dtype("float16") is lazy
    assert lazy.has_init
    np.testing.assert_array_equal(lazy.asnumpy(), expected)
    with pytest.raises(TypeError, match="draws real numbers"):
        Parameter(initializer("normal", (4, 3)), "w").set_dtype("int8")
    with pytest.raises(ValueError, match="cannot hold"):
        Parameter([300], "w").set_dtype("int8")


def test_value_is_a_tensor_of_its_own() -> None:
    lazy = Parameter(initializer("normal", (4, 3)), "w")
    value = lazy.value()
    assert type(value) is Tensor
    assert value.has_init
    np.testing.assert_array_equal(value.asnumpy(), lazy.asnumpy())
    value.asnumpy()[0] = 9
    assert not (lazy.asnumpy() == 9).any()


def test_inited_param_and_pipeline_stages() -> None:
    lazy = Parameter(initializer("normal", (4, 3)), "w")
    assert lazy.inited_param is None
    assert lazy.init_data().inited_param is lazy
    assert Parameter(1.0).init_data().inited_param is None
    with pytest.warns(DeprecationWarning, match="add_pipeline_stage is deprecated"):
        lazy.add_pipeline_stage(2)
    for wrong in (0, -1, True, 1.0, "1"):
        with (
            pytest.warns(DeprecationWarning, match="deprecated"),
            pytest.raises(TypeError, match="Parameter 'w': stage is a positive int"),
        ):
            lazy.add_pipeline_stage(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="init_in_server is True or False"):
        lazy.set_param_ps(init_in_server=1)  # type: ignore[arg-type]
    assert not lazy.is_param_ps


@pytest.mark.parametrize(
    "operate, expected",
    [
        (operator.iadd, [[5, 6]]),
        (operator.isub, [[1, 2]]),
        (operator.imul, [[6, 8]]),
        (operator.itruediv, [[1.5, 2]]),
        (operator.ifloordiv, [[1, 2]]),
        (operator.imod, [[1, 0]]),
        (operator.ipow, [[9, 16]]),
    ],
)
def test_operators_in_place_change_the_parameter(operate: Any, expected: list[list[float]]) -> None:
    parameter = Parameter([[3.0, 4.0]], name="w")
    storage = parameter.asnumpy()
    assert operate(parameter, 2) is parameter
    assert storage.tolist() == expected
    assert parameter.origin == "in place"


def test_bits_and_products_in_place() -> None:
    bits = Parameter([6, 3])
    bits &= 5
    bits |= 8
    bits ^= 1
    bits <<= 2
    bits >>= 1
    assert bits.asnumpy().tolist() == [26, 16]
    square = Parameter([[1.0, 2.0], [3.0, 4.0]])
    square @= np.array([[0.0, 1.0], [1.0, 0.0]])
    assert square.asnumpy().tolist() == [[2, 1], [4, 3]]
    assert square.dtype == np.float32


def test_training_in_a_loop_changes_the_parameters() -> None:
    net = Cell()
    net.w = Parameter(initializer("ones", (2,)), name="own")
    net.b = Parameter(Tensor([1.0], numparam.bfloat16))
    for parameter in net.trainable_params():
        parameter -= 0.5  # noqa: PLW2901
    assert net.w.asnumpy().tolist() == [0.5, 0.5]
    assert net.b.asnumpy().tolist() == [0.5]
    net.w += np.ones(2)
    assert (net.w.name, net.w.asnumpy().tolist()) == ("own", [1.5, 1.5])


def test_what_does_not_fit_in_place_changes_nothing() -> None:
    parameter = Parameter([1, 2], name="w")
    for other, error in ((0.5, TypeError), ([[1], [2]], ValueError), ("x", TypeError)):
        with pytest.raises(error):
            parameter += other
        assert parameter.asnumpy().tolist() == [1, 2]


def test_attributes_of_mindspore() -> None:
    lazy, made = Parameter(initializer("ones", (2,)), name="w"), Parameter([1.0], storage_format="NCHW", device="CPU")
    assert lazy.init_mode is not None
    assert lazy.init_mode.has_init
    assert made.init_mode is None
    assert made.device == "cpu"
    assert made.requires_aggr
    made.requires_aggr = False
    assert not made.clone().requires_aggr
    assert made.param_info.requires_grad
    assert (made.is_init, made.init_flag, made.is_in_parallel) == (False, False, False)
    for mode in ("data_parallel", "semi_auto_parallel", "auto_parallel"):
        numparam.set_auto_parallel_context(parallel_mode=mode)
        parallel = numparam.Parameter(1.0)
        numparam.reset_auto_parallel_context()
        assert parallel.is_in_parallel == parallel.clone().is_in_parallel == (mode != "data_parallel")
        assert parallel.clone("ones").init_data().item() == 1
    made.register_hook(lambda gradient: gradient).remove()
    with pytest.raises(TypeError, match="a hook is a function, found 3"):
        made.register_hook(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="storage_format is a str"):
        Parameter(1.0, storage_format=1)  # type: ignore[arg-type]


def test_set_data_takes_an_array() -> None:
    array = np.array([3.0, 4.0])
    parameter = Parameter([1.0, 2.0], name="w").set_data(array)
    array[0] = 9
    assert (parameter.dtype, parameter.asnumpy().tolist()) == (np.float32, [3, 4])
    with pytest.raises(ValueError, match=r"Parameter 'w': expected data of shape \(2,\), found \(3,\)"):
        parameter.set_data(np.ones(3))
    with pytest.raises(TypeError, match="has dtype int32, found floats"):
        Parameter(1).set_data(np.array(0.5))
