"""Load parameters from files, and into cells."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from numparam.cell import Cell
from numparam.cell.state import put
from numparam.checkpoint import background, limits, mindspore_file, recipes
from numparam.checkpoint import header as headers
from numparam.checkpoint.fitting import LoadReport, is_cut, match_ends, misfit
from numparam.checkpoint.names import INDEX_SUFFIX, MINDSPORE_SUFFIX, SUFFIX, as_path, file_path
from numparam.checkpoint.opening import Checkpoint, open_checkpoint
from numparam.checkpoint.piece import read_record
from numparam.checkpoint.saving import FLAG_NAMES, FLAGS, TEXTS, refuse_encryption, refuse_redundancy, region_of
from numparam.checkpoint.stored import Stored
from numparam.checks import as_bool
from numparam.context import parallel_mode
from numparam.errors import ArgumentTypeError, ArgumentValueError, CheckpointError, MismatchError, NumparamError
from numparam.parameter import Parameter
from numparam.progress import Progress, telling
from numparam.tensor import Recipe, Tensor
from numparam.text import shown

_LOGGER = logging.getLogger("numparam")
_TRIES = 10


def load_checkpoint(
    ckpt_file_name: str | os.PathLike[str],
    net: Cell | None = None,
    strict_load: bool = False,
    filter_prefix: str | Iterable[str] | None = None,
    dec_key: None = None,
    dec_mode: str = "AES-GCM",  # noqa: ARG001
    specify_prefix: str | Iterable[str] | None = None,
    choice_func: Callable[[str], bool] | None = None,
    crc_check: bool = False,
    remove_redundancy: bool = False,
    format: str | None = None,  # noqa: A002
    *,
    progress: Progress = None,
    any_cost: bool = False,
) -> dict[str, Parameter | str]:
    """Open a checkpoint: its parameters by name, mapped into memory and read when they are touched.

    A slice of a parameter reads that slice of the file and no more. Writing to a parameter never changes the file. The
    file may be replaced as long as they live, but must not be shortened.

    The parameters of `save_distributed_checkpoint` are full and lazy: reading a region opens the files that hold it,
    and they must be there until then. `save_checkpoint` of all of them makes one ordinary file, as a stream.

    Parameters
    ----------
    ckpt_file_name : str or path
        A safetensors file, the index of several (``*.safetensors.index.json``), whether they hold parameters or pieces
        of them, or a ``.ckpt`` file of MindSpore.
    net : Cell, optional
        The values are copied into it; see `load_param_into_net`.
    strict_load : bool
        See `load_param_into_net`.
    filter_prefix : str or list of str, optional
        Leave out the names that begin so.
    dec_key, dec_mode
        Encryption, which numparam does not have: `dec_key` is None.
    specify_prefix : str or list of str, optional
        Take only the names that begin so.
    choice_func : callable, optional
        Receives a name and returns whether to take it; ignored if a prefix is given.
    crc_check : bool
        Whether to compare the checksum at the end of a ``.ckpt`` file.
    remove_redundancy : bool
        See `save_checkpoint`.
    format : str, optional
        ``"safetensors"`` or ``"ckpt"``; by default the name decides.
    progress : bool or callable
        See `load_param_into_net`.
    any_cost : bool
        Whether to follow recipes of small slices of parameters that have to be computed in full, such as those of
        `Orthogonal`, beyond the limits in ``docs/reliability.md``. A file from others may ask for any work.

    Returns
    -------
    dict of str to Parameter
        In file order; the recipes of lazy parameters come after the others, and texts, as str, last. The attributes of
        parameters that numparam saved are as they were.

    Raises
    ------
    ValueError
        If the file is missing, damaged or of another kind, a prefix is empty, or no name is left.
    TypeError
        If an argument is of another kind.
    RuntimeError
        If the values do not fit `net`.

    Examples
    --------
    >>> import tempfile
    >>> from numparam import save_checkpoint
    >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> save_checkpoint({"w": np.arange(12).reshape(3, 4)}, path)
    >>> load_checkpoint(path)["w"][1, ::2].asnumpy()
    array([4, 6])
    """
    background.finish()
    path = as_path(ckpt_file_name)
    as_bool("strict_load", strict_load)
    refuse_encryption("dec_key", dec_key)
    refuse_redundancy(remove_redundancy)
    if format is not None and file_path(path, format) != path and not path.name.endswith(INDEX_SUFFIX):
        raise ArgumentValueError(f"{path}: a file of format {format!r} has another suffix")
    if net is not None and not isinstance(net, Cell):
        raise ArgumentTypeError(f"net is a Cell, found {type(net).__name__}")
    leave, take = _prefixes("filter_prefix", filter_prefix), _prefixes("specify_prefix", specify_prefix)

    def wanted(name: str) -> bool:
        if choice_func is not None and not leave and not take:
            return choice_func(name)
        return (not take or name.startswith(take)) and not name.startswith(leave)

    with headers.file_errors(str(path)), limits.any_cost(as_bool("any_cost", any_cost)):
        if path.name.endswith((SUFFIX, INDEX_SUFFIX)):
            found = _read_safetensors(path, wanted)
        elif path.name.endswith(MINDSPORE_SUFFIX):
            found = _read_mindspore(path, wanted, as_bool("crc_check", crc_check))
        else:
            raise CheckpointError(f"{path}: a checkpoint ends with {SUFFIX}, {INDEX_SUFFIX} or {MINDSPORE_SUFFIX}")
    if not found:
        raise CheckpointError(f"{path}: no parameter is left to load: the file is empty, or the prefixes fit no name")
    if net is not None:
        load_param_into_net(net, found, strict_load, progress=progress)
    return found


def load_distributed_checkpoint(
    network: Cell, ckpt_file_name: str | os.PathLike[str], strict_load: bool = False, *, progress: Progress = None
) -> LoadReport:
    """Read into a cell what this rank holds of a checkpoint, whatever ranks wrote it and however they sharded it.

    A parameter that holds a region of the full parameter reads only that region. A lazy parameter is not materialised
    first, so slice one that is still lazy to the region it will hold: ``Parameter(initializer(...)[rows], name)``.

    Parameters
    ----------
    network : Cell
    ckpt_file_name : str or path
        Whatever `load_checkpoint` takes: the index of `save_distributed_checkpoint`, or an ordinary checkpoint.
    strict_load, progress
        As for `load_param_into_net`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `load_checkpoint` and `load_param_into_net`.

    Examples
    --------
    >>> import tempfile
    >>> from numparam import Cell, save_checkpoint
    >>> from numparam.initializer import initializer
    >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> save_checkpoint({"w": np.arange(12.0).reshape(6, 2)}, path)
    >>> net = Cell()
    >>> net.w = Parameter(initializer("unset", (6, 2), "float64")[4:])
    >>> print(load_distributed_checkpoint(net, path), net.w.asnumpy().tolist())
    everything was loaded [[8.0, 9.0], [10.0, 11.0]]
    """
    path = as_path(ckpt_file_name)
    for _ in range(_TRIES):
        with headers.opened(path) as file:
            try:
                return load_param_into_net(network, load_checkpoint(path), strict_load, progress=progress)
            except CheckpointError:  # the files of pieces are opened late: was the checkpoint replaced meanwhile?
                if file.is_current():
                    raise
    raise CheckpointError(f"{path}: it was replaced {_TRIES} times while it was loaded")


def load_param_into_net(
    net: Cell,
    parameter_dict: Mapping[str, Tensor | str],
    strict_load: bool = False,
    remove_redundancy: bool = False,
    *,
    ignore_mismatched: bool = False,
    progress: Progress = None,
) -> LoadReport:
    """Copy values into the parameters of a cell by their names, and into its persistent buffers by their paths.

    Names, shapes and dtypes are compared before anything is copied. A parameter that holds a region of the full
    parameter takes only that region of full values, and only that is read. Recipes leave a lazy parameter lazy.
    Floating dtypes are converted to the parameter's, and so are integers.

    Names that are left on both sides are compared by their ends: a prefix that all values share is dropped, and a value
    goes to the only parameter whose path ends with its name, such as ``layers.0.weight`` with ``0.weight``.

    Parameters
    ----------
    net : Cell
    parameter_dict : mapping of str to Tensor
        Texts in it are passed over.
    strict_load : bool
        Whether every name must be on both sides, with the same shape and dtype.
    remove_redundancy : bool
        See `save_checkpoint`.
    ignore_mismatched : bool
        Whether values of a wrong shape or kind are left out instead of refused.
    progress : bool or callable
        True shows a bar if the standard error is a terminal; a function receives the bytes copied since its last call.

    Returns
    -------
    LoadReport
        The names that were left out and why; it unpacks into ``(param_not_load, ckpt_not_load)``. It is also logged as
        a warning of the logger ``numparam`` if there are any.

    Raises
    ------
    TypeError
        If an argument, or something in the dict, is of another kind.
    RuntimeError
        If values have another shape than their parameter, or another kind of dtype, such as integers for floats; with
        `strict_load`, if anything does not fit. The message names each parameter, both shapes and the file.
    ValueError
        If two parameters of `net` have the same name, or an integer does not fit its dtype.

    Examples
    --------
    >>> from numparam import Cell
    >>> net = Cell()
    >>> net.w = Parameter([0.0, 0.0])
    >>> net.b = Parameter([0.0])
    >>> report = load_param_into_net(net, {"model.w": Parameter([1.0, 2.0]), "v": Parameter(0.0)})
    >>> print(report)
    w: loaded from 'model.w'
    b: no values were given for it
    v: the Cell has no such parameter
    """
    as_bool("strict_load", strict_load)
    as_bool("ignore_mismatched", ignore_mismatched)
    refuse_redundancy(remove_redundancy)
    if not isinstance(net, Cell):
        raise ArgumentTypeError(f"net is a Cell, found {type(net).__name__}")
    if not isinstance(parameter_dict, Mapping):
        raise ArgumentTypeError(f"parameter_dict maps names to parameters, found {type(parameter_dict).__name__}")
    there: dict[str, Tensor] = dict(net.parameters_dict())
    for path, buffer, persistent in net._state_buffers():
        if persistent:
            there.setdefault(path, buffer)
    # Without prefixes several parameters of a cell may have one name.
    same = {name: [held] for name, held in there.items()}
    for _, parameter in net._walk_parameters():
        same[parameter.name] += [] if parameter is there[parameter.name] else [parameter]
    given: dict[str, Tensor] = {}
    for name, value in parameter_dict.items():
        if isinstance(value, Tensor) and isinstance(name, str):
            given[name] = value
        elif not isinstance(value, str):
            raise ArgumentTypeError(f"parameter {name!r}: expected a Tensor, found {type(value).__name__}")

    renamed = {} if strict_load else match_ends(there, given)
    given = {renamed.get(name, name): value for name, value in given.items()}
    misfits = {name: why for name in there if name in given and (why := misfit(same[name], given[name], strict_load))}
    missing = {name: "no values were given for it" for name in there if name not in given}
    surplus = {name: f"the {net.cls_name} has no such parameter" for name in given if name not in there}
    skipped = misfits | missing | surplus
    refused = skipped if strict_load else {} if ignore_mismatched else misfits
    if refused:
        listed = "\n".join(f"  parameter {name!r}: {why}" for name, why in refused.items())
        how = "strict loading" if strict_load else "loading"
        hint = "" if strict_load else "\nset ignore_mismatched to leave them out"
        raise MismatchError(f"{how} into the {net.cls_name} is not possible:\n{listed}{hint}")
    fitting = [name for name in there if name in given and name not in misfits]
    nbytes = {name: there[name].size * given[name].dtype.itemsize for name in fitting}
    with telling(progress, "loading", sum(nbytes.values())) as tell:
        for name in fitting:
            for held in same[name]:
                _copy_into(name, held, given[name])
            if tell:
                tell(nbytes[name])
    if skipped:
        _LOGGER.warning("%d names were left out when loading:\n%s", len(skipped), LoadReport([], [], skipped))
    originals = {name: original for original, name in renamed.items()}
    left = [name for name in there if name in skipped], [originals.get(name, name) for name in (*misfits, *surplus)]
    return LoadReport(*left, skipped, {name: original for name, original in originals.items() if name in fitting})


def _copy_into(name: str, held: Tensor, value: Tensor) -> None:
    part = value
    if is_cut(held, value):
        index = region_of(held).slices()
        # Of mapped values a view, so that they are copied once.
        part = value[index] if value.has_init or value.device != "cpu" else value.alias(index)
    put(name, held, part)
    if isinstance(value._values, Stored):
        held._settle()  # the files may go
    if isinstance(held, Parameter) and isinstance(value, Parameter) and value.origin_file is not None:
        held._set_origin(value._origin, value.origin_file)


def _prefixes(argument: str, prefix: Any) -> tuple[str, ...]:
    if prefix is None:
        return ()
    prefixes = (prefix,) if isinstance(prefix, str) else prefix
    if not isinstance(prefixes, list | tuple) or not all(isinstance(item, str) for item in prefixes):
        raise ArgumentTypeError(f"{argument} is a str or a list of str, found {shown(prefix)}")
    if not prefixes or not all(prefixes):
        raise ArgumentValueError(f"{argument} needs at least one prefix, not empty; found {shown(prefix)}")
    return tuple(prefixes)


def _read_safetensors(path: Path, wanted: Callable[[str], bool]) -> dict[str, Any]:
    checkpoint = open_checkpoint(path)
    found: dict[str, Any] = {}
    for name, entry in checkpoint.entries.items():
        if wanted(name) and name in checkpoint.stored:
            found[name] = _loaded(name, Tensor._of(checkpoint.stored[name]), path, "checkpoint")
        elif wanted(name):
            file, begin = checkpoint.places[name]
            found[name] = _loaded(name, file.array(begin, entry.dtype, entry.shape, entry.nbytes), file.path)
    for name, tensor in recipes.read_record(checkpoint, wanted).items():
        if isinstance(recipe := tensor._named(), Recipe):
            checkpoint.work.add(recipe.init, recipe.region, recipe.dtype.itemsize, f"{path}: parameter {name!r}")
        found[name] = _loaded(name, tensor, path, "recipe")
    for name, piece in read_record(checkpoint.metadata, checkpoint.entries, str(path)).items():
        if name in found and piece.full_shape != piece.shape:
            found[name]._region = piece.region
    _set_flags(path, found, _record(checkpoint, FLAGS))
    for name, text in _record(checkpoint, TEXTS).items():
        if not isinstance(text, str) or name in found:
            raise CheckpointError(f"{path}: {name!r} is not a text, or is a duplicate")
        if wanted(name):
            found[name] = text
    return found


def _record(checkpoint: Checkpoint, key: str) -> dict[str, Any]:
    if key not in checkpoint.metadata:
        return {}
    return headers.parse_object(checkpoint.metadata[key].encode(), f"{checkpoint.path}: {key}")


def _set_flags(path: Path, found: dict[str, Any], record: dict[str, Any]) -> None:
    for name, flags in record.items():
        if name not in found:
            continue
        if not isinstance(flags, dict) or not all(flag in FLAG_NAMES for flag in flags):
            raise CheckpointError(f"{path}: parameter {name!r} does not have flags such as {shown(flags)}")
        try:
            for flag, value in flags.items():
                setattr(found[name], flag, value)
        except NumparamError as error:
            raise CheckpointError(f"{path}: {error}") from None


def _read_mindspore(path: Path, wanted: Callable[[str], bool], crc_check: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tag, value in mindspore_file.read(path, crc_check).items():
        name, mark, key = tag.partition(mindspore_file.CACHE_MARK)
        if not wanted(name):
            continue
        if isinstance(value, str):
            found[name] = value
            continue
        found[name] = _loaded(name, value, path)
        if mark and key.isdecimal():
            found[name].cache_enable, found[name].key = True, int(key)
    return found


def _loaded(
    name: str, values: np.ndarray[Any, np.dtype[Any]] | Tensor, file: Path, origin: str = "checkpoint"
) -> Parameter:
    """Return a parameter that adopts an array or a lazy tensor."""
    parameter = Parameter.__new__(Parameter)
    try:
        parameter._rename(name)
    except NumparamError as error:
        raise CheckpointError(f"{file}: {error}") from None
    parameter._parallel_mode = parallel_mode()
    if isinstance(values, Tensor):
        parameter._copy(values)
    else:
        parameter._hold(values)
    parameter._set_origin(origin, str(file))
    return parameter
