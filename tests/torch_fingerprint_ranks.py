"""The ranks of the tests of fingerprints and verification of torch modules; `test_torch_fingerprint.py` starts them."""

import sys
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import numparam
from numparam import Fingerprints, Region, View
from numparam.errors import DisagreementError, MismatchError, StateError
from numparam.torch import fingerprint, identify, init_, pattern_, verify

SIZE = int(sys.argv[1])


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Make a module of sizes that 2 and 4 do not divide."""
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 7)).to(dtype)


def expected(dtype: torch.dtype = torch.float32) -> Fingerprints:
    """Return what one process without shards finds."""
    module = net(dtype)
    init_(module, seed=5, device="cpu")
    return fingerprint(module, local=True)


def fsdp2_has_the_fingerprints_of_one_process() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        module = net(dtype)
        fully_shard(module[0])
        fully_shard(module)
        init_(module, seed=5, device="cpu")
        assert fingerprint(module) == expected(dtype)
        assert verify(module, seed=5)


def tensor_parallelism_has_them_too() -> None:
    module = net()
    mesh = init_device_mesh("cpu", (SIZE,))
    parallelize_module(module, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    init_(module, seed=5, device="cpu")
    assert fingerprint(module) == expected()
    assert fingerprint(module, "key") != expected()


def plain_local_shards_have_them_with_a_callable() -> None:
    full, rank = net(), dist.get_rank()
    init_(full, seed=5, device="cpu")
    rows = [10 * rank // SIZE, 10 * (rank + 1) // SIZE]
    local = nn.Sequential(nn.Linear(6, rows[1] - rows[0]), nn.ReLU(), nn.Linear(10, 7))
    with torch.no_grad():
        for mine, its in zip(local.parameters(), full.parameters(), strict=True):
            mine.copy_(its[slice(*rows)] if mine.shape != its.shape else its)

    def where(name: str, tensor: torch.Tensor) -> Any:
        if not name.startswith("0."):
            return None
        shape = (10, *tensor.shape[1:])
        return shape, Region.full(shape)[slice(*rows)], tensor

    assert fingerprint(local, where=where) == expected()
    if SIZE > 1:

        def overlapping(name: str, tensor: torch.Tensor) -> Any:
            found = where(name, tensor)
            start = 1 if rank == 0 else rows[0]
            return found and (found[0], Region.full(found[0])[start : start + rows[1] - rows[0]], tensor)

        with pytest.raises(StateError, match=r"parameter '0\.weight': .* is covered twice, by .* on rank 0"):
            fingerprint(local, where=overlapping)


def replicas_that_differ_are_named() -> None:
    module = net()
    init_(module, seed=5, device="cpu")
    if dist.get_rank() == SIZE - 1 and SIZE > 1:
        with torch.no_grad():
            module[2].weight[3, 4] += 1
        found = verify(module, seed=5)
        assert [(each.entry.name, each.index) for each in found.differences] == [("2.weight", (3, 4))]
    if SIZE > 1:
        with pytest.raises(DisagreementError, match=f"parameter '2.weight': ranks 0 and {SIZE - 1} hold different"):
            fingerprint(module)


def sharded_stacks_show_their_experts() -> None:
    experts = torch.arange(5 * 4 * 3, dtype=torch.float32).reshape(5, 4, 3)
    mesh = init_device_mesh("cpu", (SIZE,))
    for placement in (Shard(0), Shard(1), Shard(2), Replicate()):
        module = nn.Module()
        module.stack = nn.Parameter(distribute_tensor(experts, mesh, [placement]))
        views = {f"expert.{i}": View("stack", i, (1, 0)) for i in range(5)}
        found = fingerprint(module, view=views)
        one = nn.Module()
        for i in range(5):
            one.register_parameter(f"expert{i}", nn.Parameter(experts[i].T.contiguous()))
        canonical = fingerprint(one, local=True)
        assert [found[f"expert.{i}"] for i in range(5)] == [canonical[f"expert{i}"] for i in range(5)]
    # Queries and keys of three heads take turns, of 3 and 1 rows; shards end inside them.
    fused, views = torch.arange(12 * 5.0).reshape(12, 5), {}
    for name, size, start in (("q", 3, 0), ("k", 1, 3)):
        rows = Region.full((3 * size, 5))
        views[name] = [
            View("w", slice(4 * head + start, 4 * head + start + size), region=rows[head * size :][:size])
            for head in range(3)
        ]
    heads = fused.numpy().reshape(3, 4, 5)
    canonical = numparam.fingerprint({"q": heads[:, :3].reshape(9, 5), "k": heads[:, 3]})
    for placement in (Shard(0), Shard(1), Replicate()):
        module = nn.Module()
        module.w = nn.Parameter(distribute_tensor(fused, mesh, [placement]))
        assert fingerprint(module, view=views) == canonical
    if SIZE > 1:
        whole = np.ones((4, 4), np.float32)
        module = nn.Module()
        module.w = nn.Parameter(distribute_tensor(torch.from_numpy(whole), mesh, [Shard(0)]))
        with pytest.raises(StateError, match="covered in part"):
            fingerprint(module, local=True).compare(fingerprint(module))


def stages_of_a_pipeline_have_parameters_of_their_own() -> None:
    full, rank = net(), dist.get_rank()
    init_(full, seed=5, device="cpu")
    mine = nn.ModuleDict({str(at): full[at] for at in (0, 2) if at // 2 == rank or SIZE == 1})
    found = fingerprint(mine)
    assert found == expected() if SIZE < 4 else dict(found) == dict(expected())
    if SIZE > 1:
        other = nn.ModuleDict({"w": nn.Linear(3, 2 + (rank == 1))})
        with pytest.raises(MismatchError, match=r"'w.weight' has shape \(2, 3\) on rank 0 and \(3, 3\) on rank 1"):
            fingerprint(other)
        with pytest.raises(MismatchError, match=r"has key .* on rank 0 and .* on rank 1"):
            fingerprint(full, key=f"key {rank == 1}")


def groups_have_the_fingerprints_of_their_ranks() -> None:
    if SIZE < 4:
        return
    module = net()
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
    fully_shard(module, mesh=mesh)
    init_(module, seed=5, device="cpu")
    assert fingerprint(module) == expected()
    assert fingerprint(module, group=mesh["shards"].get_group()) == expected()
    shape = (6, 5)
    halves = distribute_tensor(torch.arange(30.0).reshape(shape), mesh["shards"], [Shard(0)])
    one = nn.Module()
    one.w = nn.Parameter(halves)
    assert fingerprint(one)["w"].complete
    with torch.no_grad():
        if dist.get_rank() == 3:
            one.w.to_local()[1, 2] += 1
    with pytest.raises(DisagreementError, match=r"parameter 'w': ranks 1 and 3 hold different values of \[3:6, 0:5\]"):
        fingerprint(one)


def sixteen_bytes_travel_for_each_parameter() -> None:
    module = nn.ParameterDict({f"p{i}": nn.Parameter(torch.full((8,), float(i))) for i in range(100)})
    fully_shard(module, mesh=init_device_mesh("cpu", (SIZE,)))
    sent: dict[str, int] = {}

    def counted(name: str, call: Any, tensor: int) -> Any:
        def wrapped(*arguments: Any, **others: Any) -> None:
            sent[name] = sent.get(name, 0) + arguments[tensor].nbytes
            call(*arguments, **others)

        return wrapped

    names = {"all_reduce": 0, "all_to_all_single": 1, "all_gather_into_tensor": 0, "all_gather_object": 1}
    with pytest.MonkeyPatch.context() as patch:
        for name, tensor in names.items():
            patch.setattr(dist, name, counted(name, getattr(dist, name), tensor))
        found = fingerprint(module)
    assert len(found) == 100
    rows = -(-101 // SIZE) * SIZE  # the last one is of all replicas
    everything = {"all_reduce": 64, "all_to_all_single": 16 * rows, "all_gather_into_tensor": 16 * rows}
    assert sent == (everything if SIZE > 1 else {})


def what_has_moved_is_named_with_its_rank() -> None:
    module = net()
    mesh = init_device_mesh("cpu", (SIZE,))
    parallelize_module(module, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    for fill in (partial(init_, seed=5, device="cpu"), pattern_):
        report = fill(module)
        assert identify(module, report) == []
        if SIZE > 1:  # rank 1 gets the shard of rank 0
            first = module[0].weight.full_tensor()[: -(-10 // SIZE)]
            if dist.get_rank() == 1:
                with torch.no_grad():
                    module[0].weight.to_local().copy_(first)
            rows = len(first)
            (wrong,) = identify(module, report)
            assert str(wrong) == f"rank 1: parameter '0.weight': rows shifted by -{rows}; duplicate of rank 0"
            assert (wrong.rank, wrong.duplicate_of, wrong.name) == (1, 0, "0.weight")
            alone = [f"parameter '0.weight': rows shifted by -{rows}"] if dist.get_rank() == 1 else []
            assert list(map(str, identify(module, report, local=True))) == alone


class Padded(nn.Embedding):
    """Declares how it starts."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)
        with torch.no_grad():
            self.weight[3].zero_()


