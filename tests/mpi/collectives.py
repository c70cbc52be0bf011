"""What the operations of all ranks give, checked by every rank; the argument names the case."""

import itertools
import sys
import time
import tracemalloc
from collections.abc import Iterable

import numpy as np
from cases import run_cases

import numparam
from numparam.communication import (
    WORLD_COMM_GROUP,
    ReduceOp,
    collectives,
    comm_func,
    create_group,
    destroy_group,
    exchange,
    get_group_rank_from_world_rank,
    get_group_size,
    get_rank,
    get_world_rank_from_group_rank,
    init,
    release,
)
from numparam.communication.management import get_group
from numparam.communication.memory import Memory

FUNCTIONS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def values_of(rank: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return what a rank brings, which every rank can make."""
    rng = np.random.default_rng(rank + 1)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 200, shape).astype(dtype)
    return (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, shape)).astype(np.float32).astype(dtype)


def expected(shape: tuple[int, ...], dtype: np.dtype, op: str) -> np.ndarray:
    """Reduce in the order of the ranks, the slow and obvious way."""
    dtype = np.dtype(dtype)
    wide = np.float32 if dtype.itemsize < 4 and dtype.kind not in "iub" else dtype
    result = values_of(0, shape, dtype).astype(wide)
    with np.errstate(all="ignore"):
        for rank in range(1, get_group_size()):
            result = FUNCTIONS.get(op, np.add)(result, values_of(rank, shape, dtype).astype(wide))
        return (result / np.float32(get_group_size()) if op == "avg" else result).astype(dtype)


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    bits = BITS[wanted.itemsize]
    return found.dtype == wanted.dtype and np.array_equal(found.view(bits), wanted.view(bits))


def reduces_in_the_order_of_the_ranks() -> None:
    _reduces("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float32", "float64", "int8", "uint16", "int64")


def reduces_a_float_and_an_integer() -> None:
    _reduces("bfloat16", "int64")


def _reduces(*names: str) -> None:
    for dtype in map(numparam.dtypes.as_dtype, names):
        for op in ReduceOp:
            if op == "avg" and dtype.kind in "iu":
                continue
            # The last fills several chunks, and none of the parts alike.
            for shape in [(), (0,), (1,), (5, 7), (3, 4001)] if op == "sum" else [(5, 7)]:
                found = comm_func.all_reduce(values_of(get_rank(), shape, dtype), op)
                assert found.shape == shape
                assert same(found, expected(shape, dtype, op)), (dtype, op, shape)


def comes_again_with_many_shapes() -> None:
    for _ in range(2):
        for size in range(1, 100):  # more than it keeps messages for
            found = comm_func.all_reduce(values_of(get_rank(), (size,), np.dtype(np.float32)))
            assert same(found, expected((size,), np.dtype(np.float32), "sum"))


def wants_parts_with_the_bits_of_the_whole() -> None:
    for dtype in map(numparam.dtypes.as_dtype, ["float32", "bfloat16"]):
        for rows in (1, 3001):
            shape = (rows * get_group_size(), 3)
            own = values_of(get_rank(), shape, dtype)
            part = comm_func.reduce_scatter_tensor(own, "avg")
            assert same(part, comm_func.all_reduce(own, "avg")[get_rank() * rows :][:rows])
            assert same(comm_func.all_gather_into_tensor(part), expected(shape, dtype, "avg"))


def broadcasts_from_any_rank() -> None:
    for src in range(get_group_size()):
        for shape in [(), (2,), (3, 7001)]:
            found = comm_func.broadcast(values_of(get_rank(), shape, np.float32), src)
            assert same(found, values_of(src, shape, np.float32))


def takes_tensors_and_leaves_what_it_is_given() -> None:
    tensor = numparam.Tensor(np.full((2, 2), get_rank() + 1.0))
    total = comm_func.all_reduce(tensor)
    assert isinstance(total, numparam.Tensor)
    assert total.tolist() == [[sum(range(1, get_group_size() + 1))] * 2] * 2
    assert tensor.tolist() == [[get_rank() + 1.0] * 2] * 2
    columns = values_of(get_rank(), (4, 6), np.float32).T
    assert same(comm_func.all_reduce(columns), np.ascontiguousarray(expected((4, 6), np.float32, "sum").T))
    assert comm_func.all_reduce(np.array([get_rank() == 1]), "max").tolist() == [get_group_size() > 1]


def talks_in_groups() -> None:
    ranks = [3, 1] if get_rank() % 2 else [0, 2]
    name = "odd" if get_rank() % 2 else "even"
    create_group(name, ranks)
    assert (get_rank(name), get_group_size(name)) == (ranks.index(get_rank()), 2)
    assert get_world_rank_from_group_rank(name, 1) == ranks[1]
    assert get_group_rank_from_world_rank(ranks[1], name) == 1
    gathered = comm_func.all_gather_into_tensor(np.array([get_rank()]), name)
    assert gathered.tolist() == ranks
    assert comm_func.broadcast(np.array([get_rank()]), 1, name).tolist() == ranks[1:]
    comm_func.barrier()
    comm_func.barrier(name)
    destroy_group(name)
    create_group(name, ranks[::-1])
    assert comm_func.all_gather_into_tensor(np.array([get_rank()]), name).tolist() == ranks[::-1]


def knows_its_place_and_leaves_it() -> None:
    numparam.reset_auto_parallel_context()
    assert numparam.get_auto_parallel_context("global_rank") == get_rank()
    assert numparam.get_auto_parallel_context("device_num") == get_group_size() == int(sys.argv[2])
    init()  # once more
    hook = sys.excepthook
    release()
    assert (sys.excepthook is hook) == (sys.argv[2] == "1")
    assert (get_rank(), get_group_size()) == (0, 1)
    assert numparam.get_auto_parallel_context("device_num") == 1
    release()
    init()
    assert get_group_size() == int(sys.argv[2])
    assert comm_func.all_reduce(np.ones(3)).tolist() == [get_group_size()] * 3


def shares_the_seed_of_rank_0() -> None:
    tensor = numparam.initializer.initializer("normal", (3,))
    number = np.array([numparam.get_seed(), tensor._values.seed, tensor._values.name], np.uint64)
    gathered = comm_func.all_gather_into_tensor(number).reshape(-1, 3)
    assert (gathered == gathered[0]).all()
    print(f"{numparam.get_seed()}\n", end="")


def keeps_to_little_memory() -> None:
    values = np.ones(16 << 20, np.float32)  # 64 MiB
    reduction = collectives.Reduction("sum", values.dtype)
    comm_func.all_reduce(values[:10])
    tracemalloc.start()
    collectives.all_reduce(get_group("mpi_world_group"), "here", [values], reduction)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * collectives.CHUNK_BYTES, peak
    assert (values == get_group_size()).all()


def has_the_same_bits_both_ways() -> None:
    _has_the_same_bits(["float32", "bfloat16", "int8"])


def has_the_same_bits_in_all_dtypes() -> None:
    _has_the_same_bits(numparam.dtypes.TABLE)


def _has_the_same_bits(names: Iterable[str]) -> None:
    """Reduce in memory and by messages: all gathered at once, or parts by every rank."""
    collectives._SMALL_BYTES = 4000 * get_group_size()
    create_group("messages", [*range(get_group_size())])
    get_group("messages").memory = False
    comm_func.barrier()
    assert isinstance(get_group(WORLD_COMM_GROUP).memory, Memory) or sys.platform != "linux"
    for name, op in itertools.product(names, ReduceOp):
        dtype = numparam.dtypes.as_dtype(name)
        if (op == "avg" and dtype.kind in "biu") or (dtype.kind == "b" and op in ("sum", "prod")) or dtype.kind == "c":
            continue
        for size in (1, 500, 8001):
            own = values_of(get_rank(), (size,), dtype)
            in_memory, in_messages = (comm_func.all_reduce(own, op, group) for group in (WORLD_COMM_GROUP, "messages"))
            assert same(in_memory, in_messages), (name, op, size)
    for size in (500, 8001):
        lists = [[values_of(get_rank(), (size,), np.float32), np.full(7, get_rank(), np.float32)] for _ in range(2)]
        for name, arrays in zip((WORLD_COMM_GROUP, "messages"), lists, strict=True):
            group = get_group(name)
            collectives.all_reduce(group, "of a list", arrays, collectives.Reduction("sum", arrays[0].dtype))
            assert same(collectives.gather_small(group, "rows", arrays[1])[-1], arrays[1])
        assert all(same(*pair) for pair in zip(*lists, strict=True))
        assert same(lists[0][0], expected((size,), np.float32, "sum"))


def waits_without_working() -> None:
    comm_func.barrier()
    looks: list[float] = []
    look, sleep, others = Memory.look, time.sleep, exchange._let_others_run
    for _ in range(2):
        if get_rank() == 0:
            sleep(1)
        else:
            Memory.look = lambda memory: (looks.append(0.01), look(memory))[1]
            time.sleep = lambda seconds: (looks.append(seconds), sleep(seconds))
            exchange._let_others_run = lambda: (looks.append(0), others())
        comm_func.barrier()
        assert get_rank() == 0 or (len(looks) < 1000 and max(looks) == 0.01), f"{len(looks)} looks in 1 s"
        looks.clear()
        Memory.look, time.sleep, exchange._let_others_run = look, sleep, others
        get_group(WORLD_COMM_GROUP).memory = False  # now by messages


if __name__ == "__main__":
    init(timeout=60)
    run_cases(globals(), 1 << 12, large="keeps_to_little_memory", meet=False)  # a case may leave
