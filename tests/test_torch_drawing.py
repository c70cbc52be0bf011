"""Initialisation code that others wrote, run by `drawing` and by `init_`, writes numparam's values."""

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest

import numparam
from numparam.initializer import Normal, TruncatedNormal, Uniform, XavierUniform, initializer

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from numparam.torch import drawing, init_  # noqa: E402

SEED = 7


def expected(name: str, init: Any, shape: tuple[int, ...]) -> Any:
    numparam.set_seed(SEED)
    return torch.from_numpy(numparam.Parameter(initializer(init, shape), name=name).asnumpy())


# --------------------------------------------------------------------------- drawing


@pytest.mark.parametrize(
    "write, init",
    [
        (lambda w: w.data.normal_(0.0, 0.02), Normal(0.02)),
        (lambda w: w.data.uniform_(-0.5, 0.5), Uniform(0.5)),
        (lambda w: nn.init.normal_(w, std=0.02), Normal(0.02)),
        (lambda w: nn.init.uniform_(w, -0.5, 0.5), Uniform(0.5)),
        (lambda w: nn.init.trunc_normal_(w, std=0.02), TruncatedNormal(0.02)),
        (nn.init.xavier_uniform_, XavierUniform()),
        (lambda w: nn.init.xavier_normal_(w, 2.0), "xavier_normal"),
        (lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"), "he_uniform"),
        (lambda w: nn.init.kaiming_normal_(w, mode="fan_out"), "he_normal"),
        (nn.init.orthogonal_, "orthogonal"),
        (lambda w: nn.init.sparse_(w, 0.3, 0.5), "sparse"),
        (nn.init.eye_, "identity"),
        (nn.init.zeros_, "zeros"),
        (lambda w: w.data.fill_(3), 3),
    ],
)
def test_every_way_to_write_a_parameter(write: Any, init: Any) -> None:
    from numparam.initializer import HeNormal, HeUniform, Sparse, XavierNormal

    named = {
        "xavier_normal": XavierNormal(2.0),
        "he_uniform": HeUniform(nonlinearity="relu"),
        "he_normal": HeNormal(mode="fan_out"),
        "sparse": Sparse(0.3, 0.5),
    }
    layer = nn.Linear(12, 10)
    state = torch.get_rng_state()
    with drawing(layer, SEED) as report:
        write(layer.weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(
        layer.weight, expected("weight", named.get(init, init) if isinstance(init, str) else init, (10, 12))
    )
    assert [row.name for row in report.filled] == ["weight"]
    assert report.left == ["bias"]
    assert report.uncaught == []


@pytest.mark.parametrize(
    "view",
    [
        lambda w: w[2:5],
        lambda w: w[3],
        lambda w: w[:, 1:7:2],
        lambda w: w.t(),
        lambda w: w.data.view(5, 2, 12)[1:3],
        lambda w: w.detach().flatten()[7:31],
        lambda w: w.data.unflatten(1, (3, 4)).transpose(0, 1),
    ],
)
def test_a_view_has_the_values_of_the_parameter(view: Any) -> None:
    layer = nn.Linear(12, 10)
    with torch.no_grad():
        layer.weight.fill_(9)
    full = nn.Parameter(expected("weight", Normal(0.1), (10, 12)))
    with drawing(layer, SEED):
        view(layer.weight).data.normal_(0, 0.1)
    assert torch.equal(view(layer.weight), view(full))
    assert (layer.weight == 9).sum() == 120 - view(full).numel()


def test_parts_of_one_parameter_are_parts_of_one_draw() -> None:
    layer = nn.Linear(12, 10)
    with drawing(layer, SEED) as report, torch.no_grad():
        for part in layer.weight.chunk(3):
            nn.init.normal_(part)
        layer.bias.zero_()
    assert torch.equal(layer.weight, expected("weight", Normal(1.0), (10, 12)))
    assert report.left == []


def test_another_call_draws_other_values_that_repeat() -> None:
    layer = nn.Linear(12, 10)

    def twice() -> Any:
        with drawing(layer, SEED), torch.no_grad():
            nn.init.normal_(layer.weight)
            first = layer.weight.clone()
            nn.init.normal_(layer.weight)
        return first, layer.weight.clone()

    first, second = twice()
    assert not torch.equal(first, second)
    assert abs(np.corrcoef(first.detach().flatten(), second.detach().flatten())[0, 1]) < 0.4
    again = twice()
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.rand(500),
        lambda: torch.randn(20, 25),
        lambda: torch.empty(500).exponential_(2.0),
        lambda: torch.empty(500).log_normal_(),
        lambda: torch.empty(500).cauchy_(),
        lambda: torch.empty(500).geometric_(0.3),
        lambda: torch.empty(500).bernoulli_(0.3),
        lambda: torch.empty(500).random_(0, 9),
        lambda: torch.randint(0, 9, (500,)).float(),
        lambda: torch.randint(9, (500,)).float(),
        lambda: torch.randperm(500).float(),
        lambda: torch.normal(0.0, 2.0, (500,)),
        lambda: torch.normal(torch.zeros(500), torch.ones(500)),
        lambda: torch.bernoulli(torch.full((500,), 0.3)),
        lambda: torch.rand_like(torch.zeros(500)),
        lambda: torch.nn.init.orthogonal_(torch.empty(20, 25)),
        lambda: torch.nn.init.trunc_normal_(torch.empty(500), std=0.3),
    ],
)
def test_temporary_tensors_are_distributed_as_torchs_and_repeat(make: Any) -> None:
    from scipy.stats import ks_2samp

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.empty(500))

        def start(self) -> None:
            self.a.data.copy_(make().flatten())

    net = Net()
    found = []
    for seed in (SEED, SEED, 8):
        torch.manual_seed(len(found))
        with drawing(net, seed) as report:
            net.start()
        assert (report.uncaught, report.left) == ([], [])
        found.append(net.a.detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    theirs = make().flatten()
    assert found[0].dtype == theirs.dtype
    assert ks_2samp(found[0].numpy(), theirs.numpy()).pvalue > 1e-3


def test_other_generators_are_named() -> None:
    layer = nn.Linear(2, 2)
    with drawing(layer, SEED) as report, torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.random.rand(2, 2)))  # noqa: NPY002
        torch.nn.functional.dropout(layer.bias)
    assert "numpy.random was used" in report.uncaught
    assert any("dropout" in what for what in report.uncaught)