def what_the_code_of_a_sharded_model_draws_is_drawn_again() -> None:
    with torch.device("meta"):
        module = nn.Sequential(Padded(40, 30), nn.Linear(30, 7))
    fully_shard(module[0])
    fully_shard(module)
    init_(module, seed=5, device="cpu")
    found = verify(module, seed=5)
    assert found, str(found)
    assert len(found.checked) == 3
    with torch.no_grad():
        module[0].weight.to_local()[2, 3] += 1
    (wrong,) = verify(module, seed=5).differences
    first = -(-40 // SIZE) * dist.get_rank()
    assert (wrong.entry.name, wrong.index, wrong.full_index) == ("0.weight", (2, 3), (first + 2, 3))


CASES = (
    fsdp2_has_the_fingerprints_of_one_process,
    tensor_parallelism_has_them_too,
    plain_local_shards_have_them_with_a_callable,
    replicas_that_differ_are_named,
    stages_of_a_pipeline_have_parameters_of_their_own,
    groups_have_the_fingerprints_of_their_ranks,
    sixteen_bytes_travel_for_each_parameter,
    what_has_moved_is_named_with_its_rank,
    what_the_code_of_a_sharded_model_draws_is_drawn_again,
    sharded_stacks_show_their_experts,
)


def run(rank: int, store: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=SIZE, timeout=timedelta(seconds=120)
    )
    try:
        for test in CASES:
            test()
            if rank == 0:
                print("passed", test.__name__, flush=True)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    # A fork spares each rank the import of torch, 2 s of work.
    torch.multiprocessing.start_processes(run, (sys.argv[2],), nprocs=SIZE, start_method="fork")
