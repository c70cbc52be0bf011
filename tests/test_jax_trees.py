"""A tree of shapes becomes a tree of arrays: named by their places, following rules, laid out as asked."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numparam
from jax_devices import jax, sharding
from numparam import Parameter
from numparam import initializer as initializers
from numparam.initializer import Normal, Uniform
from numparam.jax import Kernel, init, initializer
from numparam.jax.tree import name_of
from numparam.rules import Rules


def shape(*lengths: int, dtype: Any = np.float32, sharding: Any = None) -> Any:
    return jax.ShapeDtypeStruct(lengths, dtype, sharding=sharding)


RULES: dict[str, Any] = {
    "*kernel": "lecun_normal",
    "*embedding": Normal(0.125),
    **dict.fromkeys(["*bias", "*mean"], "zeros"),
    **dict.fromkeys(["*scale", "*var"], "ones"),
}


def model() -> dict[str, Any]:
    return {
        "params": {
            "Dense_0": {"kernel": shape(128, 256), "bias": shape(256)},
            "LayerNorm_0": {"scale": shape(256), "bias": shape(256)},
            "Embed_0": {"embedding": shape(500, 64)},
            "layers": [{"kernel": shape(3, 3, 16, 32, dtype="bfloat16")}],
        },
        "batch_stats": {"BatchNorm_0": {"mean": shape(16), "var": shape(16)}},
    }


def parameter(name: str, init: Any, shape: Any, seed: int = 7) -> Any:
    numparam.set_seed(seed)
    return Parameter(initializers.initializer(init, shape.shape, shape.dtype), name=name).asnumpy()


def leaves(tree: Any) -> dict[str, Any]:
    return {name_of(path): leaf for path, leaf in jax.tree.flatten_with_path(tree)[0]}


def test_every_array_is_the_parameter_of_its_place() -> None:
    made = init(model(), RULES, seed=7)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), made) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), model()
    )
    for name, leaf in leaves(made).items():
        if name.endswith("kernel"):
            np.testing.assert_array_equal(leaf, parameter(name, Kernel(initializers.LecunNormal()), leaf), name)
    assert set(leaves(made)) >= {"params.Dense_0.kernel", "params.layers.0.kernel", "batch_stats.BatchNorm_0.var"}


def test_shapes_alone_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no rule matches parameter 'kernel', and 1 other, .*jax.eval_shape"):
        init({"kernel": shape(16, 8), "scale": shape(8), "bias": shape(8)}, {"bias": 0}, seed=7)


def test_the_first_glob_that_matches_decides() -> None:
    tree = {"head": {"kernel": shape(64, 32), "bias": shape(32)}, "body": {"kernel": shape(64, 32)}}
    made = leaves(init(tree, {"head.*": 0.5, "*.kernel": Normal(3.0)}, seed=7))
    assert (np.asarray(made["head.kernel"]) == 0.5).all()
    assert (np.asarray(made["head.bias"]) == 0.5).all()
    np.testing.assert_array_equal(made["body.kernel"], parameter("body.kernel", Normal(3.0), tree["body"]["kernel"]))


def test_names_of_initializers_are_those_of_jax() -> None:
    tree = {"kernel": shape(64, 128)}
    made = init(tree, {"*": "he_normal"}, seed=7)["kernel"]
    np.testing.assert_array_equal(made, initializer("he_normal", "kernel", 7)(None, (64, 128)))


def test_rules_of_numparam_are_followed_with_the_fans_of_jax() -> None:
    rules = Rules.from_toml('[[rules]]\nglob = "*kernel"\ninit = "lecun_uniform"')
    tree = {"kernel": shape(300, 10), "weight": shape(300, 10), "bias": shape(10)}
    made = init(tree, rules, seed=7)
    assert 0.099 < abs(np.asarray(made["kernel"])).max() <= 0.1
    np.testing.assert_array_equal(made["weight"], parameter("weight", Normal(0.02), tree["weight"]))
    assert not np.asarray(made["bias"]).any()


def test_seeds() -> None:
    tree, own = {"kernel": shape(8, 8)}, Uniform(1.0)
    numparam.set_seed(5)
    plain = init(tree, {"*": Uniform(1.0)})["kernel"]
    np.testing.assert_array_equal(plain, parameter("kernel", Uniform(1.0), tree["kernel"], seed=5))
    own.seed = 9
    np.testing.assert_array_equal(init(tree, {"*": own}, seed=7)["kernel"], parameter("kernel", own, tree["kernel"]))
    assert not np.array_equal(plain, init(tree, {"*": Uniform(1.0)}, seed=7)["kernel"])


# --------------------------------------------------------------------------- shardings


def test_one_sharding_a_tree_of_them_or_one_for_a_branch() -> None:
    tree = {"a": {"kernel": shape(16, 8), "bias": shape(8)}, "b": {"kernel": shape(8, 16)}}
    rows, columns, copied = sharding((8,), "a"), sharding((8,), None, "a"), sharding((8,))
    plain = init(tree, RULES, seed=7)
    for given, expected in [
        (rows, [rows, rows, rows]),
        ({"a": rows, "b": columns}, [rows, rows, columns]),
        ({"a": {"kernel": columns, "bias": copied}, "b": None}, [copied, columns, None]),
    ]:
        made = init(tree, RULES, seed=7, shardings=given)
        for leaf, same, cut in zip(jax.tree.leaves(made), jax.tree.leaves(plain), expected, strict=True):
            np.testing.assert_array_equal(leaf, same)
            assert leaf.devices() == {jax.devices()[0]} if cut is None else leaf.sharding == cut


def test_one_spec_for_a_tree_is_shortened_to_the_rank_of_each_array() -> None:
    tree = {"kernel": shape(16, 8), "bias": shape(8)}
    made = init(tree, RULES, seed=7, shardings=sharding((2, 4), "a", "b"))
    assert (made["kernel"].sharding, made["bias"].sharding) == (sharding((2, 4), "a", "b"), sharding((2, 4), "a"))
    np.testing.assert_array_equal(made["kernel"], init(tree, RULES, seed=7)["kernel"])
    with jax.set_mesh(jax.make_mesh((2, 4), ("a", "b"))):
        made = init(tree, RULES, seed=7, shardings=jax.sharding.PartitionSpec("a", "b"))
    assert tuple(made["bias"].sharding.spec) == ("a",)


def test_a_spec_for_one_array_must_suit_it() -> None:
    tree = {"kernel": shape(16, 8), "bias": shape(8)}
    both = sharding((2, 4), "a", "b")
    with pytest.raises(ValueError, match=r"parameter 'bias': NamedSharding.* does not suit the shape"):
        init(tree, RULES, seed=7, shardings={"kernel": both, "bias": both})


def test_shapes_may_bring_the_shardings_of_the_present_mesh() -> None:
    spec = jax.sharding.PartitionSpec("a", "b")
    with jax.set_mesh(jax.make_mesh((2, 4), ("a", "b"))):
        shapes = jax.eval_shape(lambda: {"kernel": jax.numpy.zeros((16, 8), out_sharding=spec)})
        made = [init(shapes, RULES, seed=7), init({"kernel": shape(16, 8)}, RULES, seed=7, shardings=spec)]
    for tree in made:
        assert tree["kernel"].sharding.is_equivalent_to(sharding((2, 4), "a", "b"), 2)


def test_shapes_may_bring_their_shardings() -> None:
    cut = sharding((2, 4), "a", "b")
    made = init({"kernel": shape(16, 8, sharding=cut), "bias": shape(8)}, RULES, seed=7)
    assert made["kernel"].sharding == cut
    assert made["bias"].devices() == {jax.devices()[0]}


# --------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: {"a": {"table": shape(2)}}, ValueError, "no rule matches parameter 'a.table', .*'a.table'"),
        (lambda: {"a": {"kernel": shape(2)}}, ValueError, "parameter 'a.kernel': LecunNormal"),
        (lambda: {"kernel": shape(2, 2, dtype="int8")}, TypeError, "parameter 'kernel': LecunNormal.* dtype int8"),
        (lambda: {"a.bias": shape(2), "a": {"bias": shape(2)}}, ValueError, "'a.bias': 2 leaves of the tree"),
        (lambda: {"bias": 1.0}, TypeError, "parameter 'bias' has no shape"),
        (lambda: {"a": {"bias": shape(3, sharding=sharding((8,)))}, "b": None}, None, ""),
    ],
)
def test_errors_name_the_parameter(call: Callable[[], Any], error: type[Exception] | None, words: str) -> None:
    if error is None:
        assert init(call(), RULES)["b"] is None
        return
    with pytest.raises(error, match=words):
        init(call(), RULES)


@pytest.mark.parametrize(
    "rules",
    [
        {"*bias": "ones", "nonsense.*": "zeros"},
        Rules.from_toml('[[rules]]\nglob = "*bias"\ninit = "ones"\n[[rules]]\nglob = "nonsense.*"\ninit = "zeros"'),
    ],
)
def test_a_rule_that_decides_for_nothing_is_logged(rules: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "numparam"):
        init({"bias": shape(2)}, rules, 7)
    assert caplog.messages == ["numparam.jax.init: rule 2 decides for no parameter: 'nonsense.*'"]


def test_default_rules_that_decide_for_nothing_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "numparam"):
        init({"bias": shape(2)}, {"bias": "ones"}, seed=7)
    assert not caplog.messages
