"""On a real GPU, torch tensors are filled where they are, with the bits of the CPU, in the order of torch's streams."""

import os
from typing import Any

import pytest

import numparam
from numparam.errors import DeviceError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from numparam.initializer import Normal, Orthogonal  # noqa: E402
from numparam.torch import PaddedNormal, fill_, init_  # noqa: E402

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _gpu() -> None:
    try:
        numparam.device("cuda")
        if not torch.cuda.is_available():
            raise DeviceError("torch sees no CUDA device")
    except DeviceError as error:
        if os.environ.get("NUMPARAM_REQUIRE_GPU") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
@pytest.mark.parametrize("init", [Normal(), "he_uniform", 0.5, Orthogonal(), PaddedNormal(3)], ids=str)
def test_bits_are_those_of_the_cpu(init: Any, dtype: Any) -> None:
    expected = fill_(torch.empty(70, 33, dtype=dtype), init, "w", 5)
    for tensor in (
        torch.empty(70, 33, dtype=dtype, device="cuda"),
        torch.empty(33, 70, dtype=dtype, device="cuda").t(),
    ):
        address = tensor.data_ptr()
        fill_(tensor, init, "w", 5)
        assert tensor.data_ptr() == address
        assert torch.equal(tensor.cpu().contiguous().view(torch.uint8), expected.view(torch.uint8))


def test_a_module_on_a_stream_of_its_own() -> None:
    expected = nn.Sequential(nn.Embedding(50, 16, padding_idx=0), nn.Linear(16, 8), nn.BatchNorm1d(8))
    init_(expected, seed=5)
    with torch.device("meta"):
        module = nn.Sequential(nn.Embedding(50, 16, padding_idx=0), nn.Linear(16, 8), nn.BatchNorm1d(8))
    with torch.cuda.stream(torch.cuda.Stream()):
        module.to_empty(device="cuda")
        for tensor in module.state_dict().values():
            tensor.fill_(9)
        init_(module, seed=5)
        found = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch.cuda.synchronize()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found[name].cpu(), tensor)
