"""Save a model that many ranks hold together: each of them writes its part, all at the same time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from numparam.checkpoint import header
from numparam.checkpoint import recipes as recipe_text
from numparam.checkpoint.atomic_file import holding
from numparam.checkpoint.attempt import ATTEMPT, CHECKPOINT, names_of_indexes, new_attempt, save_number
from numparam.checkpoint.distributed_index import NAMES, file_of_rank, write_index
from numparam.checkpoint.names import index_path, refuse_twin, stem_of
from numparam.checkpoint.piece import Piece, write_record
from numparam.checkpoint.saving import Savable, Value, as_json, contents, record, region_of
from numparam.checkpoint.writing import check_space, write_checkpoint
from numparam.checks import as_int
from numparam.context import get_auto_parallel_context
from numparam.entry import Entry
from numparam.errors import ArgumentTypeError, ArgumentValueError, CheckpointError
from numparam.indexing.region import Region
from numparam.layout import Layout
from numparam.parameter import Parameter
from numparam.progress import Progress, telling
from numparam.tensor import Lazy, Tensor
from numparam.text import shown


def save_distributed_checkpoint(
    save_obj: Savable,
    ckpt_file_name: str | os.PathLike[str],
    *,
    rank: int | None = None,
    ranks: int | None = None,
    append_dict: Mapping[str, Value | float] | None = None,
    choice_func: Callable[[str], bool] | None = None,
    recipes: bool = False,
    progress: Progress = None,
    attempt: str | None = None,
) -> Path:
    """Write what this rank must write of a model that all ranks hold together.

    Every rank calls it and writes its own safetensors file with the regions that it holds. What several ranks hold is
    written by one of them, chosen without communication: the replicas that the layout of a parameter gives,
    or all ranks of the pipeline stage for a parameter that is not sharded, each write about the same number of bytes.

    With `numparam.communication` the ranks then wait for each other, and rank 0 writes the index; where one fails, all
    raise. Without it, call `write_index` once when all ranks are done. Until then the old checkpoint stays complete.

    Parameters
    ----------
    save_obj, append_dict, choice_func, progress
        As for `save_checkpoint`. All ranks give the same names in the same order.
    ckpt_file_name : str or path
        The index; ``.safetensors.index.json`` is appended if it is missing. The files lie next to it, in a folder
        that all ranks see.
    rank, ranks : int, optional
        Which of how many ranks this is: ``global_rank`` and ``device_num`` of the parallel context.
    recipes : bool
        Save the recipes of lazy parameters instead of the values, once and for the full parameter.
    attempt : str, optional
        A text that only this attempt to save has, the same on all ranks, such as the step and the number of the job.
        `write_index` joins no files of different attempts, so a rank that died in an earlier attempt cannot leave a
        file in the checkpoint of the next. With `numparam.communication`, rank 0 draws it.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `save_checkpoint`; a ValueError also if a parameter holds a region that is not a block, a parameter with
        ``layerwise_parallel`` is not sharded, the index in place is damaged, or another rank failed.

    Examples
    --------
    >>> import tempfile
    >>> from numparam import Layout, load_checkpoint
    >>> from numparam.initializer import initializer
    >>> path, layout = Path(tempfile.mkdtemp()) / "model", Layout({"dp": 2, "tp": 2}, ("tp",))
    >>> for rank in range(4):
    ...     part = Parameter(initializer("normal", (7, 5)), name="w").init_data(layout, rank=rank)
    ...     print(save_distributed_checkpoint([part], path, rank=rank, ranks=4).name)
    model-1-rank-00000-of-00004.safetensors
    model-1-rank-00001-of-00004.safetensors
    model-1-rank-00002-of-00004.safetensors
    model-1-rank-00003-of-00004.safetensors
    >>> load_checkpoint(write_index(path))["w"]
    Parameter (name=w, shape=(7, 5), dtype=Float32, requires_grad=True)
    """
    index = index_path(ckpt_file_name)
    count = as_int("ranks", get_auto_parallel_context("device_num") if ranks is None else ranks, 1)
    place = as_int("rank", get_auto_parallel_context("global_rank") if rank is None else rank, 0)
    if place >= count:
        raise ArgumentValueError(f"{count} ranks count from 0 to {count - 1}, found rank {place}")
    together = count > 1 and _is_job(place, count)
    if not isinstance(attempt, str | None):
        raise ArgumentTypeError(f"attempt is a str, found {shown(attempt)}")
    marks = {CHECKPOINT: stem_of(index)}
    if attempt is not None or together or count == 1:
        marks[ATTEMPT] = _attempt(together) if attempt is None else attempt
    with _agreed(f"saving {index}", together):
        held = contents(save_obj, append_dict, choice_func)
        with header.file_errors(f"cannot write {index}"):
            check_space(index, 0)  # the folder may have a name that no system has
            with file_to_write(index, place, count) as path:
                _write(path, marks, place, count, *held, recipes, progress)
    with _agreed(f"writing {index}", together):
        if count == 1 or (together and place == 0):
            write_index(index, count)
    return path


@contextmanager
def file_to_write(index: Path, rank: int, ranks: int) -> Iterator[Path]:
    """Yield the file of a rank for the next save, and let nobody write the index during the block.

    So the file is not one that the index of another job has come to name.
    """
    with holding(index, f"rank-{rank}"):
        refuse_twin(index)
        path = file_of_rank(index, save_number(index) + 1, rank, ranks)
        if path.exists() and path.name in names_of_indexes(path.parent):  # such as a copy of a lost index
            raise CheckpointError(f"cannot write {path}: an index names it; choose another name or another folder")
        yield path


def _attempt(together: bool) -> str:
    """Return the text that only this attempt has: the one that rank 0 draws, if the ranks are connected."""
    drawn = new_attempt()
    if not together:
        return drawn
    from numparam.communication.comm_func import all_gather_into_tensor

    return all_gather_into_tensor(np.frombuffer(drawn.encode(), np.uint8)).tobytes()[: len(drawn)].decode()


def _write(
    path: Path,
    marks: Mapping[str, str],
    rank: int,
    ranks: int,
    texts: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    recipes: bool,
    progress: Progress,
) -> None:
    described = {name: recipe_text.encode(_whole(tensor)) for name, tensor in tensors.items()} if recipes else {}
    known = {name: content for name, content in described.items() if content is not None}
    mine = set(_share(tensors, known, rank, ranks))
    pieces = {name: _piece(name, tensor) for name, tensor in tensors.items() if name in mine - known.keys()}
    written = {name: tensors[name] for name, part in pieces.items() if 0 not in part.shape or 0 in part.full_shape}
    metadata = {
        **record(texts if rank == 0 else {}, {name: known[name] for name in known if name in mine}, tensors),
        **write_record({name: pieces[name] for name in written}),
        NAMES: as_json(list(tensors)),
        **marks,
    }
    entries = [Entry(name, pieces[name].shape, tensor.dtype) for name, tensor in written.items()]
    with telling(progress, "saving", sum(entry.nbytes for entry in entries)) as tell:
        stem = marks[CHECKPOINT]
        write_checkpoint(path, entries, metadata, lambda entry: written[entry.name].blocks(), tell, stem, f"of-{rank}")


def _share(tensors: Mapping[str, Tensor], recipes: Iterable[str], rank: int, ranks: int) -> Iterable[str]:
    """Yield the names of the parameters that a rank must write.

    Of n replicas, the k-th writes the parameters that lie in the k-th of n equal parts of the bytes of the model.
    """
    stage = _stage(rank, ranks)

    @cache
    def group_of(layout: Layout) -> tuple[int, ...]:
        return next((group for group in layout.groups() if rank in group), (rank,))

    sizes = {name: math.prod(region_of(tensor).full_shape) * tensor.dtype.itemsize for name, tensor in tensors.items()}
    replicas: Sequence[int]
    total, before = max(sum(sizes.values()), 1), 0
    for name, tensor in tensors.items():
        layout = tensor.layout if isinstance(tensor, Parameter) else None
        if name in recipes:
            replicas = stage
        elif layout is not None:
            replicas = group_of(layout)
        elif not region_of(tensor).is_full:
            replicas = (rank,)  # others may hold the same, who knows; the index takes it once
        elif isinstance(tensor, Parameter) and tensor.layerwise_parallel and ranks > 1:
            raise ArgumentValueError(
                f"parameter {name!r} has layerwise_parallel: each rank holds different values of the full parameter; "
                "give it a layout, or a different name on each rank"
            )
        else:
            replicas = stage
        middle = before + sizes[name] // 2
        before += sizes[name]
        if replicas[min(middle * len(replicas) // total, len(replicas) - 1)] == rank:
            yield name


def _piece(name: str, tensor: Tensor) -> Piece:
    region = region_of(tensor)
    if 0 in region.full_shape:  # a part of an empty parameter is full
        region = Region.full(region.full_shape)
    found = Piece.of(region)
    if found is None:
        raise ArgumentValueError(
            f"parameter {name!r} holds {region}: only a block, of step 1 along all axes, can be saved as a piece"
        )
    return found


def _whole(tensor: Tensor) -> Tensor:
    """Return the full lazy tensor that a slice is of; a tensor with values itself."""
    values = tensor._named()
    return (
        Tensor._of(values.replace(region=Region.full(values.region.full_shape))) if isinstance(values, Lazy) else tensor
    )


def _stage(rank: int, ranks: int) -> range:
    """Return the ranks that hold the same full parameters: the pipeline stage."""
    stages = get_auto_parallel_context("pipeline_stages")
    size = ranks // stages if ranks % stages == 0 else ranks
    return range(rank - rank % size, rank - rank % size + size)


def _is_job(rank: int, ranks: int) -> bool:
    """Return whether `numparam.communication` connects these ranks."""
    from numparam.communication import get_group_size, get_rank

    return (get_rank(), get_group_size()) == (rank, ranks)


@contextmanager
def _agreed(what: str, together: bool) -> Iterator[None]:
    """Let all ranks wait for each other at the end of the block, and fail if one failed."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        if not together:
            raise
        failure = error
    if not together:
        return
    from numparam.communication.comm_func import all_gather_into_tensor

    well = all_gather_into_tensor(np.array([failure is None], np.uint8))
    if failure is not None:
        raise failure
    if not well.all():
        raise CheckpointError(
            f"{what}: rank {int(well.argmin())} failed and has reported the cause; the old checkpoint stays"
        )
