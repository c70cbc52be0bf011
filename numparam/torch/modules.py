"""Initialise a full module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, SupportsIndex

import torch

from numparam.errors import ArgumentTypeError, NumparamError, ShapeError, StateError
from numparam.indexing.region import BasicIndex, Region, as_shape
from numparam.indexing.strided import Strided
from numparam.initializer import Initializer, Unset, Zero
from numparam.initializer.padded import PaddedNormal
from numparam.rules import RuleError
from numparam.torch import layers, parametrized
from numparam.torch.constructor import built_again, is_configurable, start_as
from numparam.torch.drawing import module_names
from numparam.torch.draws import is_random
from numparam.torch.filling import Fill, common_seed, fill_all, plan
from numparam.torch.identity import Rename, renaming, tied, untied
from numparam.torch.mode import Drawing
from numparam.torch.own import Start, start_of, starts
from numparam.torch.report import Filled, Report, row
from numparam.torch.rules import ChosenRules, OwnRules
from numparam.torch.seeing import seeing
from numparam.torch.shards import assign
from numparam.torch.state import called, give_memory, is_overwritten, is_plain, is_raw, is_zeroed, refuse, unknown_start
from numparam.torch.tracking import Tracked, tracked
from numparam.torch.walk import (
    Around,
    Place,
    Visit,
    collecting_later,
    is_of,
    modules,
    places,
    refresh_copies,
    resharded,
)

Where = Callable[
    [str, torch.Tensor], tuple[Sequence[int], Region | BasicIndex | tuple[BasicIndex, ...], torch.Tensor] | None
]


def init_(
    module: torch.nn.Module,
    rules: ChosenRules | None = None,
    seed: SupportsIndex | None = None,
    *,
    device: torch.device | str | int | None = None,
    prefix: str = "",
    rename: Rename | None = None,
    same_as: Mapping[str, str] | None = None,
    where: Where | None = None,
) -> Report:
    """Fill all parameters of a module in place, with the values of a `Parameter` of the same seed and name.

    Of a ``DTensor``, as created by FSDP2's ``fully_shard`` and tensor parallelism, each rank fills its own shard,
    without communication and with the values of the full parameter, whatever the mesh. Tensors on an NVIDIA GPU are
    filled there if the extra ``cuda12`` or ``cuda13`` is installed. Tensors on other devices, with other strides than
    row-major, or with initializers that compute on the host are generated in scratch memory, one at a time, and copied.
    Nothing is written if there is an error.

    What no rule decides starts as its authors intended. A model of transformers runs its ``_init_weights``, and
    other modules their ``init_weights`` or ``reset_parameters`` (`numparam.torch.own.METHODS` lists the names), inside
    `drawing`; a layer of ``torch.nn`` starts as in `numparam.torch.layers`. Anything else is an error.

    Parameters
    ----------
    module : torch.nn.Module
        The names of parameters come from ``named_parameters``, without what the wrappers of torch, PEFT, DeepSpeed
        and Lightning add, such as ``module.``, ``_orig_mod.`` and ``base_layer.``. A parameter that several modules
        share is filled once.
    rules : mapping, callable, Rules or path, optional
        What the model does not decide. The first rule that matches decides. One of

        * a mapping from globs for full names to initializers, names of initializers or numbers;
        * a callable that takes a name, the module that has the parameter, and the parameter, and returns any of
          these, or None;
        * `numparam.rules.Rules`, or the path of a TOML file of them. The general rules at their end give way to the
          model; with ``defaults = false`` the model decides nothing either.

        A function of ``torch.nn.init``, or a ``functools.partial`` of one, is an initializer too, and ``"unset"``
        leaves a parameter as it is. A rule decides a buffer only if its glob ends in the buffer's own name.
    seed : int, optional
        From 0 to 2**64 - 1, the same on all ranks; by default the seed of `numparam.set_seed`.
    device : torch.device or str, optional
        Where to allocate memory for what is on the ``meta`` device; shared parameters stay shared. Without it, call
        ``module.to_empty(device=...)`` before.
    prefix : str
        The name of the module inside a larger one, such as ``"layers.3"``.
    rename : callable or mapping, optional
        From the name of a parameter to the one that decides its values, where layers were renamed or left out. In a
        mapping, ``{"layers.0": "layers.8"}`` moves all of a layer, and a ``*`` is replaced by what it matched.
    same_as : mapping, optional
        From the name of a parameter to the name of another one whose values it gets, also on a rank that has only one
        of the two: ``{"lm_head.weight": "embed_tokens.weight"}``. Ties that a model of transformers declares are known.

    where : callable, optional
        For engines whose parameters are plain local shards: from a name and a tensor to the shape of the full
        parameter, what the tensor holds of it, as a `Region` or an index such as ``(slice(0, 8), slice(None))``, and
        the tensor or a view of it that holds this. None for a full parameter. `megatron_shards` returns it for
        Megatron-Core.

    Returns
    -------
    Report
        What was filled, with what and why, and what was not.

    Raises
    ------
    TypeError
        If an argument is of another kind, or an initializer cannot fill the dtype of a parameter.
    ValueError
        If no rule, module or layer initialises a parameter, or an initializer does not fit its shape.
    RuntimeError
        If something is on the ``meta`` device and has no place to go to, a buffer would hold any memory, FSDP1 has
        flattened the parameters, or each of several ranks would draw its own seed.

    Examples
    --------
    >>> from torch import nn
    >>> from numparam.initializer import Normal
    >>> model = nn.Sequential(nn.Embedding(100, 16), nn.Linear(16, 16), nn.LayerNorm(16))
    >>> print(init_(model, {"0.weight": Normal(0.02)}, seed=7))
    parameter  shape      here       dtype    device  values                        rule
    0.weight   (100, 16)  (100, 16)  float32  cpu     Normal(sigma=0.02, mean=0.0)  0.weight
    1.weight   (16, 16)   (16, 16)   float32  cpu     Uniform(scale=0.25)           torch.nn.Linear
    1.bias     (16,)      (16,)      float32  cpu     Uniform(scale=0.25)           torch.nn.Linear
    2.weight   (16,)      (16,)      float32  cpu     One()                         torch.nn.LayerNorm
    2.bias     (16,)      (16,)      float32  cpu     Zero()                        torch.nn.LayerNorm
    5 tensors, 7.6 kB here; seed 7
    """
    if not isinstance(module, torch.nn.Module):
        raise ArgumentTypeError(f"a torch.nn.Module is initialised, found {type(module).__name__}")
    number, own = common_seed(seed), OwnRules(rules)
    prefix = f"{prefix}." if prefix and not prefix.endswith(".") else prefix
    with collecting_later():
        visits = modules(module, prefix)
        resharded(visits)
        ties = tied(visits)
        same = ties | dict(same_as or {})
        moved = str if rename is None and not same else _moved(renaming(rename), same)
        return _Init(module, prefix, visits, number, own, moved, ties, same, where).run(device)


def _moved(rename: Callable[[str], str], same: Mapping[str, str]) -> Callable[[str], str]:
    """Return the function from the name of a place to the name that decides its values."""

    def name(of: str) -> str:
        new = rename(of)
        return same.get(new, rename(same[of]) if of in same else new)

    return name


class _Init:
    """One call of `init_`: choose, check, make memory, run, write."""

    def __init__(
        self,
        module: torch.nn.Module,
        prefix: str,
        visits: Sequence[Visit],
        seed: int,
        own: OwnRules,
        moved: Callable[[str], str],
        ties: Mapping[str, str],
        same: Mapping[str, str],
        where: Where | None,
    ) -> None:
        self.module, self.prefix, self.seed, self.own, self.moved = module, prefix, seed, own, moved
        self.visits, self.ties, self.same, self.where = visits, ties, same, where
        self.starts, self.adapters = starts(visits) if own.layers else ([], [])
        self.covering = {id(start.module): start for start in [*self.starts, *self.adapters]}
        self.chosen: list[tuple[Place, Initializer, str]] = []
        self.left: list[Place] = []
        self.covered: list[tuple[Place, Start]] = []
        self.order: list[Place] = []
        self.copies: list[tuple[Place, Place, bool]] = []
        """A place, the one whose values it gets, and whether to make them one parameter again."""
        self._choose()

    def _choose(self) -> None:
        """Give every parameter and buffer its initializer, the code that starts it, or leave it as it is."""
        covering = self.covering
        is_computed = self.own.layers and any(map(parametrized.is_inside, self.visits))
        has_rules, has_layers, append = bool(self.own.texts), self.own.layers, self.chosen.append
        unknown: list[Place] = []
        lost: list[Place] = []
        packed: list[Place] = []
        zero: set[int] = set()
        first: dict[str, Place] = {}
        around: Around | None = None
        deciders: layers.Deciders = []
        for place in places(self.module, self.prefix, self.visits):
            tensor = place.tensor
            if not is_plain(tensor) and place.is_parameter:
                packed.append(place)
            if self.moved is not str:
                place = place._replace(name=self.moved(place.name))  # noqa: PLW2901
                known = first.setdefault(place.name, place)
                if known is not place and place.path != known.path:
                    self.order.append(place)
                    self._same(place, known)
                    continue
            self.order.append(place)
            choice = self.own.find(place) if has_rules else None
            start = None
            if covering:
                start = next((covering[id(part)] for _, part in reversed(place.around) if id(part) in covering), None)
            if start is None and is_computed:
                start = parametrized.start_of(place)
            if choice is None and start is not None:
                self.covered.append((place, start))
                continue
            if choice is None and (has_layers or not place.is_parameter):
                if place.around is not around:
                    around = place.around
                    deciders = layers.deciders(around)
                choice = layers.default(place, deciders)
                if choice is not None and tensor._version > 1 and is_random(choice[0]):
                    if tensor.is_meta:
                        if is_overwritten(place):
                            lost.append(place)
                    elif is_zeroed(place):
                        zero.add(id(place))
            if choice is None:
                (unknown if place.is_parameter else self.left).append(place)
            elif isinstance(choice[0], Unset):
                self.left.append(place)
            else:
                append((place, *choice))
        if unknown:
            raise RuleError(unknown_start(unknown))
        if packed := [place for place in packed if not any(place is left for left in self.left)]:
            refuse(packed)
        for place in lost:
            raise RuleError(
                f"parameter {place.name!r} was written to on the meta device after its layer had started it, and what "
                f'was written is lost: give it a rule, such as rules={{"{place.name}": "zeros"}}, or build the module '
                "on the CPU"
            )
        # The zeros of weights that a constructor has overwritten are kept, unless all weights are zero.
        if zero and any(
            is_random(init) and not (id(place) in zero or is_zeroed(place)) for place, init, _ in self.chosen
        ):
            self.chosen = [
                (place, Zero(), "zero before") if id(place) in zero else (place, init, rule)
                for place, init, rule in self.chosen
            ]
        if self.same:
            self._check_sources()

    def _check_sources(self) -> None:
        names = {place.path for place in self.order}
        by_module = [place for place, _, rule in self.chosen if rule.startswith("torch.nn.")]
        for place in [*by_module, *[place for place, _ in self.covered]]:
            source = self.same.get(place.path)
            if source is not None and source not in names:
                raise RuleError(
                    f"parameter {place.path!r} gets the values of {source!r}, which is not in this module; give a rule "
                    f'for that one on all ranks, such as rules={{"{source}": Normal(0.02)}}'
                )

    def _same(self, place: Place, known: Place) -> None:
        """Let one of two places with the same name have the values of the other."""
        told = self.same.keys() & {place.path, known.path}
        if not told or place.tensor.shape != known.tensor.shape:
            what = f"parameters {known.path!r} and {place.path!r} get the values of {place.name!r}, "
            if told:
                shapes = f"the shapes {tuple(known.tensor.shape)} and {tuple(place.tensor.shape)}"
                raise ShapeError(f"{what}but have {shapes}")
            raise RuleError(f"{what}but are not declared the same: rename one, or use same_as")
        if place.path in told:
            self.copies.append((place, known, place.path in self.ties))
        else:  # the source decides, wherever it is in the module
            self.copies.append((known, place, known.path in self.ties))

    def run(self, device: Any) -> Report:
        """Write everything, or nothing."""
        was_meta = {id(place) for place in self.order if place.tensor.is_meta}
        self._check_meta(device, was_meta)
        fills, filled = self._plan()
        theirs = {init for init in {init for _, init, _ in self.chosen} if not _is_own(init)}
        values = {at: _values(fill) for at, fill in enumerate(fills) if fill.init in theirs} if theirs else {}
        with ExitStack() as undo:
            if device is not None:
                undo.callback(give_memory(self.module, device))
            raw = self._raw(was_meta)
            mode = self._run_own(undo, was_meta)
            if device is not None or mode is not None:  # the code of the model may have replaced tensors
                fills, filled = self._plan()
            self._check_left(mode, raw)
            if mode is not None and self._has_tied():
                # The first place names a shared parameter, as if it had been shared from the start.
                own = (self.module, self.prefix, self.visits, self.seed, self.own, self.moved, self.ties, self.same)
                report = _Init(*own, self.where).run(None)
                undo.pop_all()
                return report
            undo.pop_all()
        with torch.no_grad():
            for at, value in values.items():
                fills[at].local.copy_(value)
        fill_all([fill for at, fill in enumerate(fills) if at not in values] if values else fills)
        uncaught: list[str] = []
        if mode is not None:
            rows = {id(place): found for (place, _, _), found in zip(self.chosen, filled, strict=True)}
            uncaught = list(mode.uncaught)
            by_start = {id(place): start.rule for place, start in self.covered}
            for item in mode.tracker.all:
                if id(item.place) in by_start and item.written:
                    tensor, rule = item.place.current, by_start[id(item.place)]
                    rows[id(item.place)] = row(item.name, tensor, item.local, item.how, rule)
            filled = [rows[id(place)] for place in self.order if id(place) in rows]
        self._copy()
        refresh_copies(self.visits)
        return Report(self.seed, filled, [place.name for place in self.left], self.own.unused, uncaught)

    def _has_tied(self) -> bool:
        """Return whether the code of the model has made several parameters one."""
        borrowed = {id(place) for place, _, _ in self.copies}
        now = [id(place.current) for place in self.order if place.is_parameter and id(place) not in borrowed]
        return len(set(now)) < len(now)

    def _check_meta(self, device: Any, was_meta: set[int]) -> None:
        """Raise if something would get no memory."""
        for place in self.order if device is None and was_meta else ():
            if id(place) in was_meta and not any(place is left for left in self.left):
                raise StateError(
                    f"{called(place)} is on the meta device and has no memory: call to_empty(device=...) of the module "
                    "before, or give init_ a device"
                )
        for place in self.left if device is not None else ():
            if place.tensor.is_meta and not place.is_parameter and not self._is_unset(place):
                raise StateError(
                    f"{called(place)} is on the meta device, and no layer of torch initialises it: "
                    "give it values on a device before, or a rule"
                )

    def _is_unset(self, place: Place) -> bool:
        return self.own.find(place) is not None

    def _plan(self) -> tuple[list[Fill], list[Filled]]:
        """Return what will be written, and the rows of the report."""
        fills, rows = [], []
        try:
            for place, init, rule in self.chosen:
                view, region = (place.current, None) if self.where is None else self._held(place)
                if region is not None:
                    _check_part(place, region, init, rule)
                fills.append(fill := plan(place.name, view, init, self.seed, region))
                rows.append(row(place.name, view, fill.local, init, rule))
        except ArgumentTypeError as error:
            raise type(error)(f'{error}; the rule {{"{place.name}": "unset"}} leaves it as it is') from None
        return fills, rows

    def _held(self, place: Place) -> tuple[torch.Tensor, Region | None]:
        """Return the memory of a parameter, and what it holds of the full one if the caller specifies it."""
        tensor = place.current
        answer = None if self.where is None or not place.is_parameter else self.where(place.name, tensor)
        if answer is None:
            return tensor, None
        shape, part, view = answer
        region = part if isinstance(part, Region) else Region.full(as_shape(shape))[part]
        if region.shape != tuple(view.shape) or region.full_shape != tuple(shape):
            raise ShapeError(
                f"where({place.name!r}) returned {region} for a tensor of shape {tuple(view.shape)}, "
                f"in a parameter of shape {tuple(shape)}"
            )
        return view, region

    def _run_own(self, undo: ExitStack, was_meta: set[int], keep_writes: bool = False) -> Drawing | None:
        """Run the code of the model that starts what no rule and no layer does."""
        if not self.covered:
            return None
        items = [item for place in self.order if (item := self._track(place)) is not None]
        names = module_names(self.visits, self.moved)
        mode = Drawing(self.seed, items, names)
        mode.kept = {item: None for item in items if id(item.place) in was_meta}
        covered = {id(place) for place, _ in self.covered}
        borrowed = {id(place) for place, _, _ in self.copies}
        for item in items:
            item.locked = id(item.place) not in covered | borrowed
            item.writes = [] if keep_writes else None
        undo.callback(mode.give_back)
        needed = {id(start.module) for _, start in self.covered}
        with seeing(mode, mode.uncaught), untied(self.visits, self.ties):
            for start in [*self.starts, *self.adapters]:
                if id(start.module) in needed:
                    start.run(mode)
        mode.take_replaced()
        self._as_constructed(mode)
        for item in items:
            if not item.locked:
                mode.ensure(item)
        return mode

    def _as_constructed(self, mode: Drawing) -> None:
        """Write what the code of a model did not, as the constructor of the model does."""
        by_place = {id(item.place): item for item in mode.tracker.all}
        for start in [start for start in self.starts if is_configurable(start.module)]:
            missing = [by_place[id(place)] for place, by in self.covered if by is start and id(place) in by_place]
            missing = [item for item in missing if not item.written and parametrized.start_of(item.place) is None]
            if not missing:
                continue
            made = built_again(start.module, self.seed)
            for item in missing:
                inside = next(prefix for prefix, part in item.place.around if part is start.module)
                found = made.get(item.place.path.removeprefix(inside))
                if found is not None:
                    start_as(mode, item, found)

    def _track(self, place: Place) -> Tracked | None:
        try:
            item = tracked(place._replace(tensor=place.current), place.name)
        except (NumparamError, RuntimeError, NotImplementedError):  # a tensor whose memory cannot be followed
            return None
        item.place = place
        view, region = self._held(place)
        if region is not None:
            item.local, item.region = view, region
        computed = parametrized.start_of(place)
        if computed is not None:
            item.start = computed.run
            return item
        for _, part in reversed(place.around):
            if id(part) in self.covering:
                break
            if is_of(part, "PreTrainedModel", "transformers"):  # which the one around it starts
                continue
            inner = start_of(part)
            if inner is not None:
                item.start = inner.run
                return item
        default = layers.default(place)
        item.start = None if default is None else default[0]
        return item

    def _raw(self, was_meta: set[int]) -> set[int]:
        """Return the buffers that nobody has written to, as far as can be told before anything is written."""
        buffers = [place for place in [*self.left, *[place for place, _ in self.covered]] if not place.is_parameter]
        suspect = {id(place) for place in buffers if id(place) in was_meta or not place.tensor._version}
        has_raw = bool(suspect) and any(is_raw(place) for place in self.order if place.is_parameter)
        return suspect if has_raw else suspect & was_meta

    def _check_left(self, mode: Drawing | None, raw: set[int]) -> None:
        """Raise if the code of the model left something out."""
        written = {id(item.place) for item in mode.tracker.all if item.written} if mode is not None else set()
        missing = [place for place, _ in self.covered if id(place) not in written]
        unknown = [place for place in missing if place.is_parameter]
        if unknown:
            raise RuleError(unknown_start(unknown))
        for place in [*missing, *[place for place in self.left if not self._is_unset(place)]]:
            if id(place) in raw:
                raise StateError(
                    f"{called(place)} may hold uninitialised memory, as after to_empty: neither the code of "
                    "the model nor a layer of torch initialises it; give it a rule, or the rule "
                    f'{{"{place.name}": "unset"}} if it has its values'
                )
        self.left += missing

    def _copy(self) -> None:
        """Give tied parameters their common values, and join the ones that the model ties."""
        with torch.no_grad():
            for place, source, is_tied in self.copies:
                target, values = place.current, source.current
                assign(target, values)
                if is_tied and not hasattr(target, "device_mesh") and not hasattr(values, "device_mesh"):
                    place.owner._parameters[place.key] = values


def _check_part(place: Place, region: Region, init: Initializer, rule: str) -> None:
    """Raise if an initializer cannot fill a part of a parameter."""
    if not region.is_full and rule.startswith("torch.nn.") and is_random(init):
        raise RuleError(
            f"parameter {place.name!r} is a part of a full one, whose layer torch knows only the part of: give "
            f'a rule for it, such as rules={{"{place.name}": Normal(0.02)}}'
        )
    if isinstance(region, Strided) and (not init.on_device or isinstance(init, PaddedNormal)):
        raise RuleError(f"parameter {place.name!r} is in blocks, which {init!r} cannot fill: give another rule")


def _is_own(init: Initializer) -> bool:
    """Return whether an initializer is numparam's, and not a user's, which may raise."""
    return type(getattr(init, "init", init)).__module__.startswith("numparam.")


def _values(fill: Fill) -> torch.Tensor:
    out = torch.empty(fill.local.shape, dtype=fill.local.dtype)
    try:
        fill._replace(tensor=out, local=out).run()
    except Exception as error:
        raise StateError(f"parameter {fill.name!r} gets {fill.init!r}: {type(error).__name__}: {error}") from error
    return out
