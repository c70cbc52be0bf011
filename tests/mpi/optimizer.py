"""What a shared-out optimizer does, checked by every rank; the argument names the case."""

from collections.abc import Callable

import numpy as np
from cases import run_cases

import numparam
from numparam import Parameter
from numparam.communication import get_group_size, get_rank, init
from numparam.indexing.region import Region
from numparam.initializer import initializer
from numparam.optim import FTRL, SGD, Adagrad, AdamW, Lamb, Momentum, Optimizer, RowwiseAdagrad, SparseRows
from numparam.parallel import DistributedGradReducer, ParallelOptimizer, check_agreement

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


MAKERS: list[Callable[..., Optimizer]] = [
    lambda weights: Momentum(weights, 0.1, 0.9),
    lambda weights: SGD(weights, 0.1, rounding="stochastic", seed=5),
    lambda weights: AdamW(weights, 0.1, rounding="master"),
    lambda weights: Lamb(weights, 0.1, weight_decay=0.1),
    lambda weights: Adagrad([weight for weight in weights if weight.name != "own"], clip_norm=0.1),
]


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


def unshared(make: Callable[..., Optimizer], dtype: str) -> list[Parameter]:
    """Update full parameters, in the plain way."""
    optimizer = make(parameters(dtype))
    reduce = DistributedGradReducer(optimizer.parameters, mean=True)
    for step in range(STEPS):
        optimizer(reduce(gradients(step, get_rank(), optimizer.parameters)))
    return optimizer.parameters


def bits(parameter: Parameter) -> bytes:
    return parameter.asnumpy().tobytes()


def equals_an_update_that_is_not_shared_out() -> None:
    for shard_size in (-1, 2, 5):
        for dtype in ("float32", "float16"):
            for place, make in enumerate(MAKERS):
                share(shard_size)
                optimizer = ParallelOptimizer(make(parameters(dtype)), mean=True)
                shared = optimizer.parameters
                for step in range(STEPS):
                    with optimizer.gathered():
                        assert all(each.shape == SHAPES[each.name] for each in shared)
                    optimizer(gradients(step, get_rank(), shared))
                optimizer.gather()
                for mine, plain in zip(shared, unshared(make, dtype), strict=True):
                    assert bits(mine) == bits(plain), (shard_size, dtype, place, mine.name)
                check_agreement(shared)


def rows_equal_an_update_that_is_not_shared_out() -> None:
    makers: list[Callable[..., Optimizer]] = [
        lambda weights: AdamW([weight for weight in weights if weight.name != "own"], 0.1, clip_norm=0.1),
        lambda weights: RowwiseAdagrad(weights, 0.1, 0.1, check_finite=True),
        lambda weights: FTRL(weights, 0.1, 0.1),
    ]

    def mixed(step: int, like: list[Parameter]) -> list:
        found: list = gradients(step, get_rank(), like)
        random = np.random.default_rng((step, get_rank()))
        for place, parameter in enumerate(like):
            if parameter.name in ("a", "odd", "own", "again"):
                rows = random.integers(0, SHAPES[parameter.name][0], 5 * get_rank() % 7)
                found[place] = SparseRows(rows, found[place][: len(rows)])
        return found

    for shard_size in (-1, 2):
        for make in makers:
            share(shard_size)
            optimizer = ParallelOptimizer(make([each for each in parameters() if each.ndim == 2]), mean=True)
            plain = make([each for each in parameters() if each.ndim == 2])
            reduce = DistributedGradReducer(plain.parameters, mean=True)
            for step in range(STEPS):
                optimizer(mixed(step, optimizer.parameters))
                plain(reduce(mixed(step, plain.parameters)))
            optimizer.gather()
            for mine, other in zip(optimizer.parameters, plain.parameters, strict=True):
                assert bits(mine) == bits(other), (shard_size, mine.name)


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
    assert not ParallelOptimizer(Momentum(everything, 0.1, 0.9)).shards
    share()
    names = [shard.parameter.name for shard in ParallelOptimizer(Momentum(parameters(), 0.1, 0.9)).shards.values()]
    assert names == ["a", "small", "again"]
    share(threshold=1)
    large = Parameter(np.zeros((64, 4), np.float32), name="large")  # 1 KB
    less = Parameter(np.zeros((63 // get_group_size() * get_group_size(), 4), np.float32), name="less")
    optimizer = ParallelOptimizer(Momentum([large, less], 0.1, 0.9))
    assert [shard.parameter for shard in optimizer.shards.values()] == [large]


def keeps_states_for_its_rows_alone() -> None:
    share()
    optimizer = ParallelOptimizer(Momentum(parameters(), 0.1, 0.9))
    states = {state.name: state for state in optimizer.states}
    assert list(states) == [*(f"moments.{name}" for name in SHAPES), "global_step"]
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
    optimizer = ParallelOptimizer(Momentum(everything, 0.1, 0.9))
    assert again.shape == (rows, 2)
    assert again.sliced
    assert again.region.slices() == Region.full((48, 2))[own].slices()
    assert (again.asnumpy() == values[own]).all()
    with optimizer.gathered():
        assert not again.sliced
        assert again.region.is_full
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
    ParallelOptimizer(Momentum([huge], 0.1, 0.9))
    assert huge.has_init
    assert huge.shape == (1, 2**50)


def leaves_16_bit_sums_to_float32() -> None:
    share()
    weight = Parameter(np.zeros((get_group_size(), 4), np.float16), name="w")
    optimizer = ParallelOptimizer(SGD([weight], 1.0), mean=True)
    optimizer([np.full((get_group_size(), 4), 60000, np.float16)])  # the sum is not a float16, the mean is
    assert (weight.asnumpy() == np.float16(-60000)).all()


if __name__ == "__main__":
    init(timeout=60)
    run_cases(globals(), 1 << 7)
