"""Operations of ranks under the names of ``mindspore.communication.comm_func``."""

from numparam.communication.comm_func import (
    all_gather_into_tensor,
    all_reduce,
    barrier,
    broadcast,
    reduce_scatter_tensor,
)

__all__ = ["all_gather_into_tensor", "all_reduce", "barrier", "broadcast", "reduce_scatter_tensor"]
