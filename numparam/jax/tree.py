"""A pytree of arrays from a pytree of shapes: the place of a parameter in the tree is its name."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from numparam import dtypes
from numparam.entry import Entry
from numparam.errors import ArgumentValueError, DtypeError
from numparam.initializer import Initializer, LecunNormal, One, VarianceScaling, Zero
from numparam.jax.arrays import Fill, assembled, filling
from numparam.jax.kernel import Kernel, as_kernel
from numparam.jax.names import as_initializer
from numparam.rules import Glob, Rule, RuleError, Rules
from numparam.stream.seed import as_seed, choose_seed
from numparam.text import shown

_LOGGER = logging.getLogger("numparam")

FLAX_RULES: dict[str, Initializer] = {
    # Of attention, (features, heads, width): an axis counts once, so that this fits plain matrices too.
    **dict.fromkeys(
        ["*query.kernel", "*key.kernel", "*value.kernel"], Kernel(LecunNormal(), in_axis=0, out_axis=(1, -1))
    ),
    "*kernel": LecunNormal(),
    "*embedding": Kernel(VarianceScaling(1.0, "fan_in", "untruncated_normal"), in_axis=0, out_axis=0),
    **dict.fromkeys(["*bias", "*mean"], Zero()),
    **dict.fromkeys(["*scale", "*var"], One()),
}
"""How the layers of Flax start by default; recurrent kernels, there orthogonal, need a rule."""


def init(
    shapes: Any,
    rules: Mapping[str, str | Initializer | float] | Rules | None = None,
    seed: int | None = None,
    shardings: Any = None,
) -> Any:
    """Generate the arrays of a full model, each shard by shard.

    The name of a parameter is its place in the tree, such as ``params.Dense_0.kernel``; a last attribute ``value``, in
    which Flax boxes parameters, is left out. The values are the same as of the `numparam.Parameter` of this name.

    Parameters
    ----------
    shapes : pytree of jax.ShapeDtypeStruct
        As ``jax.eval_shape`` returns it. Leaves that have a sharding keep it without `shardings`.
    rules : mapping or Rules, optional
        A mapping from globs to what `initializer` takes: the first glob that matches the full name decides. Where it
        is silent, parameters start as the layers of Flax do: kernels LeCun normal, embeddings normal of variance one
        over their width, biases and means zero, scales and variances one. `numparam.rules.Rules` are followed as they
        are, and have their own default rules. Fans are counted as in JAX for both, see `Kernel`. A rule that decides
        for no parameter is logged as a warning of the logger ``numparam``.
    seed : int, optional
        From 0 to 2**64 - 1; by default the seed of `numparam.set_seed`.
    shardings : pytree of jax.sharding.Sharding or PartitionSpec, optional
        One for the full tree, or a tree whose leaves each apply to everything at their place; see `array`. A spec that
        applies to several arrays is shortened to the rank of each: a bias keeps the first entry of the kernel's spec.

    Returns
    -------
    pytree of jax.Array
        Of the structure of `shapes`.

    Raises
    ------
    TypeError
        If a leaf has a dtype that a parameter or JAX cannot have.
    ValueError
        If no rule covers a parameter, or its initializer or sharding does not suit its shape, or two have one name.
        The message names it.

    Examples
    --------
    >>> import numpy as np
    >>> shapes = jax.eval_shape(lambda: {"head": {"kernel": np.zeros((4, 2), "f4"), "bias": np.zeros(2, "f4")}})
    >>> head = init(shapes, {"head.kernel": "orthogonal"}, seed=7)["head"]
    >>> bool(np.allclose(head["kernel"].T @ head["kernel"], np.eye(2), atol=1e-6)), head["bias"].tolist()
    (True, [0.0, 0.0])
    """
    given = None if seed is None else as_seed(seed)
    followed = rules if isinstance(rules, Rules) else _from_globs(rules or {})
    leaves, structure = jax.tree.flatten_with_path(shapes)
    each = [getattr(leaf, "sharding", None) for _, leaf in leaves] if shardings is None else _spread(shardings, shapes)
    entries = [_entry(name_of(path), leaf) for path, leaf in leaves]
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            raise ArgumentValueError(f"duplicate parameter name {name!r}: {count} leaves of the tree have it")
    chosen = [followed.find(entry) for entry in entries]
    deciding = set(map(id, chosen))
    for number, rule in enumerate(followed.rules[: followed.own], 1):
        if id(rule) not in deciding:
            names = shown(rule.content.get("glob", rule.content.get("regex", "*")))
            _LOGGER.warning("numparam.jax.init: rule %d decides for no parameter: %s", number, names)
    # What is wrong shows before any values are made.
    fills = [_fill(rule, entry, given) for rule, entry in zip(chosen, entries, strict=True)]
    arrays = [assembled(*item) for item in zip(entries, each, fills, strict=True)]
    return jax.tree.unflatten(structure, arrays)


def name_of(path: tuple[Any, ...]) -> str:
    """Return the name of the parameter at a place of a pytree.

    Examples
    --------
    >>> [(path, _)], _ = jax.tree.flatten_with_path({"layers": [{"kernel": 1.0}]})
    >>> name_of(path)
    'layers.0.kernel'
    """
    boxed = path and path[-1] == jax.tree_util.GetAttrKey("value")
    name: str = jax.tree_util.keystr(path[:-1] if boxed else path, simple=True, separator=".")
    return name


def _entry(name: str, leaf: Any) -> Entry:
    try:
        return Entry(name, tuple(leaf.shape), dtypes.as_dtype(leaf.dtype))
    except (DtypeError, AttributeError) as error:
        raise DtypeError(f"parameter {name!r} has no shape and dtype of numbers: {error}") from None


def _from_globs(rules: Mapping[str, str | Initializer | float]) -> Rules:
    pairs = [(glob, as_initializer(init)) for glob, init in chain(rules.items(), FLAX_RULES.items())]
    return Rules(tuple([Rule({"glob": glob}, Glob([glob]), init) for glob, init in pairs]), len(rules))


def _fill(rule: Rule | None, entry: Entry, seed: int | None) -> Fill:
    if rule is None:
        raise RuleError(f"no rule matches parameter {entry.name!r}; add one: {{{entry.name!r}: 'zeros'}}")
    kernel = as_kernel(rule.initializer)
    return filling(kernel, entry)(choose_seed(kernel.seed, seed))


def _spread(shardings: Any, shapes: Any) -> list[Any]:
    """Return the sharding of each leaf."""

    def is_none(node: Any) -> bool:  # to JAX a tree without leaves, here the default device
        return node is None

    def repeat(sharding: Any, part: Any) -> Any:
        if jax.tree_util.all_leaves([part]):
            return sharding
        return jax.tree.map(lambda leaf: _shortened(sharding, len(leaf.shape)), part)

    return list(jax.tree.leaves(jax.tree.map(repeat, shardings, shapes, is_leaf=is_none), is_leaf=is_none))


def _shortened(sharding: Any, rank: int) -> Any:
    """Return a sharding whose spec has no more entries than an array has axes."""
    if isinstance(sharding, P):
        return P(*sharding[:rank])
    if not isinstance(sharding, jax.sharding.NamedSharding):
        return sharding
    return jax.sharding.NamedSharding(sharding.mesh, P(*sharding.spec[:rank]), memory_kind=sharding.memory_kind)
