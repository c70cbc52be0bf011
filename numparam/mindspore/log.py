"""Messages under the names of ``mindspore.log``; they go to the logger ``numparam.mindspore`` of `logging`."""

import logging

__all__ = ["critical", "debug", "error", "get_level", "info", "warning"]

_LOGGER = logging.getLogger("numparam.mindspore")
_NUMBERS = {logging.DEBUG: "0", logging.INFO: "1", logging.WARNING: "2", logging.ERROR: "3", logging.CRITICAL: "4"}

critical, debug, error = _LOGGER.critical, _LOGGER.debug, _LOGGER.error
info, warning = _LOGGER.info, _LOGGER.warning


def get_level() -> str:
    """Return the level of the logger as MindSpore numbers it, from ``"0"``, debug, to ``"4"``, critical."""
    return _NUMBERS.get(_LOGGER.getEffectiveLevel(), "2")
