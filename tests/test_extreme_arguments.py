"""Arguments beyond what arrays and paths can be: errors of numparam's classes, before anything is written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numparam
from numparam.errors import ArgumentValueError, CheckpointError, RegionError, ShapeError
from numparam.initializer import Constant, Orthogonal, initializer

NARROW = [numparam.float16, numparam.bfloat16, numparam.float8_e4m3fn, numparam.float8_e5m2]


@pytest.mark.parametrize("index", [2**63, -(2**63) - 1, 10**400, (0, 2**64), np.uint64(2**63)])
@pytest.mark.parametrize("lazy", [True, False])
def test_an_index_beyond_64_bits_is_refused(index: Any, lazy: bool) -> None:
    tensor = initializer("normal", (4, 3)) if lazy else numparam.Tensor(np.zeros((4, 3)))
    with pytest.raises(RegionError):
        tensor[index].asnumpy()


def test_more_axes_than_an_array_can_have_are_refused() -> None:
    with pytest.raises(ShapeError, match="at most 64 axes"):
        initializer("zeros", (1,) * 72)


@pytest.mark.parametrize("shape", [(2**62,), (2**62, 2**62, 0)])
def test_an_array_beyond_the_address_space_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="is too large; read a slice"):
        initializer("normal", shape).asnumpy()


@pytest.mark.parametrize("dtype", [*NARROW, numparam.float32, numparam.float64])
def test_a_fraction_is_a_constant_of_every_floating_dtype(dtype: Any) -> None:
    third = initializer(Constant(Fraction(1, 3)), (2,), dtype).asnumpy()
    assert np.array_equal(third, np.array([1 / 3, 1 / 3], dtype=third.dtype))


@pytest.mark.parametrize("value", [10**400, Fraction(10**400, 3)])
@pytest.mark.parametrize("dtype", [*NARROW, numparam.float64, numparam.int32, numparam.bool_])
def test_a_constant_beyond_a_dtype_is_refused(value: Any, dtype: Any) -> None:
    with pytest.raises(ArgumentValueError, match="cannot hold the value"):
        initializer(Constant(value), (2,), dtype)


@pytest.mark.parametrize("dtype", [*NARROW, numparam.float32])
def test_a_gain_beyond_a_dtype_is_refused(dtype: Any) -> None:
    with pytest.raises(ArgumentValueError, match="cannot hold the value"):
        initializer(Orthogonal(1e300), (2, 2), dtype)


def test_a_seed_of_many_digits_is_refused_briefly() -> None:
    with pytest.raises(ArgumentValueError, match="a seed is an int") as caught:
        numparam.set_seed(10**5000)
    assert len(str(caught.value)) < 200


def test_a_path_that_cannot_be_is_refused(tmp_path: Path) -> None:
    parameter = numparam.Parameter(initializer("normal", (2,)), name="w")
    with pytest.raises(CheckpointError, match="cannot write"):
        numparam.save_checkpoint([parameter], tmp_path / "half\ud800.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [numparam.float16, numparam.float8_e4m3fn, numparam.float8_e5m2])
def test_normals_beyond_a_dtype_are_refused(dtype: Any) -> None:
    parameter = numparam.Parameter(initializer(numparam.initializer.Normal(70_000), (64,), dtype), name="w")
    with pytest.raises(ArgumentValueError, match=r"parameter 'w': normal values of mean 0 and sigma 7e\+04 reach"):
        parameter.asnumpy()
    fits = initializer(numparam.initializer.Normal(60), (4096,), dtype).asnumpy()
    assert np.isfinite(fits.astype(np.float32)).all()


@pytest.mark.parametrize("dtype", [numparam.complex64, numparam.complex128])
def test_complex_constants_are_held_or_refused(dtype: Any) -> None:
    assert initializer(Constant(1e30), (1,), dtype).asnumpy()[0] == np.dtype(dtype).type(1e30)
    if dtype == numparam.complex64:
        with pytest.raises(ArgumentValueError, match="cannot hold the value 1e\\+300"):
            initializer(Constant(1e300), (1,), dtype)


def test_axes_of_reductions_and_reshapes_beyond_64_bits_are_refused() -> None:
    tensor = numparam.Tensor(np.zeros((4, 3)))
    for call in (tensor.sum, tensor.squeeze, tensor.expand_dims, tensor.reshape, tensor.transpose):
        with pytest.raises(ValueError):  # noqa: PT011
            call(10**400)


@pytest.mark.parametrize("dtype, number", [("float32", 10**400), ("int8", 300), ("int64", 2**64), ("uint8", -1)])
def test_a_number_that_the_dtype_of_a_tensor_cannot_hold_is_refused(dtype: str, number: int) -> None:
    tensor = numparam.Tensor(np.ones((2, 2), dtype))
    for compute in (lambda: tensor + number, lambda: np.multiply(number, tensor)):
        for error in (ArgumentValueError, OverflowError):  # as NumPy, and as all of numparam
            with pytest.raises(error, match=r"add|multiply"):
                compute()


def test_what_is_not_an_array_of_the_shape_or_a_table_is_refused() -> None:
    for value in (np.dtype("float32"), np.ones((3, 2)), None):
        with pytest.raises(ShapeError, match=r"an array of the full shape \(2, 3\) is needed"):
            numparam.Region.full((2, 3)).take(value)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="cannot be viewed") as caught:
        numparam.Tensor(np.ones(3)).view([], "x" * 10_000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 400
    with pytest.raises(TypeError, match="region is a Region, found"):
        numparam.fingerprint(np.ones(3), region=Path())  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="fingerprints are a mapping by name, found"):
        numparam.Fingerprints(np.broadcast_to(1.0, (3, 2**40)))  # type: ignore[arg-type]
    assert numparam.fingerprint(np.ones(3), "\ud800") == numparam.fingerprint(np.ones(3), "\ud800")
    with pytest.raises(TypeError, match="the table of a cache is an Embedding"):
        numparam.EmbeddingCache(int, 3)  # type: ignore[arg-type]
