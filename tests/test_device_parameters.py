"""Parameters on a CUDA device, which the PTX interpreter stands for, take values that are there already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam import Parameter, Tensor
from numparam.initializer import initializer


@pytest.fixture
def driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver


@needs_compiler[0]
@needs_compiler[1]
def test_values_are_taken_on_the_device(driver: InterpretedDriver) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
    for data in (
        Tensor(values, device="cuda:1"), Tensor(values, device="cuda:0"), Tensor(values),
        Tensor(values.astype(np.float64), device="cuda:1"), initializer(0.25, (3, 4)).to("cuda:1"),
        initializer(0.25, (3, 4)),
    ):  # fmt: skip
        for dtype in ("float32", "bfloat16"):
            parameter = Parameter(np.zeros((3, 4)), name="w", device="cuda:1").set_dtype(dtype)
            expected = data.copy().cpu().asnumpy().astype(parameter.dtype)
            driver.read = []
            assert parameter.set_data(data) is parameter
            assert driver.read == []
            assert (parameter.device, parameter.dtype, parameter.origin) == ("cuda:1", dtype, "set_data")
            np.testing.assert_array_equal(parameter.asnumpy(), expected)
            parameter[0] = 1
            assert data.has_init or data.cpu().asnumpy()[0, 0] != 1
    here = Parameter(np.zeros((3, 4)), name="w").set_data(Tensor(values, device="cuda:1"))
    assert here.device == "cpu"
    np.testing.assert_array_equal(here.asnumpy(), values)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "data, dtype, error, words",
    [
        (np.array([1j]), "float32", TypeError, "Parameter 'w': dtype float32 has no imaginary parts"),
        (np.array([300]), "int8", ValueError, "Parameter 'w': dtype int8 cannot hold values from 300 to 300"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    driver: InterpretedDriver, device: str, data: Any, dtype: str, error: type[Exception], words: str
) -> None:
    parameter, other = Parameter(np.ones(1, dtype), name="w", device=device), Tensor(data, device=device)
    with pytest.raises(error, match=words):
        parameter.set_data(other)
    with pytest.raises(error, match=words):
        Parameter(other, name="w").set_dtype(dtype)
    assert parameter.asnumpy() == 1
    assert driver.launches == []
