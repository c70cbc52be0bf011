"""Save parameters: their values, or the recipes that generate them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from numparam.cell import Cell
from numparam.checkpoint import background, mindspore_file
from numparam.checkpoint import header as headers
from numparam.checkpoint import recipes as recipe_text
from numparam.checkpoint.background import Saving
from numparam.checkpoint.limits import MAX_NAME
from numparam.checkpoint.names import SUFFIX, file_path
from numparam.checkpoint.piece import Piece, write_record
from numparam.checkpoint.recipes import RECIPES, STREAM
from numparam.checkpoint.sharded import groups_of, write_sharded
from numparam.checkpoint.writing import write_checkpoint
from numparam.checks import as_bool, as_int
from numparam.context import get_auto_parallel_context
from numparam.entry import Block, Entry
from numparam.errors import ArgumentTypeError, ArgumentValueError
from numparam.indexing.region import Region
from numparam.parameter import Parameter
from numparam.parameter.flags import Flag
from numparam.progress import Progress, telling
from numparam.stream.seed import STREAM_VERSION
from numparam.tensor import SupportsDLPack, Tensor
from numparam.text import shown

Value: TypeAlias = SupportsDLPack | str
Savable: TypeAlias = (
    Cell | list[Parameter] | list[dict[str, Any]] | list[Parameter | dict[str, Any]] | Mapping[str, Value]
)

FLAGS, TEXTS = "numparam.flags", "numparam.texts"
FLAG_NAMES = tuple(name for name, value in vars(Parameter).items() if isinstance(value, Flag))


def save_checkpoint(
    save_obj: Savable,
    ckpt_file_name: str | os.PathLike[str],
    integrated_save: bool = True,
    async_save: bool | str = False,
    append_dict: Mapping[str, Value | float] | None = None,
    enc_key: None = None,
    enc_mode: str = "AES-GCM",  # noqa: ARG001
    choice_func: Callable[[str], bool] | None = None,
    crc_check: bool = False,
    format: str | None = None,  # noqa: A002
    *,
    recipes: bool = False,
    max_shard_bytes: int | None = None,
    progress: Progress = None,
    remove_redundancy: bool | None = None,
    incremental: bool = False,
    global_step_num: int | None = None,
) -> Saving | None:
    """Save parameters to a safetensors file, to several with an index as Hugging Face writes them, or to a ``.ckpt``.

    The values go to the disk block by block: lazy parameters are generated on the way and stay lazy, so the memory does
    not grow with the checkpoint. A file appears complete or not at all, and so does a checkpoint of several: until the
    index is replaced, the files of the old one stay. For a parameter that holds a region of a full one, a
    safetensors file records which. A ``.ckpt`` file is one that MindSpore reads, with values and texts only.

    Parameters
    ----------
    save_obj : Cell, list or dict
        A cell with its parameters, by name, and persistent buffers, by path; a list of parameters or of dicts with the
        keys ``name`` and ``data``; or a dict from names to tensors, arrays or texts.
    ckpt_file_name : str or path
        Ends with ``.safetensors``, which is added if the name ends with neither, or ``.ckpt``.
    integrated_save : bool
        Accepted for programs written for MindSpore.
    async_save : bool or str
        Whether to copy the values and write them in a thread; ``"thread"`` and ``"process"`` are the same. An error is
        raised by the next call of `save_checkpoint` or `load_checkpoint`, which wait for the file, or by
        `Saving.join`, and is logged by the logger ``numparam`` at once. The end of the program waits too.
    append_dict : dict, optional
        More to save: names to ints, floats, bools, texts or tensors.
    enc_key, enc_mode
        Encryption, which numparam does not have: `enc_key` is None.
    choice_func : callable, optional
        Receives a name and returns whether to save it.
    crc_check : bool
        Whether a ``.ckpt`` file ends with a checksum.
    format : str, optional
        ``"safetensors"`` or ``"ckpt"``; by default the name decides.
    recipes : bool
        Save the recipes of lazy parameters instead of the values. Only numparam reads these, and gives
        back every bit. Initializers of your own are saved with their values all the same.
    max_shard_bytes : int, optional
        Start another file when one would hold more bytes of values.
    progress : bool or callable
        True shows a bar if the standard error is a terminal; a function receives the bytes of values written since its
        last call.
    remove_redundancy : bool, optional
        True is for a job of one rank; of several, `save_distributed_checkpoint` writes every value once.

    incremental : bool
        Accepted for programs written for MindSpore, whose map parameters it is about: it is False.
    global_step_num : int, optional
        Accepted for such programs too; it has no effect.

    Returns
    -------
    Saving or None
        The save under way if `async_save` is set.

    Raises
    ------
    TypeError
        If `save_obj` or something in it is of another kind.
    ValueError
        If a name is a duplicate or cannot be in a file, an option is one that the format does not have, or a file
        cannot be written. If that is the fault of the file system, it is also an OSError.
    RuntimeError
        If a parameter has no values yet.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from numparam import Parameter, load_checkpoint
    >>> from numparam.initializer import initializer
    >>> path = Path(tempfile.mkdtemp()) / "huge.safetensors"
    >>> huge = Parameter(initializer("normal", (2**20, 2**20)), name="huge")
    >>> save_checkpoint([huge], path, append_dict={"step": 3}, recipes=True)
    >>> path.stat().st_size < 1000
    True
    >>> loaded = load_checkpoint(path)
    >>> bool((loaded["huge"][5, :9].asnumpy() == huge[5, :9].asnumpy()).all()), loaded["step"].asnumpy()
    (True, array(3))
    """
    background.finish()
    as_bool("integrated_save", integrated_save)
    if as_bool("incremental", incremental):
        raise ArgumentValueError("incremental saves are for map parameters, which numparam does not have; leave it out")
    if global_step_num is not None:
        as_int("global_step_num", global_step_num, 0)
    path = file_path(ckpt_file_name, format)
    native = path.name.endswith(SUFFIX)
    refuse_encryption("enc_key", enc_key)
    refuse_redundancy(remove_redundancy)
    if as_bool("crc_check", crc_check) and native:
        raise ArgumentValueError(f"cannot write {path}: only .ckpt files have a checksum; leave crc_check out")
    if not native and (recipes or max_shard_bytes is not None):
        raise ArgumentValueError(f"cannot write {path}: only safetensors files have recipes and shards; use {SUFFIX}")
    if not isinstance(async_save, bool) and async_save not in ("thread", "process"):
        raise ArgumentValueError(f"async_save is a bool, 'thread' or 'process', found {shown(async_save)}")
    texts, tensors = contents(save_obj, append_dict, choice_func)
    described = {name: recipe_text.encode(tensor) for name, tensor in tensors.items()} if recipes else {}
    known = {name: content for name, content in described.items() if content is not None}
    pieces = {
        name: piece
        for name, tensor in tensors.items()
        if name not in known and (piece := Piece.of(region_of(tensor))) is not None
    }
    metadata = record(texts, known, tensors) | write_record(pieces)

    held = {name: tensor for name, tensor in tensors.items() if name not in known}
    if not native:
        held = {_cached(name, tensor): tensor for name, tensor in held.items()}
    if async_save:
        held = {name: Tensor(tensor) for name, tensor in held.items()}
    entries = [Entry(name, tensor.shape, tensor.dtype) for name, tensor in held.items()]
    groups = groups_of(entries, max_shard_bytes)
    if not native:
        mindspore_file.check_dtypes(entries)

    def blocks(entry: Entry) -> Iterable[Block]:
        return held[entry.name].blocks()

    def write() -> None:
        with telling(progress, "saving", sum(entry.nbytes for entry in entries)) as tell:
            if not native:
                mindspore_file.write(path, entries, texts, blocks, tell, crc_check)
            elif len(groups) == 1:
                write_checkpoint(path, entries, metadata, blocks, tell)
            else:
                write_sharded(path, groups, metadata, blocks, tell)

    if async_save:
        return background.start(path, write)
    write()
    return None


def refuse_encryption(argument: str, key: Any) -> None:
    """Raise if a file is to be encrypted, or was."""
    if key is not None:
        raise ArgumentValueError(f"checkpoints are not encrypted: {argument} is None, found {type(key).__name__}")


def refuse_redundancy(remove: bool | None) -> None:
    """Raise if values are to be in the file of one rank of several only."""
    if remove is not None and as_bool("remove_redundancy", remove) and get_auto_parallel_context("device_num") > 1:
        raise ArgumentValueError(
            "remove_redundancy is for a job of one rank; use save_distributed_checkpoint and "
            "load_distributed_checkpoint, which write every value once"
        )


def _cached(name: str, tensor: Tensor) -> str:
    """Return the tag of a tensor in a ``.ckpt`` file."""
    if isinstance(tensor, Parameter) and tensor.cache_enable:
        return f"{name}{mindspore_file.CACHE_MARK}{tensor.key}"
    return name


def contents(
    save_obj: Any, append_dict: Mapping[str, Any] | None, choice_func: Callable[[str], bool] | None
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the texts and the tensors to save, by name."""
    values = collect(save_obj)
    appended: Any = append_dict or {}
    if not isinstance(appended, Mapping):
        raise ArgumentTypeError(f"append_dict maps names to what is saved too, found {type(appended).__name__}")
    for name, value in appended.items():
        is_number = isinstance(value, bool | int | float)  # a Python float takes float64, to keep every bit
        _add(values, name, Tensor(np.asarray(value)) if is_number else value)
    chosen = {name: value for name, value in values.items() if choice_func is None or choice_func(name)}
    return (
        {name: value for name, value in chosen.items() if isinstance(value, str)},
        {name: value for name, value in chosen.items() if isinstance(value, Tensor)},
    )


