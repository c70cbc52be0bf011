"""A trainer hands its weights to two engines; fingerprints prove that they arrived, and a planted fault is named.

The trainer has the model in FSDP2 shards on two ranks. One engine takes it in tensor parallel shards on two ranks, the
other in one process and with query, key and value fused. Nobody gathers the model to check it: each rank reads what it
holds, and one small reduction adds up the fingerprints, which do not depend on the layout.

Run it with ``python examples/weight_handoff.py``: it starts two processes on this machine, which need no GPU.
"""

import tempfile
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import numparam.torch

WIDTH, RANKS = 64, 2
FUSED = {
    f"{part}.weight": numparam.View("qkv.weight", np.s_[at * WIDTH : (at + 1) * WIDTH])
    for at, part in enumerate(("q_proj", "k_proj", "v_proj"))
}
"""Where the engine of one process has the parameters of the trainer."""


class Attention(nn.Module):
    """The projections of a layer, each linear."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        for name, size in sizes.items():
            self.add_module(name, nn.Linear(WIDTH, size, bias=False))


def attention() -> Any:
    """Create the layer as large models are created: without memory."""
    with torch.device("meta"):
        return Attention(q_proj=WIDTH, k_proj=WIDTH, v_proj=WIDTH, o_proj=WIDTH)


def parallel_engine(state: dict[str, torch.Tensor]) -> Any:
    """Load the model in tensor parallel shards."""
    model = attention()
    plan: Any = {name: ColwiseParallel() for name in ("q_proj", "k_proj", "v_proj")} | {"o_proj": RowwiseParallel()}
    parallelize_module(model, init_device_mesh("cpu", (RANKS,)), plan)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shard = state[name].chunk(RANKS, 1 if "o_proj" in name else 0)[dist.get_rank()]
            parameter.to_local().copy_(shard)
    return model


def fused_engine(state: dict[str, torch.Tensor]) -> Any:
    """Load the model in one process, with query, key and value in one matrix."""
    model: Any = Attention(qkv=3 * WIDTH, o_proj=WIDTH)
    with torch.no_grad():
        model.qkv.weight.copy_(torch.cat([state[name] for name in FUSED]))
        model.o_proj.weight.copy_(state["o_proj.weight"])
    return model


def report(who: str, sent: numparam.Fingerprints, arrived: numparam.Fingerprints) -> None:
    """Print the fingerprints of an engine, and what of them differs from the trainer's."""
    if dist.get_rank() == 0:
        print(f"{who}:", *(f"{name} {arrived[name]}" for name in sent), sep="\n  ")
        print("  " + ("\n  ".join(map(str, sent.compare(arrived))) or "all are equal"))


def rank_main(rank: int, folder: str) -> None:
    """Be one rank of the trainer, and then of the engine."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    model = attention()
    fully_shard(model)
    model.to_empty(device="cpu")
    pattern = numparam.torch.pattern_(model, seed=7)  # values that can be recognised
    sent = numparam.torch.fingerprint(model)
    report("trainer, FSDP2 on 2 ranks", sent, sent)
    # How the weights travel is not our matter. Here every rank sees the full ones.
    state = {name: parameter.full_tensor() for name, parameter in model.named_parameters()}

    engine = parallel_engine(state)
    report("engine, tensor parallel on 2 ranks", sent, numparam.torch.fingerprint(engine))
    alone = fused_engine(state)
    report("engine, fused in one process", sent, numparam.torch.fingerprint(alone, view=FUSED, local=True))

    # A fault: rank 1 loads the first half of the keys, which rank 0 has, where its queries should be.
    if rank == 1:
        with torch.no_grad():
            engine.q_proj.weight.to_local().copy_(state["k_proj.weight"].chunk(RANKS)[0])
    report("engine, after a fault", sent, numparam.torch.fingerprint(engine))
    wrong = numparam.torch.identify(engine, pattern)
    if rank == 0:
        print(*wrong, sep="\n")
    dist.destroy_process_group()


def main() -> None:
    """Start the ranks."""
    with tempfile.TemporaryDirectory() as folder:
        # A fork saves each rank the import of torch. On Windows, which cannot fork, use "spawn".
        torch.multiprocessing.start_processes(rank_main, (folder,), nprocs=RANKS, start_method="fork")


if __name__ == "__main__":
    main()
