"""Ranks under the names of ``mindspore.communication.management``."""

from numparam import communication
from numparam.communication import (
    create_group,
    destroy_group,
    get_group_rank_from_world_rank,
    get_group_size,
    get_rank,
    get_world_rank_from_group_rank,
    init,
    release,
)

__all__ = [
    "GlobalComm", "create_group", "destroy_group", "get_group_rank_from_world_rank", "get_group_size", "get_rank",
    "get_world_rank_from_group_rank", "init", "release",
]  # fmt: skip


class GlobalComm:
    """Name the group of all ranks."""

    WORLD_COMM_GROUP = communication.WORLD_COMM_GROUP
