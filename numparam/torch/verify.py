"""Fingerprints of torch modules, and the comparison of what is in memory with the values of a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch

from numparam.entry import Entry
from numparam.errors import ArgumentTypeError, NumparamError, StateError
from numparam.fingerprints import Fingerprint, Fingerprints, View
from numparam.fingerprints.boxes import Box, box_of, merged
from numparam.fingerprints.measure import Views, canonical_names, mark, of_array
from numparam.fingerprints.verifying import Verification, record
from numparam.indexing.region import Region, as_shape
from numparam.initializer import Uniform, initializer
from numparam.parameter import Parameter
from numparam.stream.seed import choose_seed
from numparam.tensor import Recipe
from numparam.text import shown
from numparam.torch import layers
from numparam.torch.exchange import Layout, add_up
from numparam.torch.filling import Fill, common_seed, fill_all, plan
from numparam.torch.identity import renaming, tied
from numparam.torch.memory import dtype_of, is_reachable, shared
from numparam.torch.modules import Where, _Init, _moved
from numparam.torch.own import starts
from numparam.torch.replay import drawn_again, expected
from numparam.torch.report import Report
from numparam.torch.rules import ChosenRules, OwnRules
from numparam.torch.shards import held_part, layout
from numparam.torch.tracking import Tracked
from numparam.torch.walk import modules, places, resharded


def fingerprint(
    module: torch.nn.Module,
    key: str | bytes | None = None,
    *,
    view: Views | None = None,
    where: Where | None = None,
    group: torch.distributed.ProcessGroup | None = None,
    local: bool = False,
) -> Fingerprints:
    """Return the fingerprints of all parameters of a module, whose ranks may hold them in shards.

    Each rank reads what it holds, and one reduction adds up the sums of all parameters. What several ranks hold is
    counted once, and must be equal on them.

    Parameters
    ----------
    module : torch.nn.Module
        With ordinary tensors or ``DTensor``, as FSDP2 and tensor parallelism make them. A parameter that several
        modules share has its first name.
    key : str or bytes, optional
        As `numparam.fingerprint` takes it.
    view : mapping of str to View or sequence of View, optional
        Canonical parameters that are parts of the parameters of the module; a rank adds what its shards hold of them.
    where : callable, optional
        What ordinary tensors hold of full parameters, as `init_` takes it.
    group : torch.distributed.ProcessGroup, optional
        The ranks that have the parameters together; all by default, if ``torch.distributed`` is initialised.
    local : bool
        Whether to leave out the exchange, and return the parts of this rank.

    Returns
    -------
    Fingerprints
        Equal on all ranks.

    Raises
    ------
    DisagreementError
        If ranks hold different values of one region; the message names both, the region and the parameter.
    MismatchError
        If a parameter has another shape or dtype on another rank, or the ranks have different keys.
    StateError
        If regions overlap without being the same, or the placements do not tell what a rank holds.

    Examples
    --------
    >>> import numparam
    >>> layer = torch.nn.Linear(4, 2, bias=False)
    >>> fingerprint(layer)["weight"] == numparam.fingerprint(layer.weight.detach().numpy())
    True
    """
    check(module)
    held = {}
    for place in places(module):
        if place.is_parameter:
            held[place.name] = (place.current, *held_by(place.name, place.current, where))
    dist = torch.distributed
    alone = local or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1
    ranks = [] if alone else dist.get_process_group_ranks(group or dist.group.WORLD)
    found: dict[str, Fingerprint] = {}
    layouts: dict[str, Layout | None] = {}
    alike: dict[Any, dict[int, tuple[Box, ...]]] = {}
    for name, source in canonical_names(held, view or {}):
        pieces = [(held[source], None)] if isinstance(source, str) else [(held[of.source], of) for of in source]
        for (_, part, region), of in pieces:
            if (here := _seen(region, of)) is not None:
                array = array_of(part)
                piece = of_array(array if of is None else of.of(array, region)[0], key, here, name)  # type: ignore[index]
                found[name] = found[name] + piece if name in found else piece
        if not alone:
            tensors = [(tensor, of) for (tensor, _, _), of in pieces]
            layouts[name] = _layout(tensors, ranks, mark(key), alike) if where is None else None
    return Fingerprints(found) if alone else add_up(found, layouts, key, ranks, group)


def _layout(
    pieces: Sequence[tuple[torch.Tensor, View | None]], ranks: Sequence[int], key: str, alike: dict[Any, Any]
) -> Layout | None:
    """Return what all ranks hold of a parameter, as far as it has any of it; `alike` keeps what others have too."""
    seen: dict[int, list[Region]] = {}
    for tensor, view in pieces:
        if (regions := layout(tensor, ranks)) is None:
            return None
        for rank, region in zip(ranks, regions, strict=True):
            if (part := _seen(region, view)) is not None:
                seen.setdefault(rank, []).append(part)
    if not seen:
        return None
    shape = next(iter(seen.values()))[0].full_shape
    which = (shape, tuple((rank, tuple(part.ranges for part in parts)) for rank, parts in seen.items()))
    if which not in alike:
        alike[which] = {rank: _together(parts, shape) for rank, parts in seen.items()}
    return Layout(shape, dtype_of(pieces[0][0]).name, key, alike[which])


def _together(parts: Sequence[Region], shape: tuple[int, ...]) -> tuple[Box, ...]:
    """Return the boxes of the sum of fingerprints."""
    found: tuple[Box, ...] = ()
    for part in parts:
        found = merged([*found, box_of(part)], shape)
    return found


def _seen(region: Region, view: View | None) -> Region | None:
    """Return what a view shows of a region."""
    if view is None:
        return region
    part = view.part(region)
    return part and part[1]


def check(module: Any) -> None:
    """Raise if it is not a module; let FSDP2 show its shards."""
    if not isinstance(module, torch.nn.Module):
        raise ArgumentTypeError(f"a torch.nn.Module was expected, found {type(module).__name__}")
    resharded(modules(module))


def held_by(name: str, tensor: torch.Tensor, where: Where | None) -> tuple[torch.Tensor, Region]:
    """Return the memory of this rank, and what it holds of the full parameter."""
    if tensor.is_meta:
        raise StateError(f"parameter {name!r} has no memory; fill it with init_ or load it first")
    if where is not None and not callable(where):
        raise ArgumentTypeError(f"where is a callable, found {shown(where)}")
    answer: Any = None if where is None else where(name, tensor)
    if answer is not None:
        if not isinstance(answer, tuple) or len(answer) != 3:
            raise ArgumentTypeError(
                f"where({name!r}, ...) returns None, or a shape, an index and a tensor, found {shown(answer)}"
            )
        shape, part, tensor = answer
        return tensor, part if isinstance(part, Region) else Region.full(as_shape(shape))[part]
    try:
        return held_part(tensor)
    except NumparamError as error:
        raise type(error)(f"parameter {name!r}: {error}") from None


def array_of(tensor: torch.Tensor) -> Any:
    """Return an array over the memory of a tensor of any strides, or over a copy where numparam cannot read it."""
    bare = tensor.detach()
    if not is_reachable(bare.device):
        bare = bare.cpu()
    return shared(bare if bare.device.type == "cpu" else bare.contiguous())


def verify(
    module: torch.nn.Module,
    seed: SupportsIndex | None = None,
    rules: ChosenRules | None = None,
    *,
    report: Report | None = None,
    where: Where | None = None,
) -> Verification:
    """Compare what a module has in memory with the values of a seed, on each rank for its own part.

    Parameters are compared in blocks of 256 KiB, so no second copy is made, except of parameters whose initializer
    needs the full one, such as `Orthogonal`, or that are written more than once. Code of the model that starts
    parameters runs again, on a copy without memory. Nothing is written, and nothing is communicated.

    Parameters
    ----------
    module : torch.nn.Module
    seed, rules, where
        As `init_` took them.
    report : Report, optional
        What `init_` returned, in place of `seed` and `rules`.

    Returns
    -------
    Verification
        The first difference of each parameter, and which ones could not be compared.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `init_` does for its arguments.

    Examples
    --------
    >>> from numparam.torch import init_
    >>> layer = torch.nn.Linear(4, 2)
    >>> report = init_(layer, seed=7)
    >>> bool(verify(layer, seed=7))
    True
    >>> layer.reset_parameters()  # a loader that initialises again
    >>> len(verify(layer, report=report).differences)
    2
    """
    check(module)
    found = Verification()
    visits = modules(module)
    ties = tied(visits)
    number = common_seed(seed) if report is None else report.seed
    if report is not None:
        by_model = {start.rule for several in starts(visits) for start in several}
        rules = {
            row.name: row.init for row in report.filled if not isinstance(row.init, str) and row.rule not in by_model
        }
    own = OwnRules(rules)
    job = _Init(module, "", visits, number, own, _moved(renaming(None), ties), ties, ties, where)
    for place, init, rule in job.chosen:
        if rule == "zero before":  # what init_ keeps, a parameter that was never loaded looks like
            init = (layers.default(place) or (init,))[0]  # noqa: PLW2901
        if place.is_parameter:
            view, region = job._held(place)
            _compare(found, place.name, plan(place.name, view, init, number, region))
    again, failed = {}, "numparam did not draw its values"
    if job.covered:
        try:
            again = drawn_again(module, number, own, job.moved, ties, where)
        except StateError as error:
            failed = str(error)
    for place, start in job.covered:
        if place.is_parameter:
            item = again.get(place.name)
            if place.current.is_meta:
                found.unchecked[place.name] = "it has no memory"
            elif item is None or isinstance(item.how, str):
                found.unchecked[place.name] = f"{start.rule} starts it: {failed}"
            else:
                local, _ = held_by(place.name, place.current, where)
                _compare_again(found, place.name, local, item, number)
    for place in job.left:
        if place.is_parameter:
            found.unchecked[place.name] = "its rule is unset"
    return found


def pattern_(module: torch.nn.Module, seed: SupportsIndex = 0) -> dict[str, Parameter]:
    """Fill all parameters of a module with random values from -1/8 to 1/8, by which `numparam.identify` knows them.

    The values are finite and small in every floating-point dtype, so that a forward pass runs, and differ from row to
    row also in biases and norms. Each rank fills its shards, without communication.

    Parameters
    ----------
    module : torch.nn.Module
        With memory; all parameters have floating-point dtypes.
    seed : int, optional

    Returns
    -------
    dict of str to Parameter
        The same values, lazy, for `numparam.identify`.

    Examples
    --------
    >>> from numparam import identify
    >>> layer = torch.nn.Linear(64, 48).to(torch.bfloat16)
    >>> model = pattern_(layer)
    >>> print(identify(shared(layer.weight[16:]), model))
    rows 16:48 of weight
    """
    check(module)
    init = Uniform(1 / 8)
    init.seed = seed
    fills = [plan(place.name, place.current, init, 0) for place in places(module) if place.is_parameter]
    fill_all(fills)
    return {
        fill.name: Parameter(initializer(init, tuple(fill.tensor.shape), dtype_of(fill.tensor)), name=fill.name)
        for fill in fills
    }


def _compare(found: Verification, name: str, fill: Fill) -> None:
    """Compare a parameter with what one initializer draws, block by block."""
    recipe = Recipe(fill.init, choose_seed(fill.init.seed, fill.seed), fill.name, fill.region, dtype_of(fill.local))
    _record(found, name, fill.local, fill.region, recipe.fill_into, recipe.init.needs_full)


def _compare_again(found: Verification, name: str, local: torch.Tensor, item: Tracked, seed: int) -> None:
    """Compare a parameter with all that the code of its model has written to it."""
    if item.writes and len(item.writes) == 1:
        ((how, _, stream, _),) = item.writes
        _compare(found, name, Fill(stream, local, local, item.region, how, seed))
        return
    values = np.asarray(shared(expected(item, seed).contiguous()))

    def fill(out: np.ndarray[Any, Any], region: Region) -> None:
        out[...] = region.take(values)

    _record(found, name, local, item.region, fill, False)


def _record(
    found: Verification, name: str, local: torch.Tensor, region: Region, fill: Callable[..., None], needs_full: bool
) -> None:
    if local.is_meta:
        found.unchecked[name] = "it has no memory"
    if local.is_meta or not region.size:
        return

    def read(index: tuple[int | slice, ...]) -> np.ndarray[Any, np.dtype[Any]]:
        array: Any = shared(local[(*index, ...)].detach().cpu())
        return array  # type: ignore[no-any-return]

    record(found, Entry(name, region.shape, dtype_of(local)), region, read, fill, needs_full)
