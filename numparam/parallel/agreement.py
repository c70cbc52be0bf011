"""Whether all ranks hold the same parameters with the same values, and how they come to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from numparam.checkpoint import recipes
from numparam.communication import collectives
from numparam.communication.arrival import arrive
from numparam.communication.collectives import Array, gather_small
from numparam.communication.group import WORLD_COMM_GROUP, Group, named
from numparam.communication.management import get_group
from numparam.errors import DisagreementError
from numparam.optim.memory import Parameters, as_bytes, is_shared, parameters_of, writable
from numparam.parameter import Parameter


def check_agreement(cell_or_parameters: Parameters, group: str = WORLD_COMM_GROUP) -> None:
    """Raise unless all ranks hold the same values, bit for bit.

    Each rank computes a checksum of 64 bits of each parameter, and these are compared. Parameters with
    ``layerwise_parallel`` and parameters of which a rank holds a slice are left out. A lazy parameter stays lazy: its
    recipe is compared, or its values are generated in small blocks if it cannot be written as text.

    Parameters
    ----------
    cell_or_parameters : Cell or iterable of Parameter
    group : str

    Raises
    ------
    TypeError
        If it is neither.
    RuntimeError
        If ranks hold different values: `numparam.errors.DisagreementError` names the first such parameter and the
        ranks. Also if a rank is late.
    """
    members, parameters = get_group(group), parameters_of(cell_or_parameters)
    operation = "check_agreement"
    arrive(members, operation)
    unsure = _not_surely_same(members, operation, parameters)
    sums = gather_small(members, operation, np.array([_checksum(parameter) for parameter in unsure], np.uint64))
    different = np.flatnonzero((sums != sums[0]).any(axis=0))
    if different.size:
        first = different[0]
        more = f", the first of {different.size} that differ" if different.size > 1 else ""
        raise DisagreementError(
            f"Parameter {unsure[first].name!r}{more}: {_camps(members, sums[:, first])} hold different values; "
            "numparam.parallel.broadcast_parameters gives all ranks the values of rank 0"
        )


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
    sent = _not_surely_same(members, operation, parameters)
    if members.size > 1:
        collectives.broadcast(members, operation, [as_bytes(writable(parameter)) for parameter in sent], 0)
        if members.rank:
            for parameter in sent:
                parameter._set_origin("set_data")


def _not_surely_same(members: Group, operation: str, parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return the shared parameters, which all ranks must list alike, without the lazy ones with equal recipes."""
    shared = _matched(members, operation, parameters)
    same = _same_recipes(members, operation, shared)
    return [parameter for parameter, is_same in zip(shared, same, strict=True) if not is_same]


def _matched(members: Group, operation: str, parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return the parameters that all ranks share; a DisagreementError if the ranks do not have the same list."""
    shared = [parameter for parameter in parameters if is_shared(parameter)]
    counts = gather_small(members, operation, np.array([len(shared)], np.uint64))[:, 0]
    least = int(counts.min())
    texts = [f"{parameter.name} {parameter.shape} {parameter.dtype}" for parameter in shared]
    digests = [_digest(text.encode("utf-8", "surrogatepass")) for text in texts[:least]]
    sums = gather_small(members, operation, np.array(digests, np.uint64))
    different = np.flatnonzero((sums != sums[0]).any(axis=0))
    if different.size:
        first = different[0]
        raise DisagreementError(
            f"{operation}: {_camps(members, sums[:, first])} have different parameters at place {first} of their "
            f"lists, here {texts[first]!r}"
        )
    if (counts != least).any():
        raise DisagreementError(
            f"{operation}: {_camps(members, counts)} have lists of {', '.join(map(str, counts))} parameters"
        )
    return shared


def _same_recipes(members: Group, operation: str, parameters: Sequence[Parameter]) -> list[bool]:
    """Return for each parameter whether it is lazy with the same recipe on all ranks."""
    own = [recipes.encode(parameter) for parameter in parameters]
    digests = [0 if recipe is None else _digest(json.dumps(recipe, sort_keys=True).encode()) for recipe in own]
    sums = gather_small(members, operation, np.array(digests, np.uint64))
    return [bool(same) for same in (sums == sums[0]).all(axis=0) & (sums[0] != 0)]


def _checksum(parameter: Parameter) -> int:
    if not parameter.has_init:
        return _digest(_bytes(parameter.asnumpy()))
    total = blake2b(digest_size=8)
    for block in parameter.blocks():
        values = np.empty(block.shape, parameter.dtype)
        block.fill(values)
        total.update(_bytes(values))
    return int.from_bytes(total.digest(), "little")


def _bytes(values: Array) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _digest(data: bytes | memoryview) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def _camps(members: Group, values: Array) -> str:
    """Name the ranks that have each value, the largest group first."""
    camps: dict[Any, list[int]] = {}
    for rank, value in zip(members.ranks, values.tolist(), strict=True):
        camps.setdefault(value, []).append(rank)
    return " and ".join(named(ranks) for ranks in sorted(camps.values(), key=len, reverse=True))
