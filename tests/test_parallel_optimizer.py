"""An optimizer whose work is shared out among ranks changes no bit of the result."""

from functools import partial

import numpy as np
import pytest

from numparam import Parameter
from numparam.device import Device
from numparam.initializer import initializer
from numparam.optim import SparseRows
from numparam.parallel import Momentum, ParallelOptimizer
from ranks import check as check_ranks
from ranks import needs_mpi

pytestmark = pytest.mark.timeout(180)


check = partial(check_ranks, "optimizer.py")


@needs_mpi
@pytest.mark.parametrize("ranks", [1, 4])
def test_equals_an_update_that_is_not_shared_out(ranks: int) -> None:
    check("equals_an_update_that_is_not_shared_out", ranks)


TWO_RANKS = (
    "cuts_what_it_may",
    "equals_an_update_that_is_not_shared_out",
    "keeps_states_for_its_rows_alone",
    "drops_what_is_gathered_again",
    "makes_only_its_rows",
    "leaves_16_bit_sums_to_float32",
    "rows_equal_an_update_that_is_not_shared_out",
)


@needs_mpi
def test_two_ranks() -> None:
    check(",".join(TWO_RANKS), 2)


def test_a_single_process_updates_all_by_itself() -> None:
    weight = Parameter([1.0, 2.0], name="w")
    optimizer = ParallelOptimizer(Momentum([weight], 0.5, 0.5))
    for _ in range(2):
        optimizer([np.ones(2, np.float32)])
    assert weight.asnumpy().tolist() == [1 - 0.5 - 0.75, 2 - 0.5 - 0.75]
    assert optimizer.states[0].asnumpy().tolist() == [1.5, 1.5]


def elsewhere() -> Parameter:
    """Return a parameter that says it is on a GPU, which need not be there."""
    parameter = Parameter(initializer("ones", 3), name="w")
    parameter._move(Device("cuda:0"))
    return parameter


def optimize(gradients: list) -> None:
    ParallelOptimizer(Momentum([Parameter(np.zeros(3), name="w")], 0.1, 0.9))(gradients)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: ParallelOptimizer([1.0]), TypeError, "expected an optimizer of numparam.optim, found list"),
        (
            lambda: Momentum([Parameter(1.0, name="w"), Parameter(1.0, name="w")], 0.1, 0.9),
            ValueError,
            "its name 'w' already exists",
        ),
        (
            lambda: ParallelOptimizer(Momentum([elsewhere()], 0.1, 0.9)),
            ValueError,
            "'w' is on cuda:0; ParallelOptimizer needs the CPU",
        ),
        (lambda: optimize([]), ValueError, "expected a gradient for each of 1 parameters, found 0"),
        (lambda: optimize([np.ones(2)]), ValueError, "Parameter 'w': expected a gradient of shape .3,., found .2,."),
        (lambda: optimize([SparseRows([1], np.ones((1, 1)))]), ValueError, r"Parameter 'w': .*\(1,\), found \(1, 1\)"),
        (lambda: optimize([SparseRows([3], np.ones(1))]), ValueError, "Parameter 'w': rows must be from 0 to 2"),
        (lambda: optimize([None]), TypeError, "Parameter 'w': a gradient is a Tensor or a NumPy array, found NoneType"),
    ],
)
def test_errors(call, error, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        call()
