"""Checkpoints under the names of ``mindspore.train.serialization``."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from numparam.cell import Cell
from numparam.checkpoint import saving
from numparam.checkpoint.background import Saving
from numparam.checkpoint.loading import load_checkpoint, load_param_into_net

__all__ = ["load_checkpoint", "load_param_into_net", "save_checkpoint"]


def save_checkpoint(
    save_obj: Cell | list[Any] | Mapping[str, Any],
    ckpt_file_name: str | os.PathLike[str],
    integrated_save: bool = True,
    async_save: bool | str = False,
    append_dict: Mapping[str, Any] | None = None,
    enc_key: None = None,
    enc_mode: str = "AES-GCM",
    choice_func: Callable[[str], bool] | None = None,
    crc_check: bool = False,
    format: str = "ckpt",  # noqa: A002
    **options: Any,
) -> Saving | None:
    """Save parameters as `numparam.save_checkpoint`, to a ``.ckpt`` file by default."""
    return saving.save_checkpoint(
        save_obj,
        ckpt_file_name,
        integrated_save,
        async_save,
        append_dict,
        enc_key,
        enc_mode,
        choice_func,
        crc_check,
        format,
        **options,
    )
