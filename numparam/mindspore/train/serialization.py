"""Checkpoints under the names of ``mindspore.train.serialization``."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from numparam.checkpoint import background, saving
from numparam.checkpoint.background import Saving
from numparam.checkpoint.loading import load_checkpoint, load_param_into_net
from numparam.checkpoint.names import MINDSPORE_SUFFIX, SUFFIX, as_path
from numparam.checks import as_dict, as_int, as_text
from numparam.errors import ArgumentValueError, MissingFileError
from numparam.text import shown

__all__ = [
    "async_ckpt_thread_status", "ckpt_to_safetensors", "load_checkpoint", "load_param_into_net", "safetensors_to_ckpt",
    "save_checkpoint",
]  # fmt: skip

_LOGGER = logging.getLogger("numparam")


def save_checkpoint(
    save_obj: saving.Savable,
    ckpt_file_name: str | os.PathLike[str],
    integrated_save: bool = True,
    async_save: bool | str = False,
    append_dict: Mapping[str, saving.Value | float] | None = None,
    enc_key: None = None,
    enc_mode: str = "AES-GCM",
    choice_func: Callable[[str], bool] | None = None,
    crc_check: bool = False,
    format: str = "ckpt",  # noqa: A002
    **options: Any,
) -> Saving | None:
    """Save parameters as `numparam.save_checkpoint`, to a ``.ckpt`` file by default."""
    return saving.save_checkpoint(
        save_obj, ckpt_file_name, integrated_save, async_save, append_dict, enc_key, enc_mode, choice_func, crc_check,
        format, **options,
    )  # fmt: skip


def async_ckpt_thread_status() -> bool:
    """Return whether a save with ``async_save`` is under way."""
    return background.under_way()


def ckpt_to_safetensors(
    file_path: str | os.PathLike[str],
    save_path: str | os.PathLike[str] | None = None,
    name_map: dict[str, str] | None = None,
    file_name_regex: str | None = None,
    processes_num: int = 1,
) -> None:
    """Convert a ``.ckpt`` file, or all such files in the folders ``rank...`` of a folder, to safetensors.

    Parameters
    ----------
    file_path : str or path
        The file or the folder.
    save_path : str or path, optional
        The folder for the files, with folders ``rank...`` if `file_path` is one; it is created. By default a file is
        next to the one that it comes from.
    name_map : dict, optional
        Other names for parameters: from the old to the new.
    file_name_regex : str, optional
        Convert only files whose names this regular expression finds something in.
    processes_num : int
        At least 1; without effect.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If there is nothing to convert, or two parameters would have one name. If `file_path` is missing it is also a
        FileNotFoundError.
    """
    _convert(file_path, save_path, name_map, file_name_regex, processes_num, (MINDSPORE_SUFFIX, SUFFIX))


def safetensors_to_ckpt(
    file_path: str | os.PathLike[str],
    save_path: str | os.PathLike[str] | None = None,
    name_map: dict[str, str] | None = None,
    file_name_regex: str | None = None,
    processes_num: int = 1,
) -> None:
    """Convert safetensors files to ``.ckpt`` files that MindSpore reads; see `ckpt_to_safetensors`."""
    _convert(file_path, save_path, name_map, file_name_regex, processes_num, (SUFFIX, MINDSPORE_SUFFIX))


def _convert(
    file_path: Any, save_path: Any, name_map: Any, regex: Any, processes_num: Any, suffixes: tuple[str, str]
) -> None:
    source, target = as_path(file_path), None if save_path is None else as_path(save_path)
    names: dict[str, str] = {} if name_map is None else as_dict("name_map", name_map)
    as_int("processes_num", processes_num, 1)
    if target is not None and target.suffix:
        raise ArgumentValueError(f"save_path is a folder, found {shown(str(target))}")
    try:
        pattern = re.compile("" if regex is None else as_text("file_name_regex", regex))
    except re.error as error:
        raise ArgumentValueError(f"file_name_regex {shown(regex)}: {error}") from None
    if source.is_dir():
        files = [file for file in sorted(source.glob("rank*/*")) if file.name.endswith(suffixes[0])]
    elif source.exists():
        files = [source] if source.name.endswith(suffixes[0]) else []
    else:
        raise MissingFileError(f"{source}: no such file or folder")
    files = [file for file in files if pattern.search(file.name)]
    if not files:
        where = "in the folders rank*" if source.is_dir() else "here"
        chosen = "" if regex is None else f" that file_name_regex {shown(regex)} finds"
        raise ArgumentValueError(f"{source}: there is no {suffixes[0]} file {where}{chosen}")
    unknown = set(names)
    for file in files:
        loaded = load_checkpoint(file)
        renamed = {names.get(name, name): value for name, value in loaded.items()}
        if len(renamed) < len(loaded):
            raise ArgumentValueError(f"{file}: two parameters would have one name; change name_map")
        folder = (
            file.parent if target is None else target / file.parent.relative_to(source) if source.is_dir() else target
        )
        folder.mkdir(parents=True, exist_ok=True)
        saving.save_checkpoint(renamed, folder / (file.name.removesuffix(suffixes[0]) + suffixes[1]))
        unknown -= loaded.keys()
    if unknown:
        _LOGGER.warning(
            "%s: no parameter is called %s, which name_map has", source, ", ".join(sorted(map(shown, unknown)))
        )
