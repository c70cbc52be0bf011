"""Optimizers: values of torch and of float64, the same bits for every thread count, states in checkpoints, errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numparam
from numparam import Layout, Parameter
from numparam.initializer import initializer
from numparam.optim import (
    FTRL,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    AdamWeightDecay,
    Lamb,
    LazyAdam,
    Momentum,
    Optimizer,
    RowwiseAdagrad,
    SparseRows,
)

SHAPE = (23, 17)
STEPS = 100


def start(dtype: Any = np.float32, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(dtype)


def gradient_of(step: int, dtype: Any = np.float32, shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, Any]:
    return np.random.default_rng((step, 7)).standard_normal(shape).astype(dtype)


def run(make: Any, dtype: Any = np.float32, steps: int = STEPS, **options: Any) -> np.ndarray[Any, Any]:
    weight = Parameter(start(dtype), name="w")
    optimizer = make([weight], **options)
    for step in range(steps):
        optimizer([gradient_of(step, dtype)])
    return weight.asnumpy()


PAIRS: list[tuple[Any, dict[str, Any], str, dict[str, Any]]] = [
    (SGD, {"lr": 0.01}, "SGD", {"lr": 0.01}),
    (
        SGD,
        {"learning_rate": 0.01, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1},
        "SGD",
        {"lr": 0.01, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1},
    ),
    (
        Momentum,
        {"learning_rate": 0.01, "momentum": 0.9, "use_nesterov": True},
        "SGD",
        {"lr": 0.01, "momentum": 0.9, "nesterov": True},
    ),
    (Adam, {"lr": 0.01, "weight_decay": 0.1}, "Adam", {"lr": 0.01, "weight_decay": 0.1}),
    (
        Adam,
        {"learning_rate": 0.01, "use_amsgrad": True, "betas": (0.8, 0.99)},
        "Adam",
        {"lr": 0.01, "amsgrad": True, "betas": (0.8, 0.99)},
    ),
    (AdamW, {"lr": 0.01, "weight_decay": 0.1}, "AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    (
        Adagrad,
        {"lr": 0.1, "accum": 0.2, "weight_decay": 0.1},
        "Adagrad",
        {"lr": 0.1, "initial_accumulator_value": 0.2, "weight_decay": 0.1},
    ),
]
pairs = pytest.mark.parametrize("make, options, peer, peer_options", PAIRS)


def run_torch(peer: str, options: dict[str, Any], dtype: Any) -> np.ndarray[Any, Any]:
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.tensor(start(dtype)))
    optimizer = getattr(torch.optim, peer)([weight], **options)
    for step in range(STEPS):
        weight.grad = torch.tensor(gradient_of(step, dtype))
        optimizer.step()
    return weight.detach().numpy()


@pairs
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 5e-6), (np.float64, 1e-14)])
def test_values_are_those_of_torch(
    make: Any, options: dict[str, Any], peer: str, peer_options: dict[str, Any], dtype: Any, tolerance: float
) -> None:
    expected = run_torch(peer, peer_options, dtype)
    np.testing.assert_allclose(run(make, dtype, **options), expected, rtol=tolerance, atol=tolerance)
    assert not np.array_equal(expected, start(dtype))


def reference(rule: str, options: dict[str, float], dtype: Any) -> np.ndarray[Any, Any]:
    """Return the weights after the steps, by the papers, in float64."""
    w, rate, decay = start(np.float64), options["learning_rate"], options.get("weight_decay", 0.0)
    m, v, linear, total = (np.zeros(SHAPE) for _ in range(4))
    total += options.get("initial_accum", 0.0)
    for step in range(STEPS):
        g = gradient_of(step, dtype).astype(np.float64)
        if rule == "ftrl":
            before, total = total, total + g * g
            linear += g - (np.sqrt(total) - np.sqrt(before)) / rate * w
            pulled = np.sign(linear) * options["l1"] - linear
            w = np.where(abs(linear) > options["l1"], pulled / (np.sqrt(total) / rate + 2 * options["l2"]), 0.0)
            continue
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        if rule == "adam_weight_decay":
            w = w - rate * (m / (np.sqrt(v) + 1e-6) + decay * w)
            continue
        direction = m / (1 - 0.9 ** (step + 1)) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-6) + decay * w
        w = w - rate * np.linalg.norm(w) / np.linalg.norm(direction) * direction
    return w


@pytest.mark.parametrize(
    "make, rule, options",
    [
        (FTRL, "ftrl", {"learning_rate": 0.1, "initial_accum": 0.1, "l1": 0.5, "l2": 0.01}),
        (Lamb, "lamb", {"learning_rate": 0.01, "weight_decay": 0.1}),
        (AdamWeightDecay, "adam_weight_decay", {"learning_rate": 0.01, "weight_decay": 0.1}),
    ],
)
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 5e-6), (np.float64, 1e-13)])
def test_values_are_those_of_the_papers(
    make: Any, rule: str, options: dict[str, float], dtype: Any, tolerance: float
) -> None:
    expected = reference(rule, options, dtype)
    np.testing.assert_allclose(run(make, dtype, **options), expected, rtol=tolerance, atol=tolerance)
    if rule == "ftrl":
        assert (expected == 0).any()


EVERY: list[Any] = [
    lambda weights, **more: SGD(weights, 0.1, 0.9, **more),
    lambda weights, **more: AdamW(weights, 0.1, clip_norm=0.5, **more),
    Adagrad,
    FTRL,
    lambda weights, **more: Lamb(weights, 0.1, **more),
]
BY_ELEMENT: list[Any] = [
    lambda weights: SGD(weights, 0.1),
    lambda weights: SGD(weights, 0.1, 0.9),
    lambda weights: SGD(weights, 0.1, 0.9, nesterov=True),
    lambda weights: Adam(weights, 0.1),
    lambda weights: Adam(weights, 0.1, use_amsgrad=True),
    lambda weights: AdamW(weights, 0.1),
    Adagrad,
    RowwiseAdagrad,
    FTRL,
]


@pytest.mark.parametrize(
    "make", [*BY_ELEMENT, EVERY[1], EVERY[-1], lambda weights: SGD(weights, 0.1, rounding="stochastic", seed=3)]
)
def test_bits_do_not_depend_on_threads(make: Any) -> None:
    shape, threads, found = (1031, 523), numparam.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            numparam.set_num_threads(count)
            weight = Parameter(start(shape=shape), name="w")
            if (optimizer := make([weight])).rounding == "stochastic":
                optimizer = make([weight.set_dtype(ml_dtypes.bfloat16)])
            for step in range(2):
                optimizer([gradient_of(step, weight.dtype, shape)])
            found.append(weight.asnumpy().tobytes())
    finally:
        numparam.set_num_threads(threads)
    assert len(set(found)) == 1


@pytest.mark.parametrize("make", BY_ELEMENT)
def test_shards_have_the_bits_of_the_full_parameter(make: Any) -> None:
    shape, found = (24, 17), []
    for count in (1, 2, 4):
        parts = []
        for rank in range(count):
            part = Parameter(initializer("ones", shape), name="w").init_data(
                Layout({"dp": count}, ("dp", None)), rank=rank
            )
            part.set_data(part.region.take(start(shape=shape)).copy())
            optimizer = make([part])
            for step in range(3):
                optimizer([part.region.take(gradient_of(step, shape=shape)).copy()])
            parts.append(part.asnumpy().tobytes())
        found.append(b"".join(parts))
    assert len(set(found)) == 1


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_master_weights_are_those_of_float32(make: Any, dtype: Any) -> None:
    short, long = Parameter(start(dtype), name="w"), Parameter(start(dtype).astype(np.float32), name="w")
    shortened, full = make([short], rounding="master"), make([long])
    for step in range(10):
        gradient = gradient_of(step, dtype)
        shortened([gradient])
        full([gradient])
    masters = {state.name: state for state in shortened.states}
    assert masters["master.w"].asnumpy().tobytes() == long.asnumpy().tobytes()
    assert short.asnumpy().tobytes() == long.asnumpy().astype(dtype).tobytes()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_stochastic_rounding_keeps_small_steps_on_average(dtype: Any) -> None:
    """A step far below the distance of two weights is lost by rounding to nearest."""
    found = {}
    for rounding in ("nearest", "stochastic"):
        weight = Parameter(np.full(20000, 1.0, dtype), name="w")
        optimizer = SGD([weight], 1e-5, rounding=rounding, seed=3)
        for _ in range(100):
            optimizer([np.ones(20000, dtype)])
        found[rounding] = weight.asnumpy().astype(np.float64).mean()
    assert found["nearest"] == 1.0
    assert abs(found["stochastic"] - (1 - 1e-3)) < 1e-4


def test_random_words_are_those_of_seed_name_step_and_index() -> None:
    def rounded(name: str, seed: int, steps: int = 1) -> bytes:
        weight = Parameter(np.full(1000, 1.0, np.float16), name=name)
        optimizer = SGD([weight], 1e-4, rounding="stochastic", seed=seed)
        for _ in range(steps):
            weight.set_data(np.full(1000, 1.0, np.float16))
            optimizer([np.ones(1000, np.float16)])
        return weight.asnumpy().tobytes()

    assert rounded("w", 1) == rounded("w", 1)
    assert len({rounded("w", 1), rounded("v", 1), rounded("w", 2), rounded("w", 1, 2)}) == 4


@pytest.mark.parametrize("index", [np.s_[20:, 15:], np.s_[::2, 1::3], np.s_[3:30, 7:10]], ids=str)
def test_random_words_are_those_of_the_region(index: Any) -> None:
    ones, gradient, found = np.ones((40, 30), np.float16), np.full((40, 30), 1e-4, np.float16), []
    full, part = Parameter(ones, name="w"), Parameter(ones[index].copy(), name="w")
    part._region = full.region[index]
    for weight in (full, part):
        SGD([weight], 1.0, rounding="stochastic", seed=3)([weight.region.take(gradient).copy()])
        found.append(weight.asnumpy())
    assert found[1].tobytes() == found[0][index].tobytes()
    assert len(np.unique(found[0])) == 2


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_rows_are_updated_alone() -> None:
    torch = pytest.importorskip("torch")
    table, dense = Parameter(start(), name="t"), torch.nn.Parameter(torch.tensor(start()))
    optimizer, peer = LazyAdam([table], 0.01), torch.optim.SparseAdam([dense], lr=0.01)
    for step in range(20):
        rows = np.array([3, 5, 3, 22, 0]) if step % 2 else np.array([1, 2])
        values = gradient_of(step)[: len(rows)]
        optimizer([SparseRows(rows, values)])
        dense.grad = torch.sparse_coo_tensor(rows[None], values, SHAPE)
        peer.step()
    np.testing.assert_allclose(table.asnumpy(), dense.detach().numpy(), rtol=1e-4, atol=1e-5)
    untouched = [4, 6, 21]
    assert np.array_equal(table.asnumpy()[untouched], start()[untouched])
    assert not optimizer.states[0].asnumpy()[untouched].any()


@pytest.mark.parametrize(
    "make",
    [
        lambda tables: SGD(tables, 0.1, weight_decay=0.1),
        lambda tables: Momentum(tables, 0.1, 0.9, use_nesterov=True),
        lambda tables: AdamW(tables, 0.1),
        lambda tables: Adagrad(tables, 0.1, 0.1),
        lambda tables: RowwiseAdagrad(tables, 0.1, 0.1, weight_decay=0.1),
        lambda tables: FTRL(tables, 0.1, 0.1, l1=0.01),
    ],
)
def test_rows_are_updated_as_a_table_of_these_rows(make: Any) -> None:
    rows = np.array([3, 22, 0])
    table, part = Parameter(start(), name="t"), Parameter(start()[rows], name="t")
    optimizer, alone = make([table]), make([part])
    for step in range(5):
        optimizer([SparseRows(rows, gradient_of(step)[:3])])
        alone([gradient_of(step)[:3]])
    for found, expected in zip((table, *optimizer.states[:-1]), (part, *alone.states[:-1]), strict=True):
        assert found.asnumpy()[rows].tobytes() == expected.asnumpy().tobytes()
    assert np.array_equal(table.asnumpy()[4:20], start()[4:20])


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 5e-6), (np.float64, 1e-13)])
def test_rowwise_adagrad_keeps_a_number_for_each_row(dtype: Any, tolerance: float) -> None:
    rate, weight, total = 0.1, start().astype(np.float64), np.full(SHAPE[0], 0.1)
    for step in range(STEPS):
        g = gradient_of(step, dtype).astype(np.float64) + 0.01 * weight
        total += (g**2).mean(axis=1)
        weight -= rate * g / (np.sqrt(total) + 1e-10)[:, None]
    found = run(RowwiseAdagrad, dtype, learning_rate=rate, weight_decay=0.01)
    np.testing.assert_allclose(found, weight, rtol=tolerance, atol=tolerance)
    optimizer = RowwiseAdagrad([Parameter(initializer("ones", (8, 3)), name="w")])
    assert optimizer.states[0].shape == (8,)
    assert optimizer.states[0].has_init


def test_rowwise_adagrad_needs_full_rows() -> None:
    weight = Parameter(initializer("ones", (8, 6)), name="w")
    layout = Layout({"dp": 2, "tp": 2}, ("dp", "tp"))
    with pytest.raises(ValueError, match="'w': RowwiseAdagrad needs full rows"):
        RowwiseAdagrad([weight.clone().init_data(layout, rank=1)])
    part = weight.clone().init_data(Layout({"dp": 2}, ("dp", None)), rank=1)
    assert RowwiseAdagrad([part]).states[0].region.span() == (4, (1,))


def test_groups_have_their_own_options_and_schedules() -> None:
    first, second = Parameter([1.0], name="a"), Parameter([1.0], name="b")
    groups = [{"params": [first], "lr": lambda step: 0.5 / (step + 1)}, {"params": [second], "weight_decay": 0.5}]
    optimizer = SGD(groups, learning_rate=0.1)
    for _ in range(2):
        optimizer([np.ones(1, np.float32)] * 2)
    assert first.asnumpy()[0] == 1 - 0.5 - 0.25
    np.testing.assert_allclose(second.asnumpy(), 1 - 0.15 - 0.1 * (1 + 0.5 * 0.85), rtol=1e-6)


def test_gradients_are_unscaled_and_clipped_by_the_norm_of_all() -> None:
    first, second = Parameter(np.zeros(2, np.float32), name="a"), Parameter(np.zeros(1, np.float32), name="b")
    optimizer = SGD([first, second], 1.0, loss_scale=2.0, clip_norm=1.0)
    optimizer([np.array([6.0, 0.0], np.float32), np.array([8.0], np.float32)])
    np.testing.assert_allclose(first.asnumpy(), [-0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(second.asnumpy(), [-0.8], rtol=1e-6)


@pytest.mark.parametrize(
    "library, ones",
    [
        ("torch", lambda torch: torch.ones(3, dtype=torch.bfloat16)),
        ("torch", lambda torch: torch.ones(3, dtype=torch.float16)),
        ("torch", lambda torch: torch.ones(3, requires_grad=True)),
        ("jax.numpy", lambda jnp: jnp.ones(3)),
        ("numparam", lambda numparam: numparam.Tensor(np.ones(3, np.float32))),
        ("numpy", lambda np: np.ones((3, 2), np.float32)[:, 0]),
    ],
)
def test_gradients_come_from_other_libraries(library: str, ones: Any) -> None:
    gradient = ones(pytest.importorskip(library))
    weight = Parameter(np.zeros(3, np.float32), name="w")
    SGD([weight], 0.5)([gradient])
    assert weight.asnumpy().tolist() == [-0.5] * 3


def test_states_are_lazy_parameters_in_checkpoints(tmp_path: Path) -> None:
    def made() -> tuple[Parameter, Optimizer]:
        weight = Parameter(start(), name="w")
        return weight, AdamW([weight], 0.01)

    weight, optimizer = made()
    assert [state.name for state in optimizer.states] == ["moment1.w", "moment2.w", "global_step"]
    assert optimizer.states[0].has_init
    for step in range(3):
        optimizer([gradient_of(step)])
    numparam.save_checkpoint([weight, *optimizer.states], tmp_path / "x.safetensors")
    again, resumed = made()
    loaded = numparam.load_checkpoint(tmp_path / "x.safetensors")
    again.set_data(loaded["w"])
    resumed.load_states(loaded)
    optimizer([gradient_of(3)])
    resumed([gradient_of(3)])
    assert again.asnumpy().tobytes() == weight.asnumpy().tobytes()


def test_states_are_resharded_when_they_are_read(tmp_path: Path) -> None:
    full, axes = Parameter(start(shape=(24, 16)), name="w"), {"dp": 2, "tp": 2}
    optimizer = AdamW([full], 0.01)

    def sharded(spec: tuple[str | None, ...], rank: int) -> tuple[Parameter, Optimizer]:
        part = Parameter(initializer("ones", (24, 16)), name="w").init_data(Layout(axes, spec), rank=rank)
        part.set_data(part.region.take(start(shape=(24, 16))).copy())
        return part, AdamW([part], 0.01)

    def step(part: Parameter, optimizer: Optimizer, number: int) -> None:
        optimizer([part.region.take(gradient_of(number, shape=(24, 16))).copy()])

    step(full, optimizer, 0)
    for rank in range(4):
        part, of_part = sharded(("dp", "tp"), rank)
        assert [state.region.slices() for state in of_part.states[:2]] == [part.region.slices()] * 2
        step(part, of_part, 0)
        numparam.save_distributed_checkpoint([part, *of_part.states], tmp_path / "x", rank=rank, ranks=4)
    step(full, optimizer, 1)
    loaded = numparam.load_checkpoint(numparam.write_index(tmp_path / "x"))
    for rank in range(4):
        part, resumed = sharded((None, "dp"), rank)
        part.set_data(loaded["w"][part.region.slices()])
        resumed.load_states(loaded)
        step(part, resumed, 1)
        for found, expected in zip((part, *resumed.states[:2]), (full, *optimizer.states[:2]), strict=True):
            assert found.asnumpy().tobytes() == part.region.take(expected.asnumpy()).tobytes()


def test_states_of_another_optimizer_are_refused() -> None:
    weight = Parameter(start(), name="w")
    adagrad, ftrl = Adagrad([weight]), FTRL([weight])
    with pytest.raises(ValueError, match=r"Adagrad has no state 'linear.w'; the states of another optimizer"):
        adagrad.load_states({state.name: state for state in ftrl.states})
    optimizer = AdamW([weight])
    for values in (SGD([weight], 0.1, 0.9).states, Adam([Parameter(start(shape=(3,)), name="w")]).states):
        with pytest.raises(
            ValueError, match=r"AdamW has no state 'moments.w'|'moment1.w': expected \(23, 17\), found \(3,\)"
        ):
            optimizer.load_states({state.name: state for state in values})


def test_lazy_weights_are_materialised_by_the_first_step() -> None:
    weight = Parameter(initializer("ones", 4), name="w")
    optimizer = Adam([weight])
    assert weight.has_init
    optimizer([np.ones(4, np.float32)])
    assert not weight.has_init
    np.testing.assert_allclose(weight.asnumpy(), 1 - 1e-3, rtol=1e-6)


def updated(gradients: list[Any], make: Any = SGD, **options: Any) -> None:
    weights = [Parameter(np.zeros(3, np.float32), name="w"), Parameter(np.zeros((2, 2), np.float32), name="v")]
    optimizer = make(weights, 0.1, **options)
    try:
        optimizer(gradients)
    finally:
        assert not any(weight.asnumpy().any() for weight in weights)
        assert optimizer.global_step.asnumpy() == 0


GOOD = np.ones(3, np.float32)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: updated([GOOD]), ValueError, "expected a gradient for each of 2 parameters, found 1"),
        (lambda: updated([GOOD, np.ones(4)]), ValueError, r"Parameter 'v': expected a gradient of shape \(2, 2\)"),
        (lambda: updated([GOOD, np.ones((2, 2))]), TypeError, "'v' of dtype float32 takes gradients of float32,"),
        (lambda: updated([GOOD, None]), TypeError, "'v': expected a Tensor or an array as gradient, found NoneType"),
        (
            lambda: updated([GOOD, np.full((2, 2), math.inf, np.float32)], check_finite=True),
            ValueError,
            "'v': the gradient holds NaN or infinity; nothing is updated",
        ),
        (
            lambda: updated([GOOD, SparseRows([0], GOOD)], Lamb),
            TypeError,
            "Lamb takes dense gradients, found SparseRows",
        ),
        (
            lambda: updated([GOOD, SparseRows(np.array([2]), np.ones((1, 2), np.float32))], LazyAdam),
            ValueError,
            "'v': rows must be from 0 to 1",
        ),
        (lambda: SGD([1.0]), TypeError, "expected a Cell or parameters, found float at 0"),
        (lambda: SGD([], lr=-1.0), ValueError, "learning_rate must be at least 0 and finite, found -1.0"),
        (lambda: SGD([], lr="1"), TypeError, "learning_rate must be a number, found '1'"),
        (lambda: SGD([], 0.1, rate=1), ValueError, "unknown option 'rate'; choose from learning_rate, momentum"),
        (lambda: SGD([], 0.1, nesterov=True), ValueError, "nesterov needs a momentum"),
        (lambda: Adam([], beta1=1.0), ValueError, "beta1 must be at least 0 and below 1, found 1.0"),
        (lambda: Adam([], rounding="up"), ValueError, "rounding must be one of nearest, stochastic, master"),
        (lambda: Adam([{"lr": 0.1}]), TypeError, "group 0 must be a dict with 'params'"),
        (lambda: FTRL([], lr_power=0.5), ValueError, "lr_power must be -0.5, found 0.5"),
        (lambda: SGD([], loss_scale=0.0), ValueError, "loss_scale must be above 0"),
        (lambda: SGD([Parameter([1], name="i")], 0.1)([np.ones(1)]), TypeError, "'i': optimizers update floats of 16"),
        (lambda: updated([GOOD, np.ones((2, 2), np.float32)], lr=lambda _: math.nan), ValueError, "learning_rate must"),
        (
            lambda: FTRL([Parameter([0.0], name="w")], learning_rate=lambda _: 0.0)([np.ones(1, np.float32)]),
            ValueError,
            "learning_rate must be above 0 in FTRL",
        ),
    ],
)
def test_errors_name_the_parameter_and_update_nothing(call: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        call()
