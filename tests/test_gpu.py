"""The same equalities as in the interpreter, on a real device; then memory, streams and other libraries.

Skipped without a GPU; with NUMPARAM_REQUIRE_GPU=1 its absence is a failure.
"""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numparam
from numparam import Parameter, Tensor
from numparam.errors import DeviceError, DeviceOutOfMemoryError
from numparam.initializer import initializer
from numparam.kernels import fill
from numparam.kernels.array import STAGING_BYTES, DeviceArray
from numparam.kernels.batch import Batch
from numparam.kernels.copy import copy, duplicate
from numparam.kernels.fill import constant
from numparam.kernels.machine import driver as _driver
from numparam.kernels.rows import gather, scatter
from numparam.kernels.update import row_sums
from test_ptx_conversion import PAIRS, assert_same, values_of, wanted
from test_ptx_copy import SLICES, same_view
from test_ptx_digest import check as check_digest
from test_ptx_digest import numbers
from test_ptx_fill import CASES, HIGH, KEY, bits, check, counters_of_special_words, write
from test_ptx_update import CASES as UPDATES
from test_ptx_update import check_update, same

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _gpu() -> None:
    try:
        numparam.device("cuda")
    except DeviceError as error:
        if os.environ.get("NUMPARAM_REQUIRE_GPU") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


def length(whole: int) -> int:
    """Return so many, or a hundredth where kernels are interpreted."""
    return whole // 100 if numparam.devices()[1].name.startswith("software") else whole


@pytest.mark.parametrize("draw, dtype", CASES, ids=str)
def test_fills_have_the_bits_of_the_cpu(draw: str, dtype: np.dtype[Any]) -> None:
    check(draw, dtype, (length(2**22) + 3,), 0, None)
    for size, offset, base in [
        (1, 0, 0),
        (17, 3, 3),
        (70, 7, 9),
        (67, 12, 20),
        (301, 1, HIGH - 150),
        (length(10**6), 5, 3),
    ]:
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
    many = np.resize(values, (33, 4097))
    for array, part in ((values, np.s_[:]), (many, np.s_[:, 1:])):
        out = DeviceArray.empty(array[part].shape, target, 0)
        copy(out, DeviceArray.from_host(array, 0)[part])
        assert_same(out.to_host(), wanted(np.ascontiguousarray(array[part]), target))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8", "c16"])
def test_slices_transposes_rows_and_constants(dtype: str) -> None:
    random = np.random.default_rng(7)
    whole = random.integers(0, 255, (24, 32)).astype(dtype)
    large = random.integers(0, 255, (77, length(12340))).astype(dtype)
    pieces = [(whole, whole[index]) for index in SLICES] + [
        (large, large.T), (large, large.T[3:, ::-1]), (large, large[5:, 7:1200]), (large, large[::-3, ::5]),
        (large.reshape(7, 11, -1), large.reshape(7, 11, -1).transpose(2, 0, 1)),
    ]  # fmt: skip
    for array, part in pieces:
        there = DeviceArray.from_host(array, 0)
        seen = same_view(there, array, part)
        np.testing.assert_array_equal(duplicate(seen).to_host(), part)
        copy(seen, DeviceArray.from_host(np.negative(part), 0))
        begin, expected = (part.ctypes.data - array.ctypes.data) // array.itemsize, array.copy()
        np.lib.stride_tricks.as_strided(expected.reshape(-1)[begin:], part.shape, part.strides)[...] = -part
        np.testing.assert_array_equal(there.to_host(), expected)
    rows = random.integers(0, 77, 500)
    part = DeviceArray.empty((500, large.shape[1]), large.dtype, 0)
    gather(part, DeviceArray.from_host(large, 0), rows)
    np.testing.assert_array_equal(part.to_host(), large[rows])
    target, values = DeviceArray.from_host(large, 0), random.integers(0, 255, (500, large.shape[1])).astype(dtype)
    scatter(target, rows, DeviceArray.from_host(values, 0))
    large[rows] = values
    np.testing.assert_array_equal(target.to_host(), large)
    out = DeviceArray.empty((1031,), np.dtype(dtype), 0)
    constant.fill(out[3:], 3)
    np.testing.assert_array_equal(out[3:].to_host(), np.full(1028, 3, dtype))


