"""Perturbations: the noise of seed, name and index, undone to the bit, on any region."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numparam
from numparam import Cell, Layout, Parameter, Region, Source
from numparam.initializer import Normal, initializer
from numparam.perturb import antithetic, noise, perturb_, perturbed, snap_, unperturb_
from numparam.stream.seed import Label

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SHAPE = (37, 53)


def weight(dtype: Any = np.float32, name: str = "w", shape: tuple[int, ...] = SHAPE) -> Parameter:
    values = np.random.default_rng(3).standard_normal(shape) * 0.1
    return Parameter(values.astype(np.float32).astype(dtype), name=name)


def bits(x: Any) -> bytes:
    return bytes((x.asnumpy() if isinstance(x, numparam.Tensor) else x).tobytes())


def drawn(seed: int, dtype: Any = np.float32, name: str = "w") -> np.ndarray[Any, Any]:
    out = np.empty(SHAPE, dtype)
    Source(seed, name).normal(out, Region.full(SHAPE), 0.0, 1.0, Label("noise"))
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16], ids=str)
def test_noise_is_added_as_numpy_adds_it(dtype: Any) -> None:
    w = weight(dtype)
    wide = np.float64 if dtype == np.float64 else np.float32
    expected = (w.asnumpy().astype(wide) + wide(0.01) * drawn(7, wide)).astype(dtype)
    before = bits(w)
    assert bits(perturbed(w, 7, 0.01)) == bits(expected)
    assert bits(w) == before
    out = np.empty(SHAPE, dtype)
    assert perturbed(w, 7, 0.01, out) is out
    assert bits(out) == bits(expected)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
def test_several_perturbations_have_the_bits_of_as_many_passes(dtype: Any, rank: int | None) -> None:
    seeds, scales = list(range(20)), [0.01 * (-1) ** i * i for i in range(20)]
    one_by_one = weight(dtype)
    for seed, scale in zip(seeds, scales, strict=True):
        one_by_one = perturbed(one_by_one, seed, scale, rank=rank)
    assert bits(perturbed(weight(dtype), seeds, scales, rank=rank)) == bits(one_by_one)


@pytest.mark.parametrize("options", [{}, {"noise": "rademacher"}, {"noise": "uniform"}, {"rank": 2}], ids=str)
def test_regions_have_the_bits_of_the_full_parameter(options: dict[str, Any]) -> None:
    full = Parameter(initializer(Normal(0.1), SHAPE, seed=3), name="w")
    expected = perturbed(weight_of(full), [7, 8], [0.1, 0.2], **options).asnumpy()
    lazy = perturbed(full, [7, 8], [0.1, 0.2], **options)
    assert lazy.has_init
    assert full.has_init
    assert bits(lazy) == bits(expected)
    lazy = perturbed(full, [7, 8], [0.1, 0.2], **options)
    for index in [np.s_[3:20:2, 5:], np.s_[::-1, ::-3], np.s_[5], np.s_[:, 7], np.s_[4, 4]]:
        assert bits(lazy[index]) == bits(expected[index].copy())
    for rank in range(4):
        part = full.clone().init_data(Layout({"dp": 1, "tp": 4}, ("dp", None)), rank=rank)
        assert bits(perturbed(part, [7, 8], [0.1, 0.2], **options)) == bits(part.region.take(expected).copy())


def weight_of(lazy: Parameter) -> Parameter:
    return Parameter(lazy.asnumpy().copy(), name="w") if not lazy.has_init else Parameter(
        lazy.clone().asnumpy().copy(), name="w"
    )  # fmt: skip


def test_noise_has_the_variance_one() -> None:
    zeros = Parameter(np.zeros((400, 500), np.float32), name="w")
    for options, largest in [({}, 7.0), ({"noise": "rademacher"}, 1.0), ({"rank": 4}, 100.0)]:
        values = perturbed(zeros, 7, 1.0, **options).asnumpy()  # type: ignore[arg-type]
        assert abs(values.mean()) < 0.02
        assert abs(values.std() - 1) < 0.06
        assert abs(values).max() <= largest
    assert np.linalg.matrix_rank(perturbed(zeros, 7, 1.0, rank=4).asnumpy()) == 4
    values = perturbed(zeros, 7, 1.0, noise="uniform").asnumpy()
    assert abs(values).max() <= 1.0
    assert abs(values.std() - 3**-0.5) < 0.01


def test_noise_depends_on_seed_and_name_and_is_not_the_initial_values() -> None:
    zeros = {name: Parameter(np.zeros(100, np.float32), name=name) for name in "wv"}
    first = Parameter(initializer(Normal(1.0), 100, seed=7), name="w").asnumpy()
    found = {bits(perturbed(zeros[name], seed, 1.0)) for name in "wv" for seed in (7, 8)} | {bits(first)}
    assert len(found) == 5


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
def test_antithetic_pairs_are_the_two_perturbations(dtype: Any) -> None:
    w = weight(dtype)
    plus, minus = antithetic(w, [7, 8], [0.1, 0.2])
    assert bits(plus) == bits(perturbed(w, [7, 8], [0.1, 0.2]))
    assert bits(minus) == bits(perturbed(w, [7, 8], [-0.1, -0.2]))
    other = np.empty(SHAPE, dtype)
    antithetic(w, 7, 0.1, (w, other))
    assert bits(other) == bits(perturbed(weight(dtype), 7, -0.1))


def test_plain_subtraction_in_bfloat16_changes_48_percent_of_weights() -> None:
    random = np.random.default_rng(0)
    start = (random.standard_normal(4096) * 0.02).astype(BFLOAT16)
    plain, scale = start.copy(), BFLOAT16.type(1e-3)
    for _ in range(30):
        z = random.standard_normal(4096).astype(BFLOAT16)
        plain = plain + scale * z
        plain = plain - scale * z
    assert abs((plain != start).mean() - 0.48) < 0.02


@pytest.mark.parametrize(
    "dtype, route",
    [
        (np.dtype(np.float32), "lattice"),
        *(
            pytest.param(dtype, route, marks=pytest.mark.slow)
            for dtype in (BFLOAT16, np.dtype(np.float16))
            for route in ("masters", "kept")
        ),
    ],
    ids=str,
)
def test_ten_thousand_pairs_change_nothing(dtype: Any, route: str) -> None:
    w = Parameter((np.random.default_rng(0).standard_normal(64) * 0.02).astype(np.float32), name="w")
    if route == "lattice":
        snap_(w)
    base = {"lattice": None, "masters": w.clone(), "kept": Parameter(w.asnumpy().astype(dtype), name="w")}[route]
    w = Parameter(w.asnumpy().astype(dtype), name="w")
    before = bits(w)
    for seed in range(10_000):
        perturb_(w, seed, 1e-3, base=base)
        if seed % 100 == 0:
            assert bits(w) != before
            if base is not None:
                assert bits(w) == bits(perturbed(base, seed, 1e-3).asnumpy().astype(dtype))
        unperturb_(w, seed, 1e-3, base=base)
        assert bits(w) == before


@pytest.mark.parametrize("options", [{}, {"noise": "rademacher"}, {"rank": 2}], ids=str)
def test_a_cell_moves_on_the_lattice_and_back_in_any_order(options: dict[str, Any]) -> None:
    class Net(Cell):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = weight(name="a", shape=(200, 200)), weight(name="b", shape=(3, 5))

    net = Net()
    snap_(net)
    before = [bits(each) for each in net.get_parameters()]
    perturb_(net, [1, 2], 1e-2, **options)
    perturb_(net, 3, 1e-3, **options)
    assert all(bits(each) != start for each, start in zip(net.get_parameters(), before, strict=True))
    unperturb_(net, 2, 1e-2, **options)
    unperturb_(net, 1, 1e-2, **options)
    unperturb_(net, 3, 1e-3, **options)
    assert [bits(each) for each in net.get_parameters()] == before


def test_a_kept_base_is_read_again() -> None:
    w = weight(np.float64)
    base, before = w.clone(), bits(w)
    perturb_(w, 7, 0.1, base=base)
    assert bits(w) == bits(perturbed(base, 7, 0.1))
    unperturb_(w, 7, 0.1, base=base)
    assert bits(w) == before


def test_torch_tensors_are_written_through_dlpack() -> None:
    torch = pytest.importorskip("torch")
    out = torch.zeros(SHAPE, dtype=torch.bfloat16)
    perturbed(weight(), 7, 0.1, out)
    assert bits(out.view(torch.int16).numpy()) == bits(perturbed(weight(), 7, 0.1).asnumpy().astype(BFLOAT16))


def refused(call: Any, error: Any, words: str) -> None:
    """Check that a call changes nothing and says why."""
    parameters = [weight(), weight(name="v"), weight(BFLOAT16, "short")]
    snap_(parameters[:2])
    before = [bits(each) for each in parameters]
    if words.startswith("Parameter 'v': its values must"):
        parameters[1].asnumpy()[-1, -1] = 0.1
        before[1] = bits(parameters[1])
    with pytest.raises(error, match=words):
        call(SimpleNamespace(w=parameters[0], v=parameters[1], short=parameters[2]))
    assert [bits(each) for each in parameters] == before


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda p: perturb_(p.short, 7, 0.1), TypeError, "'short' of bfloat16 loses bits .*; give base="),
        (lambda p: perturb_([p.w, p.v], 7, 0.1), ValueError, "Parameter 'v': its values must be multiples of"),
        (lambda p: perturb_(p.w, 7, 1.0), ValueError, "'w': noise of up to 6.8 needs a lattice of four times"),
        (lambda p: perturb_(p.w, 7, 0.1, reach=3.0), ValueError, "reach must be a power of two, found 3.0"),
        (lambda p: snap_(p.w, 0.25), ValueError, "'w' has 0.3.* beyond the reach 0.25; choose at least 0.5"),
        (lambda p: snap_(p.short), TypeError, "'short': the lattice is for float32, found bfloat16"),
        (lambda p: perturbed(p.w, 7, np.nan), ValueError, "scale must be finite, found nan"),
        (lambda p: perturbed(p.w, [7, 8], [0.1]), ValueError, "a scale for each of 2 seeds, found 1"),
        (lambda p: perturbed(p.w, -1, 0.1), ValueError, "a seed is an int from 0"),
        (lambda p: perturbed(p.w, 7, "x"), TypeError, "scale must be a number, found 'x'"),
        (lambda p: perturbed(p.w, 7, 0.1, noise="cauchy"), ValueError, "noise must be one of normal,"),
        (lambda p: perturbed(p.w, 7, 0.1, rank=0), ValueError, "rank"),
        (lambda p: perturbed(p.w, 7, 0.1, np.zeros(3, "f4")), ValueError, r"such an output, found \(3,\)"),
        (lambda p: perturbed(p.w, 7, 0.1, np.zeros(SHAPE)), TypeError, "an output of its dtype, found float64"),
        (lambda p: perturbed(p.w, 7, 0.1, [0.0]), TypeError, "expected a Tensor or an array as output"),
        (lambda p: perturb_(p.short, 7, 0.1, base=p.short), ValueError, "'short': its base must be other memory"),
        (lambda p: perturb_(p.short, 7, 0.1, base=[p.w, p.v]), ValueError, "a base for each of 1 parameters"),
        (lambda p: perturb_(p.w, 7, 0.1, base=p.short), TypeError, "'w': its base is of float32 or float32"),
        (lambda _: perturbed(Parameter([1.0]), 7, 0.1), ValueError, "a parameter without a name"),
        (lambda _: perturbed(Parameter([1], name="i"), 7, 0.1), TypeError, "'i': floats of 16 bits or more"),
        (lambda _: perturbed(Parameter([1.0], name="b"), 7, 1, rank=2), ValueError, "'b': low-rank noise is"),
    ],
)
def test_errors_name_the_parameter_and_change_nothing(call: Any, error: Any, words: str) -> None:
    refused(call, error, words)


# --------------------------------------------------------------------------- noise of training loops


def test_masks_are_zero_at_the_rate_and_differ_by_step_and_name() -> None:
    mask = noise(7, "drop", 3).dropout((300, 300), 0.3).asnumpy()
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((mask == 0).mean() - 0.3) < 0.01
    others = [noise(7, "drop", 4), noise(7, "other", 3), noise(8, "drop", 3)]
    assert len({bits(each.dropout((300, 300), 0.3)) for each in [noise(7, "drop", 3), *others]}) == 4
    assert (noise(7, "drop", 3).dropout(100, 0.0).asnumpy() == 1).all()


@pytest.mark.parametrize("draw", [lambda n, shape: n.normal(shape, 0.5, "bfloat16"), lambda n, s: n.dropout(s, 0.1)])
def test_regions_of_loop_noise_are_parts_of_it(draw: Any) -> None:
    full, key = Region.full(SHAPE), noise(2**64 - 1, "place", 2**36 - 1)
    expected = draw(key, SHAPE).asnumpy()
    assert bits(draw(key, full[3:9, ::2])) == bits(expected[3:9, ::2].copy())
    assert bits(draw(key, SHAPE)[5]) == bits(expected[5])


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: noise(7, "x", 2**36), ValueError, r"step must be below 2\*\*36"),
        (lambda: noise(7, "x", -1), ValueError, "step"),
        (lambda: noise(7, 3, 0), TypeError, "name must be a str, found 3"),  # type: ignore[arg-type]
        (lambda: noise(7, "x", 0).dropout(3, 1.0), ValueError, "rate must be at least 0 and below 1, found 1.0"),
        (lambda: noise(7, "x", 0).normal(3, dtype="int32"), TypeError, "draws real numbers"),
    ],
)
def test_errors_of_loop_noise(call: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        call()
