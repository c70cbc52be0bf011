"""Which name decides the values: ties, stages, renamed layers, wrappers, adapters; and what must not be filled."""

import copy
from typing import Any

import numpy as np
import pytest

import numparam
from numparam.initializer import Initializer, Normal, Uniform, initializer

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from numparam.torch import drawing, init_, megatron_shards  # noqa: E402

SEED = 7


def expected(name: str, init: Any, shape: tuple[int, ...]) -> Any:
    numparam.set_seed(SEED)
    return torch.from_numpy(numparam.Parameter(initializer(init, shape), name=name).asnumpy())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight


def stage(*parts: str) -> Any:
    model = Tied()
    return nn.ModuleDict({name: getattr(model, name) for name in parts})


# --------------------------------------------------------------------------- names


def test_same_as_gives_stages_the_same_values() -> None:
    rules = {"embed.weight": Normal(0.02)}
    first, last = stage("embed"), stage("body", "head")
    last["head"].weight = nn.Parameter(torch.empty(9, 4))
    for part in (first, last):
        init_(part, rules, seed=SEED, same_as={"head.weight": "embed.weight"})
    assert torch.equal(first["embed"].weight, last["head"].weight)
    whole = Tied().to("meta").to_empty(device="cpu")  # which separates them
    assert whole.head.weight is not whole.embed.weight
    init_(whole, rules, seed=SEED, same_as={"head.weight": "embed.weight"})
    assert torch.equal(whole.head.weight, first["embed"].weight)
    assert torch.equal(whole.embed.weight, first["embed"].weight)


def test_same_as_without_a_rule_takes_the_start_of_the_source_or_is_refused() -> None:
    whole = Tied()
    whole.head.weight = nn.Parameter(torch.empty(9, 4))
    init_(whole, seed=SEED, same_as={"head.weight": "embed.weight"})
    assert torch.equal(whole.head.weight, expected("embed.weight", Normal(1.0), (9, 4)))
    assert torch.equal(whole.embed.weight, whole.head.weight)
    with pytest.raises(ValueError, match=r"'head.weight' .* 'embed.weight', which is not in this module; give a rule"):
        init_(stage("head"), seed=SEED, same_as={"head.weight": "embed.weight"})
    with pytest.raises(ValueError, match=r"'body.weight' and 'head.weight' .* shapes \(4, 4\) and \(9, 4\)"):
        init_(whole, seed=SEED, same_as={"head.weight": "body.weight"})


