"""Stages of a pipeline: which ranks form one, and which parameters live there.

``pipeline_stages`` of the parallel context divides the ranks into stages of equal size. `Parameter.add_pipeline_stage`
and `set_pipeline_stage` assign parameters to stages. One may live on several stages, as an embedding that a model uses
at both ends; one without a stage lives on all of them. Parameters of other stages stay lazy, without memory. The ranks
of a stage are replicas: `stage_group` names the group that reduces their gradients.

The functions raise a ValueError if the stages do not divide the ranks, or a stage or rank does not exist.

>>> from numparam import reset_auto_parallel_context, set_auto_parallel_context
>>> set_auto_parallel_context(device_num=8, pipeline_stages=2, global_rank=5)
>>> pipeline_stage(), stage_ranks(), pipeline_stage(3)
(1, [4, 5, 6, 7], 0)
>>> reset_auto_parallel_context()
"""

from __future__ import annotations

from collections.abc import Sequence

from numparam.checks import as_int
from numparam.communication.exchange import world
from numparam.communication.management import create_group
from numparam.context import get_auto_parallel_context
from numparam.errors import ArgumentValueError
from numparam.optim.memory import Array, Parameters, check_count, parameters_of
from numparam.parallel.gradients import DistributedGradReducer
from numparam.parameter import Parameter
from numparam.tensor import Tensor


def pipeline_stage(rank: int | None = None) -> int:
    """Return the stage of a rank, by default this one."""
    ranks, stages = _ranks_per_stage()
    chosen = get_auto_parallel_context("global_rank") if rank is None else as_int("a rank", rank)
    if not 0 <= chosen < ranks * stages:
        raise ArgumentValueError(f"there are {ranks * stages} ranks, found {chosen}")
    return int(chosen) // ranks


def stage_ranks(stage: int | None = None) -> list[int]:
    """Return the ranks of a stage, by default the stage of this rank."""
    ranks, stages = _ranks_per_stage()
    chosen = pipeline_stage() if stage is None else as_int("a pipeline stage", stage)
    if not 0 <= chosen < stages:
        raise ArgumentValueError(f"there are {stages} pipeline stages, found {chosen}")
    return list(range(chosen * ranks, (chosen + 1) * ranks))


def stage_group() -> str:
    """Return the name of the group of the ranks of this stage."""
    return _group(f"pipeline stage {pipeline_stage()}", stage_ranks())


def set_pipeline_stage(cell_or_parameters: Parameters, stage: int) -> None:
    """Assign parameters to a stage, in addition to the stages that they are on already.

    `Parameter.add_pipeline_stage` does the same for one parameter, but does not take 0.

    Examples
    --------
    >>> from numparam import reset_auto_parallel_context, set_auto_parallel_context
    >>> set_auto_parallel_context(device_num=4, pipeline_stages=4)
    >>> embedding, norm = Parameter(1.0), Parameter(1.0)
    >>> set_pipeline_stage([embedding], 0)
    >>> set_pipeline_stage([embedding], 3)
    >>> stages_of(embedding), stages_of(norm)
    ((0, 3), (0, 1, 2, 3))
    >>> reset_auto_parallel_context()
    """
    number = as_int("a pipeline stage", stage)
    stage_ranks(number)
    for parameter in parameters_of(cell_or_parameters):
        parameter._pipeline_stages = (*parameter._pipeline_stages, number)


def stages_of(parameter: Parameter) -> tuple[int, ...]:
    """Return the stages that a parameter lives on, in order; by default all stages."""
    _, stages = _ranks_per_stage()
    named = sorted(set(parameter._pipeline_stages)) or range(stages)
    if named[-1] >= stages:
        raise ArgumentValueError(
            f"Parameter {parameter.name!r} lives on pipeline stage {named[-1]}, but pipeline_stages is {stages}"
        )
    return tuple(named)


def parameters_here(cell_or_parameters: Parameters) -> list[Parameter]:
    """Return the parameters that live on this stage; a TypeError if it is neither a cell nor parameters."""
    stage = pipeline_stage()
    return [parameter for parameter in parameters_of(cell_or_parameters) if stage in stages_of(parameter)]


def init_stage(cell_or_parameters: Parameters) -> list[Parameter]:
    """Materialise the parameters that live on this stage, and return them; the others stay as they are."""
    return [parameter.init_data() for parameter in parameters_here(cell_or_parameters)]


def sum_shared_gradients(parameters: Sequence[Parameter], gradients: Sequence[Tensor | Array]) -> None:
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
    TypeError, ValueError, RuntimeError
        As for `DistributedGradReducer`.
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
