"""Parameters live on the stages of a pipeline that they name."""

import numpy as np
import pytest

import numparam
from numparam import Parameter
from numparam.initializer import initializer
from numparam.parallel import (
    init_stage,
    parameters_here,
    pipeline_stage,
    set_pipeline_stage,
    stage_ranks,
    stages_of,
    sum_shared_gradients,
)
from ranks import check, needs_mpi

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _fresh_context() -> None:
    numparam.reset_auto_parallel_context()
    yield
    numparam.reset_auto_parallel_context()


@needs_mpi
def test_four_ranks() -> None:
    check("stages.py", "knows_its_stage,makes_what_lives_here,sums_what_stages_share", 4)


def test_ranks_form_stages_one_after_another() -> None:
    numparam.set_auto_parallel_context(device_num=12, global_rank=7, pipeline_stages=3)
    assert pipeline_stage() == 1
    assert [pipeline_stage(rank) for rank in range(12)] == [0] * 4 + [1] * 4 + [2] * 4
    assert stage_ranks() == [4, 5, 6, 7]
    assert stage_ranks(2) == [8, 9, 10, 11]


def test_parameters_live_where_they_say_and_elsewhere_stay_lazy() -> None:
    parameters = [Parameter(initializer("ones", 3), name=name) for name in "abcd"]
    numparam.set_auto_parallel_context(device_num=4, global_rank=2, pipeline_stages=4)
    set_pipeline_stage(parameters[:1], 0)
    with pytest.warns(DeprecationWarning, match="add_pipeline_stage"):
        parameters[1].add_pipeline_stage(2)
    set_pipeline_stage(parameters[2:3], 3)
    set_pipeline_stage(parameters[2:3], 2)
    assert [stages_of(parameter) for parameter in parameters] == [(0,), (2,), (2, 3), (0, 1, 2, 3)]
    assert [parameter.name for parameter in parameters_here(parameters)] == ["b", "c", "d"]
    init_stage(parameters)
    assert [parameter.has_init for parameter in parameters] == [True, False, False, False]
    assert np.array_equal(parameters[1].asnumpy(), [1, 1, 1])


def test_a_stage_that_does_not_exist_is_told() -> None:
    parameter = Parameter(1.0, name="w")
    numparam.set_auto_parallel_context(device_num=4, pipeline_stages=4)
    set_pipeline_stage([parameter], 3)
    numparam.set_auto_parallel_context(pipeline_stages=2)
    with pytest.raises(ValueError, match="Parameter 'w' lives on pipeline stage 3, but pipeline_stages is 2"):
        stages_of(parameter)
    with pytest.raises(ValueError, match="there are 2 pipeline stages, found 2"):
        set_pipeline_stage([parameter], 2)
    with pytest.raises(TypeError, match="a pipeline stage is an int, found '1'"):
        set_pipeline_stage([parameter], "1")
    with pytest.raises(ValueError, match="there are 4 ranks, found 4"):
        pipeline_stage(4)
    numparam.set_auto_parallel_context(pipeline_stages=3)
    with pytest.raises(ValueError, match="pipeline_stages is 3, which does not divide the 4 ranks"):
        pipeline_stage()


def test_every_parameter_needs_a_gradient() -> None:
    with pytest.raises(ValueError, match="expected a gradient for each of 1 parameters, found 2"):
        sum_shared_gradients([Parameter(1.0)], [np.ones(()), np.ones(())])
