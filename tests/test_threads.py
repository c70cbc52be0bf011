"""The number of threads is set at the top level and changes no value."""

from collections.abc import Iterator

import numpy as np
import pytest

import numparam
from numparam.initializer import initializer


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = numparam.get_num_threads()
    yield
    numparam.set_num_threads(before)


def test_number_of_threads_can_be_read_back() -> None:
    numparam.set_num_threads(3)
    assert numparam.get_num_threads() == 3


@pytest.mark.parametrize("count, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_wrong_numbers_of_threads(count: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        numparam.set_num_threads(count)  # type: ignore[arg-type]


def test_values_do_not_depend_on_the_number_of_threads() -> None:
    found = []
    for count in (1, 2, 5):
        numparam.set_num_threads(count)
        numparam.set_seed(7)
        found.append(initializer("normal", (1000, 1001)).asnumpy())
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