def test_constructors_inside_the_block() -> None:
    class Net(nn.Module):
        pass

    net = Net()
    with drawing(net, SEED) as report:
        net.first = nn.Linear(6, 4)
        net.second = nn.Embedding(9, 4, padding_idx=2)
        nn.init.normal_(net.second.weight[3:5], std=3.0)
    bound = 1 / 6**0.5
    assert torch.allclose(net.first.weight, expected("first.weight", Uniform(bound), (4, 6)), rtol=1e-6)
    assert (net.second.weight[2] == 0).all()
    assert torch.equal(net.second.weight[5:], expected("second.weight", Normal(1.0), (9, 4))[5:])
    assert {row.name for row in report.filled} == {"first.weight", "first.bias", "second.weight"}


def test_functions_imported_by_name_are_seen_and_restored() -> None:
    from torch.nn.init import orthogonal_

    layer = nn.Linear(4, 4)
    before = orthogonal_.__code__
    with drawing(layer, SEED):
        orthogonal_(layer.weight)
    assert orthogonal_.__code__ is before
    assert torch.equal(layer.weight, expected("weight", "orthogonal", (4, 4)))


# --------------------------------------------------------------------------- init_ with a model's own code


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(4))
        self.proj = nn.Linear(4, 4)
        self.register_buffer("table", torch.empty(4), persistent=False)

    def reset_parameters(self) -> None:
        nn.init.constant_(self.gain, 0.5)
        with torch.no_grad():
            self.proj.weight.mul_(0.1)
            self.table.copy_(torch.arange(4.0))