class TiesLate(Tied):
    """Share weights at one end of its start, as models do whose copies `to_empty` has separated."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def init_weights(self) -> None:
        if self.at == "begin":
            self.embed.weight = self.head.weight
        for part in (self.embed, self.body, self.head):
            nn.init.normal_(part.weight, std=0.02)
        nn.init.zeros_(self.body.bias)
        if self.at == "end":
            self.embed.weight = self.head.weight


@pytest.mark.parametrize("at", ["begin", "end"])
def test_ties_that_code_makes_give_the_same_values_on_every_way(at: str) -> None:
    nets = [TiesLate(at) for _ in range(4)]
    init_(nets[0], seed=SEED)
    init_(nets[1].to("meta").to_empty(device="cpu"), seed=SEED)
    init_(nets[2].to("meta"), seed=SEED, device="cpu")
    with torch.device("meta"):
        nets.append(TiesLate(at))
    assert len(init_(nets[4], seed=SEED, device="cpu").filled) == 3
    if at == "begin":
        nets[3].to("meta").to_empty(device="cpu")
        with drawing(nets[3], seed=SEED):
            nets[3].init_weights()
    else:
        init_(nets[3], seed=SEED)
    for net in nets:
        assert net.embed.weight is net.head.weight
        assert torch.equal(net.embed.weight, nets[0].embed.weight)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("layers.", "layers.1", 1),
        {"layers.0": "layers.10", "layers.1": "layers.11"},
        {"layers.*.weight": "layers.1*.weight", "*layers.*.bias": "*layers.1*.bias"},
    ],
)
def test_rename_gives_stages_the_values_of_the_full_model(rename: Any) -> None:
    full = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 3) for _ in range(12)])})
    part = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])})
    init_(full, seed=SEED)
    report = init_(part, seed=SEED, rename=rename)
    assert [row.name for row in report.filled] == [
        "layers.10.weight",
        "layers.10.bias",
        "layers.11.weight",
        "layers.11.bias",
    ]
    for ours, theirs in zip(part["layers"], full["layers"][10:], strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)


def test_rename_takes_a_wrapper_away() -> None:
    bare, wrapped = nn.Linear(3, 3), nn.ModuleDict({"module": nn.Linear(3, 3)})
    init_(bare, seed=SEED)
    init_(wrapped, seed=SEED, rename={"module": ""})
    assert torch.equal(wrapped["module"].weight, bare.weight)


def test_what_is_no_rename() -> None:
    with pytest.raises(TypeError, match="rename is a callable or a mapping of patterns, found 3"):
        init_(nn.Linear(2, 2), seed=SEED, rename=3)
    with pytest.raises(TypeError, match=r"rename\('weight'\) must return a name, found None"):
        init_(nn.Linear(2, 2), seed=SEED, rename=lambda _: None)


def test_two_parameters_cannot_be_renamed_to_one() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"'0.weight' and '1.weight' .* 'w.weight'"):
        init_(net, seed=SEED, rename={"*.weight": "w.weight"})


def test_a_wrapper_of_lightning_leaves_no_trace() -> None:
    kind = type("_FabricModule", (nn.Module,), {"__module__": "lightning.fabric.wrappers"})
    wrapped = kind()
    wrapped._forward_module = wrapped._original_module = nn.Linear(3, 2)
    assert [row.name for row in init_(wrapped, seed=SEED).filled] == ["weight", "bias"]


# --------------------------------------------------------------------------- what was zeroed, buffers, odd tensors


def test_zeros_of_a_constructor_are_kept() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    for parameter in net[1].parameters():
        nn.init.zeros_(parameter)
    report = init_(net, seed=SEED)
    assert not net[1].weight.any()
    assert not net[1].bias.any()
    assert net[0].weight.any()
    assert {row.name: row.rule for row in report.filled}["1.weight"] == "zero before"
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    init_(net, seed=SEED)  # a module of zeros says nothing
    assert net[1].weight.any()


def test_what_a_constructor_wrote_on_meta_is_not_forgotten() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Embedding(5, 3, padding_idx=1), nn.Linear(3, 3), nn.MultiheadAttention(4, 2))
        init_(copy.deepcopy(net), seed=SEED, device="cpu")
        nn.init.zeros_(net[1].weight)
    with pytest.raises(ValueError, match=r"parameter '1.weight' was written to on the meta device .*: give it a rule"):
        init_(net, seed=SEED, device="cpu")
    init_(net, {"1.weight": "zeros"}, seed=SEED, device="cpu")
    assert not net[1].weight.any()


class Control(nn.Module):
    """Zero a convolution in the constructor, as models of diffusers do."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.conv, self.zero = nn.Conv2d(3, 4, 1), nn.Conv2d(4, config["channels"], 1)
        nn.init.normal_(self.conv.weight, std=0.02)
        for parameter in self.zero.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("table", torch.arange(4.0, device=None), persistent=False)

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(config)


@pytest.mark.parametrize("by", ["cpu", "meta", "to_empty"])
def test_a_model_of_diffusers_starts_as_its_constructor_says(by: str) -> None:
    mixins = [type(name, (), {"__module__": "diffusers.models"}) for name in ("ModelMixin", "ConfigMixin")]
    kind = type("Control", (Control, *mixins), {"__module__": "diffusers.models"})
    with torch.device("cpu" if by == "cpu" else "meta"):
        model = kind({"channels": 5})
    if by == "to_empty":
        model.to_empty(device="cpu")
    report = init_(model, seed=SEED, device="cpu" if by == "meta" else None)
    assert not any(parameter.any() for parameter in model.zero.parameters())
    assert torch.equal(model.conv.weight, expected("conv.weight", Normal(0.02), (4, 3, 1, 1)))
    assert model.table.tolist() == [0, 1, 2, 3]
    assert (report.left, report.uncaught) == ([], [])


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(2, 2)
        self.register_buffer("table", torch.arange(4.0), persistent=False)


