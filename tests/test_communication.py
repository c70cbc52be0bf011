"""Ranks that mpiexec starts find each other, and what they do together has the same bits on all of them."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from numparam.communication import (
    create_group,
    destroy_group,
    get_group_rank_from_world_rank,
    get_group_size,
    get_rank,
    get_world_rank_from_group_rank,
    init,
)
from numparam.communication.comm_func import (
    all_gather_into_tensor,
    all_reduce,
    barrier,
    broadcast,
    reduce_scatter_tensor,
)
from ranks import check as check_ranks
from ranks import needs_mpi, run, start

pytestmark = pytest.mark.timeout(180)


check = partial(check_ranks, "collectives.py")


# One job for all: most of what a case takes is the start of its ranks.
TWO_RANKS = (
    "broadcasts_from_any_rank",
    "takes_tensors_and_leaves_what_it_is_given",
    "keeps_to_little_memory",
    "reduces_a_float_and_an_integer",
    "has_the_same_bits_both_ways",
    "waits_without_working",  # the last: ranks use messages afterwards
)
PARTS = "wants_parts_with_the_bits_of_the_whole,comes_again_with_many_shapes"


@needs_mpi
@pytest.mark.parametrize(
    "ranks, cases",
    [
        (1, PARTS),
        (2, ",".join(TWO_RANKS)),
        pytest.param(2, "reduces_in_the_order_of_the_ranks", marks=pytest.mark.slow),
        pytest.param(3, f"reduces_in_the_order_of_the_ranks,{PARTS}", marks=pytest.mark.slow),
        pytest.param(3, "has_the_same_bits_in_all_dtypes", marks=pytest.mark.slow),
        pytest.param(7, "has_the_same_bits_in_all_dtypes", marks=pytest.mark.slow),
        (4, "broadcasts_from_any_rank,talks_in_groups"),
        pytest.param(4, "reduces_in_the_order_of_the_ranks", marks=pytest.mark.slow),
    ],
)
def test_ranks(ranks: int, cases: str) -> None:
    check(cases, ranks)


@needs_mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_knows_its_place_and_leaves_it(ranks: int) -> None:
    check("knows_its_place_and_leaves_it", ranks)


@needs_mpi
def test_ranks_share_a_seed() -> None:
    first, second = check("shares_the_seed_of_rank_0", 2), check("shares_the_seed_of_rank_0", 2)
    assert first != second


@needs_mpi
def test_seed_that_was_set_stays() -> None:
    assert run("seeds.py", 2, "set").split() == ["11", "11"]


@needs_mpi
def test_tensors_made_before_init_are_refused() -> None:
    done = start("seeds.py", 2, "drawn")
    assert done.returncode != 0
    assert "rank 1 of 2 ended with StateError: lazy tensors were created before" in done.stderr


def test_missing_mpi_is_told_in_one_sentence() -> None:
    code = (
        "import sys; sys.modules['mpi4py'] = None\n"
        "import numparam.parallel\n"
        "from numparam.communication import init\n"
        "try: init()\n"
        "except RuntimeError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == (
        'communication needs mpi4py and an MPI library: pip install "numparam[mpi]" brings both, and mpiexec\n'
    )


def test_numparam_imports_no_mpi() -> None:
    code = "import sys, numparam, numparam.communication.comm_func, numparam.parallel; print('mpi4py' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"


@needs_mpi
def test_mpiexec_of_another_mpi_is_told() -> None:
    code = "from numparam.communication import init; init()"
    environment = os.environ | {"OMPI_COMM_WORLD_SIZE": "4"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert "mpiexec started 4 processes, but mpi4py's MPI sees one" in done.stderr


def test_wait_that_the_environment_names_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMPARAM_COMM_TIMEOUT", "soon")
    with pytest.raises(TypeError, match="timeout must be a number of seconds, found 'soon'"):
        init()


def test_a_single_process_needs_no_init() -> None:
    assert (get_rank(), get_group_size()) == (0, 1)
    values = np.arange(6.0).reshape(3, 2)
    for operation in (all_reduce, all_gather_into_tensor, reduce_scatter_tensor, broadcast):
        found = operation(values)
        assert np.array_equal(found, values)
        assert found is not values
    barrier()


def test_a_single_process_needs_no_mpi() -> None:
    code = (
        "import sys; sys.modules['mpi4py'] = None\n"
        "import numpy as np, numparam\n"
        "from numparam.communication import comm_func\n"
        "from numparam.parallel import DistributedGradReducer, Momentum, ParallelOptimizer, broadcast_parameters\n"
        "from numparam.parallel import check_agreement, sum_shared_gradients\n"
        "weights = [numparam.Parameter(np.ones((4, 2), np.float32), name='w')]\n"
        "numparam.set_auto_parallel_context(enable_parallel_optimizer=True,\n"
        "    parallel_optimizer_config={'parallel_optimizer_threshold': 0})\n"
        "broadcast_parameters(weights); check_agreement(weights); sum_shared_gradients(weights, weights)\n"
        "DistributedGradReducer(weights)([np.ones((4, 2), np.float32)])\n"
        "ParallelOptimizer(Momentum(weights, 0.5, 0.9))([np.ones((4, 2), np.float32)])\n"
        "print(comm_func.all_reduce(weights[0].asnumpy()).sum())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "4.0\n"


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: all_reduce("text"), TypeError, "expected a Tensor or a NumPy array, found str"),
        (lambda: init("hccl"), ValueError, "backend_name must be 'mpi' or None, found 'hccl'"),
        (lambda: init(timeout=0), ValueError, "timeout must be a positive number of seconds, found 0"),
        (lambda: init(timeout="soon"), TypeError, "timeout must be a number of seconds, found 'soon'"),
        (lambda: get_rank("stage"), ValueError, "this rank is not in a group 'stage'; it is in 'mpi_world_group'"),
        (lambda: create_group(3, [0]), TypeError, "the name of a group must be a str, found 3"),
        (lambda: create_group("x", 0), TypeError, "rank_ids must be a list of ints, found 0"),
        (lambda: create_group("x", []), ValueError, "rank_ids must hold distinct ranks from 0 to 0"),
        (lambda: create_group("x", [0, 0]), ValueError, "distinct ranks from 0 to 0, found"),
        (lambda: create_group("x", [1]), ValueError, "from 0 to 0"),
        (lambda: create_group("mpi_world_group", [0]), ValueError, "group 'mpi_world_group' exists already"),
        (lambda: destroy_group("mpi_world_group"), ValueError, "cannot be destroyed"),
        (lambda: get_world_rank_from_group_rank("mpi_world_group", 1), ValueError, "has ranks 0 to 0, found 1"),
        (lambda: get_group_rank_from_world_rank(1, "mpi_world_group"), ValueError, "has rank 0, found 1"),
        (lambda: all_reduce([1.0]), TypeError, "expected a Tensor or a NumPy array, found list"),
        (
            lambda: all_reduce(np.zeros(2), "mean"),
            ValueError,
            "op must be one of sum, avg, max, min, prod, found 'mean'",
        ),
        (lambda: all_reduce(np.zeros(2, bool)), TypeError, "sum of bools is not defined"),
        (lambda: all_reduce(np.zeros(2, int), "avg"), TypeError, "a mean of int64 values"),
        (lambda: all_gather_into_tensor(np.zeros(())), ValueError, "has no axis 0"),
        (lambda: broadcast(np.zeros(2), 1), ValueError, "found 1"),
    ],
)
def test_errors(call, error, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words.replace("(", r"\(")):
        call()
