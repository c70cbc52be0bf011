"""Models of Flax and states of optax start as their own code says: traced, never run."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numparam
from jax_devices import jax, sharding
from numparam import Parameter
from numparam import initializer as initializers
from numparam.initializer import Axes, CorrectedTruncatedNormal, Normal, One, Orthogonal, Uniform, Zero
from numparam.jax import Kernel, eval_shape, init, initializer
from numparam.jax.tree import name_of

random, jnp = jax.random, jax.numpy
KEY = random.key(7)


def leaves(tree: Any) -> dict[str, Any]:
    return {name_of(path): leaf for path, leaf in jax.tree.flatten_with_path(tree)[0]}


def drawn(function: Callable[[Any], Any]) -> str:
    """Return the initializer of what a function draws, or why there is none."""
    start = eval_shape(function, KEY)
    return start.why or repr(start.init)


def alike(ours: Any, theirs: Any) -> None:
    """Check that two trees have the same structure, and arrays of the same mean and spread."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (name, one), other in zip(leaves(ours).items(), jax.tree.leaves(theirs), strict=True):
        if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            assert one == other, name
            continue
        spread, error = float(np.std(other)), 5 / math.sqrt(np.size(other))
        assert float(np.std(one)) == pytest.approx(spread, rel=error), name
        assert float(np.mean(one)) == pytest.approx(float(np.mean(other)), abs=2 * error * spread), name


# --------------------------------------------------------------------------- functions


@pytest.mark.parametrize(
    "function, expected",
    [
        (lambda key: 3 - 0.02 * random.normal(key, (4, 6)), "Normal(sigma=0.02, mean=3.0)"),
        (lambda key: random.normal(key, (4, 6), "bfloat16") * 0.5, "Normal(sigma=0.5, mean=0.0)"),
        (lambda key: random.normal(key, (4, 6)).astype("float16"), "Normal(sigma=1.0, mean=0.0)"),
        (lambda key: random.uniform(key, (4, 6), minval=-2, maxval=5), "Between(low=-2.0, high=5.0)"),
        (lambda key: (random.uniform(key, (4, 6)) * 2 - 1) / 4, "Uniform(scale=0.25)"),
        (
            lambda key: 0.3 * random.truncated_normal(key, -2.5, 4, (4, 6)),
            "TruncatedNormal(sigma=0.3, mean=0.0, a=-0.75, b=1.2)",
        ),
        (lambda _: jnp.full((4, 6), 2.5) + 1, "Constant(value=3.5)"),
        (lambda key: random.normal(key, (4, 6)).reshape(2, 12).T[1:3], "Normal(sigma=1.0, mean=0.0)"),
        (
            lambda key: jnp.concatenate([random.normal(each, (3, 2)) for each in random.split(key)], 1),
            "Normal(sigma=1.0, mean=0.0)",
        ),
        (jax.jit(lambda key: random.normal(key, (4, 6))), "Normal(sigma=1.0, mean=0.0)"),
        # What is not independent draws of one distribution has a reason.
        (lambda key: random.normal(key, (4, 6)) ** 2, "the result of integer_pow"),
        (lambda key: jnp.exp(random.normal(key, (4, 6))), "the result of exp"),
        (lambda key: jnp.clip(random.normal(key, (4, 6)), -1, 1), "the result of max"),
        (lambda key: random.normal(key, (4, 6)) * jnp.arange(6), "the result of mul"),
        (lambda key: jnp.broadcast_to(random.normal(key, (6,)), (4, 6)), "values that are repeated"),
        (lambda key: random.normal(key, (6, 6)) @ random.normal(key, (6, 6)), "the result of dot_general"),
        (lambda key: random.bernoulli(key, 0.3, (4, 6)), "the result of lt"),
        (lambda key: random.permutation(key, 6), "the result of"),
        (lambda key: random.gamma(key, 2.0, (4, 6)), "the result of"),
        (lambda key: random.bits(key, (4, 6)), "bits numbers in their own order"),
        (lambda key: jnp.concatenate([random.normal(key, (4, 6)), jnp.zeros((4, 6))]), "parts of several"),
        (lambda key: jax.lax.scan(lambda c, _: (c, random.normal(key, (6,))), 0, None, 4)[1], "one draw that every"),
        (
            lambda key: jax.lax.fori_loop(0, 3, lambda _, x: x + random.normal(key, (6,)), jnp.zeros(6)),
            "carried through",
        ),
    ],
)
def test_a_function_is_described_by_its_distribution(function: Any, expected: str) -> None:
    assert drawn(function).startswith(expected)


