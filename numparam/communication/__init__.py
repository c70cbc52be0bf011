"""The ranks of a job and their communication, on MPI: ``mpiexec -n 4 python train.py``.

``pip install "numparam[mpi]"`` brings mpi4py, an MPI and its mpiexec. A process that mpiexec did not start is a job of
one rank, and does not need it unless it calls `init`. `numparam.communication.comm_func` has the operations.

>>> from numparam.communication import get_group_size, get_rank
>>> get_rank(), get_group_size()
(0, 1)
"""

from numparam.communication import comm_func as comm_func
from numparam.communication.group import WORLD_COMM_GROUP
from numparam.communication.management import (
    create_group,
    destroy_group,
    get_group_rank_from_world_rank,
    get_group_size,
    get_rank,
    get_world_rank_from_group_rank,
    init,
    release,
)
from numparam.communication.reduction import ReduceOp

__all__ = [
    "WORLD_COMM_GROUP", "ReduceOp", "create_group", "destroy_group", "get_group_rank_from_world_rank", "get_group_size",
    "get_rank", "get_world_rank_from_group_rank", "init", "release",
]  # fmt: skip
