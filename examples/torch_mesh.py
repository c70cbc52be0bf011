"""One seed, one layer, several meshes: PyTorch's weights change with the mesh, numparam's do not.

PyTorch's generators count what has been drawn before. On the CPU, as here, every rank draws its shard of a weight from
the start of the same sequence. On CUDA the shards get different offsets, but the full weight still depends on which
axis is sharded and into how many parts: see https://github.com/pytorch/pytorch/issues/168058 and
https://github.com/pytorch/pytorch/issues/196613. numparam computes each value from the seed, the name and the index in
the full weight: each rank generates its shard without communication, and all shards belong to the same full weight.

Run it with ``python examples/torch_mesh.py``: it starts 1, 2 and 4 processes on this machine, which need no GPU.
"""

import hashlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard

import numparam.torch

SEED = 7


def layer() -> nn.Linear:
    """Create the layer as large models are created: without memory."""
    return nn.Linear(256, 512, device="meta")


def with_torch(module: Any) -> None:
    """Initialise as PyTorch's guide to FSDP2 does."""
    module.to_empty(device="cpu")
    torch.manual_seed(SEED)
    module.reset_parameters()


def with_numparam(module: Any) -> None:
    """Initialise the same module, here with the same distribution."""
    numparam.torch.init_(module, seed=SEED, device="cpu")


def digest(weight: Any) -> str:
    """Return a hash of the full weight, gathered from all ranks."""
    whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return hashlib.blake2b(whole.detach().numpy().tobytes(), digest_size=4).hexdigest()


def rank_main(rank: int, ranks: int, folder: str) -> None:
    """Shard the layer over some ranks, along each axis, and write the hashes to a file."""
    warnings.filterwarnings("ignore")  # DTensor warns that it supports random numbers fully on CUDA only
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{ranks}", rank=rank, world_size=ranks)
    lines = []
    for axis in (0, 1):
        found = []
        for initialise in (with_torch, with_numparam):
            module = layer()
            fully_shard(module, shard_placement_fn=lambda parameter, axis=axis: Shard(min(axis, parameter.ndim - 1)))
            initialise(module)
            found.append(digest(module.weight))
        lines.append(row(f"{ranks} rank{'s' * (ranks > 1)}, Shard({axis})", *found))
    if rank == 0:
        Path(folder, f"table{ranks}").write_text("\n".join(lines), encoding="utf-8")
    dist.destroy_process_group()


def row(mesh: str, by_torch: str, by_numparam: str) -> str:
    """Write one line of the table."""
    return f"{mesh:<20}{by_torch:<12}{by_numparam}"


def main() -> None:
    """Print a hash of the weight for every mesh."""
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for ranks in (1, 2, 4):
            # A fork saves each rank the import of torch. On Windows, which cannot fork, use "spawn".
            torch.multiprocessing.start_processes(rank_main, (ranks, folder), nprocs=ranks, start_method="fork")
            tables.append(Path(folder, f"table{ranks}").read_text(encoding="utf-8"))
    plain = []
    for initialise in (with_torch, with_numparam):
        module = layer()
        initialise(module)
        plain.append(digest(module.weight))
    print(row("weight of", "torch", "numparam"), row("no mesh", *plain), *tables, sep="\n")


if __name__ == "__main__":
    main()