@pytest.mark.parametrize("name", ["lecun_normal", "he_uniform", "glorot_normal", "xavier_uniform", "kaiming_normal"])
@pytest.mark.parametrize("shape", [(300, 7), (3, 3, 16, 32)])
def test_the_initializers_of_jax_have_the_bits_that_they_have_by_name(name: str, shape: tuple[int, ...]) -> None:
    theirs = getattr(jax.nn.initializers, name)()
    made = init(eval_shape(lambda key: {"kernel": theirs(key, shape)}, KEY), seed=7)["kernel"]
    np.testing.assert_array_equal(made, initializer(name, "kernel", 7)(None, shape))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes_do_not_change_the_distribution(dtype: Any) -> None:
    assert drawn(lambda key: jax.nn.initializers.lecun_normal()(key, (256, 8), dtype)).startswith(
        "CorrectedTruncatedNormal(sigma=0.0625" if dtype == "float32" else ("Trunc", "Corr")
    )


def test_orthogonal_layers_have_their_axes() -> None:
    orthogonal = jax.nn.initializers.orthogonal(2.0, column_axis=0)
    made = np.asarray(init(eval_shape(lambda key: orthogonal(key, (4, 3, 5)), KEY), seed=7)).reshape(4, 15)
    np.testing.assert_allclose(made @ made.T, 4 * np.eye(4), atol=1e-5)
    start = eval_shape(jax.vmap(lambda key: jax.nn.initializers.orthogonal()(key, (4, 4))), random.split(KEY, 3))
    assert repr(start.init) == repr(Axes(Orthogonal(1.0), batch_axis=0, in_axis=1, out_axis=2))


def test_what_is_not_random_is_computed() -> None:
    def make(key: Any, length: Any) -> dict[str, Any]:
        return {"table": jnp.cos(jnp.arange(8.0)), "key": random.fold_in(key, 3), "end": length + jnp.arange(2.0)}

    made = init(eval_shape(make, KEY, 4.0), seed=9, shardings={"table": sharding((8,), "a"), "key": None, "end": None})
    assert made["key"] == random.fold_in(KEY, 3)
    np.testing.assert_array_equal(made["table"], jnp.cos(jnp.arange(8.0)))
    assert (made["table"].sharding, made["end"].tolist()) == (sharding((8,), "a"), [4.0, 5.0])
    with pytest.raises(ValueError, match=r"parameter 'end': .* values of argument 1, which is a shape, .*add a rule"):
        init(eval_shape(make, KEY, jax.ShapeDtypeStruct((), np.float32)), seed=9)


def test_one_draw_in_two_places_has_one_value() -> None:
    def make(key: Any) -> dict[str, Any]:
        draw = random.normal(key, (4, 6))
        a, b = jnp.split(random.normal(random.split(key)[0], (8, 6)), 2)
        return {"w": draw, "shadow": draw.astype("bfloat16"), "a": a, "b": b}

    made = init(eval_shape(make, KEY), seed=7)
    first = min("w", "shadow")  # the tree is in the order of the names
    numparam.set_seed(7)
    expected = Parameter(initializers.initializer(Normal(1.0), (4, 6)), name=first).asnumpy()
    np.testing.assert_array_equal(made["w"], expected)
    np.testing.assert_array_equal(made["shadow"], made["w"].astype("bfloat16"))
    assert not (made["a"] == made["b"]).any()
    for change in (lambda w: w / 2, lambda w: w.T, lambda w: w[1:]):
        both = eval_shape(lambda key, change=change: [w := random.normal(key, (4, 4)), change(w)], KEY)
        with pytest.raises(ValueError, match="parameter '1' is made of the random numbers of '0'"):
            init(both, seed=7)


def test_a_rule_decides_before_the_code_of_the_model() -> None:
    shapes = eval_shape(lambda key: {"w": random.normal(key, (4, 6)), "x": random.gamma(key, 2.0, (3,))}, KEY)
    with pytest.raises(ValueError, match="parameter 'x': the code of the model starts it with the result of"):
        init(shapes, seed=7)
    assert np.asarray(init(shapes, {"x": "ones"}, seed=7)["x"]).all()


def test_shapes_have_the_structure_and_shardings_of_jax() -> None:
    def make(key: Any) -> dict[str, Any]:
        return {"w": random.normal(key, (16, 8), out_sharding=jax.sharding.PartitionSpec("a")), "none": None}

    with jax.set_mesh(jax.make_mesh((8,), ("a",))):
        ours, theirs = eval_shape(make, KEY), jax.eval_shape(make, KEY)
        assert init(ours, seed=7)["w"].sharding.is_equivalent_to(sharding((8,), "a"), 2)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert ours["w"].sharding == theirs["w"].sharding