def region_of(tensor: Tensor) -> Region:
    """Return the region of the full parameter that a tensor holds."""
    region = tensor.region if isinstance(tensor, Parameter) else Region.full(tensor.shape)
    # The values that set_data(..., slice_shape=True) was given may be of another region.
    return region if region.shape == tensor.shape else Region.full(tensor.shape)


def record(
    texts: Mapping[str, str], recipes: Mapping[str, dict[str, Any]], tensors: Mapping[str, Tensor]
) -> dict[str, str]:
    """Return the metadata with all that is saved besides values."""
    metadata = {"format": "pt"}  # without it, transformers refuses the file
    if texts:
        metadata[TEXTS] = as_json(texts)
    if recipes:
        metadata |= {RECIPES: as_json(recipes), STREAM: str(STREAM_VERSION)}
    if flags := {name: found for name, tensor in tensors.items() if (found := _flags(tensor))}:
        metadata[FLAGS] = as_json(flags)
    return metadata


def collect(source: Any) -> dict[str, Tensor | str]:
    """Return what there is to save, by name."""
    found: dict[str, Tensor | str] = {}
    if isinstance(source, Cell):
        for name, parameter in source.parameters_dict().items():
            _add(found, name, parameter)
        for path, buffer, persistent in source._state_buffers():
            if persistent:
                _add(found, path, buffer)
    elif isinstance(source, Mapping):
        for name, value in source.items():
            _add(found, name, value)
    elif isinstance(source, list | tuple):
        for item in source:
            if isinstance(item, Parameter):
                _add(found, item.name, item)
            elif isinstance(item, Mapping) and {"name", "data"} <= set(item):
                _add(found, item["name"], item["data"])
            else:
                raise ArgumentTypeError(
                    f"a list to save holds parameters or dicts with a name and data, found {type(item).__name__}"
                )
    else:
        raise ArgumentTypeError(f"a Cell, a list or a dict can be saved, found {type(source).__name__}")
    return found