def test_buffers_after_to_empty_are_refused_or_named_by_rules() -> None:
    net = nn.Sequential(Rotary())
    assert init_(net, seed=SEED).left == ["0.table"]
    net = nn.Sequential(Rotary().to("meta")).to_empty(device="cpu")
    with pytest.raises(RuntimeError, match=r"buffer '0.table' may hold uninitialised memory"):
        init_(net, seed=SEED)
    assert init_(net, {"*.table": "unset"}, seed=SEED).left == ["0.table"]
    init_(net, {"*.table": "arange"}, seed=SEED)
    assert net[0].table.tolist() == [0, 1, 2, 3]
    init_(net, {"*": 1, "*.table": "unset"}, seed=SEED)
    assert net[0].table.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fnuz", "float8_e8m0fnu", "complex64", "float4_e2m1fn_x2"])
def test_weights_of_other_dtypes_are_refused_or_left(dtype: str) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    values = torch.ones(2, 2, dtype=torch.uint8)
    values = values.view(torch.float4_e2m1fn_x2) if "float4" in dtype else values.to(getattr(torch, dtype))
    net[1].weight = nn.Parameter(values.clone(), requires_grad=False)
    before = copy.deepcopy(net[0].weight)
    with pytest.raises(TypeError, match=r"parameter '1.weight' .*\"unset\""):
        init_(net, seed=SEED)
    assert torch.equal(net[0].weight, before)
    report = init_(net, {"1.weight": "unset"}, seed=SEED)
    assert report.left == ["1.weight"]
    assert torch.equal(net[1].weight.view(torch.uint8), values.view(torch.uint8))


