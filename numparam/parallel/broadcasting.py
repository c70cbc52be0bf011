"""Give all ranks the parameters of rank 0."""

from __future__ import annotations

from numparam.communication import collectives
from numparam.communication.exchange import arrive
from numparam.communication.group import WORLD_COMM_GROUP
from numparam.communication.management import get_group
from numparam.optim.memory import Parameters, as_bytes, parameters_of, writable
from numparam.parallel.agreement import not_surely_same


def broadcast_parameters(cell_or_parameters: Parameters, group: str = WORLD_COMM_GROUP) -> None:
    """Overwrite the parameters of all ranks with the values of rank 0 of a group, as data parallel training begins.

    Parameters with ``layerwise_parallel``, or of which a rank holds a slice, are left out. Parameters that are lazy
    with the same recipe on all ranks stay lazy: there is nothing to send. The others travel together, in messages of at
    most 4 MiB, two of which are the extra memory. A training loop that follows the parallel context calls this if
    ``parameter_broadcast`` is set.

    Parameters
    ----------
    cell_or_parameters : Cell or iterable of Parameter
        The same ones on all ranks, in the same order.
    group : str

    Raises
    ------
    TypeError
        If it is neither.
    RuntimeError
        If the ranks have different parameters, or one is late.
    """
    members, parameters = get_group(group), parameters_of(cell_or_parameters)
    operation = "broadcast_parameters"
    arrive(members, operation)
    sent = not_surely_same(members, operation, parameters)
    if members.size > 1:
        collectives.broadcast(members, operation, [as_bytes(writable(parameter)) for parameter in sent], 0)
        if members.rank:
            for parameter in sent:
                parameter._set_origin("set_data")
