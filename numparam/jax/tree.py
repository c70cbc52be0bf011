"""A pytree of arrays from a pytree of shapes: the place of a parameter in the tree is its name."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from numparam import dtypes
from numparam.entry import Entry
from numparam.errors import ArgumentValueError, DtypeError
from numparam.indexing.region import Region
from numparam.initializer import Initializer, Zero
from numparam.jax.arrays import assembled, filling
from numparam.jax.kernel import as_initializer, as_kernel
from numparam.jax.keys import is_key, key
from numparam.jax.starts import Start
from numparam.jax.trace import Draw, apart
from numparam.rules import Glob, Rule, RuleError, Rules
from numparam.stream.seed import as_seed, choose_seed
from numparam.tensor import Array
from numparam.text import amount

T = TypeVar("T")

_LOGGER = logging.getLogger("numparam")

_ZEROS = {
    **dict.fromkeys(("ScaleByAdamState", "ScaleByAmsgradState", "ScaleByBeliefState"), ("count", "mu", "nu", "nu_max")),
    **dict.fromkeys(("ScaleByLionState", "ScaleByScheduleState", "EmaState"), ("count", "mu", "ema")),
    "TraceState": ("trace",),
    "FactoredState": ("count", "v_row", "v_col", "v"),
    "MultiStepsState": ("mini_step", "gradient_step", "acc_grads"),
    "TrainState": ("step",),
    "RngCount": ("value",),
}
"""The fields of states of optax and Flax that are zero at the start, whatever their arguments."""

_OWNERS = ("optax", "flax")


def init(
    shapes: T,
    rules: Mapping[str, str | Initializer | float] | Rules | None = None,
    seed: int | None = None,
    shardings: Any = None,
) -> T:
    """Generate the arrays of a full model, each shard by shard.

    The name of a parameter is its place in the tree, such as ``params.Dense_0.kernel``; a last attribute ``value``, in
    which Flax boxes parameters, is left out. The values are the same as of the `numparam.Parameter` of this name.

    Parameters
    ----------
    shapes : pytree of jax.ShapeDtypeStruct
        As `numparam.jax.eval_shape` returns it: its leaves know how the model's own code starts them. Shapes of
        ``jax.eval_shape`` do too as far as they are keys, which follow from the seed and the name, counters of Flax, or
        states of optax that are zero; all others need a rule. Leaves that have a sharding keep it without `shardings`.
    rules : mapping or Rules, optional
        What the model does not decide. A mapping from globs to what `initializer` takes: the first glob that matches
        the full name decides. `numparam.rules.Rules` have general rules at their end, which give way to the model. Fans
        are counted as in JAX for both, see `Kernel`. A rule that decides for no parameter is logged as a warning of the
        logger ``numparam``.
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
        If neither a rule nor the code of the model determines how a parameter starts, its initializer or sharding does
        not suit its shape, or two have one name. The message names it.

    Examples
    --------
    >>> import numpy as np
    >>> shapes = jax.eval_shape(lambda: {"head": {"kernel": np.zeros((4, 2), "f4"), "bias": np.zeros(2, "f4")}})
    >>> head = init(shapes, {"*kernel": "orthogonal", "*bias": 0}, seed=7)["head"]
    >>> bool(np.allclose(head["kernel"].T @ head["kernel"], np.eye(2), atol=1e-6)), head["bias"].tolist()
    (True, [0.0, 0.0])
    """
    given = None if seed is None else as_seed(seed)
    followed = rules if isinstance(rules, Rules) else _from_globs(rules or {})
    leaves, structure = jax.tree.flatten_with_path(shapes)
    each = [getattr(leaf, "sharding", None) for _, leaf in leaves] if shardings is None else _spread(shardings, shapes)
    named = [(name_of(path), path, leaf) for path, leaf in leaves]
    for name, count in Counter(name for name, _, _ in named).items():
        if count > 1:
            raise ArgumentValueError(f"duplicate parameter name {name!r}: {count} leaves of the tree have it")
    makers: list[Callable[[], Any]] = []
    unknown: list[tuple[str, Any]] = []
    first, own, deciding = _First(), set(map(id, followed.rules[: followed.own])), set()
    for (name, path, leaf), sharding in zip(named, each, strict=True):
        if is_key(leaf):
            makers.append(partial(key, leaf, name, given))
            continue
        entry, drawn = _entry(name, leaf), name
        rule = followed.find(entry)
        init = None if rule is None else as_kernel(rule.initializer)
        if _is_zero(shapes, path) and not isinstance(leaf, Start):
            init = Zero()
        elif id(rule) in own and not (isinstance(leaf, Start) and entry.dtype.kind in "iu"):  # "*" is not for counters
            deciding.add(id(rule))
        elif isinstance(leaf, Start):
            init, drawn = leaf.init, first.of(name, leaf)
            if leaf.value is not None:
                makers.append(partial(assembled, entry, sharding, partial(_copied, np.asarray(leaf.value))))
                continue
        if init is None:
            unknown.append((name, leaf))
        else:
            makers.append(_made(init, drawn, entry, given, sharding))
    if unknown:
        raise RuleError(_unknown(unknown))
    for number, rule in enumerate(followed.rules[: followed.own], 1):
        if id(rule) not in deciding:
            _LOGGER.warning("numparam.jax.init: rule %d decides for no parameter: %s", number, rule.names)
    filled: T = jax.tree.unflatten(structure, [make() for make in makers])  # what is wrong has shown before
    return filled


def _made(init: Initializer, name: str, entry: Entry, seed: int | None, sharding: Any) -> Callable[[], jax.Array]:
    """Return the function that generates an array with the values of the parameter `name`."""
    fill = filling(init, entry._replace(name=name))(choose_seed(init.seed, seed))
    return partial(assembled, entry, sharding, fill)


def _copied(value: np.ndarray[Any, Any], out: Array, region: Region) -> None:
    out[...] = region.take(value).reshape(out.shape)


class _First:
    """Find the name of the first parameter that is the same draw of a model's code."""

    def __init__(self) -> None:
        self._drawn: dict[Any, list[tuple[Draw, str]]] = {}

    def of(self, name: str, leaf: Start) -> str:
        if leaf.draw is None:
            return name
        known = self._drawn.setdefault(leaf.draw.source, [])
        for draw, other in known:
            if draw == leaf.draw:
                return other
            if not apart(draw, leaf.draw):
                raise RuleError(
                    f"parameter {name!r} is made of the random numbers of {other!r}, but is not equal to it: "
                    f"add a rule for one of them: {{{name!r}: 'zeros'}}"
                )
        known.append((leaf.draw, name))
        return name


