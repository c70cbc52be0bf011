"""Adapters of PEFT start as PEFT starts them, or are refused by name, and the model that has them as without them."""

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import numparam  # noqa: E402
from numparam.initializer import Normal, Uniform, initializer  # noqa: E402
from numparam.torch import init_  # noqa: E402

SEED = 7
MORE: dict[str, dict[str, Any]] = {
    "IA3": {"feedforward_modules": []},
    "OFT": {"oft_block_size": 8},
    "Vera": {"d_initial": 3},
    "C3A": {"block_size": 8},
}


def expected(name: str, init: Any, shape: tuple[int, ...]) -> Any:
    numparam.set_seed(SEED)
    return torch.from_numpy(numparam.Parameter(initializer(init, shape), name=name).asnumpy())


def configuration(kind: str) -> Any:
    peft = pytest.importorskip("peft")
    if not hasattr(peft, f"{kind}Config"):
        pytest.skip(f"this version of PEFT has no {kind}")
    return getattr(peft, f"{kind}Config")(target_modules=["0"], **MORE.get(kind, {}))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("by", ["cpu", "meta"])
def test_a_model_with_adapters_has_the_values_of_the_bare_one(by: str) -> None:
    peft = pytest.importorskip("peft")
    pytest.importorskip("transformers")
    from torch_models import MODELS

    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"])
    with torch.device(by):
        bare, base = MODELS["LlamaForCausalLM"](), MODELS["LlamaForCausalLM"]()
        model = peft.get_peft_model(base, config)
    init_(bare, seed=SEED, device="cpu")
    report = init_(model, seed=SEED, device="cpu")
    theirs = dict(bare.named_parameters())
    seen = set()
    for name, tensor in model.named_parameters():
        plain = name.removeprefix("base_model.model.").replace("base_layer.", "").replace("original_module.", "")
        plain = plain.replace("modules_to_save.default.", "")
        if "lora_B" in name:
            assert not tensor.any(), name
        elif "lora_A" in name:
            bound = 1 / 48**0.5
            assert 0.9 * bound < tensor.abs().max() <= bound * 1.0001, name
        else:
            assert torch.equal(tensor, theirs[plain]), name
            seen.add(plain)
    assert seen == theirs.keys()
    assert "model.layers.0.self_attn.q_proj.lora_A.default.weight" in {row.name for row in report.filled}


@pytest.mark.filterwarnings("ignore")
def test_adapters_around_a_plain_module() -> None:
    peft = pytest.importorskip("peft")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)

    bare = Net()
    init_(bare, seed=SEED)
    model = peft.get_peft_model(Net(), peft.LoraConfig(r=2, target_modules=["first"], init_lora_weights="gaussian"))
    init_(model, seed=SEED)
    layer = model.base_model.model.first
    assert torch.equal(layer.base_layer.weight, bare.first.weight)
    assert not layer.lora_B["default"].weight.any()
    assert torch.equal(layer.lora_A["default"].weight, expected("first.lora_A.default.weight", Normal(0.5), (2, 4)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["IA3", "LoHa", "LoKr", "OFT", "Vera", "C3A", "RandLora"])
def test_adapters_start_as_peft_starts_them(kind: str) -> None:
    peft = pytest.importorskip("peft")
    config = configuration(kind)
    bare, model, own = (
        nn.Sequential(nn.Linear(64, 64)),
        *[peft.get_peft_model(nn.Sequential(nn.Linear(64, 64)), copy.deepcopy(config)) for _ in range(2)],
    )
    init_(bare, seed=SEED)
    init_(model, seed=SEED)
    assert torch.equal(model.get_base_model()[0].base_layer.weight, bare[0].weight)
    for name, theirs in own.named_parameters():
        ours = model.get_parameter(name)
        if (theirs == theirs.flatten()[0]).all():
            assert torch.equal(ours, theirs), name
        elif "base_layer" not in name:
            assert abs(ours.std() / theirs.std() - 1) < 7 * (2 / ours.numel()) ** 0.5, name
    with pytest.raises(ValueError, match=r"'default' starts with init_weights=False.*give rules"):
        init_(peft.get_peft_model(bare, peft.LoHaConfig(target_modules=["0"], init_weights=False)), seed=SEED)


def test_adapters_are_known_by_their_attributes() -> None:
    """PEFT itself is not needed: what `init_` reads of its layers is here."""

    class Lora(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base_layer = base
            self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
            self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 4, bias=False)})

        def reset_lora_parameters(self, adapter: str, init_lora_weights: Any) -> None:
            assert init_lora_weights is True
            nn.init.kaiming_uniform_(self.lora_A[adapter].weight, a=5**0.5)
            nn.init.zeros_(self.lora_B[adapter].weight)

    inside = type("BaseTunerLayer", (Lora,), {"__module__": "peft.tuners.tuners_utils"})
    layer = type("LoraLayer", (inside,), {"__module__": "peft.tuners.lora.layer"})
    bare, model = nn.Sequential(nn.Linear(4, 4)), nn.Sequential(layer(nn.Linear(4, 4)))
    init_(bare, seed=SEED)
    init_(model, seed=SEED)
    assert torch.equal(model[0].base_layer.weight, bare[0].weight)
    assert not model[0].lora_B["default"].weight.any()
    assert torch.equal(model[0].lora_A["default"].weight, expected("0.lora_A.default.weight", Uniform(0.5), (2, 4)))
    inside.reset_lora_parameters = nn.Module.register_buffer  # which needs more than a name
    other = type("OtherLayer", (inside,), {"__module__": "peft.tuners.other"})
    model = nn.Sequential(other(nn.Linear(4, 4)))
    with pytest.raises(
        ValueError, match=r"'0.lora_A.default.weight': numparam does not know how peft.tuners.other.OtherLayer starts"
    ):
        init_(model, seed=SEED)
    init_(model, {"*.lora_*": 0}, seed=SEED)
    assert torch.equal(model[0].base_layer.weight, bare[0].weight)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["Vera", "RandLora", "OFT"])
@pytest.mark.parametrize("is_empty", [False, True])
def test_tables_that_no_code_computes_again_are_refused(kind: str, is_empty: bool) -> None:
    """Adapters draw or compute them in their constructors, and on the meta device they are lost."""
    peft, config = pytest.importorskip("peft"), configuration(kind)
    with torch.device("meta"):
        model = peft.get_peft_model(nn.Sequential(nn.Linear(64, 64)), config)
    if is_empty:
        model.to_empty(device="cpu")
    with pytest.raises(RuntimeError, match=r"buffer '0\..*' may hold uninitialised memory"):
        init_(model, seed=SEED, device=None if is_empty else "cpu")


@pytest.mark.filterwarnings("ignore")
def test_prompts_from_the_words_of_the_base_model_are_refused() -> None:
    peft = pytest.importorskip("peft")
    pytest.importorskip("transformers")
    from torch_models import MODELS

    texts = {"cpt_token_ids": [1, 2], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 1]}
    for config, name in (
        (peft.CPTConfig(task_type="CAUSAL_LM", **texts), "CPTEmbedding"),
        (
            peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, prompt_tuning_init="SAMPLE_VOCAB"),
            "PromptEmbedding",
        ),
    ):
        model = peft.get_peft_model(MODELS["LlamaForCausalLM"](), config)
        with pytest.raises(ValueError, match=rf"'prompt_encoder.*weight': numparam does not know how .*{name} starts"):
            init_(model, seed=SEED)
    drawn = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, prompt_tuning_init="RANDOM")
    model = peft.get_peft_model(MODELS["LlamaForCausalLM"](), drawn)
    assert init_(model, seed=SEED).left == []
