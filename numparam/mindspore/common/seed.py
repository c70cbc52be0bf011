"""Seeds under the names of ``mindspore.common.seed``."""

from numparam.stream.seed import get_seed, set_seed

__all__ = ["get_seed", "set_seed"]