# --------------------------------------------------------------------------- Flax and optax


def linen_model() -> Any:
    linen = pytest.importorskip("flax.linen")

    class Model(linen.Module):  # type: ignore[misc, name-defined]
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.Conv(32, (3,))(linen.Embed(500, 64)(x))
            x = linen.MultiHeadDotProductAttention(4, qkv_features=128)(linen.LayerNorm()(x))
            x = linen.BatchNorm(use_running_average=False)(x)
            x = linen.RNN(linen.GRUCell(64))(linen.Dropout(0.1, deterministic=True)(x))
            return linen.Dense(96, kernel_init=linen.initializers.normal(0.02))(x)

    return Model()


def nnx_model() -> Any:
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):  # type: ignore[misc, name-defined]
        def __init__(self, rngs: Any) -> None:
            self.norm = nnx.BatchNorm(64, rngs=rngs)
            self.layers = nnx.List([nnx.Linear(64, 64, rngs=rngs) for _ in range(2)])
            self.adapted = nnx.LoRALinear(64, 96, lora_rank=8, rngs=rngs)
            self.spectral = nnx.SpectralNorm(nnx.Linear(64, 96, rngs=rngs), rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)
            self.stack = nnx.vmap(lambda each: nnx.Linear(64, 64, rngs=each))(rngs.split(5))

    return Model(nnx.Rngs(0, dropout=1))


def scanned() -> Any:
    linen = pytest.importorskip("flax.linen")

    class Block(linen.Module):  # type: ignore[misc, name-defined]
        @linen.compact
        def __call__(self, x: Any, _: Any = None) -> Any:
            return linen.DenseGeneral((4, 64), kernel_init=linen.initializers.he_uniform())(x).sum(-2), None

    return Block


WORDS, ROWS, SPLIT = np.zeros((2, 5), int), np.ones((2, 64), np.float32), {"params": True}


def test_linen_layers_have_their_own_initializers() -> None:
    shapes = eval_shape(linen_model().init, KEY, WORDS)
    assert jax.tree.structure(shapes) == jax.tree.structure(jax.eval_shape(linen_model().init, KEY, WORDS))
    found = {name.removeprefix("params."): repr(start.init) for name, start in leaves(shapes).items()}
    for name, expected in {
        "Dense_0.kernel": Normal(0.02),
        "Conv_0.kernel": CorrectedTruncatedNormal(math.sqrt(1 / (3 * 64))),
        "Embed_0.embedding": Normal(0.125),
        "MultiHeadDotProductAttention_0.query.kernel": CorrectedTruncatedNormal(math.sqrt(1 / 32)),
        "MultiHeadDotProductAttention_0.out.kernel": CorrectedTruncatedNormal(math.sqrt(1 / 128)),
        "GRUCell_0.hn.kernel": Kernel(Orthogonal(), (0,), (1,)),
        "LayerNorm_0.scale": One(),
        "Dense_0.bias": Zero(),
        "batch_stats.BatchNorm_0.var": One(),
    }.items():
        assert found[name] == repr(expected), name
    ours, split = (
        init(shapes, seed=7),
        init(shapes, seed=7, shardings=jax.sharding.SingleDeviceSharding(jax.devices()[1])),
    )
    assert all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(split)))


def test_stacked_layers_have_the_spread_of_one() -> None:
    linen, block = pytest.importorskip("flax.linen"), scanned()
    one = repr(eval_shape(block().init, KEY, ROWS)["params"]["DenseGeneral_0"]["kernel"].init)
    assert one == repr(Uniform(math.sqrt(3 * (2 / 64))))
    for axis in (0, 1):
        model = linen.scan(block, variable_axes={"params": axis}, split_rngs=SPLIT, length=16)()
        kernel = eval_shape(model.init, KEY, ROWS, None)["params"]["DenseGeneral_0"]["kernel"]
        assert (repr(kernel.init), kernel.shape[axis]) == (one, 16)
        model = linen.vmap(block, variable_axes={"params": axis}, split_rngs=SPLIT, axis_size=16, in_axes=None)()
        kernel = eval_shape(model.init, KEY, ROWS)["params"]["DenseGeneral_0"]["kernel"]
        assert (repr(kernel.init), kernel.shape[axis]) == (one, 16)
    same = linen.scan(block, variable_axes={"params": 0}, split_rngs={"params": False}, length=16)()
    with pytest.raises(ValueError, match=r"'params.DenseGeneral_0.kernel'.* one draw that every iteration"):
        init(eval_shape(same.init, KEY, ROWS, None), seed=7)


