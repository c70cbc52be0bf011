"""The ranks of the tests of `numparam.torch.drawing` with several processes; `test_torch_ranks.py` says how many.

Every case starts a sharded model by its own code, and compares each part with what one process gives the full model.
"""

from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, zeros
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from numparam.indexing.region import Region
from numparam.initializer import Normal
from numparam.torch import drawing, fill_, grow_, init_
from torch_cases import SEED, SIZE, case, main, same, same_modules, world

SHARDED = (
    *("LlamaForCausalLM", "LlamaForCausalLM tied", "MixtralForCausalLM", "Qwen3NextForCausalLM", "GPT2LMHeadModel"),
    *("BertForMaskedLM", "T5ForConditionalGeneration", "MambaForCausalLM", "DeepseekV3ForCausalLM"),
    *("GptOssForCausalLM", "Dinov2Model", "ResNetModel", "BloomForCausalLM", "SwinModel"),
)


def has_transformers() -> bool:
    return find_spec("transformers") is not None


@case
def models_of_transformers_have_the_values_of_one_process() -> None:
    if not has_transformers():
        return
    from torch_models import MODELS

    for name in SHARDED:
        with torch.device("meta"):
            full, model = MODELS[name](), MODELS[name]()
        init_(full, seed=SEED, device="cpu")
        for part in reversed(list(model.modules())):  # the inner ones first
            if isinstance(part, nn.ModuleList):
                for layer in part:
                    fully_shard(layer)
        fully_shard(model)
        with CommDebugMode() as communication:
            init_(model, seed=SEED, device="cpu")
        assert communication.get_total_counts() == 0, name
        same_modules(model, full, name)


@case
def tensor_parallel_and_fsdp_together() -> None:
    if SIZE != 4 or not has_transformers():
        return
    from torch_models import MODELS

    mesh = world(2, 2)
    with torch.device("meta"):
        full, model = MODELS["LlamaForCausalLM"](), MODELS["LlamaForCausalLM"]()
    init_(full, seed=SEED, device="cpu")
    for layer in model.model.layers:
        names = {f"self_attn.{kind}_proj": ColwiseParallel() for kind in "qkv"}
        names |= {"self_attn.o_proj": RowwiseParallel(), "mlp.down_proj": RowwiseParallel()}
        names |= {"mlp.gate_proj": ColwiseParallel(), "mlp.up_proj": ColwiseParallel()}
        parallelize_module(layer, mesh["tp"], names)
        fully_shard(layer, mesh=mesh["dp"])
    fully_shard(model, mesh=mesh["dp"])
    model.to_empty(device="cpu")
    init_(model, seed=SEED)
    parts = dict(model.named_parameters())
    for name, tensor in full.named_parameters():
        if "_proj" not in name:
            same(parts[name], tensor, name)
            continue
        dp, tp = mesh.get_coordinate() or [0, 0]
        axis = 1 if "o_proj" in name or "down_proj" in name else 0
        part = tensor.chunk(2, axis)[tp].chunk(2, 0)[dp]
        assert torch.equal(parts[name].to_local(), part), name


