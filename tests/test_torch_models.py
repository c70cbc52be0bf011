"""Models of transformers start in one call as their own code starts them."""

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="models of transformers are compared with their own initialisation")

from torch import nn  # noqa: E402

from numparam.torch import init_  # noqa: E402
from torch_models import MODELS, OTHERS  # noqa: E402

SEEDS = 8


def state(model: Any) -> dict[str, Any]:
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor.detach().double().numpy() for name, tensor in found.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*MODELS, *[pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]])
def test_values_are_distributed_as_those_of_the_model(name: str) -> None:
    make = (MODELS | OTHERS)[name]
    with torch.device("meta"):
        models = [make() for _ in range(SEEDS)]
    generator = torch.get_rng_state()
    reports = [init_(model, seed=seed, device="cpu") for seed, model in enumerate(models)]
    assert torch.equal(torch.get_rng_state(), generator)
    assert all((report.left, report.uncaught) == ([], []) for report in reports)
    found = [state(model) for model in models]
    expected = [state(make()) for _ in range(SEEDS)]
    assert found[0].keys() == expected[0].keys()
    for key in found[0]:
        ours, theirs = (np.stack([one[key].ravel() for one in many]) for many in (found, expected))
        if (theirs == theirs[0]).all():
            np.testing.assert_array_equal(ours, theirs, err_msg=key)
            continue
        assert not (ours == ours[0]).all(), key
        count = theirs.size
        tolerance = 6 * math.sqrt(2 / count)  # six sigmas of the difference of two samples
        assert abs(ours.mean() - theirs.mean()) < tolerance * theirs.std() + 1e-9, key
        assert abs(ours.std() / theirs.std() - 1) < tolerance, key
        np.testing.assert_array_equal((ours == 0).all(axis=0), (theirs == 0).all(axis=0), err_msg=key)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("by", ["cpu", "to_empty"])
def test_every_way_to_a_device_gives_the_same_values(by: str) -> None:
    for name in ("LlamaForCausalLM tied", "BertForMaskedLM", "T5ForConditionalGeneration"):
        with torch.device("meta"):
            by_device, model = MODELS[name](), MODELS[name]()
        init_(by_device, seed=3, device="cpu")
        if by == "cpu":
            model = MODELS[name]()
        else:
            model.to_empty(device="cpu")
        init_(model, seed=3)
        ours, theirs = state(model), state(by_device)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
        if model.get_output_embeddings() is not None and "Bert" not in name:
            assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.filterwarnings("ignore")
def test_a_model_inside_another_module_keeps_its_own_start() -> None:
    with torch.device("meta"):
        alone = MODELS["BloomForCausalLM"]()
        both = nn.ModuleDict({"body": MODELS["BloomForCausalLM"](), "head": nn.Linear(211, 3)})
    init_(alone, seed=3, device="cpu", prefix="body")
    report = init_(both, seed=3, device="cpu")
    ours, theirs = state(both["body"]), state(alone)
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    rules = {row.name: row.rule for row in report.filled}
    assert rules["head.weight"] == "torch.nn.Linear"
    assert rules["body.transformer.word_embeddings.weight"] == "BloomForCausalLM._init_weights"