def test_nnx_modules_and_their_states() -> None:
    nnx = pytest.importorskip("flax.nnx")
    graph, shapes = eval_shape(lambda: nnx.split(nnx_model()))
    found = {name: repr(start.init) for name, start in leaves(shapes).items()}
    lecun = repr(CorrectedTruncatedNormal(0.125))
    assert found["layers.1.kernel"] == found["stack.kernel"] == found["spectral.layer_instance.kernel"] == lecun
    assert (found["adapted.lora.lora_a"], found["adapted.lora.lora_b"]) == (repr(Uniform(math.sqrt(6 / 64))), "Zero()")
    ours = init(shapes, seed=7)
    keys = [leaf for leaf in jax.tree.leaves(ours) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    assert keys[0] == nnx.state(nnx.Dropout(0.1, rngs=nnx.Rngs(dropout=1)))["rngs"]["key"][...]

    kernel = nnx.merge(graph, ours).layers[1].kernel[...]
    np.testing.assert_array_equal(kernel, initializer("lecun_normal", "layers.1.kernel", 7)(None, (64, 64)))
    layer = nnx.Linear(64, 64, kernel_init=initializer("lecun_normal", "layers.1.kernel", 7), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer.kernel[...], kernel)
    module = init(eval_shape(nnx_model), seed=7)
    np.testing.assert_array_equal(module.layers[1].kernel[...], kernel)

    plain = nnx.split(nnx.eval_shape(nnx_model))[1]
    made = jax.tree.leaves(init(plain, {"*": Normal(0.02)}, seed=7))
    words = [random.key_data(leaf).tolist() for leaf in made if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    assert words
    assert words[0] != random.key_data(keys[0]).tolist()


@pytest.mark.slow
def test_the_values_are_spread_as_flax_spreads_them() -> None:
    linen, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")
    scan = linen.scan(scanned(), variable_axes={"params": 0}, split_rngs=SPLIT, length=16)()
    alike(init(eval_shape(scan.init, KEY, ROWS, None), seed=7), jax.jit(scan.init)(KEY, ROWS, None))
    alike(init(eval_shape(lambda: nnx.state(nnx_model())), seed=7), nnx.state(nnx_model()))


def test_states_of_optimizers_are_zero() -> None:
    optax = pytest.importorskip("optax")
    params = {"kernel": jax.ShapeDtypeStruct((8, 4), np.float32), "scale": jax.ShapeDtypeStruct((4,), np.float32)}
    for transform in (
        optax.adamw(optax.cosine_decay_schedule(1e-3, 100)),
        optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)),
        optax.MultiSteps(optax.lion(1e-3), 4),
    ):
        for shapes in (jax.eval_shape(transform.init, params), eval_shape(transform.init, params)):
            made = init(shapes, seed=7)
            assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(made))
            assert jax.tree.structure(made) == jax.tree.structure(shapes)
    rms = optax.rmsprop(0.1, initial_scale=0.5)
    with pytest.raises(ValueError, match=r"no rule matches parameter '0\.0\.nu\.kernel'|parameter '0.nu.kernel'"):
        init(jax.eval_shape(rms.init, params), seed=7)
    made = init(eval_shape(rms.init, params), seed=7)
    assert {float(leaf.ravel()[0]) for leaf in jax.tree.leaves(made)} == {0.5}


def test_a_training_state() -> None:
    linen, optax = pytest.importorskip("flax.linen"), pytest.importorskip("optax")
    from flax.training.train_state import TrainState

    adam = optax.adam(0.1)

    class State(TrainState):  # type: ignore[misc]
        dropout: Any = None
        average: Any = None

    def make(key: Any) -> Any:
        params = linen.Dense(96).init(key, np.ones((2, 64), np.float32))["params"]
        return State.create(apply_fn=None, params=params, tx=adam, dropout=key, average=params)

    made = init(eval_shape(make, KEY), seed=7)
    alike(made, make(KEY))
    np.testing.assert_array_equal(made.average["kernel"], made.params["kernel"])
    expected = initializer("lecun_normal", "params.kernel", 7)(None, (64, 96))
    np.testing.assert_array_equal(made.params["kernel"], expected)
    plain = init(jax.eval_shape(make, KEY), {"*kernel": 0.5, "*bias": 0}, seed=7)
    assert int(plain.step) == 0
    assert not np.asarray(plain.opt_state[0].count).any()


def test_large_models_are_not_computed() -> None:
    shapes = eval_shape(lambda key: {"w": 0.02 * random.normal(key, (2**20, 2**20)), "b": jnp.zeros(2**40)}, KEY)
    assert (repr(shapes["w"].init), repr(shapes["b"].init)) == (repr(Normal(0.02)), repr(Zero()))
