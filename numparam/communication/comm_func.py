"""Operations that all ranks of a group do together, on tensors or NumPy arrays.

Every member of the group calls the same operations in the same order, with the same shapes and dtypes. A late member
raises a `numparam.errors.LateRankError` in all others that names it, a member that calls something else a
`numparam.errors.DisagreementError` in all; `numparam.communication.init` sets how long they wait. Arrays return arrays,
and tensors return tensors on the same device.

Reductions go by the rank in the group, ``((x0 + x1) + x2) + x3``, and have the same bits on all ranks and in every run.
Floats of 16 and 8 bits are reduced in float32 and rounded once; integers wrap around. See
`numparam.communication.collectives` for the memory that operations take.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from numparam import dtypes
from numparam.communication import collectives
from numparam.communication.arrival import arrive
from numparam.communication.collectives import Array, operation_name
from numparam.communication.group import WORLD_COMM_GROUP, Group
from numparam.communication.management import as_member, get_group
from numparam.communication.reduction import ReduceOp, reduction_of
from numparam.errors import ArgumentTypeError, ShapeError
from numparam.tensor import Tensor

Values = TypeVar("Values", bound=Tensor | Array)


def all_reduce(tensor: Values, op: ReduceOp | str = ReduceOp.SUM, group: str = WORLD_COMM_GROUP) -> Values:
    """Reduce the values of all ranks and return the result on every rank.

    Parameters
    ----------
    tensor : Tensor or numpy.ndarray
        Of one shape and dtype on all ranks.
    op : ReduceOp or str
        ``"sum"``, ``"avg"``, ``"max"``, ``"min"`` or ``"prod"``.
    group : str
        The name of a group that this rank is in.

    Raises
    ------
    TypeError
        If `tensor` is neither, or `op` is not defined for its dtype.
    ValueError
        If `op` or `group` is unknown.
    RuntimeError
        If another rank is late, or calls another operation.

    Examples
    --------
    >>> all_reduce(np.arange(3.0))  # of a single rank
    array([0., 1., 2.])
    """
    members = get_group(group)
    return _like(tensor, collectives.all_reduced(members, _values(tensor), op))


def all_gather_into_tensor(tensor: Values, group: str = WORLD_COMM_GROUP) -> Values:
    """Concatenate the values of all ranks along axis 0.

    Parameters
    ----------
    tensor : Tensor or numpy.ndarray
        Of one shape and dtype on all ranks, with at least one axis.
    group : str

    Returns
    -------
    Tensor or numpy.ndarray
        Axis 0 is as many times longer as the group has ranks.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `all_reduce`. Also if `tensor` has no axis.
    """
    members = get_group(group)
    values = _with_axis(_values(tensor))
    operation = _begin(members, "all_gather", values)
    out = np.empty((len(values) * members.size, *values.shape[1:]), values.dtype)
    collectives.all_gather(members, operation, values.reshape(-1), out.reshape(-1))
    return _like(tensor, out)


def reduce_scatter_tensor(tensor: Values, op: ReduceOp | str = ReduceOp.SUM, group: str = WORLD_COMM_GROUP) -> Values:
    """Reduce the values of all ranks and return the part of this rank along axis 0.

    Parameters
    ----------
    tensor : Tensor or numpy.ndarray
        Of one shape and dtype on all ranks; the size of the group divides axis 0.
    op, group : str
        As for `all_reduce`, which has the same bits.

    Returns
    -------
    Tensor or numpy.ndarray
        Axis 0 is as many times shorter as the group has ranks.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `all_reduce`. Also if the size of the group does not divide axis 0.
    """
    members = get_group(group)
    values = _with_axis(_values(tensor))
    if len(values) % members.size:
        raise ShapeError(f"axis 0 of shape {values.shape} is not divisible by the {members.size} ranks")
    reduction = reduction_of(op, values.dtype, members.size)
    operation = _begin(members, "reduce_scatter", values, op)
    out = np.empty((len(values) // members.size, *values.shape[1:]), values.dtype)
    collectives.reduce_scatter(members, operation, values.reshape(-1), out.reshape(-1), reduction)
    return _like(tensor, out)


def broadcast(tensor: Values, src: int = 0, group: str = WORLD_COMM_GROUP) -> Values:
    """Return the values of one rank on every rank.

    Parameters
    ----------
    tensor : Tensor or numpy.ndarray
        Of one shape and dtype on all ranks.
    src : int
        The rank in the group whose values are returned.
    group : str

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As for `all_reduce`. Also if `src` is unknown.
    """
    members = get_group(group)
    values = _values(tensor).copy()
    operation = _begin(members, "broadcast", values, f"from rank {members.ranks[as_member(members, src)]}")
    collectives.broadcast(members, operation, [values.reshape(-1).view(np.uint8)], src)
    return _like(tensor, values)


def barrier(group: str = WORLD_COMM_GROUP) -> None:
    """Wait until all ranks of a group have called this; errors as of `all_reduce`."""
    arrive(get_group(group), "barrier")


def _begin(members: Group, what: str, values: Array, *how: str) -> str:
    operation = operation_name(what, values.dtype, values.shape, *how)
    arrive(members, operation)
    return operation


def _values(tensor: Any) -> Array:
    """Return the values as an array on the host."""
    if type(tensor) is np.ndarray and tensor.dtype in dtypes.NATIVE:  # the rest takes three times as long
        return tensor
    if isinstance(tensor, Tensor):
        return tensor.asnumpy()
    if isinstance(tensor, np.ndarray | np.generic):
        return np.asarray(tensor, dtypes.as_dtype(tensor.dtype))
    raise ArgumentTypeError(f"expected a Tensor or a NumPy array, found {type(tensor).__name__}")


def _with_axis(values: Array) -> Array:
    if not values.ndim:
        raise ShapeError("a scalar has no axis 0; reshape it to (1,)")
    return values


def _like(tensor: Values, values: Array) -> Values:
    like: Any = tensor._made(values) if isinstance(tensor, Tensor) else values
    result: Values = like
    return result