def _unknown(leaves: Sequence[tuple[str, Any]]) -> str:
    name, leaf = leaves[0]
    others = f", and {amount(len(leaves) - 1, 'other')}" if len(leaves) > 1 else ""
    if isinstance(leaf, Start):
        return (
            f"parameter {name!r}{others}: the code of the model starts it with {leaf.why}, which numparam cannot "
            f"follow; add a rule: {{{name!r}: 'zeros'}}"
        )
    return (
        f"no rule matches parameter {name!r}{others}, and shapes do not determine how a model starts: trace it with "
        f"numparam.jax.eval_shape in place of jax.eval_shape, or add a rule: {{{name!r}: 'zeros'}}"
    )


def _is_zero(tree: Any, path: Sequence[Any]) -> bool:
    """Return whether a leaf belongs to a state that starts as zero."""
    node = tree
    for place, step in enumerate(path):
        known = [_ZEROS.get(each.__name__, ()) for each in type(node).__mro__ if each.__module__.startswith(_OWNERS)]
        if any(getattr(step, "name", None) in fields for fields in known):
            return True
        if place < len(path) - 1:
            node = _child(node, step)
    return False


def _child(node: Any, step: Any) -> Any:
    """Return a part of a node of a tree, None if its class made the step up."""
    try:
        return (
            getattr(node, step.name)
            if hasattr(step, "name")
            else node[getattr(step, "key", getattr(step, "idx", None))]
        )
    except (AttributeError, LookupError, TypeError):
        return None


def name_of(path: tuple[Any, ...]) -> str:
    """Return the name of the parameter at a place of a pytree, such as ``layers.0.kernel``."""
    boxed = path and path[-1] == jax.tree_util.GetAttrKey("value")
    name: str = jax.tree_util.keystr(path[:-1] if boxed else path, simple=True, separator=".")
    return name


def _entry(name: str, leaf: Any) -> Entry:
    try:
        return Entry(name, tuple(leaf.shape), dtypes.as_dtype(leaf.dtype))
    except (DtypeError, AttributeError) as error:
        raise DtypeError(f"parameter {name!r} has no shape and dtype of numbers: {error}") from None


def _from_globs(rules: Mapping[str, str | Initializer | float]) -> Rules:
    pairs = [(glob, as_initializer(init)) for glob, init in rules.items()]
    return Rules(tuple([Rule({"glob": glob}, Glob([glob]), init) for glob, init in pairs]), len(rules))


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
