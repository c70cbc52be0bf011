"""Stages of a pipeline: which ranks form one, and which parameters live there.

``pipeline_stages`` of the parallel context divides the ranks into stages of equal size: of 8 ranks and 2 stages, 0 to 3
are stage 0. `Parameter.add_pipeline_stage` and `set_pipeline_stage` set where a parameter lives. One may live on
several stages, as the embedding that a model uses at both ends; one without a stage lives on all of them. What lives
elsewhere stays lazy, without memory. The ranks of a stage are replicas: `stage_group` names the group that reduces
their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numparam.checks import as_int
from numparam.communication.exchange import world
from numparam.communication.management import create_group
from numparam.context import get_auto_parallel_context
from numparam.errors import ArgumentValueError
from numparam.optim.memory import check_count, parameters_of
from numparam.parallel.gradients import DistributedGradReducer
from numparam.parameter import Parameter


def pipeline_stage(rank: int | None = None) -> int:
    """Return the stage of a rank, by default this one.

    Raises
    ------
    ValueError
        If the stages do not divide the ranks, or the rank does not exist.

    Examples
    --------
    >>> pipeline_stage()
    0
    """
    ranks, stages = _ranks_per_stage()
    chosen = get_auto_parallel_context("global_rank") if rank is None else as_int("a rank", rank)
    if not 0 <= chosen < ranks * stages:
        raise ArgumentValueError(f"there are {ranks * stages} ranks, found {chosen}")
    return int(chosen) // ranks


def stage_ranks(stage: int | None = None) -> list[int]:
    """Return the ranks of a stage, by default the stage of this rank.

    Raises
    ------
    ValueError
        If the stages do not divide the ranks, or the stage does not exist.

    Examples
    --------
    >>> stage_ranks()
    [0]
    """
    ranks, stages = _ranks_per_stage()
    chosen = pipeline_stage() if stage is None else as_int("a pipeline stage", stage)
    if not 0 <= chosen < stages:
        raise ArgumentValueError(f"there are {stages} pipeline stages, found {chosen}")
    return list(range(chosen * ranks, (chosen + 1) * ranks))


def stage_group() -> str:
    """Return the name of the group of the ranks of this stage.

    Raises
    ------
    ValueError
        If the stages do not divide the ranks.

    Examples
    --------
    >>> stage_group()
    'pipeline stage 0'
    """
    return _group(f"pipeline stage {pipeline_stage()}", stage_ranks())


def set_pipeline_stage(cell_or_parameters: Any, stage: int) -> None:
    """Note that parameters live on a stage, as well as on the stages they live on already.

    `Parameter.add_pipeline_stage` does the same for one parameter, but does not take 0.

    Raises
    ------
    TypeError
        If it is neither a cell nor parameters, or `stage` is not an int.
    ValueError
        If the stage does not exist.

    Examples
    --------
    >>> weight = Parameter(1.0)
    >>> set_pipeline_stage([weight], 0)
    >>> stages_of(weight)
    (0,)
    """
    number = as_int("a pipeline stage", stage)
    stage_ranks(number)
    for parameter in parameters_of(cell_or_parameters):
        parameter._pipeline_stages = (*parameter._pipeline_stages, number)


def stages_of(parameter: Parameter) -> tuple[int, ...]:
    """Return the stages that a parameter lives on, in order; by default all stages.

    Raises
    ------
    ValueError
        If it names a stage that does not exist.

    Examples
    --------
    >>> stages_of(Parameter(1.0))
    (0,)
    """
    _, stages = _ranks_per_stage()
    named = sorted(set(parameter._pipeline_stages)) or range(stages)
    if named[-1] >= stages:
        raise ArgumentValueError(
            f"Parameter {parameter.name!r} lives on pipeline stage {named[-1]}, but pipeline_stages is {stages}"
        )
    return tuple(named)


def parameters_here(cell_or_parameters: Any) -> list[Parameter]:
    """Return the parameters that live on this stage.

    Raises
    ------
    TypeError
        If it is neither a cell nor parameters.
    ValueError
        If one names a stage that does not exist.

    Examples
    --------
    >>> len(parameters_here([Parameter(1.0)]))
    1
    """
    stage = pipeline_stage()
    return [parameter for parameter in parameters_of(cell_or_parameters) if stage in stages_of(parameter)]


def init_stage(cell_or_parameters: Any) -> list[Parameter]:
    """Make the values of the parameters that live on this stage; those that live elsewhere stay as they are.

    Raises
    ------
    TypeError
        If it is neither a cell nor parameters.
    ValueError
        If one names a stage that does not exist.

    Returns
    -------
    list of Parameter
        Those that live here.

    Examples
    --------
    >>> from numparam.initializer import initializer
    >>> [parameter.has_init for parameter in init_stage([Parameter(initializer("normal", 3), name="w")])]
    [False]
    """
    return [parameter.init_data() for parameter in parameters_here(cell_or_parameters)]


def sum_shared_gradients(parameters: Sequence[Parameter], gradients: Sequence[Any]) -> None:
    """Sum the gradients of parameters that live on several stages over these stages, in place.

    A rank adds its own gradient and the gradients of the ranks at its place in the other stages, in the order of the
    stages. Reduce the gradients inside each stage as well, before or after.

    Parameters
    ----------
    parameters : sequence of Parameter
        The parameters that live here, in the order of the model: the same on all stages where two share more than one.
    gradients : sequence of Tensor or numpy.ndarray
        One for each, writable, of its shape.

    Raises
    ------
    TypeError
        If a gradient is neither a tensor nor an array.
    ValueError
        If there are not as many gradients, a shape is another, or a stage does not exist.
    RuntimeError
        If another rank does not come, or comes to something else.

    Examples
    --------
    >>> import numpy as np
    >>> sum_shared_gradients([Parameter([1.0])], [np.ones(1, np.float32)])  # of a single stage
    """
    check_count(parameters, gradients)
    place = get_auto_parallel_context("global_rank") - stage_ranks()[0]
    sharing: dict[tuple[int, ...], list[int]] = {}
    for index, parameter in enumerate(parameters):
        stages = stages_of(parameter)
        if len(stages) > 1 and not parameter.layerwise_parallel:
            sharing.setdefault(stages, []).append(index)
    for stages, indices in sorted(sharing.items()):
        name = f"pipeline stages {', '.join(map(str, stages))} at {place}"
        group = _group(name, [stage_ranks(stage)[place] for stage in stages])
        reduce = DistributedGradReducer([parameters[index] for index in indices], mean=False, group=group)
        reduce([gradients[index] for index in indices])


def _ranks_per_stage() -> tuple[int, int]:
    ranks, stages = get_auto_parallel_context("device_num"), get_auto_parallel_context("pipeline_stages")
    if ranks % stages:
        raise ArgumentValueError(f"pipeline_stages is {stages}, which does not divide the {ranks} ranks")
    return ranks // stages, stages


def _group(name: str, ranks: list[int]) -> str:
    if name not in world.groups or list(world.groups[name].ranks) != ranks:
        world.groups.pop(name, None)
        create_group(name, ranks)
    return name
