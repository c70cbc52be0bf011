"""What a shared-out optimizer does, checked by every rank; the argument names the case."""

import sys
from collections.abc import Callable

import numpy as np

import numparam
from numparam import Parameter
from numparam.communication import collectives, comm_func, get_group_size, get_rank, init
from numparam.indexing.region import Region
from numparam.initializer import initializer
from numparam.parallel import DistributedGradReducer, Momentum, ParallelOptimizer, check_agreement

STEPS = 3
SHAPES = {
    "a": (24, 5),
    "odd": (25, 5),
    "own": (24, 5),
    "whole": (24, 5),
    "small": (12,),
    "scalar": (),
    "again": (48, 2),
}


class Adam:
    """Update by Adam, with the number of steps as a state."""

    states = ("first", "second", "steps")

    def __call__(self, value, gradient, first, second, steps) -> None:  # type: ignore[no-untyped-def]
        steps += 1
        first += (gradient - first) * value.dtype.type(0.1)
        second += (gradient * gradient - second) * value.dtype.type(0.001)
        value -= value.dtype.type(0.01) * first / (np.sqrt(second) + value.dtype.type(1e-3)) / steps


def parameters(dtype: str = "float32") -> list[Parameter]:
    rng = np.random.default_rng(7)
    made = {}
    for name, shape in SHAPES.items():
        values = rng.standard_normal(shape).astype(np.float32)
        made[name] = Parameter(np.asarray(values, numparam.dtypes.as_dtype(dtype)), name=name)
    made["own"].layerwise_parallel = True
    made["whole"].parallel_optimizer = False
    made["again"].parallel_optimizer_comm_recompute = True
    return list(made.values())


def gradients(step: int, rank: int, like: list[Parameter]) -> list[np.ndarray]:
    rng = np.random.default_rng((step, rank))
    return [
        rng.standard_normal(SHAPES[parameter.name]).astype(np.float32).astype(parameter.dtype) for parameter in like
    ]


def unshared(update: Callable[..., None], dtype: str) -> list[Parameter]:
    """Update whole parameters, in the plain way."""
    plain = parameters(dtype)
    states = [[np.zeros_like(each.asnumpy()).reshape(-1) for _ in getattr(update, "states", ())] for each in plain]
    reduce = DistributedGradReducer(plain, mean=True)
    for step in range(STEPS):
        reduced = reduce(gradients(step, get_rank(), plain))
        for parameter, gradient, state in zip(plain, reduced, states, strict=True):
            update(parameter.asnumpy().reshape(-1), gradient.reshape(-1), *state)
    return plain


def bits(parameter: Parameter) -> bytes:
    return parameter.asnumpy().tobytes()


def equals_an_update_that_is_not_shared_out() -> None:
    for shard_size in (-1, 2, 5):
        for dtype in ("float32", "float16"):
            for update in (Momentum(0.1, 0.9), Adam(), lambda value, gradient: np.subtract(value, gradient, out=value)):
                share(shard_size)
                shared = parameters(dtype)
                optimizer = ParallelOptimizer(shared, update, mean=True)
                for step in range(STEPS):
                    with optimizer.gathered():
                        assert all(each.shape == SHAPES[each.name] for each in shared)
                    optimizer(gradients(step, get_rank(), shared))
                optimizer.gather()
                for mine, plain in zip(shared, unshared(update, dtype), strict=True):
                    assert bits(mine) == bits(plain), (shard_size, dtype, mine.name)
                check_agreement(shared)


def share(shard_size: int = -1, threshold: int = 0) -> None:
    numparam.set_auto_parallel_context(
        enable_parallel_optimizer=True,
        parallel_optimizer_config={
            "parallel_optimizer_threshold": threshold,
            "optimizer_weight_shard_size": shard_size,
        },
    )


def cuts_what_it_may() -> None:
    everything = parameters()
    assert not ParallelOptimizer(everything, Momentum(0.1)).shards
    share()
    names = [shard.parameter.name for shard in ParallelOptimizer(parameters(), Momentum(0.1)).shards.values()]
    assert names == ["a", "small", "again"]
    share(threshold=1)
    large = Parameter(np.zeros((64, 4), np.float32), name="large")  # 1 KB
    less = Parameter(np.zeros((63 // get_group_size() * get_group_size(), 4), np.float32), name="less")
    assert [shard.parameter for shard in ParallelOptimizer([large, less], Momentum(0.1)).shards.values()] == [large]


def keeps_states_for_its_rows_alone() -> None:
    share()
    optimizer = ParallelOptimizer(parameters(), Momentum(0.1))
    states = {state.name: state for state in optimizer.states}
    assert list(states) == [f"moments.{name}" for name in SHAPES]
    rows = 24 // get_group_size()
    first = get_rank() * rows
    assert states["moments.a"].shape == (rows, 5)
    assert states["moments.a"].region.slices() == Region.full((24, 5))[first : first + rows].slices()
    assert states["moments.a"].sliced
    assert states["moments.odd"].shape == (25, 5)
    assert not states["moments.odd"].sliced
    assert states["moments.a"].has_init  # no memory before the first step
    assert not states["moments.a"].requires_grad


def drops_what_is_gathered_again() -> None:
    share()
    everything = parameters()
    again, values = everything[-1], everything[-1].asnumpy().copy()
    rows = 48 // get_group_size()
    own = slice(get_rank() * rows, (get_rank() + 1) * rows)
    optimizer = ParallelOptimizer(everything, Momentum(0.1))
    assert again.shape == (rows, 2)
    assert again.sliced
    assert again.region.slices() == Region.full((48, 2))[own].slices()
    assert (again.asnumpy() == values[own]).all()
    with optimizer.gathered():
        assert not again.sliced
        assert again.region.whole
        assert (again.asnumpy() == values).all()
        optimizer(gradients(0, get_rank(), everything))  # a step inside the block drops it too
        assert again.shape == (rows, 2)
    assert again.shape == (rows, 2)
    assert everything[0].shape == (24, 5)


def makes_only_its_rows() -> None:
    share()
    numparam.set_seed(3)
    ranks = get_group_size()
    huge = Parameter(initializer("ones", (ranks, 2**50)), name="huge")  # far more than there is
    huge.parallel_optimizer_comm_recompute = True
    ParallelOptimizer([huge], Momentum(0.1))
    assert huge.has_init
    assert huge.shape == (1, 2**50)


def leaves_16_bit_sums_to_float32() -> None:
    share()
    weight = Parameter(np.zeros((get_group_size(), 4), np.float16), name="w")
    optimizer = ParallelOptimizer([weight], np.copyto, mean=True)
    optimizer([np.full((get_group_size(), 4), 60000, np.float16)])  # the sum is no float16, the mean is
    assert (weight.asnumpy() == np.float16(60000)).all()


if __name__ == "__main__":
    init(timeout=60)
    collectives.CHUNK_BYTES, collectives._CHUNK_BYTES_PER_RANK = 1 << 7, 1 << 5
    globals()[sys.argv[1]]()
    comm_func.barrier()
    print("done\n", end="", flush=True)  # in one piece: the ranks write at the same time