def _add(found: dict[str, Tensor | str], name: Any, value: Any) -> None:
    if not isinstance(name, str):
        raise ArgumentTypeError(f"what is saved has a str for a name, found {shown(name)}")
    if name in found:
        raise ArgumentValueError(f"duplicate name {shown(name)} among the parameters to save; choose another")
    if len(name) > MAX_NAME:
        raise ArgumentValueError(f"a name has at most {MAX_NAME} characters, found {len(name)}: {shown(name)}")
    if name == "__metadata__" or headers.has_surrogate(name):
        raise ArgumentValueError(f"a safetensors file cannot hold a parameter called {name!r}")
    if isinstance(value, str) and headers.has_surrogate(value):
        raise ArgumentValueError(f"a safetensors file cannot hold the text {name!r}: it has half a surrogate pair")
    if isinstance(value, np.ndarray) and value.dtype.isnative and value.dtype.kind != "O":
        value = Tensor.from_numpy(value)  # no copy of what may be most of the memory
    elif hasattr(value, "__array__") and not isinstance(value, Tensor):
        value = Tensor(value)
    if not isinstance(value, Tensor | str):
        raise ArgumentTypeError(f"parameter {name!r}: a tensor, array or text can be saved, found {shown(value)}")
    found[name] = value


def _flags(tensor: Tensor) -> dict[str, Any]:
    """Return the attributes of a parameter that are not at their defaults and that JSON can hold."""
    if not isinstance(tensor, Parameter):
        return {}
    state = vars(tensor)
    return {
        name: state[name]
        for name in FLAG_NAMES
        if isinstance(state.get(name), bool | int | list) and state[name] != getattr(Parameter, name).default()
    }


def as_json(content: Any) -> str:
    """Write a record of the metadata."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=int)