class Parts(nn.Module):
    """Write parts of parameters in many ways."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(9, 8))
        self.experts = nn.Parameter(torch.empty(5, 4, 8))
        self.decay = nn.Parameter(torch.empty(9))
        self.embed = nn.Embedding(9, 4, padding_idx=3)

    def reset_parameters(self) -> None:
        for expert in self.experts:
            nn.init.kaiming_uniform_(expert, a=5**0.5)
        with torch.no_grad():
            for part in self.weight.chunk(3):
                nn.init.orthogonal_(part)
            self.weight[2] = torch.rand(8)
            self.weight[4:6, ::2].fill_(7)
            self.weight *= 2
            self.weight[:, 1].normal_()
            self.decay.copy_(torch.empty_like(self.decay).uniform_(1, 16))
            self.decay.mul_(torch.arange(9.0))
            self.experts.data[1, 2:].zero_()
            nn.init.trunc_normal_(self.embed.weight, std=0.5)
            self.embed.weight[self.embed.padding_idx].zero_()


@case
def parts_of_sharded_parameters() -> None:
    full = Parts()
    with drawing(full, SEED):
        full.reset_parameters()
    for axis in (0, 1):
        with torch.device("meta"):
            model = Parts()
        fully_shard(model, shard_placement_fn=lambda tensor, axis=axis: Shard(min(axis, tensor.ndim - 1)))
        model.to_empty(device="cpu")
        with CommDebugMode() as communication, drawing(model, SEED) as report:
            model.reset_parameters()
        assert communication.get_total_counts() == 0
        assert (report.left, report.uncaught) == ([], [])
        same_modules(model, full, f"axis {axis}")


@case
def rows_of_sharded_tensors() -> None:
    """Fill, and add, rows of a table on the rank that holds them; refuse to fill a copy."""
    full = fill_(torch.empty(10, 8), Normal(), "w", SEED)
    rows = Region.full((10, 8))[4:, 1:7:2]
    for placement in (Shard(0), Shard(1), Replicate()):
        table = zeros(10, 8, device_mesh=world(SIZE), placements=[placement])
        fill_(table, Normal(), "w", SEED, region=rows)
        expected = torch.zeros(10, 8)
        expected[4:, 1:7:2] = full[4:, 1:7:2]
        assert torch.equal(table.full_tensor(), expected), placement
        part = nn.Parameter(table)[4:]
        if placement == Shard(0) and SIZE > 1:
            with pytest.raises(RuntimeError, match="would be filled and lost"):
                fill_(part, Normal(), "w", SEED)
        layer = nn.Embedding(6, 8)
        layer.weight = nn.Parameter(distribute_tensor(full[:6], world(SIZE), [placement]))
        grown = grow_(layer, "weight", 10, Normal(), SEED)
        assert layer.weight is grown
        assert layer.num_embeddings == 10
        alone = nn.Embedding(6, 8)
        alone.weight.data.copy_(full[:6])
        assert torch.equal(grown.full_tensor(), grow_(alone, "weight", 10, Normal(), SEED)), placement
        assert torch.equal(grown.full_tensor()[:6], full[:6])


@case
def tables_that_fsdp_shards_grow() -> None:
    alone = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    init_(alone, seed=SEED)
    for is_called in (False, True):
        model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
        model[1].weight = model[0].weight
        fully_shard(model)
        init_(model, seed=SEED)
        if is_called:
            model(torch.arange(7))  # leaves the gathered parameter in its place
        grown = grow_(model, "0.weight", 10, seed=SEED)
        assert grown is model[0].weight
        assert grown is model[1].weight
        assert (model[0].num_embeddings, model[1].out_features) == (10, 10)
        full = nn.Embedding(10, 4)
        full.weight.data = fill_(torch.empty(10, 4), Normal(1.0), "0.weight", SEED)
        assert torch.equal(grown.full_tensor(), full.weight)
        assert torch.equal(grown.full_tensor()[:7], alone[0].weight)
        model(torch.arange(10)).sum().backward()
        outputs = full(torch.arange(10)) @ full.weight.T
        outputs.sum().backward()
        assert torch.allclose(grown.grad.full_tensor(), full.weight.grad, rtol=1e-5)
        state = model.state_dict()
        assert state["0.weight"].shape == (10, 4)
        model.load_state_dict(state)


@case
def ties_that_to_empty_breaks_are_equal_again() -> None:
    if not has_transformers():
        return
    from torch_models import MODELS

    for name in ("LlamaForCausalLM tied", "T5ForConditionalGeneration"):
        with torch.device("meta"):
            model = MODELS[name]()
        fully_shard(model)
        model.to_empty(device="cpu")
        init_(model, seed=SEED)
        head, embedding = model.lm_head.weight, model.get_input_embeddings().weight
        assert torch.equal(head.full_tensor(), embedding.full_tensor()), name


@case
def ties_that_tensor_parallelism_breaks_are_equal_again() -> None:
    if not has_transformers():
        return
    from torch_models import MODELS

    with torch.device("meta"):
        full = MODELS["LlamaForCausalLM tied"]()
    init_(full, seed=SEED, device="cpu")
    rows = RowwiseParallel(input_layouts=Replicate())
    for names in (
        {"model.embed_tokens": rows, "lm_head": ColwiseParallel()},
        {"model.embed_tokens": ColwiseParallel(), "lm_head": ColwiseParallel()},
        {"model.embed_tokens": rows},
        {"lm_head": ColwiseParallel()},
    ):
        with torch.device("meta"):
            model = MODELS["LlamaForCausalLM tied"]()
        parallelize_module(model, world(SIZE), names)
        init_(model, seed=SEED, device="cpu")
        same(model.lm_head.weight, full.lm_head.weight, names)
        same(model.model.embed_tokens.weight, full.lm_head.weight, names)


if __name__ == "__main__":
    if has_transformers():  # imported before the fork, for all ranks
        from torch_models import MODELS

        with torch.device("meta"):
            for name in SHARDED:
                MODELS[name]()
    main()
