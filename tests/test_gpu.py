"""The same equalities as in the interpreter, on a real device; then memory, streams and other libraries.

Skipped without a GPU; with NUMPARAM_REQUIRE_GPU=1 its absence is a failure.
"""

from __future__ import annotations

import gc
import os
from typing import Any

import numpy as np
import pytest

import numparam
from numparam import Parameter, Tensor
from numparam.errors import DeviceError, DeviceOutOfMemoryError
from numparam.initializer import initializer
from numparam.kernels import _driver, constant, conversion, fill
from numparam.kernels.batch import Batch
from numparam.kernels.device_array import STAGING_BYTES, DeviceArray
from test_ptx_copy import PAIRS, SLICES, span_of, values_of
from test_ptx_fill import CASES, HIGH, KEY, bits, check, counters_of_special_words, write

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _gpu() -> None:
    try:
        numparam.device("cuda")
    except DeviceError as error:
        if os.environ.get("NUMPARAM_REQUIRE_GPU") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.mark.parametrize("draw, dtype", CASES, ids=str)
def test_fills_have_the_bits_of_the_cpu(draw: str, dtype: np.dtype[Any]) -> None:
    check(draw, dtype, (2**22 + 3,), 0, None)
    for size, offset, base in [(1, 0, 0), (17, 3, 3), (70, 7, 9), (67, 12, 20), (301, 1, HIGH - 150), (10**6, 5, 3)]:
        check(draw, dtype, (size,), offset, fill.Span(base, (1,)))
    check(draw, dtype, (37, 4100), 0, fill.Span(5, (9000, 1)))
    check(draw, dtype, (29, 1031), 1, fill.Span(HIGH + 29 * 6400, (-6400, -1)))
    check(draw, dtype, (2, 3, 2, 3, 2, 2, 7), 1, fill.Span(11, (9**6, 8**5, 7**4, 6**3, 50, 20, 1)))


@pytest.mark.parametrize("draw, dtype", CASES, ids=str)
def test_tables_have_the_bits_of_the_cpu_on_special_words(draw: str, dtype: np.dtype[Any]) -> None:
    pairs = []
    with Batch():
        for block, stream, _ in counters_of_special_words(KEY.seed):
            key, span = KEY._replace(stream=stream), fill.Span(4 * block, (1,))
            pairs.append((DeviceArray.empty((4,), dtype, 0), np.empty(4, dtype)))
            for out in pairs[-1]:
                write(draw, out, span, key)
    for there, here in pairs:
        np.testing.assert_array_equal(bits(there.to_host()), bits(here))


@pytest.mark.parametrize("source, target", PAIRS, ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_conversions_have_the_bits_of_the_cpu(source: np.dtype[Any], target: np.dtype[Any]) -> None:
    values = values_of(source)
    expected = np.empty(values.size, target)
    conversion.convert(expected, values)
    found = DeviceArray.from_host(values, 0).astype(target).to_host()
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(bits(found[~nan]), bits(expected[~nan]))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8", "c16"])
def test_slices_and_constants(dtype: str) -> None:
    whole = np.random.default_rng(7).integers(0, 255, (24, 32)).astype(dtype)
    for index in SLICES:
        there, span = DeviceArray.from_host(whole, 0), span_of(whole, whole[index])
        np.testing.assert_array_equal(there.read_slice(whole[index].shape, span).to_host(), whole[index])
    out = DeviceArray.empty((1031,), np.dtype(dtype), 0)
    constant.fill(out[3:], 3)
    np.testing.assert_array_equal(out[3:].to_host(), np.full(1028, 3, dtype))


def test_a_round_trip_larger_than_the_staging_and_memory_that_comes_back() -> None:
    values = np.random.default_rng(7).integers(0, 256, 5 * STAGING_BYTES + 3, np.uint8)
    for _ in range(3):
        np.testing.assert_array_equal(DeviceArray.from_host(values, 0).to_host(), values)
    driver = _driver.get_driver()
    gc.collect()
    driver.record(0).sync()
    before = driver.memory(0)[0]
    for _ in range(20):
        DeviceArray.from_host(values, 0)
    driver.record(0).sync()
    assert driver.memory(0)[0] >= before - 4 * values.nbytes


def test_too_little_memory_is_said_with_sizes() -> None:
    with pytest.raises(
        DeviceOutOfMemoryError, match=r"\d+ bytes were asked of cuda:0, which has \d+ of \d+ bytes free"
    ):
        Tensor(shape=(2**42,), init=numparam.initializer.Normal(), device="cuda").init_data()


def test_parameters_in_torch() -> None:
    torch = pytest.importorskip("torch")
    numparam.set_seed(7)
    parameter = Parameter(initializer("normal", (300, 70), "bfloat16"), name="w")
    shared = torch.from_dlpack(parameter.to("cuda").init_data())
    assert shared.device.type == "cuda"
    np.testing.assert_array_equal(shared.view(torch.int16).cpu().numpy(), parameter.asnumpy().view(np.int16))
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        there = Tensor(np.ones(10**7, np.float32), device="cuda")
        assert torch.from_dlpack(there).sum().item() == 10**7
    foreign = torch.arange(12, device="cuda", dtype=torch.float32).reshape(3, 4)
    taken = Tensor.from_dlpack(foreign)._device_values()
    np.testing.assert_array_equal(taken.to_host(), np.arange(12).reshape(3, 4))
    constant.fill(taken, 2)
    assert foreign.sum().item() == 24
    with pytest.raises(ValueError, match="row-major"):
        DeviceArray.from_foreign(foreign.T)


def test_parameters_in_cupy() -> None:
    cupy = pytest.importorskip("cupy")
    tensor = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4), device="cuda")
    for shared in (cupy.asarray(tensor), cupy.from_dlpack(tensor)):
        np.testing.assert_array_equal(cupy.asnumpy(shared), tensor.asnumpy())
    np.testing.assert_array_equal(DeviceArray.from_foreign(cupy.arange(5)).to_host(), np.arange(5))


def test_from_one_device_to_another() -> None:
    if len(numparam.devices()) < 3:
        pytest.skip("one GPU only")
    values = np.random.default_rng(7).standard_normal(10**6)
    np.testing.assert_array_equal(Tensor(values, device="cuda:0").to("cuda:1").asnumpy(), values)
