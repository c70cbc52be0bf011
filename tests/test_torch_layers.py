"""Layers of torch start from the distributions that torch's own reset_parameters gives them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from ramp import Ramp

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from numparam.initializer import Normal  # noqa: E402
from numparam.torch import init_  # noqa: E402

LAYERS: dict[str, Callable[[], Any]] = {
    "Linear": lambda: nn.Linear(300, 500),
    "Linear without bias": lambda: nn.Linear(30, 50, bias=False),
    "Linear without inputs": lambda: nn.Linear(0, 4),
    "Bilinear": lambda: nn.Bilinear(30, 20, 400),
    "Conv1d": lambda: nn.Conv1d(30, 600, 5),
    "Conv2d": lambda: nn.Conv2d(12, 600, (3, 5), groups=3),
    "Conv3d": lambda: nn.Conv3d(4, 600, 2),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(30, 600, 5),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(12, 600, (3, 5), groups=3),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(4, 600, 2),
    "Embedding": lambda: nn.Embedding(500, 16),
    "Embedding with padding": lambda: nn.Embedding(500, 16, padding_idx=-1),
    "EmbeddingBag": lambda: nn.EmbeddingBag(500, 16, padding_idx=3),
    "RNN": lambda: nn.RNN(20, 300, num_layers=2, bidirectional=True),
    "LSTM": lambda: nn.LSTM(20, 300, proj_size=40),
    "GRU": lambda: nn.GRU(20, 300),
    "RNNCell": lambda: nn.RNNCell(20, 600),
    "LSTMCell": lambda: nn.LSTMCell(20, 300),
    "GRUCell": lambda: nn.GRUCell(20, 300, bias=False),
    "LayerNorm": lambda: nn.LayerNorm((3, 4)),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "RMSNorm": lambda: nn.RMSNorm(4),
    "BatchNorm1d": lambda: nn.BatchNorm1d(4),
    "BatchNorm2d": lambda: nn.BatchNorm2d(4, affine=False),
    "BatchNorm3d": lambda: nn.BatchNorm3d(4, track_running_stats=False),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(4),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(4, affine=True),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "InstanceNorm3d": lambda: nn.InstanceNorm3d(4),
    "PReLU": lambda: nn.PReLU(7),
    "PReLU of another slope": lambda: nn.PReLU(init=0.5),
    "MultiheadAttention": lambda: nn.MultiheadAttention(60, 4),
    "MultiheadAttention with other keys": lambda: nn.MultiheadAttention(512, 4, kdim=30, vdim=90, add_bias_kv=True),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(60, 4, 600),
    "TransformerDecoderLayer": lambda: nn.TransformerDecoderLayer(60, 4, 600),
    "Transformer": lambda: nn.Transformer(60, 4, 1, 1, 600),
    "AdaptiveLogSoftmaxWithLoss": lambda: nn.AdaptiveLogSoftmaxWithLoss(60, 900, [100, 300]),
}


def tensors(module: Any) -> dict[str, Any]:
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors", "ignore:enable_nested_tensor is True")
def test_values_are_distributed_as_those_of_torch(name: str) -> None:
    torch.manual_seed(0)
    expected = tensors(LAYERS[name]())
    layer = LAYERS[name]()
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            tensor.fill_(99)
    init_(layer, seed=0)
    found = tensors(layer)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        if values.size and values.min() == values.max():
            np.testing.assert_array_equal(found[key], values, err_msg=key)
        elif values.size:
            assert ks_2samp(found[key].ravel(), values.ravel()).pvalue > 1e-3, key
            zeros = np.flatnonzero(~values.any(axis=tuple(range(1, values.ndim))))
            np.testing.assert_array_equal(
                np.flatnonzero(~found[key].any(axis=tuple(range(1, values.ndim)))), zeros, err_msg=key
            )


def test_bounds_are_exact() -> None:
    layer = nn.ConvTranspose2d(8, 64, (3, 5), groups=2)
    init_(layer, seed=0)
    bound = 1 / (32 * 15) ** 0.5
    for tensor in (layer.weight, layer.bias):
        assert 0.95 * bound < tensor.abs().max().item() <= bound


def test_every_layer_of_torch_with_parameters_is_covered() -> None:
    def resets(kind: Any) -> bool:
        return hasattr(kind, "reset_parameters") or hasattr(kind, "_reset_parameters")

    layers = {name for name, kind in vars(nn).items() if isinstance(kind, type) and resets(kind)}
    bases = {"RNNBase", "RNNCellBase"}
    assert {name for name in layers if not name.startswith("Lazy")} - bases - {
        name.split()[0] for name in LAYERS
    } == set()


class OwnReset(nn.Linear):
    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class WithToken(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 3)
        self.token = nn.Parameter(torch.zeros(1, 3))


class Derived(nn.Linear):
    pass


def test_subclasses_start_like_their_class() -> None:
    assert init_(Derived(4, 2), seed=0).filled[0].rule == "torch.nn.Linear"


@pytest.mark.parametrize(
    "module, first, kind",
    [
        (OwnReset(2, 3), "'bias' of shape (3,)", "OwnReset"),
        (WithToken(), "'token' of shape (1, 3)", "WithToken"),
        (nn.ParameterList([torch.zeros(2)]), "'0' of shape (2,)", "ParameterList"),
    ],
)
def test_what_torch_does_not_initialise_needs_a_rule(module: Any, first: str, kind: str) -> None:
    before = [parameter.clone() for parameter in module.parameters()]
    with pytest.raises(ValueError, match="no rule matches parameter") as caught:
        init_(module, seed=0)
    message = str(caught.value)
    assert first in message
    assert f"{kind} is neither a layer of torch nor declares an initialisation that writes it" in message
    assert all(map(torch.equal, before, module.parameters()))
    init_(module, {"*": Normal(0.02)}, seed=0)
    assert not any(map(torch.equal, before, module.parameters()))


# --------------------------------------------------------------------------- weights that are computed


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated", "ignore:.*spectral_norm.* is deprecated")
@pytest.mark.parametrize("by", ["cpu", "meta"])
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
def test_weight_norm_starts_with_the_weight_of_the_layer(norm: Any, by: str) -> None:
    layer, bare = nn.Sequential(nn.Conv1d(6, 4, 3, device=by)), nn.Sequential(nn.Conv1d(6, 4, 3))
    if by == "meta" and norm is nn.utils.weight_norm:
        pytest.skip("torch computes the weight at once")
    layer[0] = norm(layer[0])
    report = init_(layer, seed=0, device="cpu")
    init_(bare, seed=0)
    assert report.left == []
    layer(torch.ones(1, 6, 5))  # the old one computes the weight before a call
    assert torch.allclose(layer[0].weight, bare[0].weight, rtol=1e-6)
    assert torch.equal(layer[0].bias, bare[0].bias)


@pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated")
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_spectral_norm_starts_with_the_weight_of_the_layer(norm: Any) -> None:
    layer, bare = norm(nn.Linear(6, 4)), nn.Linear(6, 4)
    init_(layer, seed=0)
    init_(bare, seed=0)
    first = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    assert any(torch.equal(tensor, bare.weight) for tensor in first.values())
    init_(layer, seed=0)
    assert all(torch.equal(tensor, first[name]) for name, tensor in layer.state_dict().items())
    for _ in range(30):
        layer(torch.ones(1, 6))
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("trivial", [True, False])
def test_orthogonal_weights_start_orthogonal(trivial: bool) -> None:
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4), use_trivialization=trivial)
    init_(layer, seed=0)
    first = layer.weight.detach().clone()
    assert torch.allclose(first @ first.T, torch.eye(4), atol=1e-5)
    init_(layer, seed=0)
    assert torch.equal(layer.weight, first)
    init_(layer, seed=1)
    assert not torch.equal(layer.weight, first)


def test_a_parametrization_does_not_run() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, weight: Any) -> Any:
            Counting.calls += 1
            return weight

    layer = nn.Linear(3, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight", Counting())
    Counting.calls = 0
    init_(layer, {"*original": 1}, seed=0)
    assert Counting.calls == 0


def test_rules_decide_before_layers() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Transformer(8, 2, 1, 1, 8, batch_first=True))
    init_(module, {"0.weight": Ramp(), "1.encoder.*.linear1.weight": 0.5}, seed=0)
    assert module[0].weight.tolist() == [[0, 1], [2, 3]]
    assert module[1].encoder.layers[0].linear1.weight.min() == 0.5
    assert module[1].encoder.layers[0].linear2.weight.abs().max() <= (6 / 16) ** 0.5
