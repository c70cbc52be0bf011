"""Operators, reductions and NumPy's functions on tensors give the dtypes that torch, JAX and MindSpore give."""

import warnings
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Parameter, Tensor
from numparam.initializer import initializer

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
]


@pytest.mark.parametrize("one", DTYPES)
def test_mixed_dtypes_are_those_of_torch(one: str) -> None:
    torch = pytest.importorskip("torch")
    for other in DTYPES:
        expected = torch.promote_types(getattr(torch, one), getattr(torch, other))
        result = np.multiply(Tensor([1, 0]).astype(one), Parameter(Tensor([1, 1]).astype(other)))
        assert isinstance(result, Tensor)
        assert f"torch.{result.dtype}" == str(expected), (one, other)
        assert result.astype("complex64").tolist() == [1, 0]


@pytest.mark.parametrize("number", [True, 2, 1.5, 1j, np.float64(1.5)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_python_numbers_are_weak(dtype: str, number: Any) -> None:
    torch = pytest.importorskip("torch")
    if (dtype, number) == ("float16", 1j):
        pytest.skip("torch has complex numbers of two halves")
    tensor = Tensor([1, 0]).astype(dtype)
    expected = torch.ones(2, dtype=getattr(torch, dtype)) * (number if type(number) is not np.float64 else 1.5)
    for result in (tensor * number, number * tensor):
        assert isinstance(result, Tensor)
        assert f"torch.{result.dtype}" == str(expected.dtype)


@pytest.mark.parametrize(
    "make, dtype",
    [
        (lambda t: t / 2, "float32"),
        (lambda t: t / t, "float32"),
        (lambda t: t // 2, "int32"),
        (lambda t: t**2, "int32"),
        (np.sqrt, "float32"),
        (np.exp, "float32"),
        (lambda t: np.add(t, [1.5, 2.5]), "float32"),
        (lambda t: t + np.ones(2), "float64"),
        (lambda t: t > 0.5, "bool"),
        (lambda t: t & True, "int32"),
        (lambda t: t << 1, "int32"),
        (lambda t: t @ Tensor([1.0, 2.0]), "float32"),
        (lambda t: np.multiply.outer(t, Tensor([0.5])), "float32"),
        (lambda t: np.ldexp(Tensor([1.0, 1.0]), t), "float32"),
        (lambda t: np.add(t, 1, dtype=np.float64), "float64"),
    ],
)
def test_results_of_integers(make: Any, dtype: str) -> None:
    for tensor in (Tensor([1, 2], "int32"), Parameter(Tensor([1, 2], "int32"))):
        result = make(tensor)
        assert (type(result), result.dtype.name) == (Tensor, dtype)


def test_small_floats_have_a_common_dtype() -> None:
    one, two = (Tensor([1.5]).astype(dtype) for dtype in ("float8_e4m3fn", "float8_e5m2"))
    assert (one + two).dtype == numparam.float32
    assert (one * 2.0).dtype == one.dtype
    assert (one + Tensor([1], "int64")).dtype == one.dtype
    assert (one + one).tolist() == [3]


@pytest.mark.parametrize(
    "name", ["sum", "prod", "mean", "std", "var", "norm", "min", "max", "argmin", "argmax", "all", "any"]
)
@pytest.mark.parametrize("dtype", ["bool", "int32", "float16", "bfloat16", "float32", "float64"])
def test_reductions(name: str, dtype: str) -> None:
    tensor = Tensor([[0, 2, 3], [4, 5, 6]]).astype(dtype)
    array = tensor.asnumpy().astype("float64")
    function = np.linalg.norm if name == "norm" else getattr(np, name)
    for axis in (None, 0, -1):
        for keepdims in (False, True):
            result = getattr(tensor, name)(axis=axis, keepdims=keepdims)
            assert type(result) is Tensor
            np.testing.assert_allclose(
                result.asnumpy().astype("float64"), function(array, axis=axis, keepdims=keepdims), 1e-2
            )
            if name in ("all", "any"):
                assert result.dtype == bool
            elif name in ("argmin", "argmax") or (name in ("sum", "prod") and dtype in ("bool", "int32")):
                assert result.dtype == "int64"
            elif name in ("min", "max") or tensor.dtype.kind not in "bi":
                assert result.dtype == tensor.dtype
            else:
                assert result.dtype == "float32"
    by_numpy = function(tensor, axis=1)
    assert (type(by_numpy), by_numpy.dtype) == (Tensor, getattr(tensor, name)(1).dtype)


def test_narrow_floats_are_added_up_in_float32() -> None:
    assert Tensor(np.ones(4096, np.float16)).sum().item() == 4096
    assert Tensor(np.ones(4096, np.float32)).astype("bfloat16").mean().item() == 1


def test_functions_of_numpy_return_tensors() -> None:
    tensor = Parameter([[1.0, 2.0], [3.0, 4.0]])
    results = {
        "sum": np.sum(tensor), "mean": np.mean(tensor, axis=0), "where": np.where(tensor > 2, tensor, 0.0),
        "dot": np.dot(tensor, tensor), "concatenate": np.concatenate([tensor, tensor]),
        "percentile": np.percentile(tensor, 50),
        "exp": np.exp(tensor), "linalg": np.linalg.inv(tensor), "split": np.split(tensor, 2)[0],
    }  # fmt: skip
    assert {name: type(result) for name, result in results.items()} == dict.fromkeys(results, Tensor)
    assert results["dot"].tolist() == [[7, 10], [15, 22]]
    assert np.allclose(tensor, tensor) is True
    assert np.shape(tensor) == (2, 2)


@pytest.mark.parametrize("one", DTYPES)
def test_functions_that_join_promote_as_operators(one: str) -> None:
    for other in DTYPES:
        pair = [Parameter(np.ones(2), name="w").astype(one), Tensor(np.zeros(2)).astype(other)]
        expected = np.where(True, pair[0], pair[1])
        assert (type(expected), expected.tolist()) == (Tensor, [1, 1])
        if {one, other} != {"bool"}:
            assert expected.dtype == (pair[0] + pair[1]).dtype
        for function in (np.concatenate, np.stack, np.vstack, np.hstack, np.dstack, np.column_stack):
            joined = function(pair)
            assert (type(joined), joined.dtype) == (Tensor, expected.dtype)
            plain = function([tensor.asnumpy().astype(expected.dtype) for tensor in pair])
            assert np.array_equal(joined.asnumpy(), plain)


@pytest.mark.parametrize("one", DTYPES)
def test_functions_that_compute_with_several_arrays_promote_as_operators(one: str) -> None:
    for other in DTYPES:
        first, second = Tensor(np.ones((2, 2))).astype(one), Tensor(np.eye(2)).astype(other)
        expected = np.where([[True]], first, second).dtype
        results = [
            np.append(first, second), np.block([[first, second], [second, first]]), np.kron(first, second),
            np.select([np.ones((2, 2), bool)], [first], second), np.dot(first, second), np.outer(first, second),
            np.linalg.multi_dot([first, second, first]), np.tensordot(first, second),
        ]  # fmt: skip
        if expected.name != "bfloat16":  # NumPy's refuses it
            results.append(np.einsum("ij,jk", first, second))
        assert {(type(result), result.dtype) for result in results} == {(Tensor, expected)}
        assert results[1].tolist() == np.block([[np.ones((2, 2)), np.eye(2)], [np.eye(2), np.ones((2, 2))]]).tolist()
        assert results[4].tolist() == [[1, 1], [1, 1]]


def test_every_function_of_numpy_gives_tensors_and_floats_of_the_width_that_came_in() -> None:
    makes_arrays = "array asarray asanyarray asarray_chkfinite ascontiguousarray asfortranarray asmatrix from_dlpack"
    others = "require save savez savez_compressed savetxt info test"
    given = [Tensor(np.array([[1.5, 2], [3, 4]], dtype)) for dtype in (np.float32, np.int32)]
    tried = 0
    for space in (np, np.linalg, np.fft):
        for name in set(dir(space)) - {*makes_arrays.split(), *others.split()}:
            function = getattr(space, name)
            if name.startswith("_") or not callable(function) or isinstance(function, type | np.ufunc):
                continue
            for arguments in ([given[0]], [given[1]], [given[0], given[1]], [given[0], 1]):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        found = leaves(function(*arguments))
                    except Exception:  # such arguments are not for it
                        continue
                tried += 1
                assert not [item for item in found if isinstance(item, np.ndarray | np.generic)], name
                assert not [item for item in found if isinstance(item, Tensor) and item.dtype.char in "dD"], name
    assert tried > 400


def leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list | tuple) else [value]


def test_functions_write_where_they_should() -> None:
    tensor, out = Tensor([[1.0, 2.0], [3.0, 4.0]]), Tensor(np.zeros((2, 2), np.float32))
    np.copyto(tensor, 5)
    np.fill_diagonal(tensor, 7)
    assert tensor.tolist() == [[7, 5], [5, 7]]
    assert np.dot(tensor, tensor, out=out) is out
    assert out.tolist() == [[74, 70], [70, 74]]
    assert np.linalg.svd(tensor).S.tolist() == pytest.approx([12, 2])


def test_python_numbers_and_lists_are_weak_where_functions_join() -> None:
    chosen, small = Tensor([True, False]), Tensor([1, 2], "bfloat16")
    assert np.where(chosen, small, 0.5).dtype == numparam.bfloat16
    assert np.where(chosen, Tensor([1, 2]), 0.5).dtype == np.float32
    assert np.where(chosen, Tensor([1, 2], "uint8"), 7).tolist() == [1, 7]
    assert np.where(chosen, 1.5, 0).tolist() == [1.5, 0]
    assert np.where(chosen, 1.5, 0).dtype == np.float32
    assert np.where(chosen)[0].tolist() == [0]
    assert np.concatenate([small, [0.5]]).dtype == np.float32
    assert np.concatenate((Tensor([1]), Tensor([0.5])), dtype=np.float64).dtype == np.float64
    assert np.concatenate(Tensor([[1], [2]], "int8")).dtype == np.int8
    with pytest.raises(OverflowError):
        np.where(chosen, Tensor([1, 2], "uint8"), 300)


def test_queries_and_conversions() -> None:
    tensor = Tensor([[1.5, 2.5, 3.5]])
    assert (tensor.numel(), tensor.dim(), tensor.itemsize, tensor.strides) == (3, 2, 4, (12, 4))
    assert (tensor - 2).abs().tolist() == abs(tensor - 2).tolist()
    assert tensor.matmul(tensor.T).tolist() == (tensor @ tensor.T).tolist()
    assert tensor.bfloat16().dtype == numparam.bfloat16
    assert (tensor[0, 0].item() in tensor, 77 in tensor) == (True, False)
    changed = tensor.clone()
    assert changed.assign_value(tensor + 0.5) is changed
    assert changed.set_dtype("int32") is changed
    assert (changed.dtype, changed.tolist()) == (numparam.int32, [[2, 3, 4]])
    parameter = numparam.Parameter([1.0, 2.0])
    assert parameter.assign_value(Tensor([3, 4])).tolist() == [3, 4]
    assert (parameter.dtype, parameter.origin) == (numparam.float32, "in place")
    with pytest.raises(ValueError, match="shape"):
        parameter.assign_value(Tensor([1.0, 2.0, 3.0]))
    lazy = initializer("normal", (2**20, 2**10, 3), "float16")
    assert (lazy.strides, lazy.has_init) == ((6144, 6, 2), True)
    assert tensor.expand_dims(0).shape == (1, 1, 3)
    assert tensor.numpy() is tensor.asnumpy()
    assert tensor.expand_as(Tensor(np.zeros((2, 3)))).tolist() == [[1.5, 2.5, 3.5]] * 2
    with pytest.raises(ValueError, match="could not be broadcast"):
        tensor.expand_as(Tensor(np.zeros((2, 2))))
    with pytest.raises(ValueError, match="has no place 5"):
        tensor.expand_dims(5)
    assert tensor.clone().fill(2).tolist() == [[2, 2, 2]]
    for name, dtype in {"float": "float32", "half": "float16", "int": "int32", "long": "int64", "bool": "bool"}.items():
        assert getattr(tensor, name)().dtype == dtype
    assert tensor.to(numparam.float16).dtype == "float16"
    assert tensor.to("float32") is tensor.to("cpu") is tensor
    with pytest.raises(TypeError, match="no dtype 'gpu'"):
        tensor.to("gpu")


def test_format_specifications() -> None:
    parameter = Parameter([[1.5, 2.25]])
    assert f"{parameter[0, 1]:.3f} {Parameter(7):03d}" == "2.250 007"
    assert f"{parameter}" == str(parameter)
    with pytest.raises(ValueError, match="one element is needed"):
        f"{parameter:.3f}"


def test_lossy_conversions_name_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"not exactly representable in int32; Tensor\(values\).astype\('int32'\)"):
        Tensor([1.5], "int32")
    way = r"Tensor\(values\).astype\('int8'\) converts without a check"
    tensor, parameter = Tensor([1, 2], "int8"), Parameter(Tensor([1, 2], "int8"), name="w")
    for value, error in ((1.5, TypeError), (np.float32(2), TypeError), (300, ValueError), ([7, -200], ValueError)):
        for target in (tensor, parameter):
            with pytest.raises(error, match=way):
                target[...] = value
            with pytest.raises(error, match=way):
                target[[0, 1]] = value
    with pytest.raises(TypeError, match=f"Parameter 'w' has dtype int8, found floats: .*; {way}"):
        parameter.set_data(np.array([1.5, 2.5]))
    with pytest.raises(ValueError, match=f"Parameter 'w': dtype int8 cannot hold values from 1.5 to 300.0; {way}"):
        parameter.set_data(Tensor([1.5, 300]))
    assert tensor.tolist() == parameter.tolist() == [1, 2]
    tensor[...] = Tensor([1.5, 300]).astype("int32").astype("int8")
    assert tensor.tolist() == [1, 44]
    assert parameter.set_data(Tensor([1.5, -2.5])).tolist() == [1, -2]  # as in MindSpore


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int64"])
def test_tensors_of_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    given = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).to(getattr(torch, dtype)).T.requires_grad_(dtype == "float32")
    for made in (Tensor(given), Parameter(given, name="w")):
        assert (made.dtype.name, made.astype("float32").tolist()) == (dtype, [[1, 3], [2, 4]])


def test_state_of_a_torch_module_and_arrays_of_jax(tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    jnp = pytest.importorskip("jax.numpy")
    module = torch.nn.Linear(2, 3).to(torch.bfloat16)
    numparam.save_checkpoint(module.state_dict(), tmp_path / "m", append_dict={"x": jnp.ones(2, jnp.bfloat16)})
    found = numparam.load_checkpoint(tmp_path / "m.safetensors")
    assert {name: value.dtype.name for name, value in found.items()} == dict.fromkeys(
        ("weight", "bias", "x"), "bfloat16"
    )
    assert found["weight"].astype("float32").tolist() == module.weight.float().tolist()
    assert Parameter(jnp.ones((2, 3)), name="w").shape == (2, 3)
