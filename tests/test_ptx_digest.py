"""The CUDA kernels of digests give the numbers of the CPU, by interpreting their PTX."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam.kernels.array import DeviceArray
from numparam.kernels.digest import DigestKey, cuda, digest
from numparam.kernels.fill import Span

pytestmark = needs_compiler

KEY = DigestKey.from_secret(b"key")


@pytest.fixture
def driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver
    cuda._tables.clear()


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    return np.random.default_rng(3).integers(0, 256, nbytes, np.uint8).view(dtype).reshape(shape)


def check(array: np.ndarray[Any, Any], index: Any = ..., span: Span | None = None) -> None:
    found = digest(DeviceArray.from_host(array, 0)[index], KEY, span)
    assert found == digest(array[index], KEY, span)


@pytest.mark.parametrize(
    "dtype", ["u1", "f4", *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("i2", "f2", "f8", "c16"))]
)
def test_runs_have_the_numbers_of_the_cpu(driver: InterpretedDriver, dtype: str) -> None:
    for size, base in [(0, 0), (1, 0), (130, 1000), (1024, 0), (2100, 7), (600, 2**43 - 300), (300, 2**44 - 150)]:
        check(numbers((size,), dtype), ..., Span(base, (1,)))
    check(np.full(1100, 255, "u1").view(dtype) if np.dtype(dtype).itemsize == 1 else np.full(1100, -1).astype(dtype))
    assert {name for name, _ in driver.launches} == {f"digest_{min(4, np.dtype(dtype).itemsize)}"}


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_slices_have_the_numbers_of_the_cpu(driver: InterpretedDriver, dtype: str) -> None:
    array = numbers((7, 9, 40), dtype)
    check(array, np.s_[1:, ::2, 3:], Span(5, (100_000, 1000, 1)))
    check(array, np.s_[::-1, :, ::-1], Span(7 * 500 + 9 * 41, (-400, 41, -1)))
    check(array.reshape(63, 40), np.s_[:, 4], Span(3, (40,)))
    check(numbers((2, 3, 2, 3, 2, 2, 7), dtype), ..., Span(11, (9**6, 8**5, 7**4, 6**3, 50, 20, 1)))
    assert driver.launches


def test_transposed_arrays_have_the_numbers_of_the_cpu(driver: InterpretedDriver) -> None:
    array = numbers((30, 50), "f4")
    there = DeviceArray.from_host(array, 0).transpose(1, 0)
    assert digest(there, KEY) == digest(array.T, KEY) == digest(np.ascontiguousarray(array.T), KEY)
    assert "digest_4" in {name for name, _ in driver.launches}


def test_what_is_too_long_for_a_launch_is_split(driver: InterpretedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LAUNCH_LIMIT", 8)
    check(numbers((5, 4, 6), "f4"), ..., Span(0, (100, 10, 1)))
    assert len(driver.launches) == 5


@pytest.mark.slow
def test_threads_take_several_rows_and_blocks(driver: InterpretedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MOST_THREADS", 2)
    check(numbers((5, 3000), "u1"), ..., Span(0, (4000, 1)))
    assert len(driver.launches) == 1
