"""Ranks bring their parameters and gradients into agreement."""

import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from numparam import Cell, Parameter
from numparam.initializer import initializer
from numparam.parallel import DistributedGradReducer, broadcast_parameters, check_agreement
from ranks import check as check_ranks
from ranks import needs_mpi, run

pytestmark = pytest.mark.timeout(180)


check = partial(check_ranks, "parameters.py")


TWO_RANKS = (
    "broadcasts_rank_0",
    "leaves_lazy_parameters_lazy",
    "compares_lazy_with_made_values",
    "replaces_values_that_cannot_be_written_to",
    "leaves_slices_out",
    "counts_arrivals",
    "reduces_a_large_bfloat16_gradient",
    "reduces_gradients",
    "takes_no_notice_of_zeros_of_either_sign_but_does_of_bits",
)
THREE_RANKS = ("reduces_gradients", "finds_different_lists")
FOUR_RANKS = ("broadcasts_rank_0", "names_the_first_that_differs")


@cache
def said(cases: tuple[str, ...], ranks: int) -> str:
    """Return what ranks print, which one job checks for several tests: most of it is the start of its ranks."""
    return check(",".join(cases), ranks)


@needs_mpi
@pytest.mark.parametrize("cases, ranks", [(TWO_RANKS, 2), (THREE_RANKS, 3), (FOUR_RANKS, 4)], ids=["2", "3", "4"])
def test_ranks(cases: tuple[str, ...], ranks: int) -> None:
    said(cases, ranks)


@needs_mpi
def test_first_parameter_that_differs_is_named_with_the_ranks() -> None:
    message = "Parameter 'weights.1.w', the first of 2 that differ: ranks 0-1, 3 and rank 2 hold different values;"
    assert said(FOUR_RANKS, 4).count(message) == 4


@needs_mpi
def test_agreement_is_one_of_bits() -> None:
    text = said(TWO_RANKS, 2)
    assert text.count("Parameter 'zero': rank 0 and rank 1 hold different values;") == 2
    assert "nan" not in text


@needs_mpi
def test_different_lists_of_parameters_are_told() -> None:
    text = said(THREE_RANKS, 3)
    place = "ranks 0, 2 and rank 1 have different parameters at place 1 of their lists, here 'b () float32'"
    assert text.count(f"broadcast_parameters: {place}") == 2
    assert text.count("broadcast_parameters: ranks 0, 2 and rank 1 have lists of 1, 2, 1 parameters") == 3
    assert "rank 0 and rank 1 and rank 2 have different parameters at place 0 of their lists, here 'a (3,)" in text


def test_a_single_process_has_nothing_to_send() -> None:
    cell = Cell()
    cell.w = Parameter(initializer("uniform", (2**20, 2**20)))
    broadcast_parameters(cell)
    check_agreement(cell)
    assert cell.w.has_init
    halves = DistributedGradReducer([Parameter([0.0, 0.0])], mean=True, degree=2)([np.float32([1, 3])])
    assert halves[0].tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: broadcast_parameters(Parameter(1.0)), TypeError, "expected a Cell or parameters, found Parameter"),
        (lambda: check_agreement([1.0]), TypeError, "expected a Cell or parameters, found float at 0"),
        (lambda: DistributedGradReducer([1.0]), TypeError, "expected a Cell or parameters, found float at 0"),
        (lambda: DistributedGradReducer([], mean=1), TypeError, "mean is True or False, found 1"),
        (lambda: DistributedGradReducer([], degree=0), ValueError, "degree is at least 1, found 0"),
        (lambda: DistributedGradReducer([], group="x"), ValueError, "this rank is not in a group 'x'"),
        (lambda: reduce([]), ValueError, "expected a gradient for each of 1 parameters, found 0"),
        (lambda: reduce([np.ones(2)]), ValueError, "Parameter 'w': expected a gradient of shape .3,., found .2,."),
        (lambda: reduce([[1.0] * 3]), TypeError, "Parameter 'w': a gradient is a Tensor or a NumPy array, found list"),
        (lambda: reduce([np.broadcast_to(1.0, 3)]), ValueError, "Parameter 'w': its gradient is read-only"),
    ],
)
def test_errors(call, error, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        call()


def reduce(gradients: list) -> None:
    DistributedGradReducer([Parameter(np.zeros(3), name="w")])(gradients)


@needs_mpi
@pytest.mark.parametrize("aware", ["", "0", pytest.param("1", marks=pytest.mark.slow)])
def test_cuda_devices_directly_or_through_pinned_memory(aware: str) -> None:
    environment = {"NUMPARAM_CUDA_AWARE_MPI": aware} if aware else {}
    assert run("devices.py", 2, **environment).count("done") == 2


@needs_mpi
@pytest.mark.slow
def test_example_trains_on_one_rank_as_on_four() -> None:
    example = Path(__file__).parents[1] / "examples" / "data_parallel.py"
    alone = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, check=True).stdout
    together = run(str(example), 4)
    *losses, last = together.splitlines()
    assert losses == alone.splitlines()[:-1]
    assert last == "4 ranks agree; rank 0 holds (2, 64) of the momenta of w, (8, 64)"