@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8"])
def test_digests_have_the_numbers_of_the_cpu(dtype: str) -> None:
    array = numbers((7, 9, length(40_000)), dtype)
    check_digest(array)
    check_digest(array, np.s_[1:, ::2, 3:], fill.Span(5, (1_000_000, 100_000, 1)))
    check_digest(array, np.s_[::-1, :, 4], fill.Span(7 * 500, (-400, 41)))


@pytest.mark.parametrize("rule, value, gradient, mode", UPDATES, ids=str)
def test_updates_have_the_bits_of_the_cpu(rule: str, value: Any, gradient: Any, mode: str) -> None:
    check_update(rule, value, gradient, mode)


def test_sums_of_rows_have_the_bits_of_the_cpu() -> None:
    rows = np.random.default_rng(2).standard_normal((40, length(50_000))).astype(np.float32)
    same(row_sums(DeviceArray.from_host(rows, 0), 40), row_sums(rows, 40))


def test_parts_of_tensors_are_written_on_the_device() -> None:
    values = np.random.default_rng(7).standard_normal((300, 200), np.float32)
    tensor, expected = Tensor(values, device="cuda"), values.copy()
    for index, value in [(np.s_[3:7], np.arange(200)), (np.s_[::-2, ::3], 7), ([5, 1, 5], values[:3]), (values > 1, 0)]:
        tensor[index] = value
        expected[index] = value
    np.testing.assert_array_equal(tensor.asnumpy(), expected)
    np.testing.assert_array_equal(tensor.T.astype("int16").asnumpy(), expected.T.astype(np.int16))


def test_threads_share_a_device() -> None:
    expected = [np.random.default_rng(seed).standard_normal(length(10**6)) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda values: Tensor(values, device="cuda")[::-1].asnumpy(), expected)
        for values, reversed_ in zip(expected, found, strict=True):
            np.testing.assert_array_equal(reversed_, values[::-1])


def test_devices_tell_their_memory() -> None:
    gpu = numparam.devices()[1]
    assert (gpu.device, bool(gpu.name)) == ("cuda:0", True)
    held = DeviceArray.empty((2**28,), np.dtype(np.uint8), 0)
    assert 0 < numparam.devices()[1].free <= gpu.total - held.nbytes


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


def test_the_context_of_another_library_comes_back() -> None:
    if len(numparam.devices()) < 3:
        pytest.skip("one GPU only")
    from cuda.bindings import driver
    from cuda.core import Device

    Device(1).set_current()
    before = int(driver.cuCtxGetCurrent()[1])
    values = np.arange(1000.0)
    np.testing.assert_array_equal(Tensor(values, device="cuda:0")[::-1].asnumpy(), values[::-1])
    assert int(driver.cuCtxGetCurrent()[1]) == before


def test_a_launch_that_the_driver_refuses_is_an_error() -> None:
    out = DeviceArray.empty((4,), np.dtype(np.float32), 0)
    with pytest.raises(RuntimeError, match="cuda:0 refuses kernel constant on grid"):
        _driver.get_driver().launch(0, constant.make_constant(), (1, 1), (2048, 1), (out.address, 16, 0, 0))
    constant.fill(out, 3)
    assert out.to_host().tolist() == [3, 3, 3, 3]


def test_too_little_memory_is_said_with_sizes() -> None:
    with pytest.raises(
        DeviceOutOfMemoryError, match=r"\d+ bytes were requested on cuda:0, which has \d+ of \d+ bytes free"
    ):
        Tensor(shape=(2**42,), init=numparam.initializer.Normal(), device="cuda").init_data()


def torch_with_a_gpu() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no GPU")
    return torch


