"""Wrong arguments, shapes and dtypes are refused as early as possible, in words that say what to do."""

from typing import Any

import numpy as np
import pytest

import numparam
from numparam.errors import NumparamError
from numparam.initializer import (
    Constant,
    CorrectedTruncatedNormal,
    Dirac,
    HeNormal,
    HeUniform,
    Identity,
    Initializer,
    Normal,
    Orthogonal,
    Sparse,
    TruncatedNormal,
    Uniform,
    VarianceScaling,
    XavierNormal,
    by_name,
    initializer,
)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: Normal(-0.1), ValueError, "sigma is a finite number of at least 0, found -0.1"),
        (lambda: Normal(float("nan")), ValueError, "sigma .* found nan"),
        (lambda: Normal(0.1, float("inf")), ValueError, "mean is a finite number, found inf"),
        (lambda: Normal(0.1, -float("inf")), ValueError, "mean is a finite number, found -inf"),
        (lambda: Normal("0.1"), TypeError, "sigma is a number, found '0.1'"),
        (lambda: Normal(None), TypeError, "sigma is a number, found None"),
        (lambda: Normal(True), TypeError, "sigma is a number, found True"),
        (lambda: Uniform([1]), TypeError, "scale is a number"),
        (lambda: TruncatedNormal(-1), ValueError, "sigma"),
        (lambda: TruncatedNormal(1, 0, 2, -2), ValueError, "a must be below the upper bound b, found a=2 and b=-2"),
        (lambda: TruncatedNormal(1, 0, 1, 1), ValueError, "a must be below the upper bound b"),
        (lambda: TruncatedNormal(1, 0, float("nan"), 1), ValueError, "a is a number, found nan"),
        (lambda: CorrectedTruncatedNormal(-1), ValueError, "sigma"),
        (lambda: Normal(10**400), ValueError, "sigma is a number that float64 holds, found 1000"),
        (lambda: XavierNormal(-1), ValueError, "gain is a finite number of at least 0"),
        (lambda: XavierNormal(1e200), ValueError, r"gain is a number whose square float64 holds, found 1e\+200"),
        (lambda: HeNormal(-1e200), ValueError, "negative_slope is a number whose square float64 holds"),
        (lambda: by_name(5), TypeError, "the name of an initializer is a str, found 5"),
        (lambda: HeNormal(mode="fan_avg"), ValueError, "mode is fan_in or fan_out, found 'fan_avg'"),
        (lambda: HeNormal(mode=None), ValueError, "mode is fan_in or fan_out, found None"),
        (lambda: HeUniform(nonlinearity="gelu"), ValueError, "nonlinearity is one of leaky_relu, .* found 'gelu'"),
        (lambda: HeUniform(True), ValueError, "for leaky_relu, negative_slope is a number, found True"),
        (lambda: HeUniform("0.1"), ValueError, "for leaky_relu, negative_slope is a number"),
        (Sparse, TypeError, "sparsity"),
        (lambda: Sparse(-0.1), ValueError, "sparsity is a finite number of at least 0"),
        (lambda: Sparse(1.1), ValueError, "sparsity is a number from 0 to 1, found 1.1"),
        (lambda: Sparse(0.1, -1), ValueError, "sigma"),
        (lambda: Dirac(0), ValueError, "groups is at least 1, found 0"),
        (lambda: Dirac(1.0), TypeError, "groups is an int, found 1.0"),
        (lambda: Dirac(True), TypeError, "groups is an int, found True"),
        (lambda: Orthogonal("1"), TypeError, "gain is a number"),
        (lambda: VarianceScaling(0), ValueError, "scale is above 0, found 0"),
        (lambda: VarianceScaling(mode="fan"), ValueError, "mode is one of fan_in, fan_out, fan_avg; found 'fan'"),
        (lambda: VarianceScaling(distribution="normal"), ValueError, "distribution is one of uniform, .*'normal'"),
        (lambda: Constant(None), TypeError, "value is a real number or a bool, found None"),
        (lambda: Constant("1"), TypeError, "value is a real number"),
        (lambda: Constant(1j), TypeError, "value is a real number"),
        (lambda: Constant(np.zeros(2)), ValueError, "value is one number, found an array of 2"),
    ],
)
def test_wrong_arguments(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    "init, shape, words",
    [
        ("xavier_normal", (4,), r"XavierNormal\(gain=1.0\) needs a shape of 2 or more axes, found 1 in \(4,\)"),
        ("he_uniform", (), "2 or more axes, found 0"),
        ("lecun_normal", 3, "2 or more axes, found 1"),
        ("variance_scaling", 3, "2 or more axes, found 1"),
        ("orthogonal", 3, "2 or more axes"),
        ("identity", (2, 2, 2), "needs a shape of 2 axes, found 3"),
        (Sparse(0.1), (2,), "needs a shape of 2 axes, found 1"),
        ("dirac", (2, 2), "3 to 5 axes, found 2"),
        ("dirac", (2, 2, 1, 1, 1, 1), "3 to 5 axes, found 6"),
        (Dirac(3), (4, 2, 1), "divides into 3 groups"),
        ("normal", (2, -1), "length 0 or more"),
        ("normal", (2.5,), "a shape is an int, or a tuple or list of ints"),
        ("normal", "34", "a shape is an int"),
        ("normal", None, r"Normal\(sigma=0.01, mean=0.0\) needs a shape"),
        (3, None, "needs a shape"),
    ],
)
def test_wrong_shapes(init: Any, shape: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        initializer(init, shape)
    assert isinstance(caught.value, NumparamError)


RANDOM = ["normal", "uniform", "truncated_normal", "corrected_truncated_normal", "he_normal", "orthogonal", Sparse(0.1)]


@pytest.mark.parametrize("dtype", ["int32", "bool", "uint8", "complex64"])
@pytest.mark.parametrize("init", RANDOM, ids=repr)
def test_random_values_need_a_floating_dtype(init: Any, dtype: str) -> None:
    with pytest.raises(TypeError, match=f"draws real numbers, which dtype {dtype} cannot hold; use a floating dtype"):
        initializer(init, (4, 4), dtype)


@pytest.mark.parametrize(
    "value, dtype",
    [
        (3.7, "int32"),
        (300, "uint8"),
        (-1, "uint64"),
        (2**31, "int32"),
        (2**64, "uint64"),
        (2.0**63, "int64"),
        (float("nan"), "int8"),
        (float("inf"), "int64"),
        (2, "bool"),
        (0.5, "bool"),
        (70_000, "float16"),
        (1e39, "float32"),
        (1e39, "bfloat16"),
        (1e4, "float8_e4m3fn"),
        (1e6, "float8_e5m2"),
        (float("inf"), "float8_e4m3fn"),
        (10**400, "float64"),
    ],
)
def test_constants_that_the_dtype_cannot_hold(value: float, dtype: str) -> None:
    with pytest.raises(ValueError, match=rf"dtype {dtype} cannot hold the value.*\.astype\('{dtype}'\)"):
        initializer(value, (2,), dtype)


@pytest.mark.parametrize(
    "value, dtype",
    [
        (255, "uint8"),
        (-128.0, "int8"),
        (2**64 - 1, "uint64"),
        (-(2**63), "int64"),
        (np.float32(2.0), "int16"),
        (1, "bool"),
        (False, "int8"),
        (65_504, "float16"),
        (448, "float8_e4m3fn"),
        (float("inf"), "bfloat16"),
        (-float("inf"), "float8_e5m2"),
        (2**70, "float32"),
    ],
)
def test_constants_at_the_edge_of_the_dtype(value: float, dtype: str) -> None:
    found = initializer(value, (2,), dtype).asnumpy()
    assert found.dtype.name == dtype
    assert list(found.tolist()) == [value, value]


def test_not_a_number_is_a_constant_of_floats() -> None:
    assert np.isnan(initializer(float("nan"), (2,), "bfloat16").asnumpy().astype(np.float32)).all()


@pytest.mark.parametrize(
    "init", [None, [1.0], np.ones(3), Normal, b"normal", {"normal"}, object()], ids=lambda init: type(init).__name__
)
def test_other_kinds_of_init_are_type_errors(init: Any) -> None:
    with pytest.raises(TypeError, match="an initializer is a Tensor, a name, an Initializer or a number"):
        initializer(init, (2,))


@pytest.mark.parametrize("init", ["", " zeros", "kaiming", "same", "xavier-normal"])
def test_unknown_names_are_value_errors(init: str) -> None:
    with pytest.raises(ValueError, match=f"no initializer is called {init!r}"):
        initializer(init, (2, 2))


def test_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'xavier_normal'"):
        by_name("xavier_normall")


@pytest.mark.parametrize("name, found", [("sparse", "Sparse"), ("constant", "Constant")])
def test_names_of_initializers_that_need_arguments(name: str, found: str) -> None:
    with pytest.raises(TypeError, match=rf"{name!r} needs arguments: give {found}\(...\) itself"):
        initializer(name, (2, 2))


@pytest.mark.parametrize("dtype", [None, "float31", object])
def test_unknown_dtype(dtype: Any) -> None:
    with pytest.raises(TypeError, match="no dtype"):
        numparam.Tensor(shape=(2,), dtype=dtype or "None", init=Normal())


def test_no_dtype_is_no_default() -> None:
    with pytest.raises(TypeError, match="no dtype None"):
        initializer("normal", (2,), None)


def test_tensor_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\) was asked for, found one of shape \(2,\)"):
        initializer(numparam.Tensor([1.0, 2.0]), (3,))


def test_base_class_makes_nothing() -> None:
    with pytest.raises(NotImplementedError, match="Initializer must implement fill"):
        initializer(Initializer(), (2,)).asnumpy()


def test_values_beyond_the_dtype_name_the_parameter() -> None:
    with pytest.raises(NumparamError, match="parameter 'w': normal values of float32 are drawn in float32, whose"):
        numparam.Parameter(initializer(Normal(1e300), (2,)), name="w").asnumpy()


def test_calling_on_something_else() -> None:
    with pytest.raises(TypeError, match="fills a NumPy array, found list"):
        Normal()([1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="draws real numbers"):
        Normal()(np.zeros(3, int))
    with pytest.raises(ValueError, match="needs a shape of 2 axes"):
        Identity()(np.zeros(3))
    frozen = np.zeros(3, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="not writable"):
        Normal()(frozen)
