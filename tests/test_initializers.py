"""Initializers make the values that their formulas say, and every slice is the slice of the whole, bit for bit."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

import numparam
from numparam import initializer as module
from numparam.indexing.region import Region
from numparam.initializer import (
    Constant,
    CorrectedTruncatedNormal,
    Dirac,
    HeNormal,
    HeUniform,
    Identity,
    Initializer,
    LecunNormal,
    LecunUniform,
    Normal,
    One,
    Orthogonal,
    Sparse,
    TruncatedNormal,
    Uniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
    Zero,
    initializer,
)
from numparam.stream.source import Source
from ramp import Ramp


class Mixture(Initializer):
    def fill(self, out: np.ndarray, region: Region, source: Source) -> None:
        other = np.empty_like(out)
        source.normal(out, region, 0.0, 1.0)
        source.uniform(other, region, 0.0, 1.0, label="choice")
        out[other < 0.5] *= 10


RANDOM = [
    Normal(0.5, 1.0),
    Uniform(0.3),
    TruncatedNormal(1.0, 0.2, -0.5, 0.7),
    CorrectedTruncatedNormal(0.1),
    XavierNormal(),
    XavierUniform(2.0),
    HeNormal(mode="FAN_OUT"),
    HeUniform(0.1),
    LecunNormal(),
    LecunUniform(),
    *(
        VarianceScaling(2.0, mode, distribution)
        for mode in ("fan_in", "fan_out", "fan_avg")
        for distribution in ("truncated_normal", "untruncated_normal", "uniform")
    ),
]
FIXED = [Zero(), One(), Constant(-3), Ramp(), Mixture(), Orthogonal(1.5)]
SHAPED = [
    *((init, (7, 9)) for init in [*RANDOM, *FIXED, Sparse(0.4), Identity()]),
    *((init, (6, 4, 3, 3)) for init in [*RANDOM, *FIXED, Dirac(), Dirac(2), Dirac(3)]),
    (Dirac(2), (8, 3, 4)),
    (Identity(), (9, 4)),
    (Sparse(1.0), (5, 40)),
    (Normal(), ()),
    (Normal(), (11,)),
    (Normal(), (0, 3)),
    (XavierUniform(), (0, 3)),
    (XavierUniform(), (0, 0)),
    (Sparse(0.5), (0, 3)),
    (Orthogonal(), (3, 0)),
    (Identity(), (0, 3)),
    (Dirac(), (0, 3, 1)),
]


def whole(init: Initializer, shape: tuple[int, ...], dtype: Any = "float32", name: str = "w") -> np.ndarray:
    return numparam.Parameter(initializer(init, shape, dtype), name=name).asnumpy()


@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("init, shape", SHAPED, ids=repr)
@given(data=st.data())
def test_slice_is_the_slice_of_the_whole(init: Initializer, shape: tuple[int, ...], data: st.DataObject) -> None:
    numparam.set_seed(7)
    lazy = numparam.Parameter(initializer(init, shape), name="w")
    expected = whole(init, shape)
    first = data.draw(basic_indices(shape, allow_newaxis=True, max_dims=6))
    second = data.draw(basic_indices(expected[first].shape, allow_newaxis=True, max_dims=6))
    found = lazy[first][second].asnumpy()
    assert lazy.has_init
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.shape == expected[first][second].shape
    assert found.tobytes() == np.ascontiguousarray(expected[first][second]).tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("init", [*RANDOM, Sparse(0.3), Orthogonal(), Identity(), Constant(0.5)], ids=repr)
def test_dtype_changes_the_precision_only(init: Initializer, dtype: str) -> None:
    numparam.set_seed(7)
    exact = whole(init, (16, 12), "float64")
    found = whole(init, (16, 12), dtype)
    assert found.dtype == numparam.dtypes.as_dtype(dtype)
    digits = {"float16": 10, "bfloat16": 7, "float32": 20, "float64": 52, "float8_e4m3fn": 3, "float8_e5m2": 2}[dtype]
    assert np.allclose(found.astype(np.float64), exact, rtol=2.0**-digits, atol=2.0**-8 if "float8" in dtype else 1e-6)


STANDARD_DEVIATIONS = [
    (Normal(0.5, 1.0), 0.5),
    (Uniform(0.3), 0.3 / math.sqrt(3)),
    (CorrectedTruncatedNormal(0.1), 0.1),
    (XavierNormal(2.0), 2 * math.sqrt(2 / 1000)),
    (XavierUniform(2.0), 2 * math.sqrt(2 / 1000)),
    (HeNormal(), math.sqrt(2 / 600)),
    (HeUniform(), math.sqrt(2 / 600)),
    (HeNormal(mode="fan_out"), math.sqrt(2 / 400)),
    (HeNormal(1.0), math.sqrt(1 / 600)),
    (HeNormal(None), math.sqrt(2 / (1 + 0.01**2) / 600)),
    (HeUniform(nonlinearity="tanh"), 5 / 3 / math.sqrt(600)),
    (HeUniform(nonlinearity="relu"), math.sqrt(2 / 600)),
    (HeUniform(nonlinearity="conv_transpose2d"), math.sqrt(1 / 600)),
    (LecunNormal(), math.sqrt(1 / 600)),
    (LecunUniform(), math.sqrt(1 / 600)),
    (VarianceScaling(), math.sqrt(1 / 600)),
    (VarianceScaling(3.0, "fan_out"), math.sqrt(3 / 400)),
    (VarianceScaling(3.0, "fan_avg", "untruncated_normal"), math.sqrt(3 / 500)),
    (VarianceScaling(3.0, "fan_avg", "uniform"), math.sqrt(3 / 500)),
]


@pytest.mark.parametrize("init, sigma", STANDARD_DEVIATIONS, ids=repr)
def test_standard_deviation(init: Initializer, sigma: float) -> None:
    numparam.set_seed(7)
    values = whole(init, (400, 600))
    # Four standard errors of 240,000 values.
    assert values.std() == pytest.approx(sigma, rel=4 / math.sqrt(2 * values.size))
    assert values.mean() == pytest.approx(getattr(init, "mean", 0.0), abs=4 * sigma / math.sqrt(values.size))


UNIFORM_BOUNDS = [
    (Uniform(0.25), 0.25),
    (Uniform(-0.25), 0.25),
    (XavierUniform(), math.sqrt(6 / 1000)),
    (HeUniform(), math.sqrt(6 / 600)),
    (LecunUniform(), math.sqrt(3 / 600)),
    (VarianceScaling(2.0, distribution="uniform"), math.sqrt(6 / 600)),
    (VarianceScaling(2.0), 2 * math.sqrt(2 / 600) / 0.87962566103423978),
    (LecunNormal(), 2 * math.sqrt(1 / 600) / 0.87962566103423978),
    (CorrectedTruncatedNormal(0.5), 1 / 0.87962566103423978),
]


@pytest.mark.parametrize("init, bound", UNIFORM_BOUNDS, ids=repr)
def test_bounds_are_reached_and_never_crossed(init: Initializer, bound: float) -> None:
    numparam.set_seed(7)
    values = whole(init, (400, 600))
    for extreme in (-values.min(), values.max()):
        assert 0.998 * bound < extreme <= bound * (1 + 2**-23)


def test_truncated_normal_has_absolute_bounds() -> None:
    numparam.set_seed(7)
    values = whole(TruncatedNormal(1.0, 0.0, -0.5, 3.0), (300, 300))
    assert -0.5 <= values.min() < -0.499
    assert 2.5 < values.max() <= 3.0
    assert whole(TruncatedNormal(), (300, 300)).std() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("mean, expected", [(0.0, 0.0), (9.0, 2.0), (-9.0, -2.0)])
def test_truncated_normal_without_spread(mean: float, expected: float) -> None:
    assert (whole(TruncatedNormal(0, mean), (3,)) == expected).all()


@pytest.mark.parametrize("init", [Normal(0, 3.0), CorrectedTruncatedNormal(0, 3.0)], ids=repr)
def test_no_spread_gives_the_mean(init: Initializer) -> None:
    assert (whole(init, (3,)) == 3.0).all()


def test_fans_of_a_slice_are_those_of_the_whole() -> None:
    lazy = initializer(HeUniform(nonlinearity="linear"), (64, 2**20, 3, 3))
    bound = math.sqrt(3 / (2**20 * 9))
    values = lazy[:8, ::65536].asnumpy()
    assert 0.9 * bound < abs(values).max() <= bound * (1 + 2**-23)


def test_lengths_of_the_kernel_count_as_inputs_and_outputs() -> None:
    assert module.fan.fans((8, 4, 3, 5)) == (60, 120)


def test_scales_of_the_same_draw_are_proportional() -> None:
    numparam.set_seed(7)
    assert np.allclose(whole(Normal(2.0), (50,)), 2 * whole(Normal(1.0), (50,)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3)])
def test_identity(shape: tuple[int, int]) -> None:
    assert np.array_equal(whole(Identity(), shape), np.eye(*shape))


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("shape", [(6, 4, 3), (6, 2, 3, 4), (6, 8, 1, 2, 5)])
def test_dirac(groups: int, shape: tuple[int, ...]) -> None:
    expected = np.zeros(shape)
    outputs = shape[0] // groups
    for group in range(groups):
        for channel in range(min(outputs, shape[1])):
            expected[(group * outputs + channel, channel, *(length // 2 for length in shape[2:]))] = 1
    assert np.array_equal(whole(Dirac(groups), shape), expected)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "bfloat16", "complex64"])
@pytest.mark.parametrize("init, shape", [(Identity(), (3, 4)), (Dirac(), (3, 4, 1)), (One(), (3, 4))], ids=repr)
def test_fixed_values_for_every_dtype(init: Initializer, shape: tuple[int, ...], dtype: str) -> None:
    found = whole(init, shape, dtype)
    assert found.dtype == numparam.dtypes.as_dtype(dtype)
    assert np.array_equal(found.astype(np.float32).real, whole(init, shape)) if dtype != "complex64" else True
    assert np.array_equal(found.real.astype(np.float32), whole(init, shape))


@pytest.mark.parametrize("sparsity", [0, 0.1, 0.34, 0.5, 1])
def test_sparse_zeros_of_each_column(sparsity: float) -> None:
    numparam.set_seed(7)
    values = whole(Sparse(sparsity, 0.5), (37, 50))
    assert ((values == 0).sum(axis=0) == math.ceil(sparsity * 37)).all()
    dense = whole(Normal(0.5), (37, 50))
    assert np.array_equal(values[values != 0], dense[values != 0])


def test_sparse_zeros_differ_between_columns_and_are_spread_over_the_rows() -> None:
    numparam.set_seed(7)
    zero = whole(Sparse(0.5), (40, 4000)) == 0
    assert len({column.tobytes() for column in zero.T}) == 4000
    assert abs(zero.mean(axis=1) - 0.5).max() < 5 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5), (4, 3, 2), (3, 4, 5), (1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_orthogonal(shape: tuple[int, ...], dtype: str) -> None:
    numparam.set_seed(7)
    matrix = whole(Orthogonal(2.0), shape, dtype).reshape(shape[0], -1)
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    assert np.allclose(product, 4 * np.eye(len(product)), atol=1e-14 if dtype == "float64" else 1e-5)


def test_orthogonal_is_the_sign_fixed_factor_of_the_draw() -> None:
    numparam.set_seed(7)
    matrix, draw = whole(Orthogonal(), (6, 4)), whole(Normal(1.0), (6, 4))
    triangle = matrix.T @ draw
    assert np.allclose(np.tril(triangle, -1), 0, atol=1e-5)
    assert (np.diagonal(triangle) > 0).all()


@pytest.mark.parametrize(
    "name, expected",
    {
        "zero": Zero,
        "Zeros": Zero,
        "one": One,
        "ONES": One,
        "normal": Normal,
        "uniform": Uniform,
        "truncatednormal": TruncatedNormal,
        "truncated_normal": TruncatedNormal,
        "TruncatedNormal": TruncatedNormal,
        "corrected_truncated_normal": CorrectedTruncatedNormal,
        "xavier_normal": XavierNormal,
        "xaviernormal": XavierNormal,
        "xavier_uniform": XavierUniform,
        "xavieruniform": XavierUniform,
        "glorot_normal": XavierNormal,
        "glorotnormal": XavierNormal,
        "glorot_uniform": XavierUniform,
        "glorotuniform": XavierUniform,
        "he_normal": HeNormal,
        "henormal": HeNormal,
        "he_uniform": HeUniform,
        "heuniform": HeUniform,
        "kaiming_normal": HeNormal,
        "kaimingnormal": HeNormal,
        "kaiming_uniform": HeUniform,
        "kaiminguniform": HeUniform,
        "lecun_normal": LecunNormal,
        "lecunnormal": LecunNormal,
        "lecun_uniform": LecunUniform,
        "lecununiform": LecunUniform,
        "variancescaling": VarianceScaling,
        "varianceScaling": VarianceScaling,
        "variance_scaling": VarianceScaling,
        "orthogonal": Orthogonal,
        "identity": Identity,
    }.items(),
)
def test_names(name: str, expected: type[Initializer]) -> None:
    assert type(initializer(name, (4, 4)).init) is expected


def test_dirac_by_name_and_second_names_of_classes() -> None:
    assert type(initializer("dirac", (4, 4, 3)).init) is Dirac
    assert (module.KaimingNormal, module.KaimingUniform) == (HeNormal, HeUniform)
    assert (module.GlorotNormal, module.GlorotUniform) == (XavierNormal, XavierUniform)


@pytest.mark.parametrize("number", [3, 2.5, True, np.float32(0.5), np.int8(-1), np.True_])
def test_number_is_a_constant(number: Any) -> None:
    assert (initializer(number, (2, 3)).asnumpy() == np.float32(number)).all()


def test_tensor_is_returned_as_it_is() -> None:
    tensor = numparam.Tensor([[1.0, 2.0]])
    assert initializer(tensor, (1, 2), "int8") is tensor
    assert initializer(tensor) is tensor


def test_arguments_are_attributes() -> None:
    he = HeNormal(0.2, "fan_out", "relu")
    assert (he.negative_slope, he.mode, he.nonlinearity) == (0.2, "fan_out", "relu")
    truncated = TruncatedNormal(1, 2, -3, 4)
    assert (truncated.sigma, truncated.mean, truncated.a, truncated.b) == (1, 2, -3, 4)
    assert (Sparse(0.1).sparsity, Dirac(3).groups, Constant(5).value, Orthogonal(2).gain) == (0.1, 3, 5, 2)
    assert repr(VarianceScaling()) == "VarianceScaling(scale=1.0, mode='fan_in', distribution='truncated_normal')"


@pytest.mark.parametrize("layout", ["C", "F", "strided", "swapped"])
def test_calling_fills_an_array_in_place(layout: str) -> None:
    numparam.set_seed(7)
    expected = initializer(Normal(1.0), (4, 6)).asnumpy()
    base = np.zeros((8, 12), np.float32)
    arr = {
        "C": np.zeros((4, 6), np.float32),
        "F": np.zeros((4, 6), np.float32, order="F"),
        "strided": base[::2, ::-2],
        "swapped": np.zeros((4, 6), np.dtype("float32").newbyteorder()),
    }[layout]
    numparam.set_seed(7)
    assert Normal(1.0)(arr) is None  # type: ignore[func-returns-value]
    assert np.array_equal(arr, expected)


def test_calling_again_draws_again_and_a_seed_of_its_own_counts() -> None:
    one, two = np.zeros(5, np.float32), np.zeros(5, np.float32)
    normal = Normal()
    normal(one)
    normal(two)
    assert not np.array_equal(one, two)
    normal.seed = 5
    numparam.set_seed(5)
    normal(one)
    numparam.set_seed(5)
    Normal()(two)
    assert np.array_equal(one, two)


def test_calling_on_nothing_does_nothing() -> None:
    Orthogonal()(np.zeros((0, 3), np.float32))


def test_whole_array_method_of_a_subclass_replaces_that_of_its_parent() -> None:
    class Fours(Normal):
        def _initialize(self, arr: np.ndarray) -> None:
            arr[...] = 4

    assert (initializer(Fours(), (3, 3))[1].asnumpy() == 4).all()


def test_a_subclass_that_fills_in_its_own_way_declares_what_it_can_do() -> None:
    class Full(Normal):
        def _initialize(self, arr: np.ndarray) -> None:
            arr[...] = 4

    class Own(Orthogonal):
        def fill(self, out: np.ndarray, region: Region, source: Source) -> None:
            source.normal(out, region, 0.0, 2.0)

    class Same(Normal):
        pass

    class Declared(Normal):
        on_device = True

        def fill(self, out: np.ndarray, region: Region, source: Source) -> None:
            source.normal(out, region, 0.0, 2.0)

    found = [(init.on_device, init.needs_full) for init in (Full, Own, Same, Declared, Orthogonal, Normal)]
    assert found == [(False, True), (False, False), (True, False), (True, False), (False, True), (True, False)]


def test_keyword_arguments_of_mindspore_subclasses() -> None:
    class Filled(Initializer):
        def __init__(self, value: float) -> None:
            super().__init__(value=value)
            self.value = value

        def _initialize(self, arr: np.ndarray) -> None:
            arr.fill(self.value)

    assert (initializer(Filled(2.0), 3).asnumpy() == 2).all()
    assert repr(Filled(2.0)) == "Filled(value=2.0)"


def test_draws_of_different_labels_are_independent() -> None:
    source, region = Source(7, "w"), Region.full((100_000,))
    one, two = np.empty(100_000, np.float64), np.empty(100_000, np.float64)
    source.normal(one, region, 0.0, 1.0)
    source.normal(two, region, 0.0, 1.0, label="other")
    assert abs(np.corrcoef(one, two)[0, 1]) < 5 / math.sqrt(100_000)


@pytest.mark.parametrize(
    "label", ["refine", "refinex", "sparse", "noise", "left", "right", "u1", "gff", "d0", "x" * 11, "é" * 6, "noise\0"]
)
def test_labels_that_name_other_draws_are_refused(label: str) -> None:
    out = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"label .* names a draw of numparam; choose another|a label has at most 10"):
        Source(7, "w").normal(out, Region.full((3,)), 0.0, 1.0, label)
    assert not out.any()
    for free in ("u", "dg", "Noise", "step 3"):
        Source(7, "w").normal(out, Region.full((3,)), 0.0, 1.0, free)
