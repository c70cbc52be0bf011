"""A mode in which torch's operations on parameters get the values of numparam."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from numparam.errors import NumparamError, StateError
from numparam.indexing.region import Region
from numparam.initializer import Initializer, Normal
from numparam.initializer.random import between
from numparam.initializer.redrawn import name_of_draw
from numparam.torch import draws
from numparam.torch.filling import Fill
from numparam.torch.memory import dtype_of
from numparam.torch.operations import first, flat, is_augmented, plain, replicating, returned
from numparam.torch.seeing import arguments, seeing
from numparam.torch.shards import held_part
from numparam.torch.tracking import Part, Tracked, Tracker, full, tracked
from numparam.torch.walk import Place, places

_METHODS = {getattr(torch.Tensor, name): name for name in draws.METHODS}
_FRESH: dict[Any, str] = {
    torch.rand: "uniform_",
    torch.randn: "normal_",
    torch.rand_like: "uniform_",
    torch.randn_like: "normal_",
    torch.Tensor.bernoulli: "bernoulli",
    torch.bernoulli: "bernoulli",
    torch.normal: "normal",
    torch.randint: "randint",
    torch.randint_like: "randint",
    torch.randperm: "randperm",
}
# Of these nothing but the shape and the like is read, or a view is made.
_NAMES = """
size stride dim ndimension numel nelement storage_offset is_contiguous is_floating_point is_complex data_ptr
untyped_storage element_size get_device __get__ __len__ __hash__ __repr__ __format__ requires_grad_ detach data
view reshape view_as expand expand_as t transpose permute unsqueeze squeeze flatten unflatten narrow select chunk
split split_with_sizes tensor_split unbind __getitem__ __iter__ movedim swapaxes diagonal to_local empty_like
zeros_like ones_like full_like new_empty new_zeros new_ones new_full new_tensor is_same_size
_calculate_correct_fan has_names register_hook is_shared type is_signed is_inference retain_grad
"""
_HARMLESS = frozenset(_NAMES.split())
_PARTS = {"__getitem__", "select", "narrow", "chunk", "split", "unbind", "__iter__", "tensor_split"}
_RANDOM = {"multinomial", "poisson", "dropout", "alpha_dropout", "rrelu", "gumbel_softmax", "binomial", "dropout_"}


class Drawing(TorchFunctionMode):  # type: ignore[misc]  # torch has no types here
    """See each operation of torch inside a block, and do the random ones; see `drawing`."""

    def __init__(self, seed: int, all_tracked: Iterable[Tracked], names: dict[int, str]) -> None:
        super().__init__()
        self.seed = seed
        self.tracker = Tracker(iter(all_tracked))
        self.names = names
        self.uncaught: dict[str, None] = {}
        self.protected = False
        self.kept: dict[Tracked, torch.Tensor | None] | None = None
        """What was in the memory before, where it is to be given back after an error."""
        self._calls: dict[str, int] = {}
        self._is_first = True
        self._orphans: dict[int, tuple[torch.Tensor, Tracked]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func in _METHODS:
            return self._method(func, _METHODS[func], args, named)
        if name in draws.FUNCTIONS and isinstance(func, FunctionType):
            return self._function(func, name, args, named)
        if func in _FRESH:
            return self._temporary(func, _FRESH[func], args, named)
        return self._other(func, name, args, named)

    # ------------------------------------------------------------------- random operations

    def _method(self, func: Any, name: str, args: Any, named: dict[str, Any]) -> Any:
        tensor, *others = args
        how = draws.choose(draws.METHODS, name, tensor, *others, **named)
        if how is None:
            if name == "bernoulli_":
                chance = others[0] if others else named["p"]
                return self._other(torch.Tensor.copy_, "copy_", (tensor, self._bernoulli(chance)), {})
            return self._other(func, name, args, named)
        return self._fill(func, tensor, how, args, named)

    def _function(self, func: Any, name: str, args: Any, named: dict[str, Any]) -> Any:
        named = dict(zip(arguments(name), args, strict=False)) | named
        tensor = named.pop("tensor")
        part = self._find(tensor)
        how = draws.choose(draws.FUNCTIONS, name, tuple(tensor.shape) if part is None else part.shape, **named)
        if how is None:
            return self._other(func, name, (tensor,), named)
        return self._fill(func, tensor, how, (tensor,), named, part)

    def _fill(
        self, func: Any, tensor: torch.Tensor, how: Initializer, args: Any, named: Any, part: Part | None = None
    ) -> torch.Tensor:
        part = self._find(tensor) if part is None else part
        if part is not None:
            self.write(part, how)
        elif tensor.is_meta:
            if draws.is_random(how):
                self._next()  # counted as with memory
        elif not draws.is_random(how) and not hasattr(tensor, "device_mesh"):
            func(*args, **named)
        else:
            self._draw(tensor, how)
        return tensor

    def _find(self, tensor: torch.Tensor) -> Part | None:
        part = self.tracker.find(tensor)
        if part is None and isinstance(tensor, torch.nn.Parameter) and not hasattr(tensor, "device_mesh"):
            orphan = Tracked(Place("", torch.nn.Module(), "", tensor, (), ""), "", *held_part(tensor), log=[])
            self._orphans[id(tensor)] = tensor, orphan
            self.tracker.add(orphan)
            part = self.tracker.find(tensor)
        return part

    def orphan(self, tensor: torch.Tensor) -> Tracked | None:
        """Return what was written to a parameter that was created inside the block."""
        found = self._orphans.get(id(tensor))
        return None if found is None else found[1]

    def named(self, name: str, tensor: torch.Tensor, how: Initializer) -> torch.Tensor:
        """Fill an ordinary tensor with the values of a name."""
        Fill(name, tensor, tensor, Region.full(tuple(tensor.shape)), how, self.seed).run()
        return tensor

    def _draw(self, tensor: torch.Tensor, how: Initializer) -> None:
        """Fill a temporary tensor from the stream of the module that made it, and of the call."""
        local, region = held_part(tensor)
        how.check(region.full_shape, dtype_of(tensor))
        with torch.no_grad():
            Fill(self._next(), tensor, local, region, how, self.seed).run()

    def _next(self) -> str:
        """Return the name of the stream of a call that makes a temporary tensor."""
        module = self._module()
        call = self._calls[module] = self._calls.get(module, 0) + 1
        return f"{module}\0temporary\0{call}"

    def _module(self) -> str:
        """Find the module whose code runs: the innermost of the nearest function that has one."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            if not frame.f_globals.get("__name__", "").startswith(("numparam.torch", "torch.overrides", "torch.utils")):
                found = [self.names[id(value)] for value in frame.f_locals.values() if id(value) in self.names]
                if found:
                    return max(found, key=len)
            frame = frame.f_back
        return ""

    def _temporary(self, func: Any, name: str, args: Any, named: dict[str, Any]) -> Any:
        named.pop("generator", None)
        out = named.pop("out", None)
        if name in ("uniform_", "normal_"):
            make = torch.empty_like if func.__name__.endswith("_like") else torch.empty
            how: Initializer = draws.METHODS[name](None)  # type: ignore[assignment]
            tensor = make(*[arg for arg in args if not isinstance(arg, torch.Generator)], **named)
            return returned(self._fill(func, tensor, how, args, named), out)
        if name == "bernoulli":
            return returned(self._bernoulli(args[0], *args[1:], **named), out)
        if name == "normal":
            return returned(self._normal(*args, **named), out)
        if name == "randint":
            return returned(self._randint(func, *args, **named), out)
        named.setdefault("dtype", torch.int64)
        if torch.empty(0, **{key: named[key] for key in ("device",) if key in named}).is_meta:
            self._next()
            return torch.empty(args[0], **named)
        words = torch.empty(args[0], dtype=torch.float64)
        self._draw(words, between(0.0, 1.0))
        return returned(torch.argsort(words, stable=True).to(**named), out)

    def _bernoulli(self, chance: torch.Tensor, p: float | None = None) -> torch.Tensor:
        if p is not None:
            return self._fill(None, torch.empty_like(chance), draws.Transformed("bernoulli", p), (), {})
        values = self._fill(None, torch.empty_like(chance), between(0.0, 1.0), (), {})
        return (values < chance).to(chance.dtype)

    def _normal(self, mean: Any, std: Any = 1.0, size: Any = None, **named: Any) -> torch.Tensor:
        if size is not None:
            return self._fill(None, torch.empty(size, **named), Normal(std, mean), (), {})
        like = torch.broadcast_tensors(*[value for value in (mean, std) if isinstance(value, torch.Tensor)])[0]
        return self._fill(None, torch.empty_like(like.contiguous()), Normal(1.0), (), {}) * std + mean

    def _randint(self, func: Any, *args: Any, **named: Any) -> torch.Tensor:
        rest = list(args)
        like = rest.pop(0) if func is torch.randint_like else None
        size = named.pop("size", None) or (rest.pop() if like is None else None)
        high = named.pop("high", None)
        low = named.pop("low", None)
        bounds = [*rest, *[value for value in (low, high) if value is not None]]
        low, high = (0, bounds[0]) if len(bounds) == 1 else bounds
        if like is None:
            named.setdefault("dtype", torch.int64)
        tensor = torch.empty(size, **named) if like is None else torch.empty_like(like, **named)
        return self._fill(None, tensor, draws.Transformed("random", low, high), (), {})

    # ------------------------------------------------------------------- tracked tensors

    def write(self, part: Part, how: Initializer, number: int | None = None) -> None:
        """Fill a part of a tracked tensor."""
        item = part.tracked
        if self._is_settled(item):
            return
        if not part.is_full:
            self.ensure(item)
        if self._is_first:
            self._is_first = False
            self._name_tied()
        if item.log is not None:
            item.log = [*([] if part.is_full else item.log), (how, part)]
        if part.out.is_meta:
            item.cover(part)
            if item.writes is not None:
                self._note(part, how)
            return
        try:
            dtype = dtype_of(part.out)
            self._check(how, part, dtype)
        except NumparamError as error:
            raise type(error)(f"parameter {item.name!r} gets {how!r}: {error}") from None
        self.keep(item)
        name = self._stream(part, how, number)
        with torch.no_grad():
            if draws.needs_axes(how) and not part.is_full:
                Fill(name, part.out, part.out, part.inner, how, self.seed).run()
            elif part.region is None:
                scratch = torch.empty_strided(item.local.shape, item.local.stride(), dtype=part.out.dtype)
                Fill(name, scratch, scratch, item.region, how, self.seed).run()
                at = part.out.storage_offset() - item.local.storage_offset()
                part.out.copy_(scratch.as_strided(part.out.shape, part.out.stride(), at))
            else:
                Fill(name, part.out, part.out, part.region, how, self.seed).run()
        torch.autograd.graph.increment_version(item.place.current)
        item.cover(part)
        item.how = how if part.is_full else item.how
        item.version = item.local._version

    def _stream(self, part: Part, how: Initializer, number: int | None = None) -> str:
        """Return the name of the stream of the next draw, and count it."""
        item = part.tracked
        count = (item.number(part) if number is None else number) if draws.is_random(how) else 0
        name = name_of_draw(item.name, count)
        return f"{name}\0{count}\0{part.start}" if draws.needs_axes(how) and not part.is_full else name

    def _note(self, part: Part, how: Initializer) -> None:
        """Note what is written to a tensor that has no memory."""
        item = part.tracked
        region = part.inner if draws.needs_axes(how) and not part.is_full else part.region
        before = [] if part.is_full else item.writes or []
        if part.is_full:
            item.how = how
        if region is None:
            item.how = "computed"
        else:
            item.writes = [*before, (how, part, self._stream(part, how), region)]

    def _check(self, how: Initializer, part: Part, dtype: Any) -> None:
        if draws.needs_axes(how) and part.inner.size and part.inner.full_shape != part.shape and not part.is_full:
            raise StateError(f"{how!r} needs all of a part, found a view of a shard")
        how.check(part.shape, dtype)

    def _is_settled(self, item: Tracked) -> bool:
        """Return whether the code that runs must not write to a tensor."""
        return item.locked or (self.protected and item.written)

    def replaced(self, owner: torch.nn.Module) -> None:
        """Note that the parameters of a module have other memory, with their values."""
        for item in self.tracker.all:
            if item.place.owner is owner and item.place.key in owner._parameters:
                self.tracker.moved(item)
                item.written, item.how = True, "computed"

    def keep(self, item: Tracked) -> None:
        """Keep what is in the memory of a tensor, to give it back after an error."""
        if self.kept is not None and item not in self.kept:
            self.kept[item] = item.local.detach().clone() if item.local._version else None

    def give_back(self) -> None:
        """Write back what was there before."""
        with torch.no_grad():
            for item, values in (self.kept or {}).items():
                if values is not None:
                    item.local.copy_(values)

    def ensure(self, item: Tracked) -> None:
        """Initialise a tensor without writes as its module does."""
        start = item.start
        if item.written or item.locked or start is None or item.local.is_meta:
            return
        item.start = None
        if isinstance(start, Initializer):
            self.write(full(item), start)
            return
        before, self.protected = self.protected, True
        try:
            with seeing(self, self.uncaught):
                start(self)
        finally:
            self.protected = before

    # ------------------------------------------------------------------- everything else

    def _other(self, func: Any, name: str, args: Any, named: dict[str, Any]) -> Any:
        tensors = [arg for arg in flat(args) if isinstance(arg, torch.Tensor)]
        tensors += [arg for arg in named.values() if isinstance(arg, torch.Tensor)]
        found = [(tensor, item) for tensor in tensors if (item := self.tracker.tracked(tensor)) is not None]
        is_sharded = any(hasattr(tensor, "device_mesh") for tensor in tensors)
        standing = [item for tensor, item in found if self.tracker.standing(tensor)]
        if name == "__set__" and getattr(func, "__self__", None) is torch.Tensor.data and found:
            return self._set_data(args[0], args[1])
        if name in _PARTS and found and (standing or is_sharded):
            return self._parts(name, args, named)
        writes = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or is_augmented(name)
        if name in _HARMLESS:
            return func(*args, **named)
        if name == "__setitem__" and found and (standing or is_sharded) and found[0][0] is args[0]:
            part = self._parts("__getitem__", args[:2], {})
            self.copy(part, args[2])
            return None
        if (
            name == "copy_"
            and found
            and tensors[0] is found[0][0]
            and (standing or is_sharded or self._is_settled(found[0][1]))
        ):
            return self.copy(*args, **named)
        if standing:
            raise StateError(
                f"{name} reads or writes a part of the sharded parameter {standing[0].name!r}, which only random "
                "operations, constants and copies can: give init_ a rule for it"
            )
        if name in _RANDOM:
            self.uncaught[f"{name} in {self._module() or 'the module'}"] = None
        target = tensors[0] if writes and tensors and args and tensors[0] is first(args) else None
        for tensor, item in found:
            part = self.tracker.find(tensor) if tensor is target else None
            if tensor is target and name == "copy_" and part is not None and part.is_full:
                self.keep(item)
                continue
            item.is_read = True
            self.ensure(item)
            if tensor is target:
                if self._is_settled(item):
                    return tensor
                self.keep(item)
        with replicating(is_sharded):
            result = func(*args, **named)
        if target is not None and found and found[0][0] is target and (part := self.tracker.find(target)) is not None:
            part.tracked.cover(part)
            part.tracked.how = "computed"
        return result

    def copy(self, target: torch.Tensor, values: Any, *_: Any, **__: Any) -> torch.Tensor:
        """Copy the part of this rank, of values that all ranks have."""
        part = self.tracker.find(target)
        if part is None:
            return target
        item = part.tracked
        if self._is_settled(item):
            return target
        if not part.is_full:
            self.ensure(item)
        self.keep(item)
        with torch.no_grad():
            if hasattr(values, "device_mesh"):
                if hasattr(target, "device_mesh"):
                    target.copy_(values)
                    item.cover(part)
                    return target
                values = values.full_tensor()
            values = torch.as_tensor(values, device=part.out.device).expand(part.shape)
            if part.out.numel():
                part.out.copy_(values[tuple(pick for pick in part.inner.slices())] if part.inner.shape else values)
        item.cover(part)
        item.how = "computed"
        return target

    def _set_data(self, tensor: torch.Tensor, values: torch.Tensor) -> None:
        item = self.tracker.tracked(tensor)
        if item is None:
            return
        if self._is_settled(item):
            return
        if hasattr(tensor, "device_mesh") and not hasattr(values, "device_mesh"):
            self.copy(tensor, values)
            return
        self.keep(item)
        tensor.data = values
        if tensor is item.place.current:
            self.tracker.moved(item)
        item.written, item.how = True, "computed"

    def _parts(self, name: str, args: Any, named: dict[str, Any]) -> Any:
        """Index, split or narrow a sharded tensor, without communication and without a copy."""
        tensor, *others = args
        standing = self.tracker.standing(tensor)
        part = self.tracker.find(tensor)
        if part is None or (standing is None and not part.is_full):
            raise StateError(f"{name} of a view of a sharded parameter is not possible here: index the parameter")
        item = part.tracked
        region = Region.full(item.shape) if standing is None else standing[1]

        def along(axis: int, index: Any) -> torch.Tensor:
            before = (slice(None),) * (axis % len(region.shape))
            return self.tracker.stand_in(item, region[(*before, index)])

        if name == "__getitem__":
            try:
                return self.tracker.stand_in(item, region[plain(others[0])])
            except IndexError as error:
                raise StateError(f"a part of the sharded parameter {item.name!r}: {error}") from None
        if name in ("unbind", "__iter__"):
            axis = named.get("dim", others[0] if others else 0)
            parts = tuple([along(axis, index) for index in range(region.shape[axis])])
            return iter(parts) if name == "__iter__" else parts
        given = [*others, *[named[key] for key in ("dim", "index", "start", "length") if key in named]]
        if name == "select":
            return along(given[0], int(given[1]))
        if name == "narrow":
            return along(given[0], slice(given[1], given[1] + given[2]))
        axis = named.get("dim", others[1] if len(others) > 1 else 0)
        count = others[0] if others else next(named[key] for key in ("chunks", "split_size", "indices") if key in named)
        length = region.shape[axis]
        if name == "chunk":
            count = -(-length // count)
        sizes = [count] * -(-length // count) if isinstance(count, int) else list(count)
        starts = [sum(sizes[:at]) for at in range(len(sizes))]
        return tuple([along(axis, slice(at, at + size)) for at, size in zip(starts, sizes, strict=True)])

    # ------------------------------------------------------------------- the end

    def take_replaced(self) -> None:
        """Follow code that gave a module another tensor for one of its own, such as a table or a tied weight."""
        for item in [item for item in self.tracker.all if item.log is None and self.tracker.is_replaced(item)]:
            _, orphan = self._orphans.pop(id(item.place.current), (None, None))
            owner = self.tracker.tracked(item.place.current)
            self.tracker.moved(item)
            item.written, item.how = True, "computed" if owner is None else owner.how
            if orphan is not None:
                self._name(orphan, item.place, item.name)
                item.how = orphan.how
                self.tracker.all.remove(orphan)

    def _name_tied(self) -> None:
        """Name what code has made one parameter after its first place, as if it had been one from the start."""
        first: dict[int, str] = {}
        for item in self.tracker.all:
            if item.log is None:
                item.name = first.setdefault(id(item.place.current), item.name)

    def _name(self, orphan: Tracked, place: Place, name: str) -> None:
        """Write to a parameter that was made inside the block again, now that it has a name."""
        log, orphan.log = orphan.log or [], None
        orphan.place, orphan.name = place, name
        if orphan.version != orphan.local._version and log and not orphan.local.is_meta:
            self.uncaught[f"{name} was changed before it had a name"] = None
            return
        orphan.forget()
        for how, part in log:
            self.write(part, how)

    def adopt(self, module: torch.nn.Module, prefix: str, rename: Callable[[str], str]) -> None:
        """Give the parameters created inside the block their values, now that they have names."""
        self.take_replaced()
        known = {id(item.place.current) for item in self.tracker.all if item.log is None}
        for place in places(module, prefix):
            if id(place.tensor) in known:
                continue
            _, orphan = self._orphans.get(id(place.tensor), (None, None))
            name = rename(place.name)
            if orphan is None:
                self.tracker.add(item := tracked(place, name))
                item.written = True
                continue
            self._name(orphan, place, name)
