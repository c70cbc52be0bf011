"""The ranks of the tests of torchtitan's and diffusers' models; `test_torch_ranks.py` says how many.

A library that is not installed is left out.
"""

import math
import sys
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import CommDebugMode

from numparam.torch import drawing, init_
from torch_cases import SEED, SIZE, case, main, same_modules

if find_spec("torchtitan") is not None:  # without Triton, which CPUs lack, and the loggers of a training
    sys.modules["torchtitan.distributed.minimal_async_ep.kernels"] = MagicMock()
    sys.modules["torchtitan.trainer"] = MagicMock(Trainer=SimpleNamespace(Config=type(None)))

MESHES = [{}, {"tensor_parallel": 2}, {"data_parallel_replicate": 2}, {"expert_parallel": 2}][: SIZE if SIZE > 1 else 0]


def as_its_code_starts_it(model: nn.Module, own: nn.Module, name: str) -> None:
    """Compare the spread of each parameter, and constants exactly, with those that torch's generator gives."""
    ours = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for key, tensor in [*own.named_parameters(), *own.named_buffers()]:
        found, expected = ours[key].detach(), tensor.detach()
        if not expected.is_floating_point() or (expected == expected.flatten()[0]).all():
            assert torch.equal(found, expected), (name, key)
        elif expected.numel() > 30:
            ratio = (found.double().std() / expected.double().std()).item()
            assert abs(ratio - 1) < 7 * math.sqrt(2 / expected.numel()), (name, key, ratio)


def torchtitans(name: str, degrees: dict[str, int] | None = None) -> Any:
    """Return a small model on meta, sharded by its own code unless there are no degrees."""
    from torchtitan.config import CompileConfig, ParallelismConfig, TrainingConfig
    from torchtitan.distributed import ParallelDims, parallel_dims

    module: Any = import_module(f"torchtitan.models.{name}")
    configs = next(value for key, value in vars(module).items() if key.endswith("_configs"))
    more = {} if name in ("llama3", "qwen3") else {"moe_comm_backend": "standard"}
    config = configs["debugmodel"](attn_backend="flex", **more)
    config.layers = config.layers[:2]
    sizes: dict[str, Any] = {f"{key}_degree": value for key, value in (degrees or {}).items()}
    parallel = ParallelismConfig(**sizes, spmd_backend="partial_dtensor")
    if degrees is not None:
        config.update_from_config(config=SimpleNamespace(parallelism=parallel))
    with torch.device("meta"):
        model = config.build()
    if degrees is None:
        return model
    parallel_dims.device_type = "cpu"
    parallelize = next(value for key, value in vars(module).items() if key.startswith("parallelize_"))
    return parallelize(
        model,
        parallel_dims=ParallelDims.from_config(parallel, SIZE),
        training=TrainingConfig(),
        parallelism=parallel,
        compile_config=CompileConfig(enable=False),
        ac_config=None,
        dump_folder="",
    )


@case
def models_of_torchtitan_have_the_values_of_one_process() -> None:
    if find_spec("torchtitan") is None:
        return
    for name in ("llama3", "qwen3", "deepseek_v3", "gpt_oss"):
        full = torchtitans(name)
        init_(full, seed=SEED, device="cpu")
        own = torchtitans(name).to_empty(device="cpu")
        with torch.no_grad():
            own.init_weights(buffer_device=torch.device("cpu"))
        as_its_code_starts_it(full, own, name)
        for degrees in MESHES:
            if "expert_parallel" in degrees and name in ("llama3", "qwen3"):
                continue
            model = torchtitans(name, degrees)
            model.to_empty(device="cpu")
            with CommDebugMode() as communication, torch.no_grad(), drawing(model, SEED) as report:
                model.init_weights(buffer_device=torch.device("cpu"))
            assert degrees or communication.get_total_counts() == 0, name  # it scatters buffers itself
            assert (report.left, report.uncaught) == ([], []), name
            same_modules(model, full, f"{name} {degrees}")


def diffusers_models() -> dict[str, Any]:
    import diffusers

    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4}
    down = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "layers_per_block": 1, **blocks}
    unet = {**down, "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "sample_size": 8}
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "sample_size": 8, "patch_size": 2}
    return {
        "UNet2DConditionModel": lambda: diffusers.UNet2DConditionModel(cross_attention_dim=12, **unet),
        "ControlNetModel": lambda: diffusers.ControlNetModel(
            cross_attention_dim=12, conditioning_embedding_out_channels=(8, 16), **down
        ),
        "DiTTransformer2DModel": lambda: diffusers.DiTTransformer2DModel(
            num_layers=2, norm_num_groups=4, num_embeds_ada_norm=10, **heads
        ),
    }


@case
def models_of_diffusers_have_the_values_of_one_process() -> None:
    if find_spec("diffusers") is None:
        return
    for name, build in diffusers_models().items():
        with torch.device("meta"):
            full, model = build(), build()
        init_(full, seed=SEED, device="cpu")
        as_its_code_starts_it(full, build(), name)
        fully_shard(model)
        init_(model, seed=SEED, device="cpu")
        same_modules(model, full, name)


if __name__ == "__main__":
    main()
