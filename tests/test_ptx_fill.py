"""Every CUDA kernel of the fills has the bits of the CPU, by interpreting its PTX."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from interpreted_device import InterpretedDriver, interpreted, needs_compiler
from numparam.kernels import fill
from numparam.kernels.fill import constant
from ptx_interpreter import PtxError

pytestmark = needs_compiler

KEY = fill.Key(0x0123456789ABCDEF, 0xFEDCBA9876543210, 0x1122334455667788)
FLOATS = [
    np.dtype(kind)
    for kind in (
        np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
    )
]  # fmt: skip
DRAWS: dict[str, tuple[str, tuple[float, ...]]] = {
    "uniform": ("uniform", (-1.5, 0.25)),
    "either": ("either", (0.3, 2.0, -0.5)),
    "normal": ("normal", (0.5, 2.0)),
    "normal_within": ("truncated_normal", (0.5, 2.0, -100.0, 100.0)),
    "truncated_normal": ("truncated_normal", (0.1, 2.0, -3.0, 17.0)),
    "truncated_normal_symmetric": ("truncated_normal", (0.0, 0.02, -0.04, 0.04)),
}
CASES = [(draw, dtype) for draw in DRAWS for dtype in FLOATS] + [("bits", np.dtype(np.uint32))]
CASES.remove(("truncated_normal_symmetric", np.dtype(np.float64)))  # float64 has one formula for all bounds
cases = pytest.mark.parametrize("draw, dtype", CASES, ids=str)


@pytest.fixture
def driver() -> Iterator[InterpretedDriver]:
    with interpreted() as driver:
        yield driver


def write(draw: str, out: Any, span: fill.Span | None = None, key: fill.Key = KEY) -> None:
    if draw == "bits":
        fill.bits(out, key, span)
    else:
        entry, arguments = DRAWS[draw]
        getattr(fill, entry)(out, key, *arguments, span)


def bits(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.reshape(-1).view(f"u{array.itemsize}")


def check(draw: str, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, span: fill.Span | None) -> None:
    """Compare a fill of the tail of a device array, `offset` items after its 256-byte address."""
    from numparam.kernels.array import DeviceArray

    expected = np.empty(shape, dtype)
    write(draw, expected, span)
    whole = DeviceArray.empty((offset + expected.size,), dtype, 0)
    whole.write(np.zeros(offset + expected.size, dtype))
    write(draw, whole[offset:].reshape(shape), span)
    found = whole.to_host()
    assert not bits(found[:offset]).any()
    np.testing.assert_array_equal(bits(found[offset:]), bits(expected))


# The index of the first element of block 2**32, where the upper word of the counter begins to count.
HIGH = 2**34


@cases
def test_runs_have_the_bits_of_the_cpu(driver: InterpretedDriver, draw: str, dtype: np.dtype[Any]) -> None:
    check(draw, dtype, (4099,), 0, None)
    for size, offset, base in [
        (1, 0, 0), (2, 1, 3), (3, 5, 1), (17, 3, 3), (31, 2, 2), (64, 8, 8), (65, 4, 0), (70, 7, 9), (67, 12, 20),
        (301, 1, HIGH - 150), (260, 2, HIGH - 130), (77, 0, 2**62 + 5),
    ]:  # fmt: skip
        check(draw, dtype, (size,), offset, fill.Span(base, (1,)))
    assert {name for name, _ in driver.launches} == {f"fill_run_{draw}_{dtype}"}


@cases
def test_slices_have_the_bits_of_the_cpu(driver: InterpretedDriver, draw: str, dtype: np.dtype[Any]) -> None:
    check(draw, dtype, (37, 41), 0, fill.Span(5, (1000, 1)))  # columns
    check(draw, dtype, (5, 1, 9, 33), 3, fill.Span(HIGH - 77, (4096, 1, 64, 1)))
    check(draw, dtype, (2, 3, 2, 3, 2, 2, 7), 1, fill.Span(11, (9**6, 8**5, 7**4, 6**3, 50, 20, 1)))  # axes to split
    check(draw, dtype, (29, 31), 1, fill.Span(3, (2**40 + 64, 2**33 + 2)))
    check(draw, dtype, (29, 31), 0, fill.Span(HIGH + 29 * 64, (-64, -1)))
    check(draw, dtype, (3, 5, 7, 2), 2, fill.Span(1, (7, 400, 21, 3)))
    check(draw, dtype, (1000,), 0, fill.Span(HIGH - 500 * 3, (3,)))
    assert {name for name, _ in driver.launches} == {f"fill_{kind}_{draw}_{dtype}" for kind in ("run", "gather")}


@pytest.mark.parametrize(
    "draw, dtype",
    [("normal", np.dtype(np.float32)), pytest.param("uniform", np.dtype(np.float64), marks=pytest.mark.slow)],
    ids=str,
)
def test_rows_of_a_table_have_the_bits_of_the_cpu(driver: InterpretedDriver, draw: str, dtype: np.dtype[Any]) -> None:
    keys = np.array([3, -1, 2**63 - 1, 2**66 // 6 - 2**64, 0])  # the last but one crosses a block of 2**64 when 6 wide
    for dim in (1, 6, 70):
        check(draw, dtype, (5, dim), 0, fill.Rows(keys))
    assert {name for name, _ in driver.launches} == {f"fill_table_{draw}_{dtype}"}


@pytest.mark.parametrize("shape, launches", [((333,), 7), ((3, 120), 9), ((170, 3), 4), ((60, 7, 2), 9)])
def test_what_is_too_long_for_a_launch_is_split(
    driver: InterpretedDriver, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], launches: int
) -> None:
    from numparam.kernels.array import DeviceArray

    monkeypatch.setattr("numparam.kernels.formula.axes.LAUNCH_LIMIT", 50)
    monkeypatch.setattr(constant, "LAUNCH_LIMIT", 4)
    steps = {1: (2,), 2: (1000, 1), 3: (-999, 50, 3)}[len(shape)]
    check("normal", np.dtype(np.float32), shape, 3, fill.Span(HIGH, steps))
    assert len(driver.launches) == launches
    driver.launches.clear()
    out = DeviceArray.empty((3 + 100,), np.dtype(np.int16), 0)[3:]
    constant.fill(out, 7)
    np.testing.assert_array_equal(out.to_host(), np.full(100, 7))
    assert len(driver.launches) == 4


SPECIAL = [0, 1, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**31 + 1, 3 * 2**30, 2**32 - 2, 2**32 - 1]


def counter_of(words: tuple[int, int, int, int], seed: int) -> tuple[int, int]:
    """Return (block, stream) for which Philox gives these words: each of its rounds can be undone."""
    multiplier_0, multiplier_1, mask = 0xD2511F53, 0xCD9E8D57, 2**32 - 1
    a, b, c, d = words
    for step in reversed(range(10)):
        key_0, key_1 = (seed + step * 0x9E3779B9) & mask, ((seed >> 32) + step * 0xBB67AE85) & mask
        before_0, before_2 = d * pow(multiplier_0, -1, 2**32) & mask, b * pow(multiplier_1, -1, 2**32) & mask
        high_1, high_0 = before_2 * multiplier_1 >> 32, before_0 * multiplier_0 >> 32
        a, b, c, d = before_0, a ^ high_1 ^ key_0, before_2, c ^ high_0 ^ key_1
    return a | b << 32, c | d << 32


def counters_of_special_words(seed: int) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Yield blocks, small enough to be counted to, whose words 0 and 1 (or 2 and 3) are special."""
    random = np.random.default_rng(7)
    for pair in itertools.product(SPECIAL, SPECIAL):
        while True:
            others = tuple(int(word) for word in random.integers(2**32, size=2))
            block, stream = counter_of((*pair, *others), seed)
            if block < 2**61:
                break
        yield block, stream, pair


