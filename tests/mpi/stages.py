"""What pipeline stages of 4 ranks do, checked by every rank; the argument names the case."""

import warnings

import numpy as np
from cases import run_cases

import numparam
from numparam import Cell, CellList, Parameter
from numparam.communication import comm_func, get_group_size, get_rank, init
from numparam.initializer import initializer
from numparam.parallel import (
    DistributedGradReducer,
    init_stage,
    parameters_here,
    pipeline_stage,
    set_pipeline_stage,
    stage_group,
    stage_ranks,
    sum_shared_gradients,
)

STAGE = [0, 0, 1, 1]


def net() -> Cell:
    """Return two layers, one for each stage, and an embedding that both use."""
    whole = Cell()
    whole.embedding = Parameter(initializer("ones", (4, 2)))
    whole.layers = CellList([Cell(), Cell()])
    for layer in whole.layers:
        layer.w = Parameter(initializer("ones", (3, 2)))
    set_pipeline_stage(whole.layers[0], 0)
    with warnings.catch_warnings(action="ignore"):
        whole.layers[1].w.add_pipeline_stage(1)
    return whole


def knows_its_stage() -> None:
    assert pipeline_stage() == STAGE[get_rank()]
    assert [pipeline_stage(rank) for rank in range(4)] == STAGE
    assert stage_ranks() == [rank for rank in range(4) if STAGE[rank] == pipeline_stage()]
    assert stage_ranks(1) == [2, 3]
    assert get_group_size(stage_group()) == 2
    found = comm_func.all_gather_into_tensor(np.array([get_rank()]), stage_group())
    assert found.tolist() == stage_ranks()


def makes_what_lives_here() -> None:
    whole = net()
    here = init_stage(whole)
    assert [parameter.name for parameter in here] == ["embedding", f"layers.{pipeline_stage()}.w"]
    assert [layer.w.has_init for layer in whole.layers] == [pipeline_stage() == 1, pipeline_stage() == 0]


def sums_what_stages_share() -> None:
    here = parameters_here(net())
    gradients = [np.full(parameter.shape, 10.0 ** get_rank(), np.float32) for parameter in here]
    DistributedGradReducer(here, mean=False, group=stage_group())(gradients)
    inside = 11.0 if pipeline_stage() == 0 else 1100.0
    assert [gradient.flat[0] for gradient in gradients] == [inside, inside]
    sum_shared_gradients(here, gradients)
    assert [gradient.flat[0] for gradient in gradients] == [1111.0, inside]
    assert (gradients[0] == 1111).all()


if __name__ == "__main__":
    init(timeout=60)
    numparam.set_auto_parallel_context(pipeline_stages=2)
    run_cases(globals())