@pytest.mark.parametrize("by", ["cpu", "meta", "to_empty"])
def test_init_runs_what_a_model_declares(by: str) -> None:
    with torch.device("cpu" if by == "cpu" else "meta"):
        net = nn.Sequential(Block(), nn.Linear(4, 2))
    if by == "to_empty":
        net.to_empty(device="cpu")
    report = init_(net, seed=SEED, device="cpu" if by == "meta" else None)
    assert (net[0].gain == 0.5).all()
    assert net[0].table.tolist() == [0, 1, 2, 3]
    default = expected("0.proj.weight", Uniform(0.5), (4, 4))
    assert torch.equal(net[0].proj.weight, default * 0.1)
    assert torch.equal(net[0].proj.bias, expected("0.proj.bias", Uniform(0.5), (4,)))
    rules = {row.name: row.rule for row in report.filled}
    assert rules["0.gain"] == "Block.reset_parameters"
    assert rules["1.weight"] == "torch.nn.Linear"


class Replaces(nn.Module):
    """Give itself other tensors while it starts, as models of torchtitan do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.gain = nn.Parameter(torch.ones(4))
        self.register_buffer("table", torch.ones(4), persistent=False)

    def init_weights(self) -> None:
        self.table = torch.arange(4.0)
        nn.init.normal_(self.head.weight, std=0.1)
        self.embed.weight = self.head.weight
        self.gain = nn.Parameter(torch.empty(6))
        nn.init.normal_(self.gain)


@pytest.mark.parametrize("by", ["cpu", "meta", "drawing"])
def test_tensors_that_a_start_replaces(by: str) -> None:
    with torch.device("meta" if by == "meta" else "cpu"):
        net = Replaces()
    if by == "drawing":
        with drawing(net, seed=SEED) as report:
            net.init_weights()
    else:
        report = init_(net, seed=SEED, device="cpu")
    assert (report.left, report.uncaught) == ([], [])
    assert net.table.tolist() == [0, 1, 2, 3]
    assert net.embed.weight is net.head.weight
    name = "head.weight" if by == "drawing" else "embed.weight"  # the first place, known after the first run
    assert torch.equal(net.head.weight, expected(name, Normal(0.1), (5, 4)))
    assert torch.equal(net.gain, expected("gain", Normal(1.0), (6,)))


def test_rules_decide_before_a_model() -> None:
    net = nn.Sequential(Block())
    init_(net, {"*.gain": 3}, seed=SEED)
    assert (net[0].gain == 3).all()


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def init_weights(self) -> None:
        nn.init.normal_(self.first)


class Breaks(Half):
    def init_weights(self) -> None:
        nn.init.normal_(self.first)
        nn.init.normal_(self.second)
        raise ZeroDivisionError


@pytest.mark.parametrize("kind, error", [(Half, ValueError), (Breaks, ZeroDivisionError)])
def test_nothing_is_written_when_own_code_leaves_something_or_raises(kind: Any, error: Any) -> None:
    net = nn.Sequential(nn.Linear(2, 2), kind())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(error, match="'1.second' .* Half" if kind is Half else None):
        init_(net, seed=SEED)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(2, 2), kind())
    with pytest.raises(error):
        init_(net, seed=SEED, device="cpu")
    assert all(parameter.is_meta for parameter in net.parameters())


def test_functions_of_torch_are_rules() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    rules = {"0.weight": partial(nn.init.trunc_normal_, std=0.02), "1.weight": nn.init.xavier_uniform_, "*.bias": 0}
    init_(net, rules, seed=SEED)
    assert torch.equal(net[0].weight, expected("0.weight", TruncatedNormal(0.02), (3, 4)))
    assert torch.equal(net[1].weight, expected("1.weight", XavierUniform(), (2, 3)))
