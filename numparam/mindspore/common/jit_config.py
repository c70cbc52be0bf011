"""Options of MindSpore's compiler under the name of ``mindspore.common.jit_config``."""

from typing import Any

from numparam.errors import ArgumentValueError
from numparam.text import shown

__all__ = ["JitConfig"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "jit_level": ("", "O0", "O1", "O2"),
    "exc_mode": ("auto", "sink", "no_sink"),
    "jit_syntax_level": ("", "STRICT", "COMPATIBLE", "LAX"),
    "debug_level": ("RELEASE", "DEBUG"),
    "infer_boost": ("off", "on", ""),
}
_BACKENDS = {"O0": "ms_backend", "O1": "ms_backend", "O2": "GE"}


class JitConfig:
    """Keep options of MindSpore's compiler in the dict ``jit_config_dict``; nothing here is compiled.

    Raises
    ------
    ValueError
        If an option is not accepted.

    Examples
    --------
    >>> JitConfig(jit_level="O1").jit_config_dict["backend"]
    'ms_backend'
    """

    def __init__(
        self,
        jit_level: str = "",
        exc_mode: str = "auto",
        jit_syntax_level: str = "",
        debug_level: str = "RELEASE",
        infer_boost: str = "off",
        **options: Any,
    ) -> None:
        given = dict(zip(_CHOICES, (jit_level, exc_mode, jit_syntax_level, debug_level, infer_boost), strict=True))
        for option, value in given.items():
            if value not in _CHOICES[option]:
                known = ", ".join(map(repr, _CHOICES[option]))
                raise ArgumentValueError(f"JitConfig: {option} is one of {known}; found {shown(value)}")
        backend = {"backend": _BACKENDS[jit_level]} if jit_level in _BACKENDS else {}
        self.jit_config_dict: dict[str, Any] = given | backend | options
