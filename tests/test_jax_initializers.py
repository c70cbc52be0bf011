"""A function of `numparam.jax.initializer` stands where one of `jax.nn.initializers` would, with its distribution."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import numparam
from jax_devices import jax, sharding
from numparam import Parameter
from numparam import initializer as initializers
from numparam.indexing.region import Region
from numparam.initializer import Dirac, Initializer, Normal, Orthogonal, Sparse, VarianceScaling
from numparam.jax import Kernel, initializer
from numparam.kernels import orthogonal
from numparam.stream.source import Source

MATRIX, CONVOLUTION = (256, 384), (3, 5, 64, 96)  # inputs and outputs differ, so that swapped fans show
NAMES = [
    f"{who}_{what}" for who in ("glorot", "xavier", "he", "kaiming", "lecun") for what in ("normal", "uniform")
] + ["normal", "uniform", "truncated_normal"]  # fmt: skip
P = jax.sharding.PartitionSpec


def same_distribution(ours: Any, theirs: Any) -> bool:
    """Compare the ends, the spread and the whole distribution function (Kolmogorov and Smirnov) of two samples."""
    ours, theirs = np.ravel(ours), np.ravel(theirs)
    bounded = abs(theirs).max() < 2.5 * theirs.std()
    ends = [(ours.min(), theirs.min()), (ours.max(), theirs.max())] if bounded else []
    return (
        all(abs(one - other) < 0.01 * theirs.std() for one, other in ends)
        and abs(ours.std() / theirs.std() - 1) < 0.01
        and stats.ks_2samp(ours, theirs).pvalue > 1e-3
    )


def values_of(name: str, init: Any, shape: tuple[int, ...], dtype: Any = "float32") -> Any:
    numparam.set_seed(7)
    return Parameter(initializers.initializer(init, shape, dtype), name=name).asnumpy()


@pytest.mark.parametrize("shape", [MATRIX, CONVOLUTION], ids=["matrix", "HWIO"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_what_it_means_in_jax(name: str, shape: tuple[int, ...]) -> None:
    theirs: Any = getattr(jax.nn.initializers, name)
    key = jax.random.key(7)
    drawn = theirs()(key, shape)
    assert same_distribution(initializer(name, "w")(key, shape), drawn)
    assert not same_distribution(initializer(name, "w")(key, shape), 1.02 * drawn)


@pytest.mark.parametrize("name", ["zeros", "ones"])
def test_constants(name: str) -> None:
    theirs = getattr(jax.nn.initializers, name)
    np.testing.assert_array_equal(initializer(name, "b", seed=0)(None, (3,)), theirs(None, (3,)))
    np.testing.assert_array_equal(initializer(2.5, "b", seed=0)(None, (3,)), np.full(3, 2.5))


AXES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((128, 8, 48), {"in_axis": 0, "out_axis": (1, 2)}),
    ((8, 32, 96), {"in_axis": (0, 1), "out_axis": -1}),
    ((6, 128, 96), {"batch_axis": 0}),
    ((500, 128), {"in_axis": 0, "out_axis": 0}),
]


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("shape, axes", AXES)
def test_other_axes(shape: tuple[int, ...], axes: dict[str, Any], mode: str) -> None:
    key = jax.random.key(3)
    theirs = jax.nn.initializers.variance_scaling(2.0, mode, "uniform", **axes)(key, shape)
    ours = initializer(Kernel(VarianceScaling(2.0, mode, "uniform"), **axes), "w")(key, shape)
    assert same_distribution(ours, theirs)


def test_axes_of_the_weight_count_where_they_stand_in_jax() -> None:
    wide = np.asarray(initializer("orthogonal", "w", seed=7)(None, (2, 3, 5, 40))).reshape(30, 40)
    np.testing.assert_allclose(wide @ wide.T, np.eye(30), atol=1e-6)
    theirs = np.asarray(jax.nn.initializers.orthogonal()(jax.random.key(0), (2, 3, 5, 40))).reshape(30, 40)
    np.testing.assert_allclose(theirs @ theirs.T, np.eye(30), atol=1e-5)
    dirac = np.asarray(initializer(Dirac(), "w", seed=7)(None, (3, 3, 4, 6)))
    np.testing.assert_array_equal(dirac[1, 1], np.eye(4, 6))
    assert dirac.sum() == 4
    sparse = np.asarray(initializer(Sparse(0.25), "w", seed=7)(None, (4, 8)))
    np.testing.assert_array_equal((sparse == 0).sum(axis=1), [2, 2, 2, 2])
    heads = np.asarray(initializer(Kernel(Orthogonal(), 0, (1, 2)), "w", seed=7)(None, (12, 2, 3))).reshape(12, 6)
    np.testing.assert_allclose(heads.T @ heads, np.eye(6), atol=1e-6)


@pytest.mark.parametrize("init", [Orthogonal(), Sparse(0.5), VarianceScaling(mode="fan_avg"), Normal()], ids=repr)
def test_a_part_of_a_kernel_is_that_of_the_whole(init: Initializer) -> None:
    lazy = initializers.initializer(Kernel(init), (16, 24))
    part = lazy[3:9, ::-2]
    np.testing.assert_array_equal(part.asnumpy(), lazy.asnumpy()[3:9, ::-2])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", None])
def test_values_are_those_of_the_parameter(dtype: str | None) -> None:
    made = initializer(Normal(0.02), "layers.0.kernel", seed=7)(None, MATRIX, dtype)
    expected = values_of("layers.0.kernel", Normal(0.02), MATRIX, dtype or "float32")
    assert made.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(made).view(np.uint8), expected.view(np.uint8))


def test_dtypes_follow_x64_as_in_jax() -> None:
    make = initializer("normal", "w", seed=7)
    assert make(None, (2,), np.float64).dtype == make(None, (2,), None).dtype == np.float32
    with jax.enable_x64(True):
        assert make(None, (2,), np.float64).dtype == make(None, (2,), None).dtype == np.float64


# --------------------------------------------------------------------------- keys


def test_a_key_gives_the_seed() -> None:
    make = initializer(Normal(0.02), "w")
    expected = values_of("w", Normal(0.02), MATRIX)
    for key in (jax.random.key(7), jax.random.PRNGKey(7), np.array([0, 7], np.uint32)):
        np.testing.assert_array_equal(make(key, MATRIX), expected)
    upper = make(np.array([3, 7], np.uint32), MATRIX)
    np.testing.assert_array_equal(upper, initializer(Normal(0.02), "w", seed=3 * 2**32 + 7)(None, MATRIX))
    drawn = [np.asarray(make(key, (8,))) for key in jax.random.split(jax.random.key(7), 3)]
    assert len({values.tobytes() for values in drawn}) == 3


def test_long_keys_are_hashed() -> None:
    make = initializer("normal", "w")
    key = jax.random.key(7, impl="rbg")  # the words 0, 7, 0, 7
    np.testing.assert_array_equal(make(key, (8,)), jax.jit(make, static_argnums=1)(key, (8,)))
    others = [make(jax.random.key(other, impl="rbg"), (8,)) for other in (7, 8)]
    np.testing.assert_array_equal(make(key, (8,)), others[0])
    assert not np.array_equal(others[0], others[1])


def test_a_seed_comes_before_the_key() -> None:
    own = Normal(0.02)
    own.seed = 7
    expected = values_of("w", Normal(0.02), (8,))
    for make in (initializer(Normal(0.02), "w", seed=7), initializer(own, "w")):
        for key in (None, jax.random.key(3)):
            np.testing.assert_array_equal(make(key, (8,)), expected)
    np.testing.assert_array_equal(initializer(own, "w", seed=8)(None, (8,)), expected)
    np.testing.assert_array_equal(initializer(Kernel(own), "w", seed=8)(None, (8,)), expected)


def test_the_seed_of_numparam_and_its_numbers_are_left_alone() -> None:
    numparam.set_seed(1)
    before = initializers.initializer("normal", 4).asnumpy()
    numparam.set_seed(1)
    initializer("normal", "w")(jax.random.key(7), (4,))
    np.testing.assert_array_equal(initializers.initializer("normal", 4), before)


# --------------------------------------------------------------------------- jit, vmap and shardings


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("seed", [None, 7])
def test_jit_gives_the_same_values(seed: int | None, dtype: str) -> None:
    make = partial(initializer("lecun_normal", "w", seed), shape=(48, 64), dtype=dtype)
    np.testing.assert_array_equal(jax.jit(make)(jax.random.key(7)), make(jax.random.key(7)))


def test_jit_needs_no_key_where_there_is_a_seed() -> None:
    make = initializer("normal", "w", seed=7)
    np.testing.assert_array_equal(jax.jit(lambda: make(None, (8,)))(), make(None, (8,)))


def test_vmap_gives_each_key_its_values() -> None:
    make, keys = initializer("normal", "w"), jax.random.split(jax.random.key(7), 3)
    stacked = jax.vmap(lambda key: make(key, (4, 5)))(keys)
    np.testing.assert_array_equal(stacked, np.stack([make(key, (4, 5)) for key in keys]))


def test_shapes_are_known_without_values() -> None:
    shape = jax.eval_shape(lambda key: initializer("normal", "w")(key, (2**30, 2**30), "bfloat16"), jax.random.key(0))
    assert (shape.shape, shape.dtype) == ((2**30, 2**30), numparam.bfloat16)


class Recorder(Normal):
    """Remember which regions were asked for."""

    def __init__(self) -> None:
        super().__init__(0.02)
        self._shapes: list[tuple[int, ...]] = []

    def fill(self, out: Any, region: Region, source: Source) -> None:
        self._shapes.append(region.shape)
        super().fill(out, region, source)


def under_jit(make: Callable[..., Any], cut: Any) -> Any:
    return jax.jit(lambda key: make(key, (48, 64), out_sharding=cut))(jax.random.key(7))


def eagerly(make: Callable[..., Any], cut: Any) -> Any:
    return make(jax.random.key(7), (48, 64), out_sharding=cut)


@pytest.mark.parametrize("way", [eagerly, under_jit])
@pytest.mark.parametrize("spec, parts", [(("a", "b"), (24, 16)), ((("a", "b"),), (6, 64)), ((None, "b"), (48, 16))])
def test_a_sharding_lets_every_device_make_its_part(way: Any, spec: tuple[Any, ...], parts: tuple[int, ...]) -> None:
    recorder, cut = Recorder(), sharding((2, 4), *spec)
    made = way(initializer(recorder, "w"), cut)
    jax.block_until_ready(made)
    assert made.sharding.is_equivalent_to(cut, 2)
    assert set(recorder._shapes) == {parts}
    np.testing.assert_array_equal(made, values_of("w", Normal(0.02), (48, 64)))


@pytest.mark.parametrize("way", [eagerly, under_jit])
def test_a_spec_means_the_mesh_around(way: Any) -> None:
    with jax.set_mesh(jax.make_mesh((2, 4), ("a", "b"))):
        made = way(initializer(Normal(0.02), "w"), P("a", "b"))
    assert made.sharding.spec == P("a", "b")
    np.testing.assert_array_equal(made, values_of("w", Normal(0.02), (48, 64)))


def test_jit_may_lay_the_values_out_afterwards() -> None:
    cut = sharding((2, 4), "a", "b")
    make = initializer(Normal(0.02), "w", seed=7)
    made = jax.jit(lambda: make(None, (48, 64)), out_shardings=cut)()
    assert made.sharding.is_equivalent_to(cut, 2)
    np.testing.assert_array_equal(made, values_of("w", Normal(0.02), (48, 64)))


# --------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: initializer("normal", "w")(None, (2,)), ValueError, "parameter 'w' needs a key, or a seed"),
        (
            lambda: initializer("normal", "w")(np.zeros((3, 2), np.uint32), (2,)),
            ValueError,
            r"found keys of shape \(3,",
        ),
        (lambda: initializer("lecun_normal", "w", 7)(None, (2,)), ValueError, "parameter 'w': LecunNormal.* 2 or more"),
        (lambda: initializer("normal", "w", 7)(None, (2,), "int32"), TypeError, "parameter 'w': Normal.* dtype int32"),
        (lambda: initializer("lecun", "w"), ValueError, "no initializer is called 'lecun'"),
        (lambda: initializer(None, "w"), TypeError, "found None"),
        (lambda: initializer("normal", 3), TypeError, "the name of a parameter is a str, found 3"),
        (lambda: initializer("normal", "w", -1), ValueError, "a seed is an int from 0"),
        (lambda: Kernel("normal"), TypeError, "Kernel reads the shape for an Initializer, found 'normal'"),
        (
            lambda: initializer(Kernel(VarianceScaling(), in_axis=2), "w", 7)(None, (2, 3)),
            ValueError,
            r"parameter 'w': Kernel\(.*in_axis=2.* needs a shape with these axes, found \(2, 3\)",
        ),
        (
            lambda: initializer(Kernel(Orthogonal(), 0, 0), "w", 7)(None, (2, 3)),
            ValueError,
            "inputs and outputs on different axes",
        ),
        (
            lambda: initializer("normal", "w", 7)(None, (6, 8), out_sharding=sharding((2, 4), "b")),
            ValueError,
            "parameter 'w': .* axis 0 is partitioned 4 times",
        ),
    ],
)
def test_errors_say_what_is_wrong(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_fans() -> None:
    assert Kernel(VarianceScaling()).fans((3, 3, 8, 16)) == (72, 144)
    assert Kernel(VarianceScaling(), batch_axis=0).fans((5, 8, 16)) == (8, 16)
    assert math.prod(Kernel(VarianceScaling(), 0, (1, -1)).fans((8, 16))) == 8 * 16


def test_a_wrapped_initializer_that_needs_the_full_tensor_is_decomposed_once_when_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decompose, calls = orthogonal.orthogonalise, []
    monkeypatch.setattr(orthogonal, "orthogonalise", lambda matrix: calls.append(matrix.shape) or decompose(matrix))
    monkeypatch.setattr("numparam.entry.BUFFER_BYTES", 1024)
    lazy = numparam.Parameter(initializers.initializer(Kernel(Orthogonal()), (3, 64, 48)), name="w")
    numparam.save_checkpoint({"w": lazy}, tmp_path / "w.safetensors")
    assert calls == [(192, 48)]
    saved = numparam.load_checkpoint(tmp_path / "w.safetensors")["w"]
    np.testing.assert_array_equal(saved.asnumpy(), lazy.asnumpy())
