"""Operations of all ranks of a group on flat arrays, in chunks, for `comm_func` and `numparam.parallel`.

**Order.** A reduction takes the values at one index in the order of the ranks in the group: ``((x0 + x1) + x2) + x3``.
One rank computes it and the others get its result. So the bits are the same on all ranks and in every run, and depend
neither on how arrays are chunked or fused, nor on whether each rank gets the full result or a part.

**Memory.** At most four chunks in addition to the arrays, whatever their size. A chunk is 4 MiB, or 512 KiB for every
rank if that is more: smaller messages would cost more than the bytes in them. Each rank of a group on one machine has
2 MiB more, as far as it uses them.

**Traffic.** Of n bytes on p ranks, each rank sends 2 n (p - 1) / p to reduce them everywhere, and half of that to
reduce or to gather parts; the root of a broadcast sends n, the others less. What takes up to 256 KiB on all ranks
together is gathered in log2 p messages and reduced by every rank. float16 and bfloat16 travel as they are. Ranks of one
machine reduce up to 1 MiB in memory that they share.

**NVIDIA GPUs.** A CUDA-aware MPI declares it in the standard's way, by ``cuda`` in the info key
``mpi_memory_alloc_kinds`` of its world (MPI 4.1). One that cannot declare it is trusted when
``NUMPARAM_CUDA_AWARE_MPI=1`` is set; 0 turns the direct way off. Without it, and for every reduction, which the
processor computes, values go through pinned host memory, 4 MiB at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.communication.arrival import arrive, gathered
from numparam.communication.exchange import exchange, gather, world
from numparam.communication.group import Group
from numparam.communication.memory import SLOT_BYTES, meet_again
from numparam.communication.reduction import ReduceOp, Reduction, reduction_of
from numparam.layout.partition import split

if TYPE_CHECKING:
    from numparam.kernels.array import DeviceArray

    Flat = np.ndarray[Any, np.dtype[Any]] | DeviceArray

Array = np.ndarray[Any, np.dtype[Any]]

CHUNK_BYTES = 4 << 20
_CHUNK_BYTES_PER_RANK = 512 << 10  # 64 KiB take 3 times as long on 32 ranks, which wait 4 times as often
_SMALL_BYTES = 256 << 10  # of all ranks together: messages cost the time, not their bytes
_WORTH_A_CHUNK = 4  # an array of a quarter of a chunk travels faster alone than it is packed


@lru_cache(maxsize=1024)
def operation_name(what: str, dtype: np.dtype[Any], shape: tuple[int, ...], *how: str) -> str:
    """Name an operation, with all that ranks have to agree on."""
    return ", ".join([f"{what} of {dtype}{list(shape)}", *map(str, how)])


@lru_cache(maxsize=1024)
def _planned(op: ReduceOp | str, dtype: np.dtype[Any], shape: tuple[int, ...], count: int) -> tuple[str, Reduction]:
    return operation_name("all_reduce", dtype, shape, op), reduction_of(op, dtype, count)


def all_reduced(group: Group, values: Array, op: ReduceOp | str) -> Array:
    """Return values, of one shape and dtype on all ranks, reduced over the ranks."""
    operation, reduction = _planned(op, values.dtype, values.shape, group.size)
    if group.size > 1 and 0 < values.nbytes * group.size <= _SMALL_BYTES:
        return reduction.of(gathered(group, operation, values))
    if group.memory and 0 < values.nbytes <= SLOT_BYTES:
        out = np.empty(values.shape, values.dtype)
        _reduce_in_memory(group, operation, values.reshape(-1), out.reshape(-1), reduction, arrive)
    else:
        arrive(group, operation)
        out = values.copy()
        all_reduce(group, operation, [out.reshape(-1)], reduction)
    return out


def all_reduce(group: Group, operation: str, arrays: Sequence[Flat], reduction: Reduction) -> None:
    """Reduce flat arrays of one dtype over the ranks, in place; small ones share messages."""
    if not (total := sum(len(array) for array in arrays)):
        return
    size = total * arrays[0].itemsize
    if size * group.size <= _SMALL_BYTES or (group.memory and size <= SLOT_BYTES):
        chunk = _Chunk(np.empty(total, arrays[0].dtype), 1, arrays)
        if size * group.size <= _SMALL_BYTES:
            reduction.into(chunk.values, [*gather_small(group, operation, chunk.values)])
        else:
            _reduce_in_memory(group, operation, chunk.values, chunk.values, reduction, meet_again)
        chunk.close()
        return
    most = min(total, _chunk_bytes(group) // arrays[0].itemsize)
    received = [np.empty(-(-most // group.size), arrays[0].dtype) for _ in group.peers]
    for last, this in _by_two(_chunks(arrays, most, group.size, direct=False)):
        sends, receives, parts = [], [], {}
        if last is not None:  # its parts are reduced
            sends += [(peer, last[group.rank]) for peer in group.peers]
            receives += [(peer, last[peer]) for peer in group.peers]
        if this is not None:
            own = this[group.rank]
            parts = {peer: buffer[: len(own)] for peer, buffer in zip(group.peers, received, strict=True)}
            sends += [(peer, this[peer]) for peer in group.peers]
            receives += parts.items()
        exchange(group, operation, sends, receives)
        if this is not None:
            reduction.into(own, _by_rank(group, parts, own))
        if last is not None:
            last.close()


def _reduce_in_memory(
    group: Group, operation: str, own: Array, out: Array, reduction: Reduction, meet: Callable[[Group, str], None]
) -> None:
    """Reduce flat arrays over the ranks in the memory that they share; `meet` is how they begin."""
    rows: list[Array] = group.memory.rows(own.shape, own.dtype)
    np.copyto(rows[group.rank], own)
    meet(group, operation)
    results: list[Array] = group.memory.rows(own.shape, own.dtype)
    part = slice(*split(own.size, group.size, group.rank))
    reduction.into(results[group.rank][part], [row[part] for row in rows])
    meet_again(group, operation)
    for rank, result in enumerate(results):
        part = slice(*split(own.size, group.size, rank))
        out[part] = result[part]


def reduce_scatter(group: Group, operation: str, source: Array, out: Array, reduction: Reduction) -> None:
    """Reduce a flat array of ``group.size`` equal parts over the ranks, and keep the part of this rank."""
    step = max(1, _chunk_bytes(group) // out.itemsize // group.size)
    received = [np.empty(min(step, out.size), out.dtype) for _ in group.peers]
    for start in range(0, out.size, step):
        target = out[start : start + step]
        part = [source[rank * out.size + start :][: target.size] for rank in range(group.size)]
        parts = {peer: buffer[: target.size] for peer, buffer in zip(group.peers, received, strict=True)}
        exchange(group, operation, [(peer, part[peer]) for peer in group.peers], [*parts.items()])
        reduction.into(target, _by_rank(group, parts, part[group.rank]))


def all_gather(group: Group, operation: str, own: Array, out: Array) -> None:
    """Write the flat arrays of all ranks, which have one size, into another one after another."""
    np.copyto(out[group.rank * own.size :][: own.size], own)
    step = max(1, _chunk_bytes(group) // own.itemsize)
    for start in range(0, own.size, step):
        sent = own[start : start + step]
        parts = [(peer, out[peer * own.size + start :][: sent.size]) for peer in group.peers]
        exchange(group, operation, [(peer, sent) for peer in group.peers], parts)


def broadcast(group: Group, operation: str, arrays: Sequence[Flat], root: int) -> None:
    """Overwrite flat arrays of bytes by the arrays of one rank of the group; small ones share messages.

    The root scatters every chunk over the others, which pass their parts on to each other.
    """
    others = [rank for rank in range(group.size) if rank != root]
    if not others:
        return
    most = min(sum(len(array) for array in arrays), _chunk_bytes(group))
    for last, this in _by_two(_chunks(arrays, most, len(others), direct=_is_direct())):
        sends: list[tuple[int, Any]] = []
        receives: list[tuple[int, Any]] = []
        for place, rank in enumerate(others):
            if group.rank == root and this is not None:
                sends.append((rank, this[place]))
            elif group.rank == rank and this is not None:
                receives.append((root, this[place]))
            elif group.rank not in (root, rank) and last is not None:
                sends.append((rank, last[others.index(group.rank)]))
                receives.append((rank, last[place]))
        exchange(group, operation, sends, receives)
        if last is not None:
            last.close()


def gather_small(group: Group, operation: str, own: Array) -> Array:
    """Return the arrays of all ranks, one row for each: of one shape and few bytes."""
    if not group.memory or own.nbytes > SLOT_BYTES:
        return gather(group, operation, own)
    rows: list[Array] = group.memory.rows(own.shape, own.dtype)
    np.copyto(rows[group.rank], own)
    meet_again(group, operation)
    return np.stack(rows)


def _by_rank(group: Group, parts: dict[int, Array], own: Array) -> list[Array]:
    return [own if rank == group.rank else parts[rank] for rank in range(group.size)]


def _chunk_bytes(group: Group) -> int:
    return max(CHUNK_BYTES, _CHUNK_BYTES_PER_RANK * group.size)


class _Chunk:
    """Hold a run of values in one piece of memory, in parts of nearly equal size; pieces are packed into it."""

    def __init__(self, values: Any, count: int, pieces: Sequence[Flat] = ()) -> None:
        self.values, self.count, self.packed = values, count, []
        end = 0
        for piece in pieces:
            part = values[end : end + len(piece)]
            end += len(piece)
            self.packed.append((piece, part))
            if isinstance(piece, np.ndarray):
                np.copyto(part, piece)
            else:
                piece.read(part)

    def __getitem__(self, part: int) -> Any:
        return self.values[slice(*split(len(self.values), self.count, part))]

    def close(self) -> None:
        """Write the values back to where they were packed from."""
        for piece, part in self.packed:
            if isinstance(piece, np.ndarray):
                np.copyto(piece, part)
            else:
                piece.write(part)


def _by_two(chunks: Iterator[_Chunk]) -> Iterator[tuple[_Chunk | None, _Chunk | None]]:
    """Yield each chunk first as the second of a pair, and then as the first.

    Ranks wait for each other once for every pair, and half as often as if they finished one before the next.
    """
    return pairwise(chain([None], chunks, [None]))


def _chunks(arrays: Sequence[Flat], most: int, count: int, direct: bool) -> Iterator[_Chunk]:
    """Yield arrays laid end to end in chunks of at most `most` elements, of which two are open at a time.

    A chunk that lies in one array is a view of it, unless that is on a device that MPI cannot reach.
    """
    buffers: list[Array] = []
    for pieces in _runs(arrays, most):
        if len(pieces) == 1 and (direct or isinstance(pieces[0], np.ndarray)):
            if not isinstance(pieces[0], np.ndarray):
                _finish(pieces[0])
            yield _Chunk(pieces[0], count)
            continue
        if len(buffers) < 2:
            buffers.append(np.empty(most, pieces[0].dtype))
        buffers.reverse()
        yield _Chunk(buffers[0][: sum(map(len, pieces))], count, pieces)


def _runs(arrays: Sequence[Flat], most: int) -> Iterator[list[Flat]]:
    """Split arrays laid end to end into lists of pieces of at most `most` elements together."""
    run: list[Flat] = []
    room = most
    for array in arrays:
        start = 0
        if run and len(array) >= most // _WORTH_A_CHUNK:
            yield run
            run, room = [], most
        while start < len(array):
            piece = array[start : start + room]
            run.append(piece)
            start, room = start + len(piece), room - len(piece)
            if not room:
                yield run
                run, room = [], most
    if run:
        yield run


def _is_direct() -> bool:
    """Return whether MPI may be given addresses on a CUDA device."""
    setting = os.environ.get("NUMPARAM_CUDA_AWARE_MPI")
    if setting is not None or world.communicator is None:
        return setting == "1"
    info = world.communicator.Get_info()
    kinds = info.get("mpi_memory_alloc_kinds") or ""
    info.Free()
    return any(kind.split(":")[0] == "cuda" for kind in kinds.split(","))


def _finish(array: DeviceArray) -> None:
    """Wait for the work that was queued on the device of an array, which MPI does not see."""
    from numparam.kernels.machine.driver import get_driver

    get_driver().record(array.device).sync()
