"""Follow the random numbers through the code that initialises a model, without running it.

The code is traced to a jaxpr, and every variable is described by what is known of its values: that they do not depend
on random numbers (`Fixed`), that they are draws from one distribution (`Draw`), or that they are random in another way
(`Unknown`). The scales of a draw are the numbers that the code itself computes, so that the axes that a layer counts as
inputs, and the axes along which layers are stacked, need not be known.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import jax
import numpy as np
from jax.extend import core

Needs = frozenset[Any]

_ERF_ERROR = 1e-3
"""Of a bound of a truncated normal that went through ``erf`` and ``erf_inv``, in sigmas; or more in narrow dtypes."""


@dataclass(frozen=True)
class Fixed:
    """Values that do not depend on random numbers."""

    value: Any = None
    """The number that all elements are, if it is known."""
    needs: Needs = frozenset()
    """The numbers of the arguments, and the scans, that decide the values."""


@dataclass(frozen=True)
class Draw:
    """Independent draws from one distribution, one for each element: ``shift + scale * x``.

    The distribution of x is ``"bits"``, ``"uniform"`` between `low` and `high`, ``"normal"`` of sigma 1 restricted to
    them, or ``"orthogonal"``, where `labels` has a letter for each axis: row, column or batch.
    """

    source: tuple[Any, ...]
    """Where in the code it was drawn."""
    varies: Needs
    """What the key needs."""
    kind: str = "bits"
    scale: float = 1.0
    shift: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    labels: str = ""
    moves: tuple[Any, ...] = ()
    """The operations that moved or chose elements: two values of one source are equal if these are."""


@dataclass(frozen=True)
class Unknown:
    """Random values of which this module knows no distribution."""

    why: str


Value = Fixed | Draw | Unknown


def follow(closed: Any, abstract: Sequence[bool]) -> list[Value]:
    """Describe the results of a traced function; of `abstract` arguments only the shapes are known."""
    arguments = [Fixed(needs=frozenset([number] if each else [])) for number, each in enumerate(abstract)]
    return _run(closed.jaxpr, [_constant(each) for each in closed.consts], arguments, ())


def _run(jaxpr: Any, consts: Sequence[Value], arguments: Sequence[Value], place: tuple[Any, ...]) -> list[Value]:
    known: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Value:
        return _constant(atom.val) if isinstance(atom, core.Literal) else known[atom]

    for number, equation in enumerate(jaxpr.eqns):
        found = _results(equation, [read(atom) for atom in equation.invars], (*place, number))
        known.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _constant(array: Any) -> Value:
    if getattr(array, "size", 1) == 1 and _kind(array):
        return Fixed(np.asarray(array).item())
    return Fixed()


def _kind(array: Any) -> str:
    """Return ``"f"``, ``"i"``, ``"u"`` or ``"b"``, or nothing for keys and complex numbers."""
    dtype = getattr(array, "dtype", np.dtype(type(array)))
    if jax.dtypes.issubdtype(dtype, np.floating):
        return "f"
    return dtype.kind if isinstance(dtype, np.dtype) and dtype.kind in "iub" else ""


def _results(equation: Any, inputs: list[Value], place: tuple[Any, ...]) -> list[Value]:
    name, parameters = equation.primitive.name, equation.params
    if parameters.get("name") == "_orthogonal" and [type(each) for each in inputs] == [Fixed]:
        batch = "b" * (equation.outvars[0].aval.ndim - 2)
        return [Draw(place, _needs(inputs), "orthogonal", labels=f"{batch}rc")]
    if name == "scan":
        return _scan(parameters, inputs, place)
    if name == "split" and isinstance(inputs[0], Draw):
        return _split(equation, inputs[0])
    if name == "random_bits":
        return [Draw(place, _needs(inputs))]
    if name in _CALLS:
        jaxpr = parameters["call_jaxpr" if "call_jaxpr" in parameters else "jaxpr"]
        consts = [_constant(each) for each in getattr(jaxpr, "consts", ())]
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        if len(jaxpr.invars) == len(inputs) and len(jaxpr.outvars) == len(equation.outvars):
            return _run(jaxpr, consts, inputs, place)
    rule = _RULES.get(name)
    random = [each for each in inputs if not isinstance(each, Fixed)]
    if not random and not _is_random(equation):
        found: Value = Fixed(needs=_needs(inputs))
        numbers = [each.value for each in inputs if isinstance(each, Fixed) and each.value is not None]
        if name in _NUMBERS and len(numbers) == len(inputs):
            found = replace(found, value=_number(equation, numbers))
        return [found] * len(equation.outvars)
    found = rule(equation, inputs) if rule and random else Unknown(f"the result of {name}")
    for each in inputs:  # the first cause is the most informative
        found = each if isinstance(each, Unknown) else found
    return [found] * len(equation.outvars)


def _needs(values: Sequence[Value]) -> Needs:
    return frozenset().union(*[each.needs for each in values if isinstance(each, Fixed)])


def _scan(parameters: dict[str, Any], inputs: list[Value], place: tuple[Any, ...]) -> list[Value]:
    """Run the body once: what it returns for each iteration is stacked."""
    jaxpr, consts = parameters["jaxpr"].jaxpr, [_constant(each) for each in parameters["jaxpr"].consts]
    first, stop = parameters["num_consts"], parameters["num_consts"] + parameters["num_carry"]
    token = frozenset([place])
    carry = [
        Fixed(needs=each.needs | token) if isinstance(each, Fixed) else Unknown("carried through a scan")
        for each in inputs[first:stop]
    ]
    slices = [_slice(each, token) for each in inputs[stop:]]
    while True:
        found = _run(jaxpr, consts, [*inputs[:first], *carry, *slices], place)
        ends = found[: stop - first]
        wider = [
            old if isinstance(new, Fixed) else Unknown("carried through a scan")
            for old, new in zip(carry, ends, strict=True)
        ]
        if wider == carry:
            break
        carry = wider
    return ends + [_stack(each, token) for each in found[stop - first :]]


def _slice(value: Value, token: Needs) -> Value:
    if isinstance(value, Fixed):
        return replace(value, needs=value.needs | token)
    if isinstance(value, Draw) and (not value.labels or value.labels[0] == "b"):
        return replace(value, varies=value.varies | token, labels=value.labels[1:], moves=(*value.moves, "slice"))
    return value if isinstance(value, Unknown) else Unknown("a part of an orthogonal matrix")


def _stack(value: Value, token: Needs) -> Value:
    if not isinstance(value, Draw):
        return value
    if not value.varies & token:
        return Unknown("one draw that every iteration of a scan repeats; split its key for each")
    moves = value.moves[:-1] if value.moves[-1:] == ("slice",) else (*value.moves, "stack")
    return replace(value, labels="b" + value.labels if value.labels else "", moves=moves)


_CALLS = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "checkpoint",
    "remat2",
    "custom_jvp_call",
    "custom_vjp_call",
}
_OF_KEYS = {f"random_{name}" for name in ("seed", "split", "fold_in", "wrap", "unwrap", "clone")}


def _jaxprs(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if hasattr(each, "eqns") or hasattr(each, "jaxpr"):
                yield getattr(each, "jaxpr", each)


def _draws(jaxpr: Any) -> bool:
    """Return whether code draws random numbers."""
    return any(_is_random(equation) for equation in jaxpr.eqns)


def _is_random(equation: Any) -> bool:
    name = equation.primitive.name
    return (name.startswith(("random_", "rng_", "threefry")) and name not in _OF_KEYS) or any(
        map(_draws, _jaxprs(equation.params))
    )


_NUMBERS: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "neg")},
    **{name: getattr(math, name) for name in ("sqrt", "exp", "log", "erf", "tanh", "floor", "ceil")},
    **dict.fromkeys(("copy", "stop_gradient", "broadcast_in_dim", "reshape", "squeeze", "transpose"), lambda x: x),
    **dict.fromkeys(("copy_p", "sharding_constraint", "reshard", "pvary", "slice"), lambda x: x),
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "abs": abs,
    "max": max,
    "min": min,
    "pow": operator.pow,
    "nextafter": lambda x, _: x,  # bounds are compared with a tolerance
    "convert_element_type": lambda x: x,
    "div": lambda x, y: x / y if isinstance(x, float) or isinstance(y, float) else None,
}
"""Operations on numbers, in float64: what matters is what the author wrote, not its rounding."""


def _number(equation: Any, values: list[Any]) -> Any:
    kind = _kind(equation.outvars[0].aval)
    try:
        result = _NUMBERS[equation.primitive.name](*values)
    except (ValueError, OverflowError, ZeroDivisionError, TypeError):
        return None
    if result is None or (kind in "iu" and not float(result).is_integer()):
        return None
    return int(result) if kind in "iu" else bool(result) if kind == "b" else float(result)


Rule = Callable[[Any, list[Value]], Value]


def _kept(equation: Any, inputs: list[Value]) -> Value:
    """Return values that only the dtype changes."""
    (draw,) = [each for each in inputs if not isinstance(each, Fixed)] or [Unknown("")]
    kind = _kind(equation.outvars[0].aval)
    if not isinstance(draw, Draw) or (draw.kind != "bits" and kind != "f") or (draw.kind == "bits" and kind != "u"):
        return Unknown(f"the result of {equation.primitive.name}")
    return draw


def _moved(equation: Any, inputs: list[Value]) -> Value:
    """Return values in other places; each is there at most once."""
    draw, before, after = inputs[0], equation.invars[0].aval, equation.outvars[0].aval
    if not isinstance(draw, Draw) or not all(isinstance(each, Fixed) for each in inputs[1:]):
        return Unknown(f"the result of {equation.primitive.name}")
    name, parameters = equation.primitive.name, equation.params
    if math.prod(after.shape) > math.prod(before.shape):
        return Unknown("values that are repeated")
    labels = draw.labels
    if labels:
        if name == "transpose":
            labels = "".join(labels[axis] for axis in parameters["permutation"])
        elif name in ("reshape", "squeeze", "expand_dims", "broadcast_in_dim"):
            labels = _relabelled(labels, before.shape, after.shape)
        else:
            labels = ""
        if not labels:
            return Unknown("a part of an orthogonal matrix")
    box = (parameters["start_indices"], parameters["limit_indices"]) if name == "slice" else str(parameters)
    return replace(draw, labels=labels, moves=(*draw.moves, (name, box)))


def apart(one: Draw, other: Draw) -> bool:
    """Return whether two draws of one source are of different elements, so that they are independent."""
    for a, b in zip(one.moves, other.moves, strict=False):
        if a != b:
            return a[0] == b[0] == "slice" and any(
                start >= stop
                for start, stop in [*zip(a[1][0], b[1][1], strict=True), *zip(b[1][0], a[1][1], strict=True)]
            )
    return False


def _relabelled(labels: str, before: Sequence[int], after: Sequence[int]) -> str:
    """Return a letter for each axis of a new shape, none if an axis of it would be in two of the old ones.

    Examples
    --------
    >>> _relabelled("brc", (2, 12, 5), (2, 3, 4, 1, 5))
    'brrcc'
    """
    found, lengths = "", list(after)
    for letter, length in zip(labels, before, strict=True):
        have = 1
        while have < length and lengths:
            have *= lengths.pop(0)
            found += letter
        if have != length:
            return ""
        if length == 1 and lengths and lengths[0] == 1:
            lengths.pop(0)
            found += letter
    return found + labels[-1] * len(lengths) if math.prod(lengths) == 1 else ""


def _split(equation: Any, draw: Draw) -> list[Value]:
    found: list[Value] = []
    axis, shape = equation.params["axis"], equation.invars[0].aval.shape
    for stop, size in zip(accumulate(equation.params["sizes"]), equation.params["sizes"], strict=True):
        starts = tuple([stop - size if at == axis else 0 for at in range(len(shape))])
        stops = tuple([stop if at == axis else length for at, length in enumerate(shape)])
        found.append(replace(draw, moves=(*draw.moves, ("slice", (starts, stops)))))
    return [Unknown("a part of an orthogonal matrix")] * len(found) if draw.labels else found


def _concatenated(equation: Any, inputs: list[Value]) -> Value:
    """Return the draws of several sources as one, if they have one distribution."""
    draws = [each for each in inputs if isinstance(each, Draw)]
    alike = {replace(each, source=(), varies=frozenset(), moves=()) for each in draws}
    if len(draws) < len(inputs) or len(alike) > 1 or draws[0].kind == "orthogonal":
        return Unknown("parts of several distributions")
    if len({each.source for each in draws}) < len(draws):
        return Unknown("values that are repeated")
    source = tuple((each.source, each.moves) for each in draws)
    together = frozenset.intersection(*[each.varies for each in draws])
    return replace(draws[0], source=source, varies=together, moves=(f"axis {equation.params['dimension']}",))


def _bits(equation: Any, inputs: list[Value]) -> Value:
    """Return bits of which some are set to the exponent of one, or shifted out."""
    draw, other = inputs
    if isinstance(draw, Draw) and draw.kind == "bits" and isinstance(other, Fixed) and other.value is not None:
        shifted = equation.primitive.name == "shift_right_logical"
        return replace(
            draw,
            scale=float(other.value) if shifted else draw.scale,
            shift=draw.shift if shifted else float(other.value),
        )
    return Unknown(f"the result of {equation.primitive.name}")


def _float(equation: Any, inputs: list[Value]) -> Value:
    """Return the numbers between one and two whose mantissas are random bits."""
    draw, dtype = inputs[0], equation.params["new_dtype"]
    if not isinstance(draw, Draw) or draw.kind != "bits" or _kind(equation.outvars[0].aval) != "f":
        return Unknown("the bits of random numbers")
    one = int(np.ones((), dtype).view(f"u{dtype.itemsize}"))
    if draw.shift != one:
        return Unknown("the bits of random numbers")
    return replace(draw, kind="uniform", low=1.0, high=2.0, scale=1.0, shift=0.0)


def _affine(equation: Any, inputs: list[Value]) -> Value:
    name = equation.primitive.name
    draw, number = inputs[0], inputs[1] if len(inputs) > 1 else Fixed(0.0)
    swapped = isinstance(draw, Fixed)
    if swapped:
        draw, number = number, draw
    result = equation.outvars[0].aval
    if (
        not isinstance(draw, Draw)
        or draw.kind == "bits"
        or not isinstance(number, Fixed)
        or number.value is None
        or equation.invars[int(swapped)].aval.shape != result.shape
    ):
        return Unknown(f"the result of {name}")
    c = float(number.value)
    times, plus = {
        "mul": (c, 0.0),
        "div": (1 / c if c and not swapped else math.nan, 0.0),
        "add": (1.0, c),
        "sub": (-1.0, c) if swapped else (1.0, -c),
        "neg": (-1.0, 0.0),
    }[name]
    if math.isnan(times) or (plus and draw.kind == "orthogonal"):
        return Unknown(f"the result of {name}")
    scale = draw.scale * times
    if draw.kind == "normal" and draw.scale == math.sqrt(0.5) and abs(scale - 1) < _eps(equation):
        scale = 1.0  # the root of two, as the dtype has it
    return replace(draw, scale=scale, shift=draw.shift * times + plus)


def _normal(equation: Any, inputs: list[Value]) -> Value:
    """Return the normal numbers that ``erf_inv`` computes from uniform ones."""
    draw = inputs[0]
    if not isinstance(draw, Draw) or draw.kind != "uniform":
        return Unknown("the result of erf_inv")
    edge = 2 * _eps(equation)
    low, high = sorted((draw.shift + draw.scale * end) for end in (draw.low, draw.high))
    from statistics import NormalDist

    quantile = NormalDist().inv_cdf
    bounds = [
        -math.inf if low <= -1 + edge else quantile((low + 1) / 2),
        math.inf if high >= 1 - edge else quantile((high + 1) / 2),
    ]
    if low < -1 - edge or high > 1 + edge:
        return Unknown("the result of erf_inv beyond one")
    return replace(draw, kind="normal", scale=math.sqrt(0.5), shift=0.0, low=bounds[0], high=bounds[1])


def _eps(equation: Any) -> float:
    return float(jax.numpy.finfo(equation.outvars[0].aval.dtype).eps)


def _clipped(equation: Any, inputs: list[Value]) -> Value:
    """Return a draw that a bound leaves as it is, because it is the bound of its distribution."""
    name, error = equation.primitive.name, max(_ERF_ERROR, 10 * _eps(equation))
    bounds = {"max": [(0, 1), (1, 0)], "min": [(0, 1), (1, 0)], "clamp": [(1, 0), (1, 2)]}[name]
    for place, (at, other) in enumerate(bounds):
        draw, bound = inputs[at], inputs[other]
        if not isinstance(draw, Draw) or not isinstance(bound, Fixed):
            continue
        is_low = name == "max" or (name == "clamp" and place == 0)
        if draw.kind not in ("uniform", "normal") or bound.value is None or draw.scale <= 0:
            return Unknown(f"the result of {name}")
        standard = (float(bound.value) - draw.shift) / draw.scale
        edge, inside = (draw.low, 1) if is_low else (draw.high, -1)
        if (standard - edge) * inside > error * (1 if draw.kind == "normal" else draw.high - draw.low):
            return Unknown(f"the result of {name}")
        if draw.kind == "normal" and abs(standard - edge) <= error:
            draw = replace(draw, low=standard) if is_low else replace(draw, high=standard)
        inputs = [draw if index == at else each for index, each in enumerate(inputs)]
        if name != "clamp":
            return draw
    return inputs[1] if name == "clamp" else Unknown(f"the result of {name}")


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("convert_element_type", "copy", "copy_p", "stop_gradient", "sharding_constraint"), _kept),
    **dict.fromkeys(("reshard", "pvary", "reduce_precision", "name"), _kept),
    **dict.fromkeys(("reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "rev"), _moved),
    **dict.fromkeys(("slice", "dynamic_slice"), _moved),
    **dict.fromkeys(("shift_right_logical", "or"), _bits),
    **dict.fromkeys(("add", "sub", "mul", "div", "neg"), _affine),
    **dict.fromkeys(("max", "min", "clamp"), _clipped),
    "bitcast_convert_type": _float,
    "concatenate": _concatenated,
    "erf_inv": _normal,
}
