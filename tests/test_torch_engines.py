"""Modules that the engines themselves have wrapped have the values of bare ones, which the engines keep."""

import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from numparam.torch import fingerprint, init_, verify  # noqa: E402

SEED = 7


def net() -> Any:
    return nn.ModuleDict({"embed": nn.Embedding(8, 4), "norm": nn.BatchNorm1d(4), "head": nn.Linear(4, 2)})


def same(model: Any) -> None:
    """Start a wrapped module, and compare it with a bare one."""
    bare = net()
    init_(bare, seed=SEED)
    report = init_(model, seed=SEED)
    assert verify(model, report=report)
    assert fingerprint(model) == fingerprint(bare)
    for ours, theirs in zip(model.state_dict().values(), bare.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore")
def test_fabric() -> None:
    lightning_fabric = pytest.importorskip("lightning_fabric")
    fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1)
    same(fabric.setup(net()))
    model = net()
    same(fabric.setup(model, torch.optim.AdamW(model.parameters()))[0])
    same(fabric.setup(torch.compile(net())))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_deepspeed() -> None:
    """In a process of its own: DeepSpeed needs a process group."""
    alone = {"DS_ACCELERATOR": "cpu", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    environment = {**os.environ, **alone, "MASTER_PORT": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, Path(__file__)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-4000:]


def by_deepspeed(stage: int) -> None:
    """Start what an engine has wrapped: a step of its optimizer without a learning rate keeps the values."""
    import deepspeed

    model = net()
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "Adam", "params": {"torch_adam": True, "lr": 0.0}},
        "zero_optimization": {"stage": stage},
    }
    engine, optimizer, _, _ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)

    def gathered() -> Any:
        if stage < 3:
            return nullcontext()
        return deepspeed.zero.GatheredParameters(list(model.parameters()), modifier_rank=0)

    if stage == 3:
        with pytest.raises(RuntimeError, match=r"placeholder of DeepSpeed's ZeRO-3.*refresh_fp32_params"):
            init_(engine, seed=SEED)
    with gathered():
        same(engine)
    if stage == 3:
        optimizer.refresh_fp32_params()
    for _ in range(2):
        with gathered():
            bare = net()
            init_(bare, seed=SEED)
            for ours, theirs in zip(model.parameters(), bare.parameters(), strict=True):
                assert torch.equal(ours, theirs), stage
        engine.module.forward = lambda x: model["head"](model["norm"](model["embed"](x))).sum()
        engine.backward(engine(torch.arange(8)))
        engine.step()


if __name__ == "__main__":
    import deepspeed.comm.torch

    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]  # compiles C++
    deepspeed.init_distributed("gloo")
    for zero in range(4):
        by_deepspeed(zero)