def test_parameters_in_torch() -> None:
    torch = torch_with_a_gpu()
    numparam.set_seed(7)
    parameter = Parameter(initializer("normal", (300, 70), "bfloat16"), name="w")
    shared = torch.from_dlpack(parameter.to("cuda").init_data())
    assert (shared.device.type, shared.dtype) == ("cuda", torch.bfloat16)
    np.testing.assert_array_equal(shared.view(torch.int16).cpu().numpy(), parameter.asnumpy().view(np.int16))
    back = Tensor.from_dlpack(shared)
    assert (back.device, back.dtype) == ("cuda:0", parameter.dtype)
    np.testing.assert_array_equal(back.asnumpy(), parameter.asnumpy())
    eight = torch.from_dlpack(Tensor(np.arange(8).astype(ml_dtypes.float8_e5m2), device="cuda"))
    assert (eight.dtype, eight.float().cpu().tolist()) == (torch.float8_e5m2, [0, 1, 2, 3, 4, 5, 6, 7])
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        there = Tensor(np.ones(10**7, np.float32), device="cuda")
        assert torch.from_dlpack(there).sum().item() == 10**7
    foreign = torch.arange(12, device="cuda", dtype=torch.float32).reshape(3, 4)
    taken = Tensor.from_dlpack(foreign)._settle().array
    np.testing.assert_array_equal(taken.to_host(), np.arange(12).reshape(3, 4))
    constant.fill(taken, 2)
    assert foreign.sum().item() == 24
    assert Tensor.from_dlpack(foreign[:, 1:].T).fill(3).shape == (3, 3)
    assert foreign.sum().item() == 33


def test_parts_that_share_storage() -> None:
    tensor = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4), device="cuda")
    part = tensor.alias((slice(1, None), slice(None, None, 2)))
    part[...] = 5
    shared = Tensor.from_dlpack(part)
    assert (shared.strides, shared.tolist()) == (part.strides, [[5, 5], [5, 5]])
    shared[0] = 6
    assert tensor.tolist() == [[0, 1, 2, 3], [6, 5, 6, 7], [5, 9, 5, 11]]
    with pytest.raises(BufferError, match="copy it first"):
        tensor.alias(slice(None, None, -1)).__dlpack__()


def test_parameters_in_cupy() -> None:
    cupy = pytest.importorskip("cupy")
    tensor = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4), device="cuda")
    for shared in (cupy.asarray(tensor), cupy.from_dlpack(tensor)):
        np.testing.assert_array_equal(cupy.asnumpy(shared), tensor.asnumpy())
    np.testing.assert_array_equal(DeviceArray.from_foreign(cupy.arange(5)).to_host(), np.arange(5))


def test_parameters_in_jax() -> None:
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX has no GPU")
    tensor = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4), device="cuda")
    np.testing.assert_array_equal(np.asarray(jax.dlpack.from_dlpack(tensor)), tensor.asnumpy())
    taken = Tensor.from_dlpack(jax.numpy.arange(5, dtype="float32"))
    assert (taken.device, taken.tolist()) == ("cuda:0", [0, 1, 2, 3, 4])


def test_arrays_of_numba() -> None:
    from numba import cuda

    tensor = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4), device="cuda")
    np.testing.assert_array_equal(cuda.as_cuda_array(tensor).copy_to_host(), tensor.asnumpy())
    np.testing.assert_array_equal(Tensor.from_dlpack(cuda.to_device(np.arange(5))).asnumpy(), np.arange(5))


def test_memory_lives_as_long_as_who_shares_it() -> None:
    torch = torch_with_a_gpu()
    tensor = Tensor(np.arange(1000, dtype=np.float32), device="cuda")
    shared = torch.from_dlpack(tensor)
    del tensor
    gc.collect()
    others = [Tensor(np.full(1000, 7, np.float32), device="cuda") for _ in range(10)]
    np.testing.assert_array_equal(shared.cpu().numpy(), np.arange(1000, dtype=np.float32))
    assert all(other.asnumpy().min() == 7 for other in others)


def test_from_one_device_to_another() -> None:
    if len(numparam.devices()) < 3:
        pytest.skip("one GPU only")
    values = np.random.default_rng(7).standard_normal(10**6)
    there = Tensor(values, device="cuda:0").to("cuda:1")
    np.testing.assert_array_equal(there.asnumpy(), values)
    there[:1000] = Tensor(values[-1000:], device="cuda:0")
    np.testing.assert_array_equal(there[:1000].asnumpy(), values[-1000:])
