"""Operations of all ranks of a group on flat arrays, in chunks: what `comm_func` and `numparam.parallel` stand on.

**Order.** A reduction takes the values at one index in the order of the ranks in the group: ``((x0 + x1) + x2) + x3``.
One rank does it and the others get its result. So the bits are the same on all ranks and in every run, and depend
neither on how arrays are chunked or fused, nor on whether the result is wanted whole or in parts.

**Memory.** Beside the arrays, at most three chunks, whatever their size. A chunk has 4 MiB, or 64 KiB for every rank if
that is more: smaller messages would cost more than the bytes in them.

**Traffic.** Of n bytes on p ranks, each rank sends 2 n (p - 1) / p to reduce them everywhere, half of that to reduce or
to gather parts; the root of a broadcast sends n, everyone else less. float16 and bfloat16 travel as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from numparam.communication.devices import finish, is_direct
from numparam.communication.exchange import exchange
from numparam.communication.group import Group
from numparam.communication.reduction import Reduction
from numparam.sharding import cut

if TYPE_CHECKING:
    from numparam.kernels.device_array import DeviceArray

    Flat = np.ndarray[Any, np.dtype[Any]] | DeviceArray

Array = np.ndarray[Any, np.dtype[Any]]

CHUNK_BYTES = 4 << 20
_CHUNK_BYTES_PER_RANK = 64 << 10


def all_reduce(group: Group, operation: str, arrays: Sequence[Flat], reduction: Reduction) -> None:
    """Reduce flat arrays of one dtype over the ranks, in place; small ones share messages."""
    itemsize = max(reduction.dtype.itemsize, arrays[0].dtype.itemsize) if arrays else 1
    received: list[Array] = []
    for chunk in _chunks(arrays, _chunk_bytes(group) // itemsize, direct=False):
        bounds = [slice(*cut(chunk.size, group.size, part)) for part in range(group.size)]
        own = chunk[bounds[group.rank]]
        if not received:
            received = [np.empty(own.size, own.dtype) for _ in group.peers]
        parts = {peer: buffer[: own.size] for peer, buffer in zip(group.peers, received, strict=True)}
        exchange(group, operation, _filled({peer: chunk[bounds[peer]] for peer in group.peers}), _filled(parts))
        if own.size:
            reduction.into(own, _by_rank(group, parts, own))
        rest = _filled({peer: chunk[bounds[peer]] for peer in group.peers})
        exchange(group, operation, _filled(dict.fromkeys(group.peers, own)), rest)


def reduce_scatter(group: Group, operation: str, source: Array, out: Array, reduction: Reduction) -> None:
    """Reduce a flat array of ``group.size`` equal parts over the ranks, and keep the part of this rank."""
    step = max(1, _chunk_bytes(group) // max(reduction.dtype.itemsize, out.itemsize) // group.size)
    received = [np.empty(min(step, out.size), out.dtype) for _ in group.peers]
    for start in range(0, out.size, step):
        target = out[start : start + step]
        part = {rank: source[rank * out.size :][start : start + target.size] for rank in range(group.size)}
        own = part.pop(group.rank)
        parts = {peer: buffer[: target.size] for peer, buffer in zip(group.peers, received, strict=True)}
        exchange(group, operation, part, parts)
        reduction.into(target, _by_rank(group, parts, own))


def all_gather(group: Group, operation: str, own: Array, out: Array) -> None:
    """Write the flat arrays of all ranks, which have one size, into another one after another."""
    np.copyto(out[group.rank * own.size :][: own.size], own)
    step = max(1, _chunk_bytes(group) // own.itemsize)
    for start in range(0, own.size, step):
        sent = own[start : start + step]
        parts = {peer: out[peer * own.size + start :][: sent.size] for peer in group.peers}
        exchange(group, operation, dict.fromkeys(group.peers, sent), parts)


def broadcast(group: Group, operation: str, arrays: Sequence[Flat], root: int) -> None:
    """Overwrite flat arrays of bytes by those of one rank of the group; small ones share messages.

    The root deals every chunk out to the others, who pass their parts on to each other.
    """
    others = [rank for rank in range(group.size) if rank != root]
    if not others:
        return
    for chunk in _chunks(arrays, _chunk_bytes(group), direct=is_direct()):
        part = {rank: chunk[slice(*cut(len(chunk), len(others), place))] for place, rank in enumerate(others)}
        if group.rank == root:
            exchange(group, operation, _filled(part), {})
            continue
        own = part.pop(group.rank)
        exchange(group, operation, {}, _filled({root: own}))
        exchange(group, operation, _filled(dict.fromkeys(part, own)), _filled(part))


def gather_small(group: Group, operation: str, own: Array) -> Array:
    """Return what all ranks have, one row for each: arrays of one shape and a few bytes."""
    rows = np.empty((group.size, *own.shape), own.dtype)
    if own.size:
        all_gather(group, operation, np.ascontiguousarray(own).reshape(-1), rows.reshape(-1))
    return rows


def _by_rank(group: Group, parts: dict[int, Array], own: Array) -> list[Array]:
    return [own if rank == group.rank else parts[rank] for rank in range(group.size)]


def _filled(buffers: dict[int, Any]) -> dict[int, Any]:
    """Leave out empty messages."""
    return {peer: buffer for peer, buffer in buffers.items() if len(buffer)}


def _chunk_bytes(group: Group) -> int:
    return max(CHUNK_BYTES, _CHUNK_BYTES_PER_RANK * group.size)


def _chunks(arrays: Sequence[Flat], most: int, direct: bool) -> Iterator[Any]:
    """Yield arrays laid end to end, in chunks of at most `most` elements that may be written to.

    A chunk that lies in one array is a view of it, unless that is on a device that MPI cannot reach.
    """
    buffer: Array | None = None
    for pieces in _runs(arrays, most):
        if len(pieces) == 1 and (direct or isinstance(pieces[0], np.ndarray)):
            if not isinstance(pieces[0], np.ndarray):
                finish(pieces[0])
            yield pieces[0]
            continue
        if buffer is None:
            buffer = np.empty(min(most, sum(len(array) for array in arrays)), pieces[0].dtype)
        packed, end = [], 0
        for piece in pieces:
            packed.append(buffer[end : end + len(piece)])
            end += len(piece)
        for piece, part in zip(pieces, packed, strict=True):
            if isinstance(piece, np.ndarray):
                np.copyto(part, piece)
            else:
                piece.read(part)
        yield buffer[:end]
        for piece, part in zip(pieces, packed, strict=True):
            if isinstance(piece, np.ndarray):
                np.copyto(piece, part)
            else:
                piece.write(part)


def _runs(arrays: Sequence[Flat], most: int) -> Iterator[list[Flat]]:
    """Cut arrays laid end to end into lists of pieces of at most `most` elements together."""
    run: list[Flat] = []
    room = most
    for array in arrays:
        start = 0
        while start < len(array):
            piece = array[start : start + room]
            run.append(piece)
            start, room = start + len(piece), room - len(piece)
            if not room:
                yield run
                run, room = [], most
    if run:
        yield run
