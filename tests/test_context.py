"""The parallel context takes the options that touch parameters, all of them or none."""

from collections.abc import Iterator
from typing import Any

import pytest

import numparam


@pytest.fixture(autouse=True)
def _fresh_context() -> Iterator[None]:
    numparam.reset_auto_parallel_context()
    yield
    numparam.reset_auto_parallel_context()


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"parallel_mode": "fast"}, ValueError, "parallel_mode is one of stand_alone"),
        ({"parallel_mode": 3}, TypeError, "parallel_mode is a str"),
        ({"device_num": 0}, ValueError, "device_num is at least 1, found 0"),
        ({"device_num": True}, TypeError, "device_num is an int"),
        ({"global_rank": 4096}, ValueError, "from 0 to 4095"),
        ({"nothing": 1}, ValueError, "no option 'nothing'; known: parallel_mode"),
    ],
    ids=str,
)
def test_wrong_context(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        numparam.set_auto_parallel_context(**({"parallel_mode": "data_parallel"} | options))
    assert numparam.get_auto_parallel_context("parallel_mode") == "stand_alone"


def test_unknown_option_read() -> None:
    with pytest.raises(ValueError, match="no option 'nothing'"):
        numparam.get_auto_parallel_context("nothing")