@cases
def test_tables_have_the_bits_of_the_cpu_on_special_words(
    driver: InterpretedDriver, draw: str, dtype: np.dtype[Any]
) -> None:
    from numparam.kernels.array import DeviceArray
    from numparam.kernels.batch import Batch
    from numparam.kernels.fill.cuda import CHUNK

    rows, expected = [], []
    with Batch():
        for block, stream, pair in counters_of_special_words(KEY.seed):
            key, span = KEY._replace(stream=stream), fill.Span(4 * block, (1,))
            words = np.empty(2, np.uint32)
            fill.bits(words, key, span)
            assert tuple(words.tolist()) == pair
            rows.append(DeviceArray.empty((4,), dtype, 0))
            expected.append(np.empty(4, dtype))
            write(draw, rows[-1], span, key)
            write(draw, expected[-1], span, key)
        for size, offset in [(1, 1), (7, 3), (CHUNK + 18, 2)]:
            span = fill.Span(HIGH - 3, (1,))
            rows.append(DeviceArray.empty((offset + size,), dtype, 0)[offset:])
            expected.append(np.empty(size, dtype))
            write(draw, rows[-1], span)
            write(draw, expected[-1], span)
    assert [name for name, _ in driver.launches] == [f"fill_table_{draw}_{dtype}"]
    for row, values in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(bits(row.to_host()), bits(values))


@pytest.mark.parametrize(
    "dtype", [*FLOATS, *map(np.dtype, ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "c8", "c16"))], ids=str
)
@pytest.mark.parametrize("together", [False, True])
def test_constants_have_the_bits_of_numpy(driver: InterpretedDriver, dtype: np.dtype[Any], together: bool) -> None:
    from numparam.kernels.array import DeviceArray
    from numparam.kernels.batch import Batch

    value = 3 - 4j if dtype.kind == "c" else 3
    wholes = []
    with Batch() if together else nullcontext():
        for size, offset in [(1, 0), (1, 1), (5, 1), (33, 3), (1025, 0), (1000, 5), (40, 8)]:
            wholes.append((DeviceArray.empty((offset + size,), dtype, 0), offset))
            wholes[-1][0].write(np.zeros(offset + size, dtype))
            constant.fill(wholes[-1][0][offset:], value)
    for whole, offset in wholes:
        expected = np.zeros(whole.shape, dtype)
        expected[offset:] = value
        np.testing.assert_array_equal(whole.to_host().view(np.uint8), expected.view(np.uint8))
    assert driver.launches == ([("constant_table", 0)] if together else [("constant", 0)] * len(wholes))


def test_a_store_outside_the_array_is_seen(driver: InterpretedDriver) -> None:
    from numparam.kernels.array import DeviceArray

    out = DeviceArray.empty((64,), np.dtype(np.float32), 0)
    out.shape = (65,)
    fill.normal(out, KEY, 0.0, 1.0)
    with pytest.raises(PtxError, match="outside every array"):
        driver.record(0).sync()