def test_tensor_subclasses_are_refused_or_left() -> None:
    class Packed(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return super().__torch_function__(func, types, args, kwargs or {})

    net = nn.Sequential(nn.Linear(2, 2))
    net[0].weight = nn.Parameter(torch.ones(2, 2).as_subclass(Packed))
    with pytest.raises(TypeError, match=r"parameter '0.weight' .*Packed.*\"unset\""):
        init_(net, seed=SEED)
    assert init_(net, {"0.weight": "unset"}, seed=SEED).left == ["0.weight"]


def test_placeholders_of_zero_3_are_refused_or_left() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    for weight in (net[0].weight, net[1].weight):
        weight.ds_shape, weight.data = weight.shape, torch.empty(0)
    bias = net[1].bias.clone()
    words = r"'0.weight' \(and 1 more, '1.weight' next\) is a placeholder .* shape \(3, 4\).*GatheredParameters"
    for rules in (None, {"*": 0}):
        with pytest.raises(RuntimeError, match=words):
            init_(net, rules, seed=SEED)
    assert torch.equal(net[1].bias, bias)
    report = init_(net, {"*.weight": "unset"}, seed=SEED)
    assert report.left == ["0.weight", "1.weight"]
    assert torch.equal(net[1].bias, expected("1.bias", Uniform(3**-0.5), (2,)))  # by the full weight


class Breaks(Initializer):
    def _initialize(self, arr: Any) -> None:
        arr[...] = 5
        raise ZeroDivisionError("in the middle")


def test_nothing_is_written_when_an_initializer_raises() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before = copy.deepcopy(net)
    with pytest.raises(RuntimeError, match=r"parameter '1.weight' gets Breaks\(\): ZeroDivisionError: in the middle"):
        init_(net, {"1.weight": Breaks()}, seed=SEED)
    assert all(map(torch.equal, net.parameters(), before.parameters()))


def test_uniform_is_the_default_of_linear() -> None:
    layer = nn.Linear(4, 3)
    init_(layer, seed=SEED)
    np.testing.assert_array_equal(layer.weight.detach(), expected("weight", Uniform(0.5), (3, 4)))


# --------------------------------------------------------------------------- parts and layouts


class Parallel(nn.Module):
    """Hold a plain local shard with the attributes of Megatron-Core, of fused blocks where the stride is above 1."""

    def __init__(self, size: int, axis: int = 0, stride: int = 1) -> None:
        super().__init__()
        shape = (12 // size, 4) if axis == 0 else (4, 12 // size)
        self.weight = nn.Parameter(torch.empty(shape))
        self.weight.tensor_model_parallel, self.weight.partition_dim = True, axis
        self.weight.partition_stride = stride
        self.norm = nn.LayerNorm(4)

    def reset_parameters(self) -> None:
        nn.init.xavier_normal_(self.weight)


@pytest.mark.parametrize("axis, stride", [(0, 1), (1, 1), (0, 2), (1, 4)])
@pytest.mark.parametrize("rules", [None, {"weight": "he_normal"}, {"weight": "orthogonal"}, {"weight": 1}])
def test_shards_of_megatron_hold_their_part(rules: Any, axis: int, stride: int) -> None:
    size = 3
    full = Parallel(1, axis, stride)
    init_(full, rules, seed=SEED, where=megatron_shards(0, 1))
    blocks = full.weight.chunk(size * stride, axis)
    for rank in range(size):
        part = Parallel(size, axis, stride)
        if stride > 1 and rules == {"weight": "orthogonal"}:
            with pytest.raises(ValueError, match="parameter 'weight' is in blocks, which Orthogonal"):
                init_(part, rules, seed=SEED, where=megatron_shards(rank, size))
            continue
        report = init_(part, rules, seed=SEED, where=megatron_shards(rank, size))
        assert torch.equal(part.weight, torch.cat(blocks[rank::size], axis))
        assert (part.norm.weight == 1).all()
        assert report.left == []
    part.weight.partition_stride = 5
    with pytest.raises(ValueError, match=f"parameter 'weight': axis {axis} of length 4 is not divisible into 5 blocks"):
        init_(part, {"weight": 1}, seed=SEED, where=megatron_shards(0, size))


def test_where_must_fit() -> None:
    with pytest.raises(ValueError, match=r"where\('weight'\) returned Region.* for a tensor of shape \(4, 4\)"):
        init_(Parallel(3), {"weight": 1}, seed=SEED, where=lambda _, t: ((12, 4), np.s_[:3], t))
    with pytest.raises(ValueError, match=r"is a part of a full one.*give a rule"):
        init_(nn.Linear(4, 4), seed=SEED, where=lambda _, t: ((2 * t.shape[0], *t.shape[1:]), np.s_[:4], t))


@pytest.mark.filterwarnings("ignore")
def test_rules_read_the_weights_of_transformers_as_they_are_stored() -> None:
    pytest.importorskip("transformers")
    from torch_models import MODELS

    with torch.device("meta"):
        model = MODELS["GPT2LMHeadModel"]()
    init_(model, {"*c_*.weight": "xavier_uniform"}, seed=SEED, device="cpu")
    block = model.transformer.h[0]
    assert block.attn.c_attn.weight.abs().max().item() == pytest.approx((6 / 96) ** 0.5, rel=0.02)
    init_(model, {"*c_*.weight": "he_uniform"}, seed=SEED)
    assert block.mlp.c_proj.weight.abs().max().item() == pytest.approx((6 / block.mlp.c_proj.nx) ** 0.5, rel=0.02)
    for name in ("MixtralForCausalLM", "GptOssForCausalLM"):
        with torch.device("meta"):
            model = MODELS[name]()
        init_(model, {"*gate_up_proj": "xavier_uniform", "*down_proj": "he_uniform"}, seed=SEED, device="cpu")
        experts = model.model.layers[0].mlp.experts
        assert experts.gate_up_proj.abs().max().item() == pytest.approx((6 / (48 + 96)) ** 0.5, rel=0.02), name
        assert experts.down_proj.abs().max().item() == pytest.approx((6 / 96) ** 0.5, rel=0.02), name
