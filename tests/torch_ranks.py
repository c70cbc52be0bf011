"""The ranks of the tests of `numparam.torch` with several processes; `test_torch_ranks.py` says how many.

Every case makes a module whose parameters are shards, fills it, and compares both the part that this rank holds and the
gathered whole with what one process makes of the same seed, names and initializers.
"""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import (
    DeviceMesh,
    Partial,
    Placement,
    Replicate,
    Shard,
    distribute_tensor,
    empty,
)
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import numparam
from numparam.initializer import Normal, Uniform, initializer
from numparam.torch import fill_, init_
from numparam.torch.memory import dtype_of, shared
from torch_cases import SEED, SIZE, case, main, world


def whole(name: str, tensor: Any, init: Any) -> Any:
    """Return what one process without torch makes."""
    numparam.set_seed(SEED)
    return numparam.Parameter(initializer(init, tuple(tensor.shape), dtype_of(tensor)), name=name).asnumpy()


def same_bits(found: Any, expected: Any) -> bool:
    return found.shape == expected.shape and found.tobytes() == expected.tobytes()


def check(module: nn.Module, inits: dict[str, Any]) -> None:
    """Compare the gathered parameters with what one process makes."""
    for name, parameter in module.named_parameters():
        found = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
        assert same_bits(shared(found.contiguous()), whole(name, parameter, inits[name])), (SIZE, name)


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Make a module of sizes that 2 and 4 do not divide."""
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 7)).to(dtype)


LINEAR = Uniform(1 / 6**0.5), Uniform(1 / 10**0.5)
INITS = {"0.weight": LINEAR[0], "0.bias": LINEAR[0], "2.weight": LINEAR[1], "2.bias": LINEAR[1]}


@case
def every_placement_gives_the_values_of_the_whole() -> None:
    meshes: list[tuple[DeviceMesh, list[list[Placement]]]] = [
        (world(SIZE), [[Shard(0)], [Shard(1)], [Shard(2)], [Replicate()]])
    ]
    if SIZE == 4:
        pairs = [[Shard(0), Shard(1)], [Shard(1), Shard(0)], [Shard(0), Shard(0)], [Replicate(), Shard(2)]]
        meshes.append((world(2, 2), pairs))
    for mesh, choices in meshes:
        for placements in choices:
            for dtype in (torch.float32, torch.bfloat16, torch.float64):
                tensor = empty(9, 5, 7, dtype=dtype, device_mesh=mesh, placements=placements)
                with CommDebugMode() as communication:
                    assert fill_(tensor, "he_normal", "conv.weight", SEED) is tensor
                assert communication.get_total_counts() == 0
                expected = whole("conv.weight", tensor, "he_normal")
                assert same_bits(shared(tensor.full_tensor().contiguous()), expected), (placements, dtype)


@case
def shards_of_another_layout_agree_with_torch() -> None:
    """Let torch cut the values of the whole, and compare its shards with those that are made."""
    mesh = world(SIZE)
    counts = torch.arange(9.0 * 5).reshape(9, 5)
    for axis in (0, 1):
        cut = distribute_tensor(counts, mesh, [Shard(axis)])
        made = fill_(empty(9, 5, device_mesh=mesh, placements=[Shard(axis)]), Normal(), "w", SEED)
        expected = torch.from_numpy(whole("w", made, Normal()))
        rows = cut.to_local().flatten().to(torch.int64)
        assert torch.equal(made.to_local().flatten(), expected.flatten()[rows])


@case
def fsdp_shards_need_no_other_rank() -> None:
    """The ranks take turns, so that one that waits for another would wait for ever."""
    for dtype in (torch.float32, torch.bfloat16):
        module = net(dtype)
        fully_shard(module[0])
        fully_shard(module)
        for rank in range(SIZE):
            if rank == dist.get_rank():
                report = init_(module, seed=SEED, device="cpu")
                assert [row.name for row in report.filled] == list(INITS)
                assert report.filled[0].held[0] == len(range(10)[slice(*cut_rows(10))])
            dist.barrier()
        check(module, INITS)


def cut_rows(length: int) -> tuple[int, int]:
    step, rank = -(-length // SIZE), dist.get_rank()
    return min(rank * step, length), min(rank * step + step, length)


@case
def fsdp_after_to_empty_and_after_a_forward_pass() -> None:
    module = net()
    for part in (module[0], module[2], module):
        fully_shard(part, reshard_after_forward=False)
    module.to_empty(device="cpu")
    init_(module, seed=3)
    module(torch.ones(2, 6))  # leaves the gathered parameters in the place of the shards
    init_(module, seed=SEED)
    check(module, INITS)
    module(torch.ones(2, 6)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@case
def fsdp_over_the_second_axis() -> None:
    with torch.device("meta"):
        module = nn.Linear(8, 4)
    fully_shard(module, shard_placement_fn=lambda parameter: Shard(parameter.ndim - 1))
    init_(module, {"*": Normal(0.1)}, seed=SEED, device="cpu")
    check(module, dict.fromkeys(("weight", "bias"), Normal(0.1)))


@case
def fsdp_keeps_tied_parameters_tied() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
        module[1].weight = module[0].weight
    fully_shard(module)
    init_(module, seed=SEED, device="cpu")
    assert module[1].weight is module[0].weight
    check(module, {"0.weight": Normal(1.0)})


@case
def fsdp_over_tensor_parallel() -> None:
    if SIZE != 4:
        return
    mesh = world(2, 2)
    for rows in (10, 8, 7, 5, 3):  # of 10 rows each tensor-parallel rank has 5, which FSDP cuts into 3 and 2
        with torch.device("meta"):
            module = nn.Sequential(nn.Linear(6, rows), nn.ReLU(), nn.Linear(rows, 7))
        parallelize_module(module, mesh["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        fully_shard(module, mesh=mesh["dp"])
        init_(module, seed=SEED, device="cpu")
        inits = INITS | dict.fromkeys(("2.weight", "2.bias"), Uniform(1 / rows**0.5))
        if rows % 4 == 0:  # torch itself gathers no others
            check(module, inits)
        dp, tp = mesh.get_coordinate() or [0, 0]
        expected = whole("0.weight", module[0].weight, inits["0.weight"])
        part = chunk(chunk(expected, 2, tp), 2, dp)
        assert same_bits(module[0].weight.to_local().detach().numpy(), part), rows


def chunk(array: Any, parts: int, part: int) -> Any:
    step = -(-len(array) // parts)
    return array[part * step : part * step + step]


@case
def hybrid_fsdp() -> None:
    if SIZE != 4:
        return
    module = net()
    fully_shard(module, mesh=world(2, 2))
    init_(module, seed=SEED, device="cpu")
    check(module, INITS)


@case
def wrappers_do_not_change_names() -> None:
    module = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 7))
    wrapped = nn.parallel.DistributedDataParallel(module)
    report = init_(wrapped, seed=SEED)
    assert [row.name for row in report.filled] == list(INITS)
    check(module, INITS)


@case
def a_seed_of_its_own_for_each_rank_is_refused() -> None:
    numparam.stream.seed._seed = None
    if SIZE == 1:
        init_(nn.Linear(2, 2))
        assert numparam.get_seed() is not None
        return
    with pytest.raises(RuntimeError, match="each rank would draw a different seed"):
        init_(nn.Linear(2, 2))
    numparam.set_seed(SEED)
    init_(nn.Linear(2, 2))


@case
def sums_that_no_rank_knows_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"parameter 'sum' gets One\(\): placement .* use Shard or Replicate"):
        fill_(empty(4, device_mesh=world(SIZE), placements=[Partial()]), "ones", "sum", SEED)


if __name__ == "__main__":
    main()
